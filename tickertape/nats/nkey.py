"""Nkeys of NATS users: Ed25519 keys in base32, with a prefix for the kind of key and a checksum.

A seed is the base32 of two bytes (``S``, then the kind, five bits each with their padding), 32 bytes of key
material and a CRC-16; a public key is the same with one byte of prefix. The package ``nkeys`` does this too,
but exists as source only: a locked install would have to build it, with tools that no lock covers.
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tickertape.errors import TickertapeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED: Final = 18 << 3  # the letter S in base32
_USER: Final = 20 << 3  # the letter U
_SEED_BYTES: Final = 2 + 32 + 2
"""Prefix, key material, checksum."""


class NkeyError(TickertapeError, ValueError):
    """Text that is not the seed of a user."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Key pair of a user.

    Attributes:
        public_key: public key as NATS writes it, ``U…``.
    """

    public_key: str
    _private_key: "Ed25519PrivateKey" = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of the signature of ``data``."""
        return self._private_key.sign(data)


def parse_user_seed(seed: str) -> KeyPair:
    """Return the key pair of a user's seed.

    Args:
        seed: seed, ``SU…``.

    Raises:
        NkeyError: the text is not a seed, not a user's, or its checksum is wrong.
    """
    # Deferred: it takes as long to import as the rest of the package.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (binascii.Error, ValueError):
        raise NkeyError("not base32") from None
    if len(raw) != _SEED_BYTES:
        raise NkeyError("wrong length")
    # The last letter has two bits to spare, which a decoder ignores.
    if _checksum(raw[:-2]) != raw[-2:] or _base32(raw) != seed:
        raise NkeyError("wrong checksum")
    if raw[:2] != bytes((_SEED | _USER >> 5, _USER << 3 & 0xFF)):
        raise NkeyError("not the seed of a user")
    private_key = Ed25519PrivateKey.from_private_bytes(raw[2:-2])
    public = bytes((_USER,)) + private_key.public_key().public_bytes_raw()
    return KeyPair(_base32(public + _checksum(public)), private_key)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=")


def _checksum(data: bytes) -> bytes:
    return binascii.crc_hqx(data, 0).to_bytes(2, "little")


__all__ = ["KeyPair", "NkeyError", "parse_user_seed"]
