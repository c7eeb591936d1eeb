"""Revoked tokens and certificates: a file that is reloaded when it changes.

Invariants:

1. The last valid list stays in force until a newer one is loaded: a broken or missing file reinstates no
   token. One that has become empty counts as broken, unless a comment says that it is meant to be.
2. A line that may be a misspelt entry makes the file invalid. A bare token id therefore has few characters;
   ``jti:`` accepts other ids, too.
3. A file that is modified in place is loaded once it stops changing; a replaced file is loaded immediately.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.relay.auth.claims import MAX_NAME
from tickertape.relay.core.grants import Grant

from tickertape.errors import ConfigurationError
from tickertape.process.files import Stamp, read_regular_file, read_stamp
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
_BARE_ID: Final = re.compile(r"[A-Za-z0-9._~+/-]+|(?i:urn):[a-z0-9][a-z0-9-]{0,31}:\S+")
_TOKEN: Final = re.compile(r"eyJ[\w-]+(\.|$)")
_MISSPELT: Final = re.compile(
    r"\W*(subs?|subj|subjects?|jtis?|certs?|certificates?|fingerprints?|sha-?\d+|bearer)([\W_]|$)",
    re.IGNORECASE,
)
_NOTHING: Final = re.compile(r"\W*|null|nil|none|undefined|true|false", re.IGNORECASE)
"""Texts for an empty list in other formats, into which a faulty template may turn a list."""

_ODD: Final = re.compile(r"""^["'`:]|["'`]$|[,;*]$|\s(?://|--|;)|#\s|\s(?:jti|sub|cert):""")
"""Value with quotes, a separator, a wildcard, another entry or a comment of another format."""

_ODD_SUBJECT: Final = re.compile(r"[*]|^[=>?]|^(?:sub|jti|cert):", re.IGNORECASE)
"""Subject with a wildcard, or a prefix of another format, which no issuer uses."""

_CERTIFIED: Final = re.compile(r"(?:cn|dns|email|uri)(?::| ?= ?)[^,]+", re.IGNORECASE)
_WRITTEN: Final = re.compile(r"(?:cn|email|uri):.+|dns:[^A-Z]+")
"""Name of a certificate, and its only spelling here; openssl prints others: ``DNS:`` and ``CN = ``."""


class RevocationsError(ConfigurationError):
    """Error for a revocation file that cannot be used."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of a revocation file.

    Attributes:
        ids: revoked values of ``jti``.
        subjects: subjects whose tokens and certificates are revoked.
        fingerprints: SHA-256 fingerprints of revoked certificates, in lower case without colons.
    """

    ids: frozenset[str] = frozenset()
    subjects: frozenset[str] = frozenset()
    fingerprints: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.ids) + len(self.subjects) + len(self.fingerprints)


class Revocations:
    """Revoked tokens from the last valid version of a file.

    The file has one entry per line: a token's ``jti``, as ``jti:<id>`` or, if it consists of letters, digits
    and ``._~+/-`` or is a URN, bare; ``sub:<subject>`` for all tokens of a subject; or ``cert:`` and the
    SHA-256 fingerprint of a client certificate. The subject of a token without ``sub`` is ``token:<digest>``;
    see ``anonymous_subject``. Empty lines are ignored, and so is text after a ``#`` at the start of a line or
    after a space. Replace the file atomically (write a new file, then rename it), so that a partial file is
    never loaded.

    Args:
        path: path of the file, which is loaded immediately.

    Attributes:
        valid: whether the list in force is that of the file, as of the last check.

    Raises:
        RevocationsError: the file is missing or invalid. Later failures are only logged.
    """

    def __init__(self, path: Path) -> None:
        self.valid = True
        self._path = path
        self._entries = Entries()
        self._last_stamp: Stamp | None = None  # at the last check
        self._loaded_stamp: Stamp | None = None  # at the last load, valid or not
        self._logged_failure = ""
        self._lock = threading.Lock()  # a poll and a reload may run in two threads
        self._load()
        self._last_stamp = self._loaded_stamp

    def __repr__(self) -> str:
        return f"Revocations({str(self._path)!r}, {len(self)} entries)"

    def __len__(self) -> int:
        return len(self._entries)

    def is_revoked(self, grant: Grant) -> bool:
        """Return whether a token or a certificate, or its subject, is revoked."""
        entries, certificate = self._entries, grant.certificate
        if grant.token_id in entries.ids or grant.subject in entries.subjects:
            return True
        # By any of its names: the rule of another one would otherwise let a revoked client in.
        return certificate is not None and (
            certificate.fingerprint in entries.fingerprints
            or not entries.subjects.isdisjoint(certificate.names)
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
            stamp = read_stamp(self._path)
            replaced = self._last_stamp is None or stamp[2] != self._last_stamp[2]
            unchanged = stamp == self._last_stamp
            self._last_stamp = stamp
            # A file that was changed in place may still be incomplete, and a part of the list would reinstate
            # tokens; the next check loads it if it has not changed again.
            if stamp == self._loaded_stamp or not (replaced or unchanged):
                return False
            previous = self._entries
            self._load()
        except OSError as error:
            # So that the file is loaded as soon as it is readable again, even if it is the same.
            self._last_stamp = self._loaded_stamp = None
            self.valid = False
            self._log_failure(f"cannot read revocation file {self._path}: {error.strerror}")
            return False
        except RevocationsError as error:
            self._log_failure(error.message)
            return False
        if self._logged_failure:
            self._logged_failure = ""
            log.info("revocation file %s is valid again", self._path)
        return self._entries != previous

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
        self.valid = False
        # Parsed completely before the assignment, so that an invalid file changes nothing.
        data = self._read()
        entries = _parse(data, self._path)
        if not data.strip(b"\xef\xbb\xbf \t\r\n") and self._entries:
            raise RevocationsError(
                f"revocation file {self._path} has become empty",
                "restore it, or write a comment such as '# none' to lift all revocations",
            )
        self._entries, self.valid = entries, True

    def _read(self) -> bytes:
        try:
            data, self._loaded_stamp = read_regular_file(self._path, MAX_BYTES)
        except OSError as error:
            self._loaded_stamp = None
            raise RevocationsError(
                f"cannot read revocation file {self._path}: {error.strerror}",
                "create it (empty if no token is revoked), or remove the setting",
            ) from None
        if len(data) > MAX_BYTES:
            raise RevocationsError(
                f"revocation file {self._path} has more than {MAX_BYTES} bytes", "remove expired tokens"
            )
        return data

    def _log_failure(self, message: str) -> None:
        if message != self._logged_failure:
            self._logged_failure = message
            log.warning("%s; the previous list stays in force: %s", message, count(len(self), "revocation"))


def _parse(data: bytes, path: Path) -> Entries:
    """Parse a revocation file.

    Raises:
        RevocationsError: a line is not an entry. The error does not show the line, which may be a token.
    """
    try:
        # Some editors write a byte order mark, which would become part of the first id.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RevocationsError(f"revocation file {path} is not UTF-8", "save it as UTF-8") from None
    entries: dict[str, set[str]] = {"jti": set(), "sub": set(), "cert": set()}
    for number, line in enumerate(text.split("\n"), start=1):
        if entry := _without_comment(line):
            try:
                kind, value = _parse_entry(entry)
            except ValueError as error:
                raise RevocationsError(
                    f"line {number} of revocation file {path} {error}",
                    "write jti:<id>, sub:<subject> or cert:<fingerprint>",
                ) from None
            entries[kind].add(value)
    found = Entries(*map(frozenset, entries.values()))
    if len(found) > MAX_ENTRIES:
        raise RevocationsError(
            f"revocation file {path} has more than {MAX_ENTRIES} entries",
            "remove expired tokens, or revoke by subject",
        )
    return found


def _parse_entry(entry: str) -> tuple[str, str]:
    """Return the kind and the value of an entry; raise ValueError with what is wrong with the line."""
    kind, colon, rest = entry.partition(":")
    if not colon or kind not in ("jti", "sub", "cert"):
        kind, rest = "jti", entry
        # Compared without case: ``SUB:carol`` would match no token, and ``sub.carol`` hardly is an id.
        if _MISSPELT.match(entry):
            raise ValueError("looks like a misspelt jti:, sub: or cert:")
        if _NOTHING.fullmatch(entry):
            raise ValueError("looks like an empty list; write a comment such as '# none'")
        if _FINGERPRINT.fullmatch(entry.lower()):
            raise ValueError("may be a fingerprint; write cert: or jti: before it")
        if not _BARE_ID.fullmatch(entry):
            raise ValueError("is neither an entry nor a plain token id")
    value = rest.strip()
    if not value:
        raise ValueError(f"has '{kind}:' without a value")
    if _TOKEN.match(value):
        raise ValueError("looks like a token; revoke its jti")
    # ``read_name`` rejects other names in a token, so that the entry could not match any.
    if len(value) > MAX_NAME or not value.isprintable():
        raise ValueError(f"has a value that is not printable or has more than {MAX_NAME} characters")
    if kind == "cert":
        value = value.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(value):
            raise ValueError(
                "is not a SHA-256 fingerprint, as in the output of 'openssl x509 -noout -fingerprint -sha256'"
            )
    elif (
        _ODD.search(value)
        or value.startswith(f"{kind}:")
        or (kind == "jti" and " " in value)
        or (kind == "sub" and _ODD_SUBJECT.search(value))
    ):
        raise ValueError("has quotes, a wildcard, a separator or a comment that would be part of the value")
    elif kind == "sub" and _CERTIFIED.fullmatch(value) and not _WRITTEN.fullmatch(value):
        raise ValueError("has a name of a certificate that is not cn:, dns: in lower case, email: or uri:")
    return kind, value


def _without_comment(line: str) -> str:
    entry = line.strip()
    if entry.startswith("#"):
        return ""
    for space in (" #", "\t#"):
        entry = entry.partition(space)[0]
    return entry.strip()
