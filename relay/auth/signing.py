"""Token signing and key generation: the counterpart of ``verifier.py``, for the command line and tests.

A relay never signs tokens and needs no private key.
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
from tickertape.contracts.messages import MAX_TOKEN
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.keys import UNREADABLE, KeysError, check_public_key, check_secret
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.core.grants import CLAIM, grant_of

SECRET_BYTES: Final = 48
"""Number of random bytes in a new HS256 secret, which is written as 64 characters."""

RSA_BITS: Final = 3072
"""Size of a new RSA key in bits, as NIST SP 800-57 recommends for use after 2030."""

SigningKey = bytes | RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey


def read_signing_key(algorithm: Algorithm, data: bytes, origin: str) -> SigningKey:
    """Parse a signing key.

    Args:
        algorithm: signature algorithm.
        data: the secret for HS256, otherwise an unencrypted private key as PEM.
        origin: name of the file, for errors.

    Raises:
        KeysError: the data is not a signing key, or a relay would reject its public key.
    """
    if algorithm == "HS256":
        return check_secret(data, origin)
    if b"PRIVATE KEY" not in data:
        raise KeysError(
            f"{origin} contains no private key as PEM",
            f"set --key-file to the private key that signs {algorithm} tokens",
        )
    try:
        key = load_pem_private_key(data, password=None)
    except TypeError:  # cryptography's error for a key that needs a password
        raise KeysError(
            f"the private key in {origin} is encrypted",
            "use an unencrypted key, or pipe in the decrypted key",
        ) from None
    except UNREADABLE:
        raise KeysError(f"cannot parse the private key in {origin}", "use a PEM file") from None
    check_public_key(algorithm, key.public_key(), origin)
    assert isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey)
    return key


def mint(
    algorithm: Algorithm,
    key: SigningKey,
    claims: Mapping[str, Any],
    kid: str | None = None,
    grant_claim: str = CLAIM,
) -> str:
    """Sign a token.

    Args:
        algorithm: signature algorithm of the key.
        key: key from ``read_signing_key``.
        claims: claims with ``exp`` and the grant.
        kid: id of the key, needed if the relay has several keys.
        grant_claim: name of the claim that contains the grant.

    Raises:
        ProtocolError: a relay would reject the grant.
        TokenError: the token is too long.
    """
    # Called for its errors only: no token is signed whose grant every relay would reject.
    grant_of(claims, str(claims.get("sub", "")), grant_claim)
    payload = orjson.dumps(dict(claims))
    headers = None if kid is None else {"kid": kid}
    token = PyJWS(algorithms=[algorithm]).encode(payload, key, algorithm, headers)
    if len(token) > MAX_TOKEN:
        raise TokenError("malformed", f"the token has {len(token)} characters; the limit is {MAX_TOKEN}")
    return token


def generate_key(algorithm: Algorithm) -> tuple[bytes, bytes | None]:
    """Generate a key.

    Returns:
        The secret, or the private key as PEM (PKCS #8); and the public key as PEM, or None for a secret.
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
