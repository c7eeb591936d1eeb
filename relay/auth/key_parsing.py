"""The forms that keys come in: a secret, PEM, a certificate, a JWK, a JWKS.

What is read here is checked by ``keys.py``; a JWKS may hold keys of others, which are passed over.
"""

import re
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt import PyJWK
from tickertape.relay.auth.keys import (
    UNREADABLE,
    Key,
    Keys,
    KeysError,
    check_public_key,
    check_secret,
    parse_json_object,
    private_key_error,
)
from tickertape.relay.auth.settings import Algorithm, TokenSettings

MAX_KEY_BYTES: Final = 256 * 1024
"""Largest key file or key set."""

MAX_KEYS: Final = 32
"""Keys that one set may have for our algorithm; a token without ``kid`` is tried with each."""

MAX_KID: Final = 256
"""Characters of a key's id."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_FAMILY: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}


def read_configured_keys(settings: TokenSettings) -> Keys | None:
    """Read the key that the settings hold or name.

    A line end at the end of a key file is no part of a secret: editors put it there. A secret in the variable
    counts as it is.

    Args:
        settings: without a ``token_settings_error``.

    Returns:
        None when the keys come from an address.

    Raises:
        KeysError: the file cannot be read, or the key must not be used.
    """
    assert settings.jwt_algorithm is not None
    if settings.jwt_key is not None:
        secret = settings.jwt_key.get_secret_value().encode("utf-8", "surrogateescape")
        return read_keys(settings.jwt_algorithm, secret, "TICKERTAPE_JWT_KEY")
    if settings.jwt_key_file is not None:
        path = settings.jwt_key_file
        return read_keys(settings.jwt_algorithm, read_key_file(path), str(path))
    return None


def read_key_file(path: Path) -> bytes:
    """Return what a key file holds, without one line end at its end.

    Args:
        path: of a file of at most 256 KiB.

    Raises:
        KeysError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeysError(
            f"the key file {path} cannot be read: {error.strerror}", "give a file that the relay may read"
        ) from None
    if len(data) > MAX_KEY_BYTES:
        raise KeysError(f"the key file {path} has over {MAX_KEY_BYTES} bytes", "give a file that holds a key")
    return data.removesuffix(b"\n").removesuffix(b"\r")


def read_keys(algorithm: Algorithm, data: bytes, origin: str) -> Keys:
    """Read a secret, a PEM public key or certificate, a JWK, or a JWKS.

    Of certificates the first counts, since others are its issuers; its dates do not, since it was put here as
    a key. Several PEM public keys all count, so that one can follow the other.

    Args:
        algorithm: that tokens are signed with.
        data: what was given.
        origin: where it comes from, for people.

    Raises:
        KeysError: it is no key, of another kind, too weak, or private.
    """
    if algorithm == "HS256":
        return Keys(algorithm, (Key(None, check_secret(data, origin)),))
    if blocks := list(_PEM.finditer(data)):
        return Keys(algorithm, _pem_keys(algorithm, blocks, origin))
    document = parse_json_object(data)
    if document is None:
        raise KeysError(
            f"{origin} holds no key for {algorithm}", "give a PEM public key or certificate, a JWK, or a JWKS"
        )
    if "keys" in document:
        return key_set(algorithm, document, origin)
    if document.get("kty") != _FAMILY[algorithm][0]:
        raise KeysError(f"{origin} is no JWK for {algorithm}", f"give one of kty {_FAMILY[algorithm][0]}")
    return Keys(algorithm, (_jwk(algorithm, document, origin),))


def read_key_set(algorithm: Algorithm, data: bytes, origin: str) -> Keys:
    """Read a JWKS document (RFC 7517, 5), as ``key_set`` does.

    Raises:
        KeysError: it is no JWKS, or it has no key for the algorithm.
    """
    document = parse_json_object(data)
    if document is None:
        raise KeysError(f"{origin} is no JSON object", "give the address of a JWKS")
    return key_set(algorithm, document, origin)


def key_set(algorithm: Algorithm, document: dict[str, Any], origin: str) -> Keys:
    """Take from a JWKS what is for the algorithm; entries of other kinds or uses are for others.

    Args:
        algorithm: one with a public key; a secret in a JWKS is never used.
        document: a JSON object.
        origin: where it comes from, for people.

    Raises:
        KeysError: it is no JWKS, it has no key for the algorithm, or it gives a private one away.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeysError(f"{origin} is no JWKS: it has no list 'keys'", "give a JWKS")
    ours = [entry for entry in entries if isinstance(entry, dict) and _is_for(algorithm, entry)]
    if len(ours) > MAX_KEYS:
        raise KeysError(f"{origin} has {len(ours)} keys for {algorithm}", f"at most {MAX_KEYS} are taken")
    keys, skipped = [], []
    for entry in ours:
        try:
            keys.append(_jwk(algorithm, entry, origin))
        except KeysError as error:
            if "d" in entry:
                raise
            # One broken entry must not lock out everybody whose key is in order.
            skipped.append(str(error))
    if not keys:
        raise KeysError(
            skipped[0].partition("; ")[0] if skipped else f"{origin} has no key for {algorithm}",
            f"a JWKS with a fit public key for {algorithm} is needed",
        )
    return Keys(algorithm, tuple(keys), tuple(skipped))


def _pem_keys(algorithm: Algorithm, blocks: list[re.Match[bytes]], origin: str) -> tuple[Key, ...]:
    if any(b"PRIVATE KEY" in block[1] for block in blocks):
        raise private_key_error(origin)
    if len(blocks) > MAX_KEYS:
        raise KeysError(f"{origin} has {len(blocks)} PEM blocks", f"at most {MAX_KEYS} are taken")
    try:
        if blocks[0][1] == b"CERTIFICATE":
            found: list[object] = [load_pem_x509_certificate(blocks[0][0]).public_key()]
        else:
            found = [load_pem_public_key(block[0]) for block in blocks]
    except UNREADABLE:
        raise KeysError(f"the PEM in {origin} cannot be read", "give a public key or a certificate") from None
    return tuple(Key(None, check_public_key(algorithm, key, origin)) for key in found)


def _is_for(algorithm: Algorithm, entry: dict[str, Any]) -> bool:
    family, curve = _FAMILY[algorithm]
    operations = entry.get("key_ops", ["verify"])
    names = ("EdDSA", "Ed25519") if algorithm == "EdDSA" else (algorithm,)  # RFC 9864 has the second
    return (
        entry.get("kty") == family
        and (curve is None or entry.get("crv") == curve)
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) in names
        and isinstance(operations, list)
        # A private key lists 'sign'; it must not slip by unseen.
        and ("verify" in operations or "d" in entry)
    )


def _jwk(algorithm: Algorithm, entry: dict[str, Any], origin: str) -> Key:
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise KeysError(f"a JWK in {origin} has a kid that is no short text", "give it another kid")
    where = origin if kid is None else f"{origin}, kid {kid!a}"
    if "d" in entry:
        raise private_key_error(where)
    if not _is_for(algorithm, entry):
        raise KeysError(f"the JWK in {where} is not for {algorithm}", "look at its crv, alg, use and key_ops")
    try:
        material = PyJWK(entry, algorithm=algorithm).key
    except UNREADABLE:
        raise KeysError(f"the JWK in {where} cannot be read", "give a whole JWK (RFC 7518, 6)") from None
    return Key(kid, check_public_key(algorithm, material, where))
