"""Parsers for the key formats: secret, PEM public key, certificate, JWK and JWKS.

``keys.py`` validates the parsed keys. Keys of a JWKS that are meant for other purposes are skipped.
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
"""Maximum bytes of a key file or JWKS."""

MAX_KEYS: Final = 32
"""Maximum number of keys for the configured algorithm; each is tried for a token without ``kid``."""

MAX_KID: Final = 256
"""Maximum characters of a key id."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_FAMILY: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}


def read_configured_keys(settings: TokenSettings) -> Keys | None:
    """Read the key that the settings contain or point to.

    A trailing line break in a key file is not part of a secret, since editors add it. A secret in the
    environment variable is used unchanged.

    Args:
        settings: settings without a ``token_settings_error``.

    Returns:
        The keys, or None if they are fetched from a URL.

    Raises:
        KeysError: the file cannot be read, or the key is not acceptable.
    """
    assert settings.jwt_algorithm is not None
    if settings.jwt_key is not None:
        # Python decodes the environment with surrogateescape; this restores bytes that are not UTF-8.
        secret = settings.jwt_key.get_secret_value().encode("utf-8", "surrogateescape")
        return read_keys(settings.jwt_algorithm, secret, "TICKERTAPE_JWT_KEY")
    if settings.jwt_key_file is not None:
        path = settings.jwt_key_file
        return read_keys(settings.jwt_algorithm, read_key_file(path), str(path))
    return None


def read_key_file(path: Path) -> bytes:
    """Return the content of a key file without its trailing line break.

    Args:
        path: path of a file of at most ``MAX_KEY_BYTES``.

    Raises:
        KeysError: the file cannot be read, or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise KeysError(
            f"cannot read key file {path}: {error.strerror}", "check the path and the permissions of the file"
        ) from None
    if len(data) > MAX_KEY_BYTES:
        raise KeysError(f"key file {path} has more than {MAX_KEY_BYTES} bytes", "set the path of a key file")
    return data.removesuffix(b"\n").removesuffix(b"\r")


def read_keys(algorithm: Algorithm, data: bytes, origin: str) -> Keys:
    """Parse a secret, a PEM public key or certificate, a JWK, or a JWKS.

    Only the first certificate of a chain is used, since the others are its issuers; its validity period is
    ignored, since only its key is used. All PEM public keys are used, so that keys can be rotated.

    Args:
        algorithm: signature algorithm of the tokens.
        data: content of the key file or setting.
        origin: name of the file or setting, for errors.

    Raises:
        KeysError: the data is not a key for the algorithm, or the key is too weak or private.
    """
    if algorithm == "HS256":
        return Keys(algorithm, (Key(None, check_secret(data, origin)),))
    if blocks := list(_PEM.finditer(data)):
        return Keys(algorithm, _pem_keys(algorithm, blocks, origin))
    document = parse_json_object(data)
    if document is None:
        raise KeysError(
            f"{origin} contains no key for {algorithm}",
            "set a PEM public key or certificate, a JWK, or a JWKS",
        )
    if "keys" in document:
        return select_keys(algorithm, document, origin)
    if document.get("kty") != _FAMILY[algorithm][0]:
        raise KeysError(f"{origin} is not a JWK for {algorithm}", f"set a JWK of kty {_FAMILY[algorithm][0]}")
    return Keys(algorithm, (_jwk(algorithm, document, origin),))


def read_key_set(algorithm: Algorithm, data: bytes, origin: str) -> Keys:
    """Parse a JWKS document (RFC 7517, 5); see ``select_keys``.

    Raises:
        KeysError: the document is not a JWKS, or has no key for the algorithm.
    """
    document = parse_json_object(data)
    if document is None:
        raise KeysError(f"{origin} is not a JSON object with unique keys", "set the URL of a JWKS")
    return select_keys(algorithm, document, origin)


def select_keys(algorithm: Algorithm, document: dict[str, Any], origin: str) -> Keys:
    """Select the keys for an algorithm from a JWKS, ignoring keys of other types or uses.

    Args:
        algorithm: asymmetric algorithm; secrets in a JWKS are never used.
        document: parsed JWKS.
        origin: name of the file, setting or URL, for errors.

    Raises:
        KeysError: the document is not a JWKS, has no key for the algorithm, or exposes a private key.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise KeysError(f"{origin} is not a JWKS: it has no list 'keys'", "set a JWKS")
    candidates = [entry for entry in entries if isinstance(entry, dict) and _is_for(algorithm, entry)]
    if len(candidates) > MAX_KEYS:
        raise KeysError(f"{origin} has {len(candidates)} keys for {algorithm}", f"keep at most {MAX_KEYS}")
    keys, skipped = [], []
    for entry in candidates:
        try:
            keys.append(_jwk(algorithm, entry, origin))
        except KeysError as error:
            # A private key in a public set is a leak, which must be reported even if other keys are usable.
            if "d" in entry:
                raise
            # One invalid entry must not lock out clients with other keys.
            skipped.append(str(error))
    if not keys:
        raise KeysError(
            skipped[0].partition("; ")[0] if skipped else f"{origin} has no key for {algorithm}",
            f"set a JWKS with a valid public key for {algorithm}",
        )
    return Keys(algorithm, tuple(keys), tuple(skipped))


def _pem_keys(algorithm: Algorithm, blocks: list[re.Match[bytes]], origin: str) -> tuple[Key, ...]:
    if any(b"PRIVATE KEY" in block[1] for block in blocks):
        raise private_key_error(origin)
    if len(blocks) > MAX_KEYS:
        raise KeysError(f"{origin} has {len(blocks)} PEM blocks", f"keep at most {MAX_KEYS}")
    try:
        if blocks[0][1] == b"CERTIFICATE":
            public_keys: list[object] = [load_pem_x509_certificate(blocks[0][0]).public_key()]
        else:
            public_keys = [load_pem_public_key(block[0]) for block in blocks]
    except UNREADABLE:
        raise KeysError(f"cannot parse the PEM in {origin}", "set a public key or a certificate") from None
    return tuple(Key(None, check_public_key(algorithm, key, origin)) for key in public_keys)


def _is_for(algorithm: Algorithm, entry: dict[str, Any]) -> bool:
    family, curve = _FAMILY[algorithm]
    operations = entry.get("key_ops", ["verify"])
    names = ("EdDSA", "Ed25519") if algorithm == "EdDSA" else (algorithm,)  # RFC 9864 renames it
    return (
        entry.get("kty") == family
        and (curve is None or entry.get("crv") == curve)
        and entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) in names
        and isinstance(operations, list)
        # A private key lists 'sign' only; select it, so that it is reported.
        and ("verify" in operations or "d" in entry)
    )


def _jwk(algorithm: Algorithm, entry: dict[str, Any], origin: str) -> Key:
    kid = entry.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID):
        raise KeysError(
            f"a JWK in {origin} has an invalid kid", f"use a string of at most {MAX_KID} characters"
        )
    where = origin if kid is None else f"{origin}, kid {kid!a}"
    if "d" in entry:
        raise private_key_error(where)
    if not _is_for(algorithm, entry):
        raise KeysError(f"the JWK in {where} is not for {algorithm}", "check its crv, alg, use and key_ops")
    try:
        material = PyJWK(entry, algorithm=algorithm).key
    except UNREADABLE:
        raise KeysError(f"cannot parse the JWK in {where}", "set a complete JWK (RFC 7518, 6)") from None
    return Key(kid, check_public_key(algorithm, material, where))
