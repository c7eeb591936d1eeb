"""Attacks on a relay and the exact response: bytes over a socket, or messages of a browser.

Nothing here is validated; most input is illegal.
"""

import contextlib
import json
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from tickertape.contracts.messages import SUBPROTOCOL
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.clients import forge
from tests.support.clients.feed_client import PATIENCE

SOURCE: Final = "127.0.0.1"


class Target(Protocol):
    """Relay under attack, in any deployment."""

    @property
    def ws_url(self) -> str:
        """URL of the feed."""

    @property
    def ops_url(self) -> str:
        """URL whose ``/metrics`` has the relay's metrics."""

    def connect(self, source: str) -> socket.socket:
        """Open a connection to the main port from a source address."""


def claims(**more: Any) -> dict[str, Any]:
    """Return the claims of a valid token; claims that are None are omitted."""
    return forge.claims(**{"exp": int(time.time()) + 7_200, **more})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, up to the last byte before the relay closed the connection.

    Attributes:
        headers: header values by name in lower case.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """``code`` of the body; rejections are objects with ``code`` and ``message``."""
        received = json.loads(self.body)
        assert set(received) == {"code", "message"}, received
        return str(received["code"])

    @property
    def message(self) -> str:
        """``message`` of the body."""
        return str(json.loads(self.body)["message"])


def raw(relay: Target, *requests: bytes, source: str = SOURCE) -> bytes:
    """Send bytes, one piece after the other, and read until the relay closes."""
    with relay.connect(source) as link:
        return _sent(link, requests)


def raw_at(port: int, *requests: bytes, source: str = SOURCE) -> bytes:
    """Send bytes to a port of this host, one piece after the other, and read until it closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE, source_address=(source, 0)) as link:
        return _sent(link, requests)


def _sent(link: socket.socket, requests: Sequence[bytes]) -> bytes:
    for request in requests:
        link.sendall(request)
    return read_all(link)


def read_all(link: socket.socket) -> bytes:
    """Read until the relay closes the connection, by any means."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := link.recv(65_536):
            data += more
    return data


def read_until(link: socket.socket, mark: bytes) -> bytes:
    """Read until a pattern appears; return everything that was read."""
    data = b""
    while mark not in data:
        more = link.recv(65_536)
        assert more, f"closed after {data[-200:]!r}"
        data += more
    return data


def until(relay: Target, request: bytes, mark: bytes, *, source: str = SOURCE) -> bytes:
    """Send bytes, and read until a pattern appears; return everything that was read."""
    with relay.connect(source) as link:
        link.sendall(request)
        return read_until(link, mark)


def exchange(relay: Target, request: bytes, *, source: str = SOURCE) -> Answer:
    """Send one request; return its response, without waiting for a proxy to close the connection."""
    with relay.connect(source) as link:
        link.sendall(request)
        data = b""
        with contextlib.suppress(ConnectionError):
            while not _complete(data) and (more := link.recv(65_536)):
                data += more
    return answer_of(data)


def _complete(data: bytes) -> bool:
    """Return whether a response has all of the bytes that its length announces."""
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", head.lower())
    return bool(end) and length is not None and len(body) >= int(length[1])


def answer_of(data: bytes) -> Answer:
    """Parse a response."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
    return Answer(int(status.split(" ")[1]), headers, body)


def get(target: str, *headers: str, host: str = "127.0.0.1", method: str = "GET") -> bytes:
    """Return the bytes of a request after whose response the connection closes."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def upgrade(target: str = "/ws", *headers: str, host: str = "127.0.0.1") -> bytes:
    """Return the bytes of an upgrade request of a program that offers no subprotocol."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1")


def masked(first: int, payload: bytes) -> bytes:
    """Return a client's WebSocket frame with a mask of zeros, which leaves the payload unchanged."""
    size = len(payload)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 65_536:
        head = bytes([first, 0xFE]) + size.to_bytes(2)
    else:
        head = bytes([first, 0xFF]) + size.to_bytes(8)
    return head + b"\0\0\0\0" + payload


def bearer(token: str) -> str:
    """Return the header in which a program sends its token."""
    return f"Authorization: Bearer {token}"


@dataclass(frozen=True, slots=True)
class Inside:
    """Messages that a browser received on a connection, up to its close.

    Attributes:
        messages: all messages, in order.
        close: the close code.
    """

    messages: list[dict[str, Any]]
    close: int

    @property
    def kinds(self) -> list[str]:
        """Types of the messages."""
        return [message["type"] for message in self.messages]

    @property
    def error(self) -> str:
        """Code of the only error, which must be followed by ``bye`` with the close code, and the close."""
        error, bye = self.messages[-2:]
        assert self.kinds.count("error") == 1
        assert (error["type"], bye["type"], bye["code"]) == ("error", "bye", self.close)
        assert bye["reason"] == error["message"]
        return str(error["code"])


async def browser(
    relay: Target,
    *send_message: dict[str, Any] | str,
    query: str = "",
    token: str | None = None,
    origin: str | None = None,
    source: str = SOURCE,
    protocols: Sequence[str] = (SUBPROTOCOL,),
) -> Inside:
    """Connect like a browser, send messages, and read until the connection closes.

    Args:
        relay: relay under attack.
        say: messages to send without waiting; objects are sent as JSON.
        query: query of the URL.
        token: token offered as a subprotocol.
        origin: origin of the page.
        source: source address.
        protocols: subprotocols offered besides the token.
    """
    offered = [*protocols, *([] if token is None else [f"bearer.{token}"])]
    async with connect(
        relay.ws_url + query,
        subprotocols=[Subprotocol(one) for one in offered] or None,
        origin=None if origin is None else Origin(origin),
        local_addr=(source, 0),
        proxy=None,
        ping_interval=None,
        close_timeout=2.0,
    ) as ws:
        messages = []
        try:
            for message in send_message:
                await ws.send(message if isinstance(message, str) else json.dumps(message))
            while True:
                messages.append(json.loads(await ws.recv()))
        except ConnectionClosed as error:
            return Inside(messages, error.rcvd.code if error.rcvd is not None else 1006)


def count(relay: Target, name: str, **labels: str) -> int:
    """Return the value of one of the relay's counters."""
    with urlopen(f"{relay.ops_url}/metrics") as page:
        text = page.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"tickertape_{name}" and sample.labels == labels:
                return int(sample.value)
    raise KeyError(name, labels)
