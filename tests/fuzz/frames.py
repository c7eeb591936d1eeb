"""Frames as an untrusted client may write them, around valid, unusual and corrupted messages."""

import random
import zlib
from typing import Any, Final

from tests.fuzz.mutate import spoiled, spoiled_object, value

_SUBSCRIBE: Final[dict[str, Any]] = {
    "type": "subscribe", "subjects": ["log.>"], "level": "INFO", "mode": "live", "interval_ms": 500,
}  # fmt: skip
_CONTROL: Final = (0x8, 0x9, 0xA)


def message(rng: random.Random, tokens: list[str]) -> bytes:
    """Return the text of a message."""
    way = rng.randrange(12)
    if way < 4:
        body: dict[str, Any] = {"type": "auth", "token": rng.choice(tokens)}
    elif way < 7:
        body = {**_SUBSCRIBE, "mode": rng.choice(("live", "complete", "latest"))}
        if rng.random() < 0.5:
            body[rng.choice(("cursor", "since"))] = rng.choice(("e-1", "e-9", "x-1", "10m", "earliest", "1h"))
    elif way < 10:
        body = {"type": "ping", "id": value(rng)}
    else:
        return rng.choice(
            (b"", b"null", b"[]", b"{}", b"\xff", b"hello", b"\xef\xbb\xbf{}", b'"' + b"a" * 40_000)
        )
    return spoiled_object(rng, body)


def frame(rng: random.Random, first: int, payload: bytes) -> bytes:
    """Return one frame, usually valid: masked, with the shortest length encoding."""
    odd = rng.random()
    mask = 0 if odd < 0.02 else 0x80
    size = len(payload)
    if 0.02 <= odd < 0.04:
        size = rng.choice((0, size + 1, 125, 126, 65_535, 65_536, 2**20, 2**20 + 1, 2**31, 2**63 - 1, 2**63))
    if size < 126 and not 0.04 <= odd < 0.05:
        head = bytes((first, mask | size))
    elif size < 65_536 and not 0.05 <= odd < 0.06:
        head = bytes((first, mask | 126)) + size.to_bytes(2)
    else:
        head = bytes((first, mask | 127)) + size.to_bytes(8)
    if not mask:
        return head + payload
    key = rng.randbytes(4)
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload) ^ int.from_bytes(stream)).to_bytes(len(payload))
    return head + key + masked


def deflated(rng: random.Random, payload: bytes) -> bytes:
    """Return a payload compressed with permessage-deflate, a decompression bomb, or invalid data."""
    odd = rng.random()
    if odd < 0.1:
        return rng.randbytes(rng.choice((1, 10, 100)))
    if odd < 0.13:
        payload = b"a" * rng.choice((100_000, 1_048_576, 1_048_577, 8_000_000))
    squeeze = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    data = data.removesuffix(b"\0\0\xff\xff")
    return spoiled(rng, data) if 0.13 <= odd < 0.3 else data


def frames(rng: random.Random, tokens: list[str]) -> bytes:
    """Return several consecutive frames."""
    found = []
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        way = rng.randrange(20)
        if way < 10:
            found.append(frame(rng, 0x81, message(rng, tokens)))
        elif way < 12:
            found.append(frame(rng, 0xC1, deflated(rng, message(rng, tokens))))
        elif way < 14:
            found.append(_fragments(rng, message(rng, tokens)))
        elif way < 16:
            payload = rng.choice(
                (b"", b"\x03\xe8", b"\x03\xe8bye", b"x", b"\xff\xff", b"a" * 126, b"\x03\xed\xff")
            )
            found.append(frame(rng, 0x80 | rng.choice(_CONTROL), payload))
        elif way < 17:
            found.append(frame(rng, rng.randrange(256), message(rng, tokens)[:300]))
        elif way < 18:
            found.append(rng.randbytes(rng.choice((1, 10, 300))))
        elif way < 19:
            found.append(frame(rng, 0x82, b"binary"))
        else:
            found.append(frame(rng, 0x80 | rng.choice(_CONTROL), b"") * rng.choice((10, 300, 300, 20_000)))
    data = b"".join(found)
    return spoiled(rng, data) if rng.random() < 0.15 else data


def _fragments(rng: random.Random, text: bytes) -> bytes:
    packed = rng.random() < 0.3
    if packed:
        text = deflated(rng, text)
    cut, end = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    found = [frame(rng, 0x41 if packed else 0x01, text[:cut])]
    if rng.random() < 0.5:
        found.append(frame(rng, 0x89, b"between"))
    found.append(frame(rng, 0x00, text[cut:end]))
    if rng.random() < 0.2:
        found.append(frame(rng, rng.choice((0x81, 0x01, 0x40, 0x10)), b"wrong"))
    if rng.random() < 0.9:
        found.append(frame(rng, 0x80, text[end:]))
    return b"".join(found)
