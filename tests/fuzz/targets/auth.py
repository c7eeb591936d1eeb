"""Targets: tokens and certificates of clients, documents of issuers, and the files of an operator."""

import base64
import hashlib
import hmac
from pathlib import Path
from typing import Final, get_args
from urllib.parse import urlsplit

from tickertape.contracts.subjects import check_pattern
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.client_certificates import (
    MAX_NAMES,
    CertificateGrantsError,
    _parse_certificate,
    _parse_rules,
)
from tickertape.relay.auth.discovery import MAX_URL, Discovery
from tickertape.relay.auth.key_parsing import MAX_KEYS, read_key_set, read_keys
from tickertape.relay.auth.keys import KeysError, parse_json_object
from tickertape.relay.auth.revocation_list import Entries, RevocationsError, _parse
from tickertape.relay.auth.settings import Algorithm

from tests.fuzz.cases import NOW, SECRET, verifier
from tests.fuzz.targets.texts import check_text

_verifier = verifier()
_ISSUER: Final = Discovery("https://a.example", "ES256")
_HEADER: Final = base64.urlsafe_b64encode(b'{"alg":"HS256"}').rstrip(b"=")


def token(data: bytes) -> None:
    """Check that only a token with the right signature is accepted."""
    text = data.decode("latin-1")
    try:
        grant = _verifier.verify(text)
    except TokenError as error:
        check_text(error.message, 1_000)
        return
    head, _, signature = text.rpartition(".")
    expected = hmac.new(SECRET, head.encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "==") == expected
    assert grant.expires_at is not None
    assert grant.expires_at > NOW


def claims(data: bytes) -> None:
    """Check that signed claims are rejected, or grant legal patterns until a later time."""
    head = _HEADER + b"." + base64.urlsafe_b64encode(data).rstrip(b"=")
    signature = base64.urlsafe_b64encode(hmac.new(SECRET, head, hashlib.sha256).digest()).rstrip(b"=")
    try:
        grant = _verifier.verify(f"{head.decode()}.{signature.decode()}")
    except TokenError as error:
        check_text(error.message, 1_000)
        return
    for pattern in (*grant.subjects, *grant.deny):
        assert check_pattern(pattern) == pattern
    assert grant.subjects
    assert grant.expires_at is not None
    assert grant.expires_at > NOW
    assert grant.rate is None or grant.rate >= 0
    assert grant.connections is None or grant.connections >= 1


def jwks(data: bytes) -> None:
    """Check that a document yields few keys of the right algorithm, never a secret, or a short error."""
    for algorithm in get_args(Algorithm):
        for read in (read_keys, read_key_set)[: 1 if algorithm == "HS256" else 2]:
            try:
                keys = read(algorithm, data, "origin")
            except KeysError as error:
                check_text(str(error))
                continue
            assert keys.algorithm == algorithm
            assert 0 < len(keys.keys) <= MAX_KEYS
            for key in keys.keys:
                assert keys.find(key.kid)


def metadata(data: bytes) -> None:
    """Check that metadata of an issuer names an address with TLS, or gives a short error."""
    document = parse_json_object(data)
    if document is None:
        return
    try:
        address = _ISSUER._check({"issuer": "https://a.example", **document}, "metadata")
    except KeysError as error:
        check_text(str(error))
        return
    parts = urlsplit(address)
    assert parts.scheme == "https"
    assert parts.hostname
    assert "@" not in parts.netloc
    assert len(address) <= MAX_URL


def certificate(data: bytes) -> None:
    """Check that a certificate yields few printable names of known kinds, or a ValueError."""
    try:
        names, expires_at = _parse_certificate(data)
    except ValueError as error:
        check_text(str(error))
        return
    assert len(names) <= MAX_NAMES
    assert -1e11 < expires_at < 1e12
    for name in names:
        check_text(name, 256)
        kind, _, value = name.partition(":")
        assert kind in ("cn", "dns", "email", "uri")
        assert name.isprintable()
        assert kind == "cn" or value.isascii()
        assert kind != "dns" or value == value.lower()


def certificate_rules(data: bytes) -> None:
    """Check that rules of an accepted file grant legal patterns to exact names, or give a short error."""
    try:
        rules = _parse_rules(data, Path("grants"))
    except CertificateGrantsError as error:
        check_text(str(error))
        return
    assert len(rules) > 0
    for name in rules._exact:
        found = rules.find([name])
        assert found is not None
        assert all(check_pattern(pattern) for pattern in (*found[1].subjects, *found[1].deny))


def revocations(data: bytes) -> None:
    """Check that an accepted file has few entries, and means the same in its canonical form."""
    entries = _read(data)
    if entries is None:
        return
    assert len(entries) <= data.count(b"\n") + 1
    lines = [
        *(f"jti:{one}" for one in entries.ids),
        *(f"sub:{one}" for one in entries.subjects),
        *(f"cert:{one}" for one in entries.fingerprints),
    ]
    assert _read("\n".join(lines).encode()) == entries


def _read(data: bytes) -> Entries | None:
    try:
        return _parse(data, Path("revoked"))
    except RevocationsError as error:
        check_text(str(error))
        return None
