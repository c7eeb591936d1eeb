"""Keys that verify tokens, each checked for the one algorithm that counts.

Invariants:

1. A key is used with one algorithm, the configured one; what a token or a key set says cannot change that.
2. A secret that looks like a public key is no secret: who knows the public key could sign (RFC 8725, 3.1).
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
from tickertape.relay.auth.settings import Algorithm

from tickertape.errors import ConfigurationError

MIN_SECRET: Final = 32
"""Bytes; a shorter HS256 secret is guessed before the hash is broken (RFC 7518, 3.2)."""

MIN_RSA: Final = 2048
MAX_RSA: Final = 8192
"""Bits; a larger key would cost a millisecond and more per token."""

Material = bytes | RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

_PRIVATE: Final = (RSAPrivateKey, EllipticCurvePrivateKey, Ed25519PrivateKey, Ed448PrivateKey)
UNREADABLE: Final = (PyJWTError, UnsupportedAlgorithm, ValueError, TypeError, KeyError, AttributeError)
"""What the libraries raise for a key that they cannot read."""


class KeysError(ConfigurationError):
    """There is no key to verify with, or one that must not be used."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key that was found fit for the algorithm.

    Attributes:
        kid: its id in a key set; None for a key that stands alone, which is tried with every token.
        material: what the signature is checked with.
    """

    kid: str | None
    material: Material = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that count at one time.

    Attributes:
        algorithm: that they are for.
        keys: at least one.
        skipped: a line for each entry of a key set that is for the algorithm and cannot be used.
    """

    algorithm: Algorithm
    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()

    def find(self, kid: str | None) -> list[Key]:
        """Return the keys that a token may be signed with.

        Args:
            kid: as the token names it; None when it names none, and then all are returned.
        """
        if kid is None:
            return list(self.keys)
        return [key for key in self.keys if key.kid is None or key.kid == kid]


@dataclass(slots=True)
class FixedKeys:
    """Keys that change only when somebody puts others here, as a source of keys for a ``Verifier``."""

    keys: Keys

    def request_refresh(self) -> bool:
        """Tell that no other keys are on their way."""
        return False


def check_secret(secret: bytes, origin: str) -> bytes:
    """Return an HS256 secret as it is.

    Raises:
        KeysError: it is shorter than 32 bytes, or it looks like a key of another algorithm.
    """
    if _looks_like_a_key(secret):
        raise KeysError(
            f"{origin} holds a key or certificate, not an HS256 secret",
            "give random bytes ('tickertape token keygen --jwt-algorithm HS256'), or set the algorithm "
            "that the key is for",
        )
    if len(secret) < MIN_SECRET:
        raise KeysError(
            f"the HS256 secret in {origin} has {len(secret)} bytes",
            f"at least {MIN_SECRET} are needed; 'tickertape token keygen --jwt-algorithm HS256' makes one",
        )
    return secret


def check_public_key(algorithm: Algorithm, key: object, origin: str) -> Material:
    """Return a public key as it is.

    Raises:
        KeysError: it is private, of another kind than the algorithm's, or too weak or large.
    """
    if isinstance(key, _PRIVATE):
        raise private_key_error(origin)
    if algorithm == "RS256" and isinstance(key, RSAPublicKey):
        if MIN_RSA <= key.key_size <= MAX_RSA:
            return key
        raise KeysError(
            f"the RSA key in {origin} has {key.key_size} bits", f"give one of {MIN_RSA} to {MAX_RSA} bits"
        )
    if algorithm == "ES256" and isinstance(key, EllipticCurvePublicKey):
        if isinstance(key.curve, SECP256R1):
            return key
        raise KeysError(f"the key in {origin} is on the curve {key.curve.name}", "ES256 needs P-256")
    if algorithm == "EdDSA" and isinstance(key, Ed25519PublicKey):
        return key
    wanted = {"RS256": "an RSA key", "ES256": "a P-256 key", "EdDSA": "an Ed25519 key"}[algorithm]
    raise KeysError(f"the key in {origin} is of another kind", f"{algorithm} needs {wanted}")


def private_key_error(origin: str) -> KeysError:
    """What to raise where a private key was given."""
    return KeysError(
        f"{origin} holds a private key",
        "give the public key; the private one stays with whoever mints tokens",
    )


def _looks_like_a_key(data: bytes) -> bool:
    if b"-----BEGIN" in data or data.lstrip().startswith((b"ssh-", b"ecdsa-")):
        return True
    document = parse_json_object(data)
    if document is not None and ("kty" in document or "keys" in document):
        return True
    forms = [data]
    with contextlib.suppress(binascii.Error):
        forms.append(base64.b64decode(b"".join(data.split()), validate=True))  # PEM without its first line
    for load in (load_der_public_key, load_der_x509_certificate):
        for form in forms:
            with contextlib.suppress(*UNREADABLE):
                load(form)
                return True
    return False


def parse_json_object(data: bytes) -> dict[str, Any] | None:
    """Read a JSON object; None when it is none."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None
