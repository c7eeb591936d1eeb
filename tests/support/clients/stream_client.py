"""A client of the HTTP streams: h11 for HTTP, zlib for gzip, and the parsing rules of the two formats.

What it yields are messages as on the WebSocket, so that a test can check them with the same means.
"""

import asyncio
import contextlib
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import h11
import orjson

from tests.support.patience import PATIENCE

_NONE: Final[Mapping[str, str]] = {}


class Rejected(ConnectionError):
    """Response other than 200."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body


@dataclass
class StreamClient:
    """Reader of one stream.

    Attributes:
        headers: headers of the response, by name in lower case.
        last_id: last event id, as a browser would send it.
        retry_ms: last reconnection time that the relay set.
        messages: messages so far.
        comments: number of comments.
    """

    reader: asyncio.StreamReader
    http: h11.Connection
    headers: dict[str, str]
    last_id: str = ""
    retry_ms: int | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    comments: int = 0
    _text: bytes = b""
    _data: list[bytes] = field(default_factory=list)
    _id: str = ""
    _events: list[dict[str, Any]] = field(default_factory=list)
    _inflate: Any = None

    def __post_init__(self) -> None:
        if self.headers.get("content-encoding") == "gzip":
            self._inflate = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._id = self.last_id
        self._sse = self.headers["content-type"] == "text/event-stream"

    async def read(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            EOFError: the body has ended.
            ConnectionError: the connection has ended before that.
        """
        while True:
            while b"\n" in self._text:
                line, _, self._text = self._text.partition(b"\n")
                message = self._sse_line(line) if self._sse else self._json_line(line)
                if message is not None:
                    self.messages.append(message)
                    return message
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                raise ConnectionResetError(str(error)) from None
            if event is h11.NEED_DATA:
                async with asyncio.timeout(PATIENCE):
                    self.http.receive_data(await self.reader.read(65_536))
            elif isinstance(event, h11.Data):
                data = bytes(event.data)
                self._text += data if self._inflate is None else self._inflate.decompress(data)
            elif isinstance(event, h11.EndOfMessage):
                raise EOFError
            else:
                raise ConnectionResetError(str(event))

    async def one(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type."""
        while (message := await self.read())["type"] != kind:
            pass
        return message

    async def ended(self) -> None:
        """Read until the connection ends, with or without the end of its body."""
        with contextlib.suppress(ConnectionError, EOFError):
            while True:
                await self.read()

    async def texts(self, count: int) -> list[str]:
        """Read until a total number of events has arrived; return their messages."""
        while len(texts := [item["event"]["message"] for item in self._items()]) < count:
            await self.read()
        return texts

    def _items(self) -> list[dict[str, Any]]:
        return [item for m in self.messages if m["type"] == "events" for item in m["events"]]

    def _sse_line(self, line: bytes) -> dict[str, Any] | None:
        # HTML, 9.2.6.
        if not line:
            self.last_id = self._id
            data, self._data = self._data, []
            return None if not data else dict(orjson.loads(b"\n".join(data)))
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            self.comments += 1
        elif name == b"data":
            self._data.append(value)
        elif name == b"id":
            self._id = value.decode()
        elif name == b"retry":
            self.retry_ms = int(value)
        else:
            raise AssertionError(f"unexpected field {line!r}")
        return None

    def _json_line(self, line: bytes) -> dict[str, Any] | None:
        item = orjson.loads(line)
        if "event" in item:
            self._events.append(item)
            return None
        events, self._events = self._events, []
        if item["type"] == "cursor":
            assert not any("snapshot" in event for event in events)
            return {**item, "type": "events", "events": events}
        if item["type"] == "snapshot":
            assert all(event["snapshot"] is True for event in events)
            return {**item, "events": events}
        assert not events, "events without a cursor"
        return dict(item)


@asynccontextmanager
async def stream(
    url: str,
    *,
    headers: Mapping[str, str] = _NONE,
    last_id: str = "",
    gzip: bool = False,
    source: str | None = None,
    query: Mapping[str, object] = _NONE,
) -> AsyncIterator[StreamClient]:
    """Request a stream.

    Args:
        url: URL of the stream.
        headers: further headers.
        last_id: id of the last event before, which a browser sends when it resumes.
        gzip: accept a compressed body.
        source: source address.
        query: query parameters.

    Raises:
        Rejected: the response is not a stream.
    """
    parts = urlsplit(url)
    target = f"{parts.path}?{urlencode(query)}" if query else parts.path
    http = h11.Connection(h11.CLIENT)
    sent = {"Host": parts.netloc, **headers}
    sent |= {"Accept-Encoding": "gzip"} if gzip else {}
    sent |= {"Last-Event-ID": last_id} if last_id else {}
    request = http.send(h11.Request(method="GET", target=target, headers=list(sent.items())))
    assert request is not None
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, local_addr=None if source is None else (source, 0)
    )
    try:
        writer.write(request + (http.send(h11.EndOfMessage()) or b""))
        while (event := http.next_event()) is h11.NEED_DATA:
            async with asyncio.timeout(PATIENCE):
                data = await reader.read(65_536)
            if not data:
                raise ConnectionResetError("closed without a response")
            http.receive_data(data)
        assert isinstance(event, h11.Response)
        if event.status_code != 200:
            body = b""
            while not isinstance(part := http.next_event(), h11.EndOfMessage):
                if part is h11.NEED_DATA:
                    http.receive_data(await reader.read(65_536))
                elif isinstance(part, h11.Data):
                    body += bytes(part.data)
                else:
                    break
            raise Rejected(event.status_code, body)
        fields = {name.decode(): value.decode() for name, value in event.headers}
        yield StreamClient(reader, http, fields, last_id)
    finally:
        writer.transport.abort()
