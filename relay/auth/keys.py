"""Keys that verify tokens, each validated for the configured algorithm.

Invariants:

1. A key is used only with the configured algorithm; neither a token nor a key set can change that.
2. A public key is rejected as a secret: anyone who knows it could sign tokens (RFC 8725, 3.1).
3. A verifier holds no private key.
"""

import base64
import binascii
import contextlib
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_der_x509_certificate
from jwt.exceptions import PyJWTError
from tickertape.contracts.strict_json import find_duplicate_key, is_deeper
from tickertape.relay.auth.settings import Algorithm

from tickertape.errors import ConfigurationError
from tickertape.text import count

MIN_SECRET: Final = 32
"""Minimum bytes of an HS256 secret; a shorter secret is easier to guess than the hash is to break (RFC 7518,
3.2)."""

MIN_RSA: Final = 2048
MAX_RSA: Final = 8192
"""Limits of an RSA key in bits; a larger key would cost a millisecond or more per token."""

MAX_DEPTH: Final = 32
"""Maximum nesting of objects and arrays in a key set or in the metadata of an issuer."""

Material = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_PRIVATE: Final = (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey, Ed448PrivateKey)
UNREADABLE: Final = (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError)
"""Exceptions that the libraries raise for a key that they cannot parse."""


class KeysError(ConfigurationError):
    """Error for a verification key that is missing, unreadable or not acceptable."""


@dataclass(frozen=True, slots=True)
class Key:
    """Key that has been validated for its algorithm.

    Attributes:
        kid: key id; None for a key without an id, which is tried with every token.
        material: secret or public key.
    """

    kid: str | None
    material: Material = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """Set of keys that are valid together.

    Attributes:
        algorithm: signature algorithm of all keys.
        keys: the keys; at least one.
        skipped: a message for each entry of a key set that is meant for the algorithm but cannot be used.
    """

    algorithm: Algorithm
    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()

    def find(self, kid: str | None) -> list[Key]:
        """Return the keys that a token may be signed with.

        Args:
            kid: key id in the token; None selects all keys.
        """
        if kid is None:
            return list(self.keys)
        # A key without an id, such as a PEM file, may well be the one that the token names.
        return [key for key in self.keys if key.kid is None or key.kid == kid]


@dataclass(slots=True)
class FixedKeys:
    """Key source for a ``Verifier`` whose keys change only by assignment."""

    keys: Keys

    def request_refresh(self, kid: str | None = None) -> bool:
        """Return False: no newer keys are expected."""
        return False


def check_secret(secret: bytes, origin: str) -> bytes:
    """Check an HS256 secret, and return it unchanged.

    Raises:
        KeysError: the secret is shorter than 32 bytes, or looks like a key of another algorithm.
    """
    if _is_key(secret):
        raise KeysError(
            f"{origin} contains a key or certificate, not an HS256 secret",
            "set random bytes ('tickertape token keygen --jwt-algorithm HS256'), or the algorithm of the key",
        )
    if len(secret) < MIN_SECRET:
        raise KeysError(
            f"the HS256 secret in {origin} has {count(len(secret), 'byte')}",
            f"use at least {MIN_SECRET}; 'tickertape token keygen --jwt-algorithm HS256' generates one",
        )
    return secret


def check_public_key(algorithm: Algorithm, key: object, origin: str) -> Material:
    """Check a public key, and return it unchanged.

    Raises:
        KeysError: the key is private, does not fit the algorithm, or is too small or too large.
    """
    if isinstance(key, _PRIVATE):
        raise private_key_error(origin)
    if algorithm == "RS256" and isinstance(key, RSAPublicKey):
        if MIN_RSA <= key.key_size <= MAX_RSA:
            return key
        raise KeysError(
            f"the RSA key in {origin} has {key.key_size} bits", f"use {MIN_RSA} to {MAX_RSA} bits"
        )
    if algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey):
        if isinstance(key.curve, SECP256R1):
            return key
        raise KeysError(f"the key in {origin} uses curve {key.curve.name}", "ES256 requires P-256")
    if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey):
        return key
    expected = {"RS256": "an RSA key", "ES256": "a P-256 key", "EdDSA": "an Ed25519 key"}[algorithm]
    raise KeysError(f"the key in {origin} has the wrong type", f"{algorithm} requires {expected}")


def private_key_error(origin: str) -> KeysError:
    """Build the error for a private key where a public key is expected."""
    return KeysError(
        f"{origin} contains a private key",
        "set the public key; only the token issuer needs the private key",
    )


def _is_key(data: bytes) -> bool:
    if b"-----BEGIN" in data or data.lstrip().startswith((b"ssh-", b"ecdsa-")):
        return True
    document = parse_json_object(data, unique=False)
    if document is not None and ("kty" in document or "keys" in document):
        return True
    candidates = [data]
    with contextlib.suppress(binascii.Error):
        candidates.append(
            base64.b64decode(b"".join(data.split()), validate=True)  # PEM without its header lines
        )
    for load in (load_der_public_key, load_der_x509_certificate):
        for candidate in candidates:
            with contextlib.suppress(*UNREADABLE):
                load(candidate)
                return True
    return False


def parse_json_object(data: bytes, *, unique: bool = True) -> dict[str, Any] | None:
    """Parse a JSON object; return None if the data is not a JSON object.

    Args:
        data: the text.
        unique: whether to return None for a duplicate key, too, which could hide a key's use.
    """
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict):
        return None
    if unique and (is_deeper(data, MAX_DEPTH) or find_duplicate_key(data, document) is not None):
        return None
    return document
