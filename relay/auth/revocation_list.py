"""Revoked tokens and certificates: a file that is reloaded when it changes.

Invariants:

1. A broken or missing file reinstates no token. One that has become empty counts as broken, unless a comment
   says that it is meant to be.
2. A line that may be a misspelt entry makes the file invalid. A bare token id therefore has few characters;
   ``jti:`` accepts other ids, too.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.relay.auth.claims import MAX_NAME
from tickertape.relay.core.grants import Grant

from tickertape.errors import ConfigurationError
from tickertape.process.polled_file import PolledFile
from tickertape.text import count

log = logging.getLogger("tickertape.revocations")

POLL_INTERVAL: Final = 0.5
"""Seconds between two checks of the file for changes."""

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


class Revocations(PolledFile[Entries]):
    """Revoked tokens and certificates, from the last valid version of a file.

    The file has one entry per line: a token's ``jti``, as ``jti:<id>`` or, if it consists of letters, digits
    and ``._~+/-`` or is a URN, bare; ``sub:<subject>`` for all tokens of a subject; or ``cert:`` and the
    SHA-256 fingerprint of a client certificate. The subject of a token without ``sub`` is ``token:<digest>``;
    see ``anonymous_subject``. Empty lines are ignored, and so is text after a ``#`` at the start of a line or
    after a space.

    Args:
        path: path of the file, which is loaded immediately.

    Raises:
        RevocationsError: the file is missing or invalid. Later failures are only logged.
    """

    _NAME = "revocation file"
    _HINT = "create it (empty if no token is revoked), or remove the setting"
    _ERROR = RevocationsError

    def __init__(self, path: Path) -> None:
        super().__init__(path, Entries(), MAX_BYTES, POLL_INTERVAL, log)

    def __repr__(self) -> str:
        return f"Revocations({str(self._path)!r}, {len(self)} entries)"

    def __len__(self) -> int:
        return len(self.content)

    def is_revoked(self, grant: Grant) -> bool:
        """Return whether a token or a certificate, or its subject, is revoked."""
        entries, certificate = self.content, grant.certificate
        if grant.token_id in entries.ids or grant.subject in entries.subjects:
            return True
        # By any of its names: the rule of another one would otherwise let a revoked client in.
        return certificate is not None and (
            certificate.fingerprint in entries.fingerprints
            or not entries.subjects.isdisjoint(certificate.names)
        )

    def _parse(self, data: bytes) -> Entries:
        if len(data) > MAX_BYTES:
            raise RevocationsError(
                f"revocation file {self._path} has more than {MAX_BYTES} bytes", "remove expired tokens"
            )
        entries = _parse(data, self._path)
        if not data.strip(b"\xef\xbb\xbf \t\r\n") and self.content:
            raise RevocationsError(
                f"revocation file {self._path} has become empty",
                "restore it, or write a comment such as '# none' to lift all revocations",
            )
        return entries

    def _describe(self) -> str:
        return count(len(self), "revocation")


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
