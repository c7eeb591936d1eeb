"""Tokens that no longer count though they have not ended: a file that is read again when it changes.

Invariants:

1. The last good list counts until a better one is read: a broken or missing file lets nobody back in.
2. A file that is being written in place is read when it has come to rest; a replaced one at once.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tickertape.relay.core.grants import Grant

from tickertape.errors import ConfigurationError

log = logging.getLogger("tickertape.revocations")

POLL_INTERVAL: Final = 0.5
"""Seconds between looks at the file; so long a revoked token may live on."""

MAX_ENTRIES: Final = 100_000
MAX_BYTES: Final = 8 * 1024 * 1024

_Stamp = tuple[int, int, int]
"""Time of the last change in nanoseconds, size, inode."""


class RevocationsError(ConfigurationError):
    """The file of revoked tokens cannot be used."""


class Revocations:
    """What the file says, as of its last good reading.

    One entry per line: a token's ``jti``, bare or as ``jti:<id>``, or ``sub:<subject>`` for all tokens of a
    subject; for a token without ``sub``, ``sub:token:<digest>``, as the relay shows it. Empty lines do not
    count, nor does what follows a ``#`` at a line's start or after a space. Replace the file in one step
    (write another, then rename it), so that no half of it is ever read.

    Args:
        path: of the file; read at once.

    Raises:
        RevocationsError: it is missing or broken. At the start that is a mistake; later it is logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: frozenset[str] = frozenset()
        self._subjects: frozenset[str] = frozenset()
        self._seen: _Stamp | None = None  # as of the last look
        self._read_at: _Stamp | None = None  # as of the last reading, good or bad
        self._complained = ""
        self._reading = threading.Lock()  # by the poll in its thread, and by a reload in another
        self._load()
        self._seen = self._read_at

    def __repr__(self) -> str:
        return f"Revocations({str(self._path)!r}, {len(self)} entries)"

    def __len__(self) -> int:
        return len(self._ids) + len(self._subjects)

    def is_revoked(self, grant: Grant) -> bool:
        """Tell whether a token, or all of its subject's, no longer count."""
        return grant.token_id in self._ids or grant.subject in self._subjects

    def poll(self) -> bool:
        """Look at the file, and read it if it changed.

        Returns:
            True when another list counts from here on.
        """
        with self._reading:
            return self._poll()

    def reload(self) -> None:
        """Read the file, changed or not.

        Raises:
            RevocationsError: it is missing or broken; the list from before stays in force.
        """
        with self._reading:
            self._load()
            self._seen = self._read_at
            self._complained = ""

    def _poll(self) -> bool:
        try:
            stamp = _stamp(os.stat(self._path))
            replaced = self._seen is None or stamp[2] != self._seen[2]
            at_rest = stamp == self._seen
            self._seen = stamp
            if stamp == self._read_at or not (replaced or at_rest):
                return False
            before = (self._ids, self._subjects)
            self._load()
        except OSError as error:
            self._seen = self._read_at = None
            self._complain(f"the revocation file {self._path} cannot be read: {error.strerror}")
            return False
        except RevocationsError as error:
            self._complain(error.message)
            return False
        if self._complained:
            self._complained = ""
            log.info("the revocation file %s is in order again", self._path)
        return (self._ids, self._subjects) != before

    async def run(self, changed: Callable[[], None]) -> None:
        """Poll until it is cancelled.

        Args:
            changed: called after each change, so that running sessions can be looked through.
        """
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            # In a thread: a large file takes tens of milliseconds, a far one longer.
            if await asyncio.to_thread(self.poll):
                log.info("%d revocations are in force", len(self))
                changed()

    def _load(self) -> None:
        try:
            with self._path.open("rb") as file:
                # Noted before reading: a change while it is read shows at the next look.
                self._read_at = _stamp(os.fstat(file.fileno()))
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._read_at = None
            raise RevocationsError(
                f"the revocation file {self._path} cannot be read: {error.strerror}",
                "make it, empty if no token is revoked, or leave the setting out",
            ) from None
        self._ids, self._subjects = self._entries(data)

    def _entries(self, data: bytes) -> tuple[frozenset[str], frozenset[str]]:
        if len(data) > MAX_BYTES:
            raise RevocationsError(
                f"the revocation file {self._path} has over {MAX_BYTES} bytes",
                "take out the tokens that have ended",
            )
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RevocationsError(
                f"the revocation file {self._path} is not UTF-8", "write it as UTF-8"
            ) from None
        ids: set[str] = set()
        subjects: set[str] = set()
        for number, line in enumerate(text.split("\n"), start=1):
            entry = _without_comment(line)
            if not entry:
                continue
            kind, colon, rest = entry.partition(":")
            known = bool(colon) and kind in ("jti", "sub")
            value = rest.strip() if known else entry
            if not value:
                raise RevocationsError(
                    f"line {number} of the revocation file {self._path} has '{kind}:' and no value",
                    "write jti:<id> or sub:<subject>",
                )
            (subjects if known and kind == "sub" else ids).add(value)
            if len(ids) + len(subjects) > MAX_ENTRIES:
                raise RevocationsError(
                    f"the revocation file {self._path} has over {MAX_ENTRIES} entries",
                    "take out the tokens that have ended, or revoke by subject",
                )
        return frozenset(ids), frozenset(subjects)

    def _complain(self, what: str) -> None:
        if what != self._complained:
            self._complained = what
            log.warning("%s; the %d revocations from before stay in force", what, len(self))


def _stamp(stat: os.stat_result) -> _Stamp:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _without_comment(line: str) -> str:
    entry = line.strip()
    if entry.startswith("#"):
        return ""
    for space in (" #", "\t#"):
        entry = entry.partition(space)[0]
    return entry.strip()
