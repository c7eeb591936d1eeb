"""Connections to the feed of a relay: its WebSocket, or its JSON lines where only HTTP passes.

Both yield the messages of the protocol as dicts.
"""

import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL
from tickertape.errors import TickertapeError
from tickertape.net.http_client import ResponseStream, open_stream

OPEN_TIMEOUT: Final = 10.0
"""Seconds until the head of the response."""

MAX_ERROR_BYTES: Final = 4096
"""Bytes of a rejection that are read."""


class FeedRejected(TickertapeError):
    """Error of a connection that the relay answers with an HTTP status.

    Args:
        status: status.
        text: body of the response.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(status, text)
        self.status = status
        self.text = text


class FeedClosed(TickertapeError):
    """End of a connection.

    Args:
        code: close code; 1006 without one.
        reason: reason for the close.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class Feed(Protocol):
    """Connection to a feed."""

    async def receive(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            FeedClosed: the connection has ended.
        """

    async def renew(self, token: str) -> bool:
        """Send a new token; return False if only another connection can do that."""


def open_feed(url: str, token: str | None, tls: ssl.SSLContext | None) -> AbstractAsyncContextManager[Feed]:
    """Connect to a feed.

    Args:
        url: address with the query; ``http`` and ``https`` select JSON lines.
        token: token; None without one.
        tls: TLS context for ``wss`` and ``https``.

    Raises:
        FeedRejected: the relay rejects the connection.
        OSError, TimeoutError, InvalidHandshake: it cannot be reached.
    """
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    opener = _open_lines if urlsplit(url).scheme in ("http", "https") else _open_websocket
    return opener(url, headers, tls)


@asynccontextmanager
async def _open_websocket(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> AsyncIterator[Feed]:
    try:
        async with connect(
            url,
            additional_headers=headers,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ssl=tls,
            max_size=MAX_MESSAGE_BYTES,
            compression=None,
            ping_interval=None,
        ) as socket:
            yield _WebSocketFeed(socket)
    except InvalidStatus as error:
        body = error.response.body or b""
        raise FeedRejected(error.response.status_code, body.decode(errors="replace")) from None


class _WebSocketFeed:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    async def receive(self) -> dict[str, Any]:
        try:
            return dict(orjson.loads(await self._socket.recv(decode=False)))
        except ConnectionClosed as closed:
            close = closed.rcvd
            if close is None:
                raise FeedClosed(1006, "connection lost") from None
            raise FeedClosed(close.code, close.reason) from None

    async def renew(self, token: str) -> bool:
        with contextlib.suppress(ConnectionClosed):  # the next ``receive`` reports it
            await self._socket.send(orjson.dumps({"type": "auth", "token": token}).decode())
        return True


@asynccontextmanager
async def _open_lines(
    url: str, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> AsyncIterator[Feed]:
    async with open_stream(url, OPEN_TIMEOUT, headers=headers, tls=tls) as response:
        if response.status != 200:
            body = b""
            while len(body) < MAX_ERROR_BYTES and (more := await response.read()):
                body += more
            raise FeedRejected(response.status, body.decode(errors="replace"))
        yield _LineFeed(response)


class _LineFeed:
    def __init__(self, response: ResponseStream) -> None:
        self._response = response
        self._text = b""
        self._lines: list[bytes] = []
        self._events: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        while True:
            while self._lines:
                message = self._add_line(self._lines.pop())
                if message is not None:
                    return message
            try:
                data = await self._response.read()
            except OSError as error:
                raise FeedClosed(1006, f"connection lost: {error}") from None
            if not data:
                raise FeedClosed(1006, "connection lost")
            # A line that the end of the connection has cut is dropped.
            *lines, self._text = (self._text + data).split(b"\n")
            self._lines = lines[::-1]

    async def renew(self, token: str) -> bool:
        return False

    def _add_line(self, line: bytes) -> dict[str, Any] | None:
        """Return the message that a line completes; events wait for the cursor behind them."""
        item = dict(orjson.loads(line))
        if "event" in item:
            self._events.append(item)
            return None
        if item["type"] not in ("cursor", "snapshot"):
            return item
        events, self._events = self._events, []
        kind = "events" if item["type"] == "cursor" else "snapshot"
        return {**item, "type": kind, "events": events}
