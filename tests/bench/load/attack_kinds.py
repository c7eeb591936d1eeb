"""Kinds of attackers and the bytes that each of them sends.

There are four categories, evenly mixed: invalid tokens by every way of authenticating, partial handshakes,
slow bytes, and floods. The list is built once; a load generator cycles through it.
"""

import random
from dataclasses import dataclass
from typing import Any, Final

from tickertape.relay.auth.signing import generate_key, mint

from tests.bench.load.websocket import PING, TEXT, client_frame

BURST: Final = 500
"""Pings that a flood sends in one burst; the relay allows a client 200 frames per second."""

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of attacker.

    Attributes:
        category: ``token``, ``half``, ``slow`` or ``flood``.
        name: name of the kind.
        first: bytes sent as soon as the connection is established; empty for an attacker that sends nothing.
        repeat: bytes sent after each response that does not reject the attacker.
        slow: whether ``first`` is sent one byte at a time.
    """

    category: str
    name: str
    first: bytes
    repeat: bytes = b""
    slow: bool = False


def kinds(secret: bytes, now: float) -> list[Kind]:
    """Return all kinds in the order of their use; every category is equally frequent.

    Args:
        secret: secret with which the relay verifies HS256 tokens.
        now: UNIX time in seconds.
    """
    categories = [_tokens(secret, now), _halves(), _slow(), _floods()]
    turns = max(map(len, categories))
    return [category[turn % len(category)] for turn in range(turns) for category in categories]


def honest_token(secret: bytes, now: float) -> str:
    """Return a token that permits all subjects for a day."""
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
    for fault, token in bad.items():
        message = client_frame(TEXT, b'{"type":"auth","token":"%b"}' % token.encode())
        found += [
            Kind("token", f"{fault}, header", _upgrade(f"Authorization: Bearer {token}")),
            Kind(
                "token",
                f"{fault}, subprotocol",
                _upgrade(f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{token}"),
            ),
            Kind("token", f"{fault}, auth", _upgrade(), message),
        ]
    return found


def _halves() -> list[Kind]:
    head = _upgrade()
    return [
        Kind("half", "sends nothing", b""),
        Kind("half", "partial request head", head[: len(head) // 2]),
        Kind("half", "no token", head),
    ]


def _slow() -> list[Kind]:
    return [Kind("slow", "one byte at a time", _upgrade(), slow=True)]


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
        Kind("flood", "not HTTP", noise),
    ]
