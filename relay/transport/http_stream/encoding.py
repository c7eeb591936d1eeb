"""Bodies of HTTP streams, each part encoded once and shared by all sessions with the same encoding.

An encoding is a format (Server-Sent Events, or JSON lines), compressed or not, in chunks or not. A part of a
compressed body refers to no earlier part, so the same blocks serve all connections, as the frames of
permessage-deflate do.

Invariants:

1. A message is one line of text: line breaks between the tokens of its JSON become spaces.
2. An ``id`` of Server-Sent Events passes no event or gap that is not sent before it or with it.
"""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing, encode_message
from tickertape.contracts.lines import encode_lines, one_line
from tickertape.contracts.messages import Bye, Gap, Heartbeat, Subscribed
from tickertape.relay.transport.http_stream.event_id import format_event_id

DEFLATE_FROM: Final = 256
"""Minimum bytes of a part for which compression pays off; smaller ones are stored."""

DEFLATE_LEVEL: Final = 6
"""As for WebSockets: the CPU time is spent once for all members of a feed."""

_MAX_STORED: Final = 0xFFFF
"""Maximum bytes of a stored block (RFC 1951, 3.2.4)."""

_GZIP_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK: Final = b"\x03\x00"  # final and empty; the trailer is left out, see ``StreamEncoding.end``
_LAST_CHUNK: Final = b"0\r\n\r\n"


class StreamFormat(ABC):
    """Format of messages as text.

    Attributes:
        media_type: value of ``Content-Type``.
        keepalive: text that clients ignore; empty if there is none.
    """

    media_type: str
    keepalive: bytes

    @abstractmethod
    def format(self, messages: Sequence[Outgoing]) -> bytes:
        """Return the text of messages, in order."""

    @abstractmethod
    def begin(self, retry_ms: int) -> bytes:
        """Return the text that precedes the first message.

        Args:
            retry_ms: milliseconds that a client waits before it reconnects, unless ``bye`` says otherwise.
        """


class ServerSentEvents(StreamFormat):
    """Server-Sent Events (HTML, 9.2); each message is an event without a name, as ``onmessage`` expects."""

    media_type = "text/event-stream"
    keepalive = b":\n\n"

    def format(self, messages: Sequence[Outgoing]) -> bytes:
        """Return the events of messages, in order."""
        events: list[bytes] = []
        for index, message in enumerate(messages):
            event_id = _event_id(message, messages[index + 1 :])
            if event_id is not None:
                events.append(b"id: %b\n" % event_id.encode())
            if isinstance(message, Bye) and message.retry_after_ms is not None:
                events.append(b"retry: %d\n" % message.retry_after_ms)
            events += (b"data: ", one_line(encode_message(message).join()), b"\n\n")
        return b"".join(events)

    def begin(self, retry_ms: int) -> bytes:
        """Return the field that sets the reconnection time of an ``EventSource``."""
        return b"retry: %d\n\n" % retry_ms


class JsonLines(StreamFormat):
    """JSON lines: one for each event, one for each other message, and one for each cursor."""

    media_type = "application/x-ndjson"
    keepalive = b""  # not every reader of lines skips empty ones

    def format(self, messages: Sequence[Outgoing]) -> bytes:
        """Return the lines of messages, in order."""
        return b"".join(encode_lines(message) for message in messages)

    def begin(self, retry_ms: int) -> bytes:
        """Return nothing."""
        return b""


class StreamEncoding:
    """Encoder of messages as parts of a response body.

    Args:
        format: format of the text.
        gzip: whether to compress it.
        chunked: whether each part is a chunk (RFC 9112, 7.1); otherwise the end of the connection ends the
            body, as HTTP/1.0 requires.
    """

    def __init__(self, format: StreamFormat, *, gzip: bool, chunked: bool) -> None:
        self.format = format
        self.gzip = gzip
        self.chunked = chunked

    def __repr__(self) -> str:
        return f"StreamEncoding({self.format.media_type}, gzip={self.gzip}, chunked={self.chunked})"

    def encode(self, messages: Sequence[Outgoing]) -> bytes:
        """Return a part with messages, in order."""
        text = self.format.format(messages)
        events = any(isinstance(message, EncodedEvents | EncodedSnapshot) for message in messages)
        # Without events it is for a single session, where compression does not pay off.
        return self._part(text, shared=events and len(text) >= DEFLATE_FROM)

    def begin(self, retry_ms: int) -> bytes:
        """Return the first part; see ``StreamFormat.begin``."""
        header = self._chunk(_GZIP_HEADER) if self.gzip else b""
        text = self.format.begin(retry_ms)
        return header + self._part(text) if text else header

    def keepalive(self) -> bytes:
        """Return a part that clients ignore; empty if the format has none."""
        return self._part(self.format.keepalive) if self.format.keepalive else b""

    def end(self) -> bytes:
        """Return the last part.

        A compressed body ends with its last block and without the checksum of the whole body, which differs
        by client: computing it would cost each client what sharing saves. Browsers and HTTP libraries accept
        this, as a connection that breaks ends in the same way.
        """
        return (self._chunk(_LAST_BLOCK) if self.gzip else b"") + (_LAST_CHUNK if self.chunked else b"")

    def _part(self, text: bytes, *, shared: bool = False) -> bytes:
        if self.gzip:
            text = _deflate(text) if shared else _store(text)
        return self._chunk(text)

    def _chunk(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data


EVENTS: Final = ServerSentEvents()
LINES: Final = JsonLines()

_ENCODINGS: Final[dict[tuple[StreamFormat, bool, bool], StreamEncoding]] = {
    (format, gzip, chunked): StreamEncoding(format, gzip=gzip, chunked=chunked)
    for format in (EVENTS, LINES)
    for gzip in (False, True)
    for chunked in (False, True)
}


def select_encoding(format: StreamFormat, *, gzip: bool, chunked: bool) -> StreamEncoding:
    """Return the encoding of a format, which all sessions with these properties share."""
    return _ENCODINGS[format, gzip, chunked]


def _event_id(message: Outgoing, following: Sequence[Outgoing]) -> str | None:
    """Return the id of a message: the position that a client which received it resumes from."""
    if isinstance(message, EncodedEvents | Heartbeat):
        return message.cursor
    if isinstance(message, Gap) and message.reason == "reset":
        return format_event_id(message.to, snapshot=True)
    if isinstance(message, Subscribed) and not any(isinstance(other, Gap) for other in following):
        return format_event_id(message.cursor, snapshot=not message.resumed)
    return None


def _deflate(text: bytes) -> bytes:
    # The flush ends the block at a byte, so that any other block can follow.
    compressor = zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _store(text: bytes) -> bytes:
    blocks = [text[start : start + _MAX_STORED] for start in range(0, len(text), _MAX_STORED)]
    return b"".join(
        b"\x00%b%b%b" % (len(block).to_bytes(2, "little"), (len(block) ^ 0xFFFF).to_bytes(2, "little"), block)
        for block in blocks
    )
