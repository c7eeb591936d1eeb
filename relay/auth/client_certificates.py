"""Grants of client certificates: a file of rules that map the names of a certificate to a grant.

Invariants:

1. Only certificates that TLS has verified on the relay's own socket arrive here; headers in which proxies
   report certificates are never read.
2. The first rule that matches a name applies. Names are compared exactly, except in rules with the wildcard
   ``*``, which stands for one DNS label or one path segment of a URI.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson
from cryptography import x509
from cryptography.x509.oid import NameOID
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.strict_json import find_duplicate_key, is_deeper
from tickertape.relay.core.grants import ClientCertificate, Grant, parse_grant

from tickertape.errors import ConfigurationError
from tickertape.process.polled_file import PolledFile
from tickertape.text import count

log = logging.getLogger("tickertape.certificates")

POLL_INTERVAL: Final = 5.0
"""Seconds between two checks of the file for changes."""

MAX_BYTES: Final = 1024 * 1024
"""Maximum bytes of the file."""

MAX_RULES: Final = 1_000
"""Maximum number of rules."""

MAX_WILDCARDS: Final = 100
"""Maximum number of rules with a wildcard, each of which is compared with each name."""

MAX_NAMES: Final = 64
"""Maximum number of names that are read from a certificate; the others are ignored."""

_MAX_DEPTH: Final = 8
_MAX_NAME: Final = 256
_KINDS: Final = ("cn", "dns", "email", "uri")
_WILDCARDS: Final = {"dns": r"[a-z0-9_-]+", "uri": r"(?!\.\.?(?:/|$))[A-Za-z0-9._~-]+"}
"""Regular expressions for the text that ``*`` stands for."""


class CertificateGrantsError(ConfigurationError):
    """Error for a file of certificate grants that cannot be used."""


class Rules:
    """Rules of one version of the file; a look-up takes the same time however many exact names there are."""

    def __init__(self) -> None:
        self._grants: list[Grant] = []
        self._exact: dict[str, int] = {}
        self._wildcards: list[tuple[int, re.Pattern[str]]] = []

    def __len__(self) -> int:
        return len(self._grants)

    def add(self, name: Any, grant: Grant) -> None:
        """Append a rule.

        Args:
            name: name, or pattern of names.
            grant: grant of the certificates that have such a name.

        Raises:
            ValueError: the name is not valid, or an earlier rule has the same.
        """
        pattern, text = _parse_name(name)
        if pattern is not None:
            if len(self._wildcards) >= MAX_WILDCARDS:
                raise ValueError(f"more than {MAX_WILDCARDS} names have a wildcard")
            self._wildcards.append((len(self), pattern))
        elif self._exact.setdefault(text, len(self)) != len(self):
            raise ValueError(f"name {text[:60]!r} has an earlier rule")
        self._grants.append(grant)

    def find(self, names: Sequence[str]) -> tuple[str, Grant] | None:
        """Return the first rule's grant for any of several names, and the name that it matches."""
        found = min(((self._exact[name], name) for name in names if name in self._exact), default=None)
        for index, pattern in self._wildcards:
            if found is not None and found[0] < index:
                break
            matching = next((name for name in names if pattern.fullmatch(name)), None)
            if matching is not None:
                found = index, matching
                break
        return None if found is None else (found[1], self._grants[found[0]])


class ClientCertificates(PolledFile[Rules]):
    """Grants of client certificates, from the last valid version of a file.

    The file is a JSON list of rules such as ``{"name": "dns:viewer.example.com", "grant": {"subjects":
    [">"]}}``. ``name`` is ``cn:``, ``dns:``, ``email:`` or ``uri:`` and the name; ``grant`` is what the claim
    of a token contains.

    Args:
        path: path of the file, which is loaded immediately.
        wall: returns UNIX seconds.

    Raises:
        CertificateGrantsError: the file is missing or invalid. Later failures are only logged.
    """

    _NAME = "certificate grants"
    _HINT = "check --tls-client-grants"
    _ERROR = CertificateGrantsError

    def __init__(self, path: Path, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        # Clients send requests with the same certificate again and again.
        self._parse_certificate = lru_cache(1024)(_parse_certificate)
        super().__init__(path, Rules(), MAX_BYTES, POLL_INTERVAL, log)

    def __repr__(self) -> str:
        return f"ClientCertificates({str(self._path)!r}, {len(self)} rules)"

    def __len__(self) -> int:
        return len(self.content)

    def grant(self, der: bytes) -> Grant:
        """Return the grant of a certificate.

        Args:
            der: certificate that TLS has verified, in DER.

        Raises:
            ProtocolError: the certificate cannot be read or has expired (``unauthorized``), or no rule
                matches it (``forbidden``).
        """
        try:
            names, expires_at = self._parse_certificate(der)
        except ValueError:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "the client certificate cannot be read") from None
        # TLS does not check it again on a connection that stays open, nor when it resumes a session.
        if expires_at <= self._wall():
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "the client certificate has expired; get a new one")
        granted = self._find(names, expires_at)
        if granted is None:
            raise ProtocolError(
                ErrorCode.FORBIDDEN,
                f"no rule matches the client certificate with {', '.join(names)[:300] or 'no name'}",
            )
        return replace(granted, certificate=ClientCertificate(names, sha256(der).hexdigest(), granted))

    def is_current(self, certificate: ClientCertificate) -> bool:
        """Return whether the rules still give a certificate the same grant."""
        expires_at = certificate.grant.expires_at
        assert expires_at is not None
        return self._find(certificate.names, expires_at) == certificate.grant

    def _find(self, names: tuple[str, ...], expires_at: float) -> Grant | None:
        found = self.content.find(names)
        return None if found is None else replace(found[1], subject=found[0], expires_at=expires_at)

    def _parse(self, data: bytes) -> Rules:
        return _parse_rules(data, self._path)

    def _describe(self) -> str:
        return f"{count(len(self), 'rule')} for client certificates"


def _parse_rules(data: bytes, path: Path) -> Rules:
    def invalid(problem: str) -> CertificateGrantsError:
        return CertificateGrantsError(
            f"certificate grants {path}: {problem}",
            'write a JSON list of rules such as {"name": "dns:a.example.com", "grant": {"subjects": [">"]}}',
        )

    if len(data) > MAX_BYTES:
        raise invalid(f"more than {MAX_BYTES} bytes")
    try:
        entries = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise invalid(f"not valid JSON ({error})") from None
    if not isinstance(entries, list) or not entries or len(entries) > MAX_RULES:
        raise invalid(f"not a list of 1 to {MAX_RULES} rules")
    # A duplicate key could hide a ``deny``.
    if is_deeper(data, _MAX_DEPTH) or find_duplicate_key(data, entries) is not None:
        raise invalid("nested too deep, or a duplicate key")
    rules = Rules()
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or set(entry) != {"name", "grant"}:
            raise invalid(f"rule {number} is not an object with exactly the fields name and grant")
        try:
            rules.add(entry["name"], parse_grant(entry["grant"], f"rule {number}: grant"))
        except ValueError as error:
            raise invalid(f"rule {number}: {error}") from None
        except ProtocolError as error:
            raise invalid(error.message) from None
    return rules


def _parse_name(name: Any) -> tuple[re.Pattern[str] | None, str]:
    """Return the pattern of a rule's name, or None if it has no wildcard, and the name to compare.

    Raises:
        ValueError: the name of the rule is not valid.
    """
    if not isinstance(name, str) or not name.isprintable() or len(name) > _MAX_NAME:
        raise ValueError(f"name is not a printable string of at most {_MAX_NAME} characters")
    kind, _, value = name.partition(":")
    if kind not in _KINDS or not value or value != value.strip():
        raise ValueError(f"name {name[:60]!r} is not cn:, dns:, email: or uri: and a name")
    if kind != "cn" and not name.isascii():
        raise ValueError(f"name {name[:60]!r} has characters that no {kind} name of a certificate can have")
    if kind == "dns":
        name = name.lower()
    if "*" not in value:
        return None, name
    wildcard = _WILDCARDS.get(kind)
    # A whole label or segment, so that ``*`` cannot match more than the rule's author sees.
    parts = value.split("." if kind == "dns" else "/")
    if wildcard is None or parts.count("*") != 1 or value.count("*") != 1 or parts[:1] == ["*"] == parts:
        raise ValueError(
            f"name {name[:60]!r}: * stands for one whole label of a dns name or one segment of a uri, "
            "and may occur once"
        )
    return re.compile(re.escape(name).replace(r"\*", wildcard)), name


def _parse_certificate(der: bytes) -> tuple[tuple[str, ...], float]:
    """Return the names of a certificate, such as ``dns:viewer.example.com``, and its expiry in UNIX seconds.

    Raises:
        ValueError: the certificate cannot be parsed.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = [*_alternative_names(certificate), *_common_names(certificate)]
        expires_at = certificate.not_valid_after_utc.timestamp()
    # OpenSSL accepts certificates for which cryptography raises almost anything, such as InvalidVersion.
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    # A name with other characters matches no rule, and would not be safe in logs.
    printable = (name for name in names if name.isprintable() and len(name) <= _MAX_NAME)
    return tuple(dict.fromkeys(printable))[:MAX_NAMES], expires_at


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    for kind, of in (
        ("uri", x509.UniformResourceIdentifier),
        ("dns", x509.DNSName),
        ("email", x509.RFC822Name),
    ):
        for value in names.get_values_for_type(of):
            # Other characters are not allowed here; the lower case of a Kelvin sign is a k.
            if value.isascii():
                yield f"{kind}:{value.lower() if kind == 'dns' else value}"


def _common_names(certificate: x509.Certificate) -> Iterator[str]:
    for entry in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        yield f"cn:{entry.value!s}"
