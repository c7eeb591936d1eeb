"""Nkeys of every kind, and JWTs signed with them, as the NATS tools create them."""

import base64
import binascii
import hashlib
import json
import secrets
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

OPERATOR: Final = 14 << 3
ACCOUNT: Final = 0
USER: Final = 20 << 3


def encode(prefix: bytes, key: bytes) -> str:
    """Return a key in base32, with its prefix and checksum."""
    raw = prefix + key
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def encode_seed(key: bytes, kind: int = USER) -> str:
    """Return the seed of 32 bytes of key material."""
    return encode(bytes((18 << 3 | kind >> 5, (kind & 31) << 3)), key)


def private_key(seed: str) -> Ed25519PrivateKey:
    """Return the private key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(base64.b32decode(seed + "=" * (-len(seed) % 8))[2:34])


def new_seed(kind: int = USER) -> tuple[str, str]:
    """Return a new seed and its public key."""
    seed = encode_seed(secrets.token_bytes(32), kind)
    return seed, encode(bytes((kind,)), private_key(seed).public_key().public_bytes_raw())


def signed(issuer: tuple[str, str], claims: dict[str, object]) -> str:
    """Return a JWT as NATS uses them: signed with the issuer's nkey, with a hash of the claims as id."""
    seed, public = issuer
    claims = {"iat": 1_700_000_000, "iss": public, "jti": "", **claims}
    claims["jti"] = (
        base64.b32encode(hashlib.sha512(json.dumps(claims).encode()).digest()[:32]).decode().rstrip("=")
    )

    def part(body: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(body).encode()).decode().rstrip("=")

    head = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(claims)}"
    signature = base64.urlsafe_b64encode(private_key(seed).sign(head.encode())).decode().rstrip("=")
    return f"{head}.{signature}"


__all__ = ["ACCOUNT", "OPERATOR", "USER", "encode", "encode_seed", "new_seed", "private_key", "signed"]
