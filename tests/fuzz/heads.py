"""Requests as an untrusted client may write them: valid, unusual and corrupted."""

import random
from typing import Final

from tests.fuzz.mutate import spoiled

_TARGETS: Final = (
    "/ws", "/ws", "/ws", "/health", "/events", "/events?limit=5", "/events?since=earliest&order=newest",
    "/ws?subjects=log.%3E", "/ws?subjects=log.*,gateway.>&level=WARN&mode=latest&interval_ms=100",
    "/ws?cursor=e-3", "/ws?cursor=e-99", "/ws?since=10m", "/ws?since=earliest&mode=complete", "/ws?token=x",
    "/ws?%00=%ff", "/ws?subjects=" + "a," * 70, "/ws?" + "x=1&" * 40, "/feed", "/nowhere", "//", "*",
    "http://x/ws", "/ws#f", "/%2e%2e/", "/health?" + "q" * 3000, "/ws\xff", "/events?cursor=e-1&until=e-0",
    "/events?limit=0", "/events?limit=1e9", "/events?order=x&order=y", "/ws/", "/WS", "x:443", "/;a=b",
)  # fmt: skip
_FILES: Final = ("/", "/assets/app.js", "/assets/../config.py", "/assets/%2e%2e/config.py", "/assets/\x00")
_METHODS: Final = (
    "GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "OPTIONS", "POST", "PUT", "CONNECT", "TRACE", "PRI",
    "get", "G\0T", "SOURCE", "X" * 50,
)  # fmt: skip
_ODD: Final = (
    "Content-Length: 0", "Content-Length: 5", "Content-Length: +0", "Content-Length: 00",
    "Content-Length: -1",
    "Content-Length: 99999999999999999999", "Content-Length: 0\r\nContent-Length: 5",
    "Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding : chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: 3", "Expect: 100-continue", "Connection: close",
    "Connection: keep-alive", "Connection: upgrade, close", "Upgrade: h2c", "Upgrade: websocket, h2c",
    "Upgrade: WebSocket", "Upgrade: websocket\r\nUpgrade: websocket",
    "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    "Origin: http://evil.example", "Origin: null", "Origin: http://127.0.0.1", "Origin: \xff", "Origin:",
    "Host: evil.example", "Host: ", "Host: a:b:c", "Host: [::1", "Host: \xe9", "X-Forwarded-For: 1.2.3.4",
    "X-Forwarded-For: " + "1.1.1.1, " * 300, "Forwarded: for=\"[::1]:80\";proto=https, for=_x", "Cookie: a=b",
    "Sec-WebSocket-Key: short", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Key: \xff",
    "Sec-WebSocket-Version: 8", "Sec-WebSocket-Version: 13, 13",
    "Sec-WebSocket-Version: 99999999999999999999",
    "Sec-WebSocket-Protocol: soap", "Sec-WebSocket-Protocol: tickertape.v1", "Sec-WebSocket-Protocol: ,,",
    "Sec-WebSocket-Protocol: tickertape.v1, bearer.x.y.z, bearer.a.b.c", "Sec-WebSocket-Protocol: bearer.",
    "Sec-WebSocket-Protocol: \xe9", "Sec-WebSocket-Protocol: " + "a, " * 500,
    "Sec-WebSocket-Extensions: permessage-deflate",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8; client_max_window_bits=99",
    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover=1",
    "Sec-WebSocket-Extensions: x; y=\"\\\"\", permessage-deflate", "Sec-WebSocket-Extensions: ;",
    "Authorization: Bearer", "Authorization: Bearer x.y.z", "Authorization: Basic eDp5",
    "Authorization: \xff",
    "Authorization: Bearer a.b.c\r\nAuthorization: Bearer a.b.c", "authorization: bearer  ",
    "X: " + "y" * 9_000,
    " folded: line", "NoColon", ": no name", "X\0Y: z", "X: a\rb", "X: \x01", "X:\r\n y",
)  # fmt: skip


def head(rng: random.Random, tokens: list[str], *, files: bool = False) -> bytes:
    """Return a request.

    Args:
        rng: source of randomness.
        tokens: valid and invalid tokens.
        files: whether it may request files, which takes threads.
    """
    if rng.random() < 0.5:
        lines = upgrade(rng, tokens, rng.choice(_TARGETS))
    else:
        target = rng.choice(_FILES if files and rng.random() < 0.2 else _TARGETS)
        version = rng.choice(("1.1",) * 8 + ("1.0", "2.0", "0.9", "9.9"))
        lines = [f"{rng.choice(_METHODS)} {target} HTTP/{version}", "Host: 127.0.0.1"]
        if rng.random() < 0.4:
            lines.append(f"Authorization: Bearer {rng.choice(tokens)}")
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        lines.insert(rng.randint(1, len(lines)), rng.choice(_ODD))
    if rng.random() < 0.03:
        lines += [f"X-{number}: y" for number in range(rng.choice((100, 300, 2_000)))]
    ends = rng.choice(("\r\n",) * 12 + ("\n", "\r", "\r\r\n"))
    data = (ends.join(lines) + ends * 2).encode("latin-1")
    if rng.random() < 0.15:
        data += rng.choice((b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"\x81\x80\0\0\0\0", b"\r\n" * 50))
    return spoiled(rng, data) if rng.random() < 0.3 else data


def upgrade(rng: random.Random, tokens: list[str], target: str) -> list[str]:
    """Return the lines of a valid handshake, with a token in one place or none."""
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: 127.0.0.1",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    way = rng.randrange(4)
    if way == 0:
        lines.append(f"Authorization: Bearer {rng.choice(tokens)}")
    elif way == 1:
        lines.append(f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{rng.choice(tokens)}")
    elif way == 2:
        lines.append("Sec-WebSocket-Protocol: tickertape.v1")
    if rng.random() < 0.4:
        lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    return lines
