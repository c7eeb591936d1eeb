"""Make tokens and keys: the other side of ``verifier.py``, for the command line and for tests.

A relay never mints; it needs no private key.
"""

import secrets
from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt import PyJWS
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.keys import UNREADABLE, KeysError, check_public_key, check_secret
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.auth.verifier import MAX_TOKEN
from tickertape.relay.core.grants import grant_of

SECRET_BYTES: Final = 48
"""Random bytes of a new HS256 secret; 64 characters when written."""

RSA_BITS: Final = 3072
"""Of a new RSA key; what NIST SP 800-57 asks for after 2030."""

SigningKey = bytes | RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


def read_signing_key(algorithm: Algorithm, data: bytes, origin: str) -> SigningKey:
    """Read what tokens are signed with.

    Args:
        algorithm: to sign with.
        data: the secret for HS256, else a private key as PEM without a password.
        origin: where it comes from, for people.

    Raises:
        KeysError: it is something else, or a relay would refuse its other half.
    """
    if algorithm == "HS256":
        return check_secret(data, origin)
    if b"PRIVATE KEY" not in data:
        raise KeysError(
            f"{origin} holds no private key as PEM",
            f"{algorithm} is signed with the private key; give its file with --key-file",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:
        raise KeysError(
            f"the private key in {origin} has a password", "give one without, or pipe it in decrypted"
        ) from None
    except UNREADABLE:
        raise KeysError(f"the private key in {origin} cannot be read", "give it as PEM") from None
    check_public_key(algorithm, key.public_key(), origin)
    assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey)
    return key


def mint(algorithm: Algorithm, key: SigningKey, claims: Mapping[str, Any], kid: str | None = None) -> str:
    """Sign a token.

    Args:
        algorithm: that the key is for.
        key: from ``read_signing_key``.
        claims: with ``exp`` and the grant.
        kid: names the key, where the relay has several.

    Raises:
        ProtocolError: a relay would refuse the grant.
    """
    grant_of(claims, str(claims.get("sub", "")))
    payload = orjson.dumps(dict(claims))
    headers = None if kid is None else {"kid": kid}
    token = PyJWS(algorithms=[algorithm]).encode(payload, key, algorithm, headers)
    if len(token) > MAX_TOKEN:
        raise TokenError("malformed", f"the token has {len(token)} characters, at most {MAX_TOKEN} are taken")
    return token


def generate_key(algorithm: Algorithm) -> tuple[bytes, bytes | None]:
    """Make a key.

    Returns:
        the secret, or the private key as PEM (PKCS #8); and the public key as PEM, None for a secret.
    """
    if algorithm == "HS256":
        return secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n", None
    key: RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
    if algorithm == "RS256":
        key = generate_rsa_key(public_exponent=65537, key_size=RSA_BITS)
    elif algorithm == "ES256":
        key = generate_private_key(SECP256R1())
    else:
        key = Ed25519PrivateKey.generate()
    return (
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )
