"""Client side of an HTTP stream without I/O, reduced to the needs of a load generator, like ``websocket.py``.

Each batch of the relay is a chunk of the body (RFC 9112, 7.1), so a chunk takes the place of a frame.
Invariant: input may be split at any byte, and ``ChunkCounter`` never reads the data of a chunk.
"""

from typing import Final

from tests.bench.load.decoders import TextDecoder
from tests.bench.load.websocket import TEXT

_MAX_SIZE_LINE: Final = 18
"""Maximum bytes of the line with the size of a chunk: sixteen digits and a line break."""

_LINE_BREAK: Final = 2


def stream_request(host: str, port: int, path: str, token: str = "") -> bytes:
    """Return the request for a stream."""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{bearer}\r\n".encode()


def _chunk_size(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """Return the bytes of the size line at ``offset`` and of the chunk's data; (0, 0) if it is incomplete."""
    line, end, _ = bytes(data[offset : offset + _MAX_SIZE_LINE]).partition(b"\r\n")
    return (len(line) + _LINE_BREAK, int(line, 16)) if end else (0, 0)


class ChunkCounter:
    """Counter of chunks and their bytes that skips the data.

    Attributes:
        frames: number of chunks.
        payload_bytes: bytes of their data.
    """

    __slots__ = ("_buffer", "_skip", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self._skip = 0
        self._buffer = b""

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Process data from the socket; there are no control frames."""
        source: memoryview | bytes = data
        offset = self._skip
        end = len(data)
        if offset < end and self._buffer:
            source = self._buffer + data
            self._buffer = b""
            end = len(source)
        while offset < end:
            length, size = _chunk_size(source, offset)
            if not length:
                self._buffer = bytes(source[offset:end])
                offset = end
                break
            self.frames += 1
            self.payload_bytes += size
            offset += length + size + _LINE_BREAK
        self._skip = offset - end
        return []


class ChunkReader:
    """Reader of complete chunks, as text messages.

    Attributes:
        frames: number of chunks.
        payload_bytes: bytes of their data.
    """

    __slots__ = ("_buffer", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self._buffer = b""

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Process data from the socket and return the chunks that are complete."""
        source = self._buffer + data
        chunks: list[tuple[int, bytes]] = []
        offset = 0
        while offset < len(source):
            length, size = _chunk_size(source, offset)
            if not length or offset + length + size + _LINE_BREAK > len(source):
                break
            self.frames += 1
            self.payload_bytes += size
            chunks.append((TEXT, source[offset + length : offset + length + size]))
            offset += length + size + _LINE_BREAK
        self._buffer = source[offset:]
        return chunks


class StreamDecoder(TextDecoder):
    """Decoder of Server-Sent Events and of JSON lines, whose chunks have complete messages."""

    def sent_times(self, message: bytes) -> list[int]:
        times: list[int] = []
        for line in message.splitlines():
            text = line.removeprefix(b"data: ")
            if text.startswith(b'{"subject":'):
                text = b'{"type":"events","events":[%b]}' % text
            if text.startswith(b"{"):
                times += super().sent_times(text)
        return times
