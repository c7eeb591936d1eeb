"""Kinds of request heads, and the response of a page and of the feed to each, on either port.

A row lists the differences from an ordinary request; tests send it to every place, whole and in pieces.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tickertape.relay.transport.http.head_reader import MAX_HEAD_BYTES

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Destination:
    """Destination of a head.

    Attributes:
        target: target of an ordinary request.
        feed: whether the request is an upgrade.
    """

    target: str
    feed: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of head.

    Attributes:
        page: status of a page's answer.
        feed: status of the feed's answer; None means the page's.
        more: header lines beside those of an ordinary request.
        target: makes the target from the ordinary one.
        host: lines that name the host.
        method, version: of the request line.
        connection: lines that say what becomes of the connection; None means the ordinary ones.
        upgrade: value of ``Upgrade``; None means the ordinary one.
        websocket: lines of the WebSocket handshake; None means the ordinary ones.
        size: bytes of the head, filled up with a header; 0 leaves it as it is.
        change: made to the whole head.
        headers: that the answer has, for pages and feed.
        feed_headers: that the feed's answer has.
    """

    page: int
    feed: int | None = None
    more: tuple[str, ...] = ()
    target: Callable[[str], str] = lambda target: target
    host: tuple[str, ...] = (f"Host: {HOST}",)
    method: str = "GET"
    version: str = "HTTP/1.1"
    connection: tuple[str, ...] | None = None
    upgrade: str | None = None
    websocket: tuple[str, ...] | None = None
    size: int = 0
    change: Callable[[bytes], bytes] = lambda head: head
    headers: Mapping[str, str] = field(default_factory=dict)
    feed_headers: Mapping[str, str] = field(default_factory=dict)

    def status(self, destination: Destination) -> int:
        """Return the expected status."""
        return self.page if self.feed is None or not destination.feed else self.feed

    def expected(self, destination: Destination) -> dict[str, str]:
        """Return the expected headers of the response."""
        return {**self.headers, **(self.feed_headers if destination.feed else {})}

    def head(self, destination: Destination) -> bytes:
        """Return the bytes of the head."""
        lines = [f"{self.method} {self.target(destination.target)} {self.version}", *self.host]
        if destination.feed:
            lines += self.connection or ("Connection: Upgrade",)
            lines.append(f"Upgrade: {self.upgrade or 'websocket'}")
            lines += HANDSHAKE if self.websocket is None else self.websocket
        else:
            lines += self.connection or ()
            lines += [f"Upgrade: {self.upgrade}"] if self.upgrade else []
            lines += self.websocket or ()
            lines.append("Connection: close")
        lines += self.more
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        if self.size:
            filler = b"X-Filler: " + b"f" * (self.size - len(head) - len("X-Filler: \r\n")) + b"\r\n"
            head = head[:-2] + filler + b"\r\n"
            assert len(head) == self.size
        return self.change(head)


KEY: Final = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE: Final = ("Sec-WebSocket-Version: 13", KEY)
_ALLOWED: Final = {"allow": "GET, HEAD"}
_VERSION: Final = {"sec-websocket-version": "13"}


def at(authority: str, scheme: str = "http") -> Callable[[str], str]:
    """Return an absolute target."""
    return lambda target: f"{scheme}://{authority}{target}"


ROWS: Final[dict[str, Row]] = {
    "ordinary": Row(200, 101),
    "HEAD": Row(200, 405, method="HEAD", feed_headers={"allow": "GET"}),
    "empty lines before it": Row(200, 101, change=lambda head: b"\r\n\r\n" + head),
    # Host.
    "no Host": Row(400, host=(), feed_headers=_VERSION),
    "two Hosts": Row(400, host=("Host: 127.0.0.1", "Host: evil.example"), feed_headers=_VERSION),
    "two equal Hosts": Row(400, host=("Host: 127.0.0.1", "host: 127.0.0.1")),
    "two Hosts, one empty": Row(400, host=("Host:", "Host: 127.0.0.1")),
    "a Host with a port": Row(200, 101, host=("Host: 127.0.0.1:8080",)),
    "a Host in brackets": Row(200, 101, host=("Host: [::1]:8080",)),
    "a Host behind tabs": Row(200, 101, host=("HOST:\t127.0.0.1 \t",)),
    "an empty Host": Row(200, 101, host=("Host:",)),
    # HTTP version.
    "HTTP/1.0 without a Host": Row(200, 426, version="HTTP/1.0", host=(), feed_headers=_VERSION),
    "HTTP/1.0 with two Hosts": Row(400, version="HTTP/1.0", host=("Host: a", "Host: b")),
    "HTTP/2.0": Row(505, version="HTTP/2.0"),
    "HTTP/0.9": Row(400, version="HTTP/0.9"),
    "HTTP/0.9 without headers": Row(400, change=lambda head: b"GET /\r\n"),
    "RTSP": Row(400, version="RTSP/1.0"),
    "two spaces before the target": Row(400, change=lambda head: head.replace(b" ", b"  ", 1)),
    "a space behind the version": Row(400, version="HTTP/1.1 "),
    "HTTP/3.7": Row(400, version="HTTP/3.7"),
    "no version": Row(400, change=lambda head: head.replace(b" HTTP/1.1", b"", 1)),
    "no HTTP": Row(400, change=lambda head: b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n"),
    # Target.
    "an absolute target": Row(200, 101, target=at("127.0.0.1")),
    "an absolute target, https": Row(200, 101, target=at("127.0.0.1", "HTTPS")),
    "an absolute target with the usual port": Row(200, 101, target=at("127.0.0.1:80")),
    "an absolute target in capitals": Row(200, 101, target=at("LocalHost"), host=("Host: localhost:80",)),
    "an absolute target of HTTP/1.0": Row(200, 426, target=at("x"), host=(), version="HTTP/1.0"),
    "an absolute target elsewhere": Row(400, target=at("evil.example"), feed_headers=_VERSION),
    "an absolute target at another port": Row(400, target=at("127.0.0.1:81")),
    "an absolute target with a user": Row(400, target=at("a:b@127.0.0.1")),
    "an absolute target of nowhere": Row(400, target=at("")),
    "an absolute target of another scheme": Row(400, target=at("127.0.0.1", "ftp")),
    "a target without a slash": Row(400, target=lambda target: target[1:]),
    "a star": Row(400, target=lambda target: "*"),
    "a fragment": Row(400, target=lambda target: f"{target}#x"),
    "a target beyond ASCII": Row(400, target=lambda target: f"{target}?a=\xe9"),
    "a target in percents": Row(200, 101, target=lambda target: f"/%{ord(target[1]):x}{target[2:]}"),
    "an unknown path": Row(404, target=lambda target: f"{target}/nowhere"),
    # Connection.
    "Connection in two lines": Row(200, 101, connection=("Connection: Upgrade", "Connection: keep-alive")),
    "Connection in three lines": Row(
        200, 101, connection=("Connection: keep-alive", "connection: x, upgrade", "Connection: y")
    ),
    "Connection in a list": Row(200, 101, connection=("Connection: keep-alive,  UPGRADE ,x",)),
    "Connection without Upgrade": Row(200, 426, connection=("Connection: keep-alive, close",)),
    "Upgrade to several": Row(200, 101, upgrade="h2c, WebSocket"),
    "Upgrade in two lines": Row(200, 101, upgrade="websocket\r\nUpgrade: h2c"),
    "Upgrade to another": Row(
        200, 426, upgrade="h2c", connection=("Connection: Upgrade, close",),
        feed_headers={**_VERSION, "upgrade": "websocket"},
    ),
    # WebSocket handshake.
    "another version of WebSocket": Row(
        200, 426, websocket=("Sec-WebSocket-Version: 8", KEY),
        feed_headers={**_VERSION, "upgrade": "websocket"},
    ),
    "two versions of WebSocket": Row(200, 426, websocket=(*HANDSHAKE, "Sec-WebSocket-Version: 13")),
    "no version of WebSocket": Row(200, 426, websocket=(KEY,), feed_headers=_VERSION),
    "no key": Row(200, 400, websocket=HANDSHAKE[:1], feed_headers=_VERSION),
    "a short key": Row(
        200, 400, websocket=(*HANDSHAKE[:1], "Sec-WebSocket-Key: short"), feed_headers=_VERSION
    ),
    "two keys": Row(200, 400, websocket=(*HANDSHAKE, KEY), feed_headers=_VERSION),
    "another subprotocol": Row(200, 400, more=("Sec-WebSocket-Protocol: soap",), feed_headers=_VERSION),
    "a broken extension": Row(200, 400, more=("Sec-WebSocket-Extensions: ;",), feed_headers=_VERSION),
    # Size.
    "a cookie of 8 183 bytes": Row(200, 101, more=("Cookie: " + "c" * 8_183,)),
    "a cookie of 30 000 bytes": Row(200, 101, more=("Cookie: " + "c" * 30_000,)),
    "1 000 headers": Row(200, 101, more=tuple(f"X-{number}: y" for number in range(1_000))),
    "the largest head": Row(200, 101, size=MAX_HEAD_BYTES),
    "a byte more": Row(431, size=MAX_HEAD_BYTES + 1),
    "far more": Row(431, size=3 * MAX_HEAD_BYTES),
    "a long target": Row(431, target=lambda target: f"{target}?{'q' * 40_000}"),
    "endless empty lines": Row(431, change=lambda head: b"\r\n" * MAX_HEAD_BYTES),
    "a head without an end": Row(431, change=lambda head: head[:-2] + b"X: " + b"x" * 40_000),
    "wrong, and too large": Row(400, host=("Host 127.0.0.1",), size=2 * MAX_HEAD_BYTES),
    # Unsupported features.
    **{
        method: Row(405, method=method, headers=_ALLOWED)
        for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND")
    },
    "CONNECT": Row(405, method="CONNECT", target=lambda target: f"{HOST}:80", headers=_ALLOWED),
    "POST with a body": Row(405, method="POST", more=("Content-Length: 5",), headers=_ALLOWED),
    "an unknown method": Row(400, method="BREW"),
    "a method in small letters": Row(400, method="get"),
    "a length": Row(400, more=("Content-Length: 5",)),
    "a length of zero": Row(200, 101, more=("Content-Length: 0",)),
    "chunks": Row(400, more=("Transfer-Encoding: chunked",)),
    "a folded line": Row(400, more=("X: a\r\n b",)),
    "a bare line feed": Row(400, more=("X: a\nY: b",)),
    "bare line feeds": Row(400, change=lambda head: head.replace(b"\r\n", b"\n")),
    "a bare carriage return": Row(400, more=("X: a\rY: b",)),
    "a NUL": Row(400, more=("X: a\0b",)),
    "no colon": Row(400, more=("NoColon",)),
    "no name": Row(400, more=(": x",)),
    "a space before the colon": Row(400, more=("X : y",)),
}  # fmt: skip
