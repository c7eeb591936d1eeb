"""Reader of the S2 framing format, in which nats-server compresses snapshots.

A stream consists of chunks of at most 4 MiB, each compressed on its own. A chunk names its decompressed
length, so content that is skipped is not decompressed.

Invariants:

1. Malformed input raises ``ArchiveError``, and never another exception.
2. At most one chunk is in memory, compressed and decompressed.
"""

from collections.abc import Callable
from typing import Final

from tickertape.errors import TickertapeError

MAX_BLOCK: Final = 4 * 1024 * 1024
"""Maximum decompressed bytes of a chunk in the format."""

_MAX_CHUNK: Final = MAX_BLOCK + MAX_BLOCK // 6 + 64
"""Maximum compressed bytes of a chunk; incompressible data grows by less than a sixth."""

_COMPRESSED: Final = 0x00
_UNCOMPRESSED: Final = 0x01
_FIRST_SKIPPABLE: Final = 0x80
_IDENTIFIER: Final = 0xFF
_IDENTIFIERS: Final = (b"S2sTwO", b"sNaPpY")
_CHECKSUM_BYTES: Final = 4


class ArchiveError(TickertapeError):
    """Archive that is damaged or was not made by nats-server; its text says what is wrong."""


class S2Reader:
    """Reader of the decompressed content of an S2 stream.

    Args:
        read: reads up to a number of bytes; returns fewer only at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read_file = read
        self._chunk = b""
        self._block: _Block | None = None  # None if the chunk is not compressed
        self._length = 0  # decompressed bytes of the chunk
        self._position = 0  # in the decompressed chunk

    def read(self, count: int) -> bytes:
        """Read a number of decompressed bytes; return fewer only at the end.

        Raises:
            ArchiveError: the stream is malformed.
        """
        parts: list[bytes] = []
        while count > 0 and self._fill():
            taken = min(count, self._length - self._position)
            parts.append(self._slice(self._position, self._position + taken))
            self._position += taken
            count -= taken
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, count: int) -> int:
        """Skip a number of decompressed bytes; return how many there were.

        Raises:
            ArchiveError: the stream is malformed.
        """
        skipped = 0
        while skipped < count and self._fill():
            taken = min(count - skipped, self._length - self._position)
            self._position += taken
            skipped += taken
        return skipped

    def _slice(self, start: int, end: int) -> bytes:
        return self._chunk[start:end] if self._block is None else self._block.slice(start, end)

    def _fill(self) -> bool:
        """Read the next chunk with content if this one has none left; return False at the end."""
        while self._position == self._length:
            header = self._read_file(4)
            if not header:
                return False
            if len(header) < 4:
                raise ArchiveError("it is truncated")
            kind, size = header[0], int.from_bytes(header[1:], "little")
            if size > _MAX_CHUNK:
                raise ArchiveError("a chunk is too large")
            body = self._read_file(size)
            if len(body) < size:
                raise ArchiveError("it is truncated")
            self._take(kind, body)
        return True

    def _take(self, kind: int, body: bytes) -> None:
        if kind == _IDENTIFIER:
            if body not in _IDENTIFIERS:
                raise ArchiveError("it is not in the S2 format")
        elif kind in (_COMPRESSED, _UNCOMPRESSED):
            if len(body) <= _CHECKSUM_BYTES:
                raise ArchiveError("a chunk is too short")
            self._chunk = body[_CHECKSUM_BYTES:]
            self._block = _Block(self._chunk) if kind == _COMPRESSED else None
            self._length = len(self._chunk) if self._block is None else self._block.length
            if self._length > MAX_BLOCK:
                raise ArchiveError("a chunk is too large")
            self._position = 0
        elif kind < _FIRST_SKIPPABLE:
            raise ArchiveError(f"it has a chunk of the unknown type {kind}")


class _Block:
    """Compressed block that is decompressed as far as it is needed.

    Args:
        data: the block, which begins with its decompressed length.

    Attributes:
        length: decompressed bytes.
    """

    def __init__(self, data: bytes) -> None:
        self.length, self._position = read_varint(data, 0)
        self._data = data
        self._output = bytearray()
        self._offset = 0  # of the last copy, which can be repeated

    def slice(self, start: int, end: int) -> bytes:
        """Return decompressed bytes.

        Raises:
            ArchiveError: the block is malformed.
        """
        try:
            while len(self._output) < end:
                self._step()
        except IndexError:
            raise ArchiveError("a chunk is truncated") from None
        return bytes(self._output[start:end])

    def _step(self) -> None:
        data, position, output = self._data, self._position, self._output
        if data[position] & 3 == 0:
            position, size = _literal_size(data, position)
            piece = data[position : position + size]
            if len(piece) < size:
                raise ArchiveError("a chunk is truncated")
            output += piece
            self._position = position + size
        else:
            self._position, size, self._offset = _copy(data, position, self._offset)
            if size > self.length:
                raise ArchiveError("a chunk is longer than it says")
            _append_copy(output, self._offset, size)
        if len(output) > self.length:
            raise ArchiveError("a chunk is longer than it says")


def decompress_block(data: bytes) -> bytes:
    """Decompress an S2 block.

    Raises:
        ArchiveError: the block is malformed.
    """
    block = _Block(data)
    return block.slice(0, block.length)


def _literal_size(block: bytes, position: int) -> tuple[int, int]:
    """Return the position of a literal, and its size."""
    size = block[position] >> 2
    position += 1
    if size >= 60:
        extra = size - 59
        size = int.from_bytes(block[position : position + extra], "little")
        position += extra
    return position, size + 1


def _copy(block: bytes, position: int, offset: int) -> tuple[int, int, int]:
    """Return the position after a copy operation, its size, and its offset; 0 repeats the last offset."""
    tag = block[position]
    kind = tag & 3
    if kind == 2:
        return position + 3, 1 + (tag >> 2), block[position + 1] | block[position + 2] << 8
    if kind == 3:
        block[position + 4]  # raises IndexError at the end of the block
        return position + 5, 1 + (tag >> 2), int.from_bytes(block[position + 1 : position + 5], "little")
    found = (tag & 0xE0) << 3 | block[position + 1]
    size = tag >> 2 & 7
    position += 2
    if found:
        return position, size + 4, found
    # Only S2 has these: an offset of 0 repeats the last one, with up to three bytes of size.
    if size < 5:
        return position, size + 4, offset
    extra = size - 4
    base = (4, 1 << 8, 1 << 16)[extra - 1] + 4
    block[position + extra - 1]
    return position + extra, int.from_bytes(block[position : position + extra], "little") + base, offset


def _append_copy(output: bytearray, offset: int, size: int) -> None:
    if not 0 < offset <= len(output):
        raise ArchiveError("a chunk refers to data before its beginning")
    start = len(output) - offset
    if offset >= size:
        output += output[start : start + size]
        return
    pattern = bytes(output[start:])
    output += (pattern * (size // offset + 1))[:size]


def read_varint(data: bytes, position: int) -> tuple[int, int]:
    """Return an unsigned integer of variable length, as Go encodes it, and the position after it.

    Raises:
        ArchiveError: it is truncated, or longer than 64 bits.
    """
    value = shift = 0
    while shift < 64:
        if position >= len(data):
            raise ArchiveError("it is truncated")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ArchiveError("it has an invalid number")


__all__ = ["MAX_BLOCK", "ArchiveError", "S2Reader", "decompress_block", "read_varint"]
