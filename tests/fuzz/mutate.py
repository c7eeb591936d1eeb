"""Ways to corrupt valid bytes and JSON values. All randomness comes from a seeded ``Random``."""

import random
from typing import Any, Final

import orjson

BYTES: Final = (
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b'"', b"%", b"%00", b"\xff",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"..", b"/", b"?", b"#", b"HTTP/1.1", b"0", b"-1", b"\x7f",
    b"\xef\xbb\xbf", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
)  # fmt: skip
"""Byte sequences that are known to trip parsers."""

VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 2**64 - 1, 1e308, -0.0, 1e-300, 0.5,
    "", " ", "\0", "\ud7ff", "\U0010ffff", "é", "*", ">", "log.>", "log.*", ".", "..", "a" * 300, "live",
    "complete", "latest", "earliest", "10m", "999999999d", "0ms", "2025-06-24T10:30:45.123Z",
    "9999-12-31T23:59:59.999Z", "0001-01-01T00:00:00Z", "e-0", "e-99999999999999999999", "e--1", "x-5", "0-0",
    [], {}, [[]], [None], {"a": None}, ["log.>"] * 65, [">"], ["log.>", "log.>"],
)  # fmt: skip
"""Values that are known to trip validation."""


def spoiled(rng: random.Random, data: bytes) -> bytes:
    """Return the data with one to three corruptions."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randint(0, len(data))
        to = min(len(data), at + rng.choice((1, 2, 4, 16, 64)))
        way = rng.randrange(7)
        if way == 0:
            data = data[:at] + rng.choice(BYTES) + data[at:]
        elif way == 1:
            data = data[:at] + data[to:]
        elif way == 2:
            data = data[:at] + data[at:to] * rng.choice((2, 2, 3, 50)) + data[to:]
        elif way == 3:
            data = data[:at]
        elif way == 4:
            data = data[:at] + rng.randbytes(to - at) + data[to:]
        elif way == 5 and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        else:
            start = rng.randint(0, len(data))
            data = data[:at] + data[start : start + 64] + data[at:]
    return data


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Return the data cut into pieces, as a network may deliver it."""
    way = rng.randrange(30)
    if way < 20 or len(data) < 2:
        return [data]
    if way == 20 and len(data) < 600:
        return [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(rng.randrange(1, len(data)) for _ in range(rng.randint(1, 6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return any JSON value."""
    way = rng.randrange(8)
    if way == 0 and depth:
        return [value(rng, depth - 1) for _ in range(rng.randrange(4))]
    if way == 1 and depth:
        return {text(rng): value(rng, depth - 1) for _ in range(rng.randrange(4))}
    if way == 2:
        return text(rng)
    if way == 3:
        return rng.randint(-(2**63), 2**64 - 1)
    return rng.choice(VALUES)


def text(rng: random.Random) -> str:
    """Return any text that JSON can hold."""
    return "".join(
        chr(rng.choice((rng.randrange(128), rng.randrange(0xD800), 0x10FFFF)))
        for _ in range(rng.randrange(9))
    )


def spoiled_object(rng: random.Random, body: dict[str, Any]) -> bytes:
    """Return an object as JSON, with a field changed, removed, duplicated, renamed or added, or its text
    corrupted.
    """
    body = dict(body)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        name = rng.choice(list(body)) if body else "type"
        way = rng.randrange(5)
        if way == 0:
            body.pop(name, None)
        elif way == 1:
            body[text(rng)] = value(rng)
        elif way == 2 and name in body:
            body[name.upper()] = body.pop(name)
        else:
            body[name] = value(rng)
    data = orjson.dumps(body)
    way = rng.randrange(12)
    if way == 0:
        return spoiled(rng, data)
    if way == 1:
        return data[:-1] + b',"type":' + orjson.dumps(rng.choice(("ping", "auth", "subscribe"))) + b"}"
    if way == 2:
        deep = rng.choice((10, 100, 1_000, 5_000))
        return b'{"type":"ping","id":' + b"[" * deep + b"]" * rng.choice((deep, deep, 0)) + b"}"
    if way == 3:
        return b'{"type":"ping","id":' + b"9" * rng.choice((19, 400, 5_000)) + b"}"
    return data
