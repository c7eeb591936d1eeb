"""What an attacker does to a relay, and exactly what it gets: bytes over a socket, or a browser's messages.

Nothing here is checked for being legal; most of it is not.
"""

import contextlib
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families
from tickertape.contracts.messages import SUBPROTOCOL
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from tests.support.clients import forge
from tests.support.clients.feed_client import PATIENCE
from tests.support.programs.relay_process import Relay

SOURCE: Final = "127.0.0.1"


def claims(**more: Any) -> dict[str, Any]:
    """Claims of a token that is good now; what is None is left out."""
    return forge.claims(**{"exp": int(time.time()) + 7_200, **more})


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, to the last byte before the relay closed the connection.

    Attributes:
        headers: by name in lower case.
    """

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """What the body calls it; bodies of refusals are an object with ``code`` and ``message``."""
        told = json.loads(self.body)
        assert set(told) == {"code", "message"}, told
        return str(told["code"])

    @property
    def message(self) -> str:
        """What the body says about it."""
        return str(json.loads(self.body)["message"])


def raw(relay: Relay, *requests: bytes, source: str = SOURCE) -> bytes:
    """Send bytes, one piece after the other, and read until the relay closes."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE, source_address=(source, 0)) as link:
        for request in requests:
            link.sendall(request)
        return read_all(link)


def read_all(link: socket.socket) -> bytes:
    """Read until the relay closes, in whatever way."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while more := link.recv(65_536):
            data += more
    return data


def until(relay: Relay, request: bytes, mark: bytes, *, source: str = SOURCE) -> bytes:
    """Send bytes, and read until something came; all that came."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE, source_address=(source, 0)) as link:
        link.sendall(request)
        data = b""
        while mark not in data:
            more = link.recv(65_536)
            assert more, f"closed after {data[-200:]!r}"
            data += more
    return data


def exchange(relay: Relay, request: bytes, *, source: str = SOURCE) -> Answer:
    """Send one request; the one answer to it."""
    return answer_of(raw(relay, request, source=source))


def answer_of(data: bytes) -> Answer:
    """Read an answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (one.split(": ", 1) for one in lines)}
    return Answer(int(status.split(" ")[1]), headers, body)


def get(target: str, *headers: str, host: str = "127.0.0.1", method: str = "GET") -> bytes:
    """Bytes of a request after whose answer the connection ends."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def upgrade(target: str = "/ws", *headers: str, host: str = "127.0.0.1") -> bytes:
    """Bytes of an upgrade request, as a program sends it that offers no subprotocol."""
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


def bearer(token: str) -> str:
    """The header that a program shows its token in."""
    return f"Authorization: Bearer {token}"


@dataclass(frozen=True, slots=True)
class Inside:
    """What a browser was told on a connection, to its end.

    Attributes:
        messages: all of them, in order.
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
        """Code of the one error; it, ``bye`` with the close code, and the close are the end."""
        error, bye = self.messages[-2:]
        assert self.kinds.count("error") == 1
        assert (error["type"], bye["type"], bye["code"]) == ("error", "bye", self.close)
        assert bye["reason"] == error["message"]
        return str(error["code"])


async def browser(
    relay: Relay,
    *say: dict[str, Any] | str,
    query: str = "",
    token: str | None = None,
    origin: str | None = None,
    source: str = SOURCE,
    protocols: Sequence[str] = (SUBPROTOCOL,),
) -> Inside:
    """Come as a browser, say something, and listen to the end.

    Args:
        relay: that is attacked.
        say: messages to send at once; objects as JSON.
        query: of the address.
        token: offered as a subprotocol.
        origin: of the page.
        source: address to come from.
        protocols: that are offered beside the token.
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
            for message in say:
                await ws.send(message if isinstance(message, str) else json.dumps(message))
            while True:
                messages.append(json.loads(await ws.recv()))
        except ConnectionClosed as error:
            return Inside(messages, error.rcvd.code if error.rcvd is not None else 1006)


def count(relay: Relay, name: str, **labels: str) -> int:
    """Value of one of the relay's counters."""
    with urlopen(f"{relay.ops_url}/metrics") as page:
        text = page.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"tickertape_{name}" and sample.labels == labels:
                return int(sample.value)
    raise KeyError(name, labels)
