"""The strangers: what each of them sends to a relay that never asked for them.

Four sorts, evenly mixed: bad tokens on every way in, half handshakes, bytes that come slowly, and floods. The
list is built once; a load generator only takes from it, in turn.
"""

import random
from dataclasses import dataclass
from typing import Any, Final

from tickertape.relay.auth.signing import generate_key, mint

from tests.bench.load.websocket import PING, TEXT, client_frame

BURST: Final = 500
"""Pings of a flood that go out at once; a client may send 200 frames in a second."""

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to be a nuisance.

    Attributes:
        sort: ``token``, ``half``, ``slow`` or ``flood``.
        name: of the way.
        first: sent as soon as the connection is there; nothing for one that says nothing.
        again: sent behind each answer that does not send the stranger away.
        slow: whether ``first`` goes out a byte at a time.
    """

    sort: str
    name: str
    first: bytes
    again: bytes = b""
    slow: bool = False


def kinds(secret: bytes, now: float) -> list[Kind]:
    """All strangers, one after the other as they are to come: each sort as often as the others.

    Args:
        secret: that the relay verifies HS256 tokens with.
        now: UNIX seconds.
    """
    sorts = [_tokens(secret, now), _halves(), _slow(), _floods()]
    turns = max(map(len, sorts))
    return [sort[turn % len(sort)] for turn in range(turns) for sort in sorts]


def honest_token(secret: bytes, now: float) -> str:
    """A token that lets its client see everything for a day."""
    return mint("HS256", secret, _claims(now + _DAY))


def _claims(ends: float) -> dict[str, Any]:
    return {
        "sub": "bench",
        "iat": int(ends) - 2 * _DAY,
        "exp": int(ends),
        "tickertape": {"subjects": [">"], "connections": 100_000},
    }


def _upgrade(*headers: str) -> bytes:
    lines = [
        "GET /ws HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def _tokens(secret: bytes, now: float) -> list[Kind]:
    other = generate_key("HS256")[0]
    bad = {
        "wrong signature": mint("HS256", other, _claims(now + _DAY)),
        "expired": mint("HS256", secret, _claims(now - 60)),
        "garbage": "x.y.z",
    }
    found = []
    for what, token in bad.items():
        message = client_frame(TEXT, b'{"type":"auth","token":"%b"}' % token.encode())
        found += [
            Kind("token", f"{what}, header", _upgrade(f"Authorization: Bearer {token}")),
            Kind(
                "token",
                f"{what}, subprotocol",
                _upgrade(f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{token}"),
            ),
            Kind("token", f"{what}, auth", _upgrade(), message),
        ]
    return found


def _halves() -> list[Kind]:
    head = _upgrade()
    return [
        Kind("half", "says nothing", b""),
        Kind("half", "half a head", head[: len(head) // 2]),
        Kind("half", "never shows a token", head),
    ]


def _slow() -> list[Kind]:
    return [Kind("slow", "a byte now and then", _upgrade(), slow=True)]


def _floods() -> list[Kind]:
    noise = random.Random(1).randbytes(4_096)
    request = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    return [
        Kind("flood", "pings", _upgrade(), client_frame(PING, b"") * BURST),
        Kind("flood", "garbage", _upgrade(), noise),
        Kind("flood", "requests", request * 15, request * 15),
        Kind("flood", "large head", b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 65_536),
        Kind(
            "flood",
            "body",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"a" * 65_536,
        ),
        Kind("flood", "no HTTP", noise),
    ]
