"""The client's side of WebSocket, as far as a load generator needs it, without sockets.

Invariants:

1. Input may be cut at any byte; a frame counts once, when its header (counter) or its end (reader) is there.
2. ``FrameCounter`` never looks at the payload of a data frame: that is what makes a thousand clients cheap.
3. Servers do not mask. Frames are compressed only when the handshake offered it, each for itself.
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
_TAIL: Final = b"\x00\x00\xff\xff"  # what RFC 7692 takes off the end of a message

DEFLATE: Final = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"


def upgrade_request(host: str, port: int, path: str, extension: str = "", token: str = "") -> bytes:
    """The request that opens a WebSocket, with at most one extension, and one token."""
    key = base64.b64encode(os.urandom(16)).decode()
    offer = f"Sec-WebSocket-Extensions: {extension}\r\n" if extension else ""
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{offer}{bearer}\r\n"
    ).encode()


def inflated(payload: bytes) -> bytes:
    """A message as it was before permessage-deflate, when no context is kept."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(payload + _TAIL)


def header(opcode: int, size: int, *, masked: bool) -> bytes:
    """Header of a final frame, with the mask key 0 where there is a mask."""
    bit = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x80 | opcode, bit | size))
    elif size < 65_536:
        head = bytes((0x80 | opcode, bit | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x80 | opcode, bit | 127)) + size.to_bytes(8)
    return head + bytes(4) if masked else head


def client_frame(opcode: int, payload: bytes) -> bytes:
    """A frame from client to server; masked with the key 0, which leaves the payload as it is."""
    return header(opcode, len(payload), masked=True) + payload


def _size_at(data: bytes | memoryview, place: int, end: int) -> tuple[int, int]:
    """Length of the header at ``place`` and of its payload; (0, 0) when the header is not all there."""
    if end - place < 2:
        return 0, 0
    size = data[place + 1] & 0x7F
    if size < 126:
        return 2, size
    length = 4 if size == 126 else 10
    if end - place < length:
        return 0, 0
    return length, int.from_bytes(data[place + 2 : place + length])


class FrameCounter:
    """Counts data frames and the bytes of their payloads, skipping over them."""

    __slots__ = ("_held", "_skip", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.payload_bytes = 0
        self._skip = 0
        self._held = b""

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Take what the socket gave; return control frames as (opcode, payload)."""
        source: memoryview | bytes = data
        place = self._skip
        end = len(data)
        if place >= end:
            self._skip = place - end
            return []
        if self._held:
            source = self._held + data
            self._held = b""
            end = len(source)
        control: list[tuple[int, bytes]] = []
        while place < end:
            length, size = _size_at(source, place, end)
            opcode = source[place] & 0x0F
            if not length or (opcode & 0x8 and place + length + size > end):
                self._held = bytes(source[place:end])
                place = end
                break
            if opcode & 0x8:
                control.append((opcode, bytes(source[place + length : place + length + size])))
            else:
                self.frames += 1
                self.payload_bytes += size
            place += length + size
        self._skip = place - end
        return control


class MessageReader:
    """Collects whole messages; fragments are joined, and what is compressed is inflated.

    Attributes:
        frames: data frames.
        compressed: messages of them that were compressed.
        payload_bytes: of data frames, as they came.
    """

    __slots__ = ("_first", "_fragments", "_held", "compressed", "frames", "payload_bytes")

    def __init__(self) -> None:
        self.frames = 0
        self.compressed = 0
        self.payload_bytes = 0
        self._held = b""
        self._fragments = b""
        self._first = 0

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        """Take what the socket gave; return messages and control frames as (opcode, payload)."""
        # What came whole is copied once, out of the caller's buffer; this is where the time would go.
        source = memoryview(self._held + data) if self._held else data
        place = 0
        end = len(source)
        messages: list[tuple[int, bytes]] = []
        while True:
            length, size = _size_at(source, place, end)
            if not length or place + length + size > end:
                break
            first = source[place]
            opcode = first & 0x0F
            payload = bytes(source[place + length : place + length + size])
            place += length + size
            if opcode & 0x8:
                messages.append((opcode, payload))
                continue
            self.frames += 1
            self.payload_bytes += size
            if opcode != _CONTINUATION:
                self._first = first
                self._fragments = b""
            if first & 0x80:
                whole = self._fragments + payload if self._fragments else payload
                if self._first & _COMPRESSED:
                    self.compressed += 1
                    whole = inflated(whole)
                messages.append((self._first & 0x0F, whole))
                self._fragments = b""
            else:
                self._fragments += payload
        self._held = bytes(source[place:])
        return messages
