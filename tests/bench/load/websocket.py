"""Client side of WebSocket without I/O, reduced to the needs of a load generator.

Invariants:

1. Input may be split at any byte. A frame counts once: the counter counts its header, the reader its end.
2. ``FrameCounter`` never reads the payload of a data frame, which is why a thousand clients are cheap.
3. Servers do not mask. Messages are compressed only if the handshake offered it, without context takeover.
"""

import base64
import os
import zlib
from typing import Final

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_CONTINUATION: Final = 0x0
_COMPRESSED: Final = 0x40  # RSV1
_TAIL: Final = b"\x00\x00\xff\xff"  # RFC 7692 removes it from the end of a message

DEFLATE: Final = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"


def upgrade_request(host: str, port: int, path: str, extension: str = "", token: str = "") -> bytes:
    """Return the request that opens a WebSocket, with at most one extension and one token."""
    key = base64.b64encode(os.urandom(16)).decode()
    offer = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}{bearer}\r\n"
    ).encode()


def inflate(payload: bytes) -> bytes:
    """Decompress a permessage-deflate message sent without context takeover."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _TAIL)


def header(opcode: int, size: int, *, masked: bool) -> bytes:
    """Return the header of a final frame; a masked frame uses the mask key 0."""
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8)
    return head + bytes(4) if masked else head


def client_frame(opcode: int, payload: bytes) -> bytes:
    """Return a frame from client to server, masked with the key 0, which leaves the payload unchanged."""
    return header(opcode, len(payload), masked=True) + payload


def _frame_size(data: bytes | memoryview, offset: int, end: int) -> tuple[int, int]:
    """Return the sizes of the header at ``offset`` and of its payload; (0, 0) if it is incomplete."""
    if end - offset < 2:
        return 0, 0
    size = data[offset + 1] & 0x7F
    if size < 126:
        return 2, size
    length = 4 if size == 126 else 10
    if end - offset < length:
        return 0, 0
    return length, int.from_bytes(data[offset + 2 : offset + length])


class FrameCounter:
    """Counter of data frames and their payload bytes that skips the payloads."""

    __slots__ = ("_buffer", "_skip", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self._skip = 0
        self._buffer = b""

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Process data from the socket and return the control frames as (opcode, payload)."""
        source: memoryview | bytes = data
        offset = self._skip
        end = len(data)
        if offset >= end:
            self._skip = offset - end
            return []
        if self._buffer:
            source = self._buffer + data
            self._buffer = b""
            end = len(source)
        control: list[tuple[int, bytes]] = []
        while offset < end:
            length, size = _frame_size(source, offset, end)
            opcode = source[offset] & 0x0F
            if not length or (opcode & 0x8 and offset + length + size > end):
                self._buffer = bytes(source[offset:end])
                offset = end
                break
            if opcode & 0x8:
                control.append((opcode, bytes(source[offset + length : offset + length + size])))
            else:
                self.frames += 1
                self.payload_bytes += size
            offset += length + size
        self._skip = offset - end
        return control


class MessageReader:
    """Reader of complete messages; joins fragments and decompresses.

    Attributes:
        frames: number of data frames.
        compressed: number of messages that were compressed.
        payload_bytes: bytes of the data frames' payloads, as received.
    """

    __slots__ = ("_buffer", "_first", "_fragments", "compressed", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.compressed = 0
        self.payload_bytes = 0
        self._buffer = b""
        self._fragments = b""
        self._first = 0

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Process data from the socket and return messages and control frames as (opcode, payload)."""
        # A complete payload is copied only once, out of the caller's buffer; copying would dominate the cost.
        source = memoryview(self._buffer + data) if self._buffer else data
        offset = 0
        end = len(source)
        messages: list[tuple[int, bytes]] = []
        while True:
            length, size = _frame_size(source, offset, end)
            if not length or offset + length + size > end:
                break
            first = source[offset]
            opcode = first & 0x0F
            payload = bytes(source[offset + length : offset + length + size])
            offset += length + size
            if opcode & 0x8:
                messages.append((opcode, payload))
                continue
            self.frames += 1
            self.payload_bytes += size
            if opcode != _CONTINUATION:
                self._first = first
                self._fragments = b""
            if first & 0x80:
                message = self._fragments + payload if self._fragments else payload
                if self._first & _COMPRESSED:
                    self.compressed += 1
                    message = inflate(message)
                messages.append((self._first & 0x0F, message))
                self._fragments = b""
            else:
                self._fragments += payload
        self._buffer = bytes(source[offset:])
        return messages
