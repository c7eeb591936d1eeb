"""Revoked tokens and certificates: a file that is reloaded when it changes.

Invariants:

1. The last valid list stays in force until a newer one is loaded: a broken or missing file reinstates no
   token.
2. A file that is modified in place is loaded once it stops changing; a replaced file is loaded immediately.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tickertape.relay.core.grants import Grant

from tickertape.errors import ConfigurationError
from tickertape.text import count

log = logging.getLogger("tickertape.revocations")

POLL_INTERVAL: Final = 0.5
"""Seconds between two checks of the file: the maximum delay until a new file takes effect. A file that is
modified in place takes up to twice as long."""

MAX_ENTRIES: Final = 100_000
"""Maximum entries of the file."""

MAX_BYTES: Final = 8 * 1024 * 1024
"""Maximum bytes of the file."""

_FINGERPRINT: Final = re.compile(r"[0-9a-f]{64}")

_Stamp = tuple[int, int, int]
"""Modification time in nanoseconds, size and inode of the file."""


class RevocationsError(ConfigurationError):
    """Error for a revocation file that cannot be used."""


class Revocations:
    """Revoked tokens from the last valid version of a file.

    The file has one entry per line: a token's ``jti``, bare or as ``jti:<id>``; ``sub:<subject>`` for all
    tokens of a subject; or ``cert:`` and the SHA-256 fingerprint of a client certificate. The subject of a
    token without ``sub`` is ``token:<digest>``; see ``anonymous_subject``. Empty lines are ignored, and so is
    text after a ``#`` at the start of a line or after a space. Replace the file atomically (write a new file,
    then rename it), so that a partial file is never loaded.

    Args:
        path: path of the file, which is loaded immediately.

    Raises:
        RevocationsError: the file is missing or invalid. Later failures are only logged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ids: frozenset[str] = frozenset()
        self._subjects: frozenset[str] = frozenset()
        self._fingerprints: frozenset[str] = frozenset()
        self._last_stamp: _Stamp | None = None  # at the last check
        self._loaded_stamp: _Stamp | None = None  # at the last load, valid or not
        self._logged_failure = ""
        self._lock = threading.Lock()  # a poll and a reload may run in two threads
        self._load()
        self._last_stamp = self._loaded_stamp

    def __repr__(self) -> str:
        return f"Revocations({str(self._path)!r}, {len(self)} entries)"

    def __len__(self) -> int:
        return len(self._ids) + len(self._subjects) + len(self._fingerprints)

    def is_revoked(self, grant: Grant) -> bool:
        """Return whether a token or a certificate, or its subject, is revoked."""
        if grant.token_id in self._ids or grant.subject in self._subjects:
            return True
        certificate = grant.certificate
        return certificate is not None and (
            certificate.fingerprint in self._fingerprints or certificate.grant.subject in self._subjects
        )

    def poll(self) -> bool:
        """Load the file if it changed.

        Returns:
            True if the list of revocations changed.
        """
        with self._lock:
            return self._load_if_changed()

    def reload(self) -> None:
        """Load the file, changed or not.

        Raises:
            RevocationsError: the file is missing or invalid; the previous list stays in force.
        """
        with self._lock:
            self._load()
            self._last_stamp = self._loaded_stamp
            self._logged_failure = ""

    def _load_if_changed(self) -> bool:
        try:
            stamp = _stamp(os.stat(self._path))
            replaced = self._last_stamp is None or stamp[2] != self._last_stamp[2]
            unchanged = stamp == self._last_stamp
            self._last_stamp = stamp
            # A file that was changed in place may still be incomplete, and a part of the list would reinstate
            # tokens; the next check loads it if it has not changed again.
            if stamp == self._loaded_stamp or not (replaced or unchanged):
                return False
            previous = (self._ids, self._subjects, self._fingerprints)
            self._load()
        except OSError as error:
            # So that the file is loaded as soon as it is readable again, even if it is the same.
            self._last_stamp = self._loaded_stamp = None
            self._log_failure(f"cannot read revocation file {self._path}: {error.strerror}")
            return False
        except RevocationsError as error:
            self._log_failure(error.message)
            return False
        if self._logged_failure:
            self._logged_failure = ""
            log.info("revocation file %s is valid again", self._path)
        return (self._ids, self._subjects, self._fingerprints) != previous

    async def run(self, changed: Callable[[], None]) -> None:
        """Poll the file until cancelled.

        Args:
            changed: called after each change of the list, to end the sessions of revoked tokens.
        """
        while True:
            await asyncio.sleep(POLL_INTERVAL)
            # In a thread, since a large file takes tens of milliseconds, and a network file system longer.
            if await asyncio.to_thread(self.poll):
                log.info("revocations in force: %d", len(self))
                changed()

    def _load(self) -> None:
        try:
            with self._path.open("rb") as file:
                # Taken before reading, so that the next check notices a change during the read.
                self._loaded_stamp = _stamp(os.fstat(file.fileno()))
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            self._loaded_stamp = None
            raise RevocationsError(
                f"cannot read revocation file {self._path}: {error.strerror}",
                "create it (empty if no token is revoked), or remove the setting",
            ) from None
        # Parsed completely before the assignment, so that an invalid file changes nothing.
        self._ids, self._subjects, self._fingerprints = self._parse(data)

    def _parse(self, data: bytes) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        if len(data) > MAX_BYTES:
            raise RevocationsError(
                f"revocation file {self._path} has more than {MAX_BYTES} bytes",
                "remove expired tokens",
            )
        try:
            # Some editors write a byte order mark, which would become part of the first id.
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RevocationsError(f"revocation file {self._path} is not UTF-8", "save it as UTF-8") from None
        ids: set[str] = set()
        subjects: set[str] = set()
        fingerprints: set[str] = set()
        for number, line in enumerate(text.split("\n"), start=1):
            entry = _without_comment(line)
            if not entry:
                continue
            kind, colon, rest = entry.partition(":")
            # An id may itself contain a colon (``urn:uuid:…``); any other prefix belongs to the id.
            has_prefix = bool(colon) and kind in ("jti", "sub", "cert")
            value = rest.strip() if has_prefix else entry
            if not value:
                raise RevocationsError(
                    f"line {number} of revocation file {self._path} has '{kind}:' without a value",
                    "write jti:<id>, sub:<subject> or cert:<fingerprint>",
                )
            if has_prefix and kind == "cert":
                value = value.replace(":", "").lower()
                if not _FINGERPRINT.fullmatch(value):
                    raise RevocationsError(
                        f"line {number} of revocation file {self._path} is not a SHA-256 fingerprint",
                        "write cert: and the output of 'openssl x509 -noout -fingerprint -sha256' after '='",
                    )
                fingerprints.add(value)
            else:
                (subjects if has_prefix and kind == "sub" else ids).add(value)
            if len(ids) + len(subjects) + len(fingerprints) > MAX_ENTRIES:
                raise RevocationsError(
                    f"revocation file {self._path} has more than {MAX_ENTRIES} entries",
                    "remove expired tokens, or revoke by subject",
                )
        return frozenset(ids), frozenset(subjects), frozenset(fingerprints)

    def _log_failure(self, message: str) -> None:
        if message != self._logged_failure:
            self._logged_failure = message
            log.warning("%s; the previous list stays in force: %s", message, count(len(self), "revocation"))


def _stamp(stat: os.stat_result) -> _Stamp:
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _without_comment(line: str) -> str:
    entry = line.strip()
    if entry.startswith("#"):
        return ""
    for space in (" #", "\t#"):
        entry = entry.partition(space)[0]
    return entry.strip()
