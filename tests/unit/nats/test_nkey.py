"""Nkeys: the same keys and signatures as those of the NATS tools, and nothing else is accepted."""

import base64
import binascii
import secrets

import pytest

from tests.support.nkeys import ACCOUNT, OPERATOR, encode_seed, new_seed, private_key
from tickertape.nats.nkey import NkeyError, parse_user_seed

# Made with the package nkeys 0.2.1 of the NATS authors; key material: SHA-256 of "a user of Tickertape".
SEED = "SUABJCGMG7Y7MFSLUBT45M4FDD6B2EHSUDU72VYF2NUH7DRIVOMPZYEJSE"
PUBLIC = "UDTGXZYLP66W4VUCN2RXCMLDDHWZHRXQETAVGCKCOJT5SSLX66FZOZSH"
SIGNATURE = (
    "67fdefa945be68bc7e835027fbf225bf1665b92146b07959b56661aab24bf9fa"
    "cc226da555d0b1b2b2ca45b292cc04d9d645bcf83756e6fc7a4532afb627d804"
)  # of "nonce"


def test_a_known_seed() -> None:
    """Public key and signature are those that the NATS authors' package computes."""
    keys = parse_user_seed(SEED)
    assert keys.public_key == PUBLIC
    assert keys.sign(b"nonce").hex() == SIGNATURE


def test_no_secret_is_shown() -> None:
    """The representation contains neither the seed nor the private key."""
    keys = parse_user_seed(SEED)
    assert repr(keys) == f"KeyPair(public_key={PUBLIC!r})"


@pytest.mark.parametrize("kind", [ACCOUNT, OPERATOR])
def test_seeds_of_others(kind: int) -> None:
    """The seed of an account or operator, which no user may have, is rejected."""
    with pytest.raises(NkeyError, match="not the seed of a user"):
        parse_user_seed(new_seed(kind)[0])


def test_public_keys() -> None:
    """A public key in place of the seed is rejected."""
    with pytest.raises(NkeyError, match="wrong length"):
        parse_user_seed(PUBLIC)


@pytest.mark.parametrize(
    "text", ["", "S", "SU", "SUé", "0189", SEED[:-1], SEED + "A", SEED.lower(), f"{SEED}="]
)
def test_what_is_no_seed(text: str) -> None:
    """Text of another length or alphabet is rejected."""
    with pytest.raises(NkeyError):
        parse_user_seed(text)


def test_every_typo_is_found() -> None:
    """A seed with any one character replaced by another is rejected."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
    for position, original in enumerate(SEED):
        for other in alphabet.replace(original, ""):
            with pytest.raises(NkeyError):
                parse_user_seed(SEED[:position] + other + SEED[position + 1 :])


def test_every_seed_is_accepted() -> None:
    """Random seeds yield keys whose signatures their public keys verify."""
    for _ in range(50):
        key, data = secrets.token_bytes(32), secrets.token_bytes(20)
        seed = encode_seed(key)
        keys = parse_user_seed(seed)
        raw = base64.b32decode(keys.public_key)  # 35 bytes: no padding
        assert raw[0] == 20 << 3
        assert binascii.crc_hqx(raw[:-2], 0) == int.from_bytes(raw[-2:], "little")
        private_key(seed).public_key().verify(keys.sign(data), data)
