"""Lines of UTF-16 text: whether a file has it, and the splitting of its chunks into lines of UTF-8.

Invariants:

1. Only the beginning of a file decides whether it is UTF-16: a byte order mark, or ASCII characters in the
   first line of which each has a null byte. Null bytes of a damaged file, which are together, are not that.
2. Offsets are those in the file. A character starts at an even offset; a half one at the end of the file
   waits for its rest, and if it is flushed, the rest is skipped.
"""

import re
from collections.abc import Iterator
from typing import Final

from tickertape.producers.shipper.encodings.names import UTF_16_BE, UTF_16_LE
from tickertape.producers.shipper.lines.line_buffer import HOLE_BYTES, LineBuffer

HEAD_BYTES: Final = 256
"""Bytes at the beginning of a file that show its encoding if no line break comes before."""

BYTE_ORDER_MARKS: Final = {b"\xff\xfe": UTF_16_LE, b"\xfe\xff": UTF_16_BE}
"""Encoding by the mark at the beginning of a file."""

_MIN_ASCII: Final = 2
"""Characters of ASCII in UTF-16: the last byte of a half line before a hole looks like one."""

_MIN_RATIO: Final = 4
"""Minimum ratio of the characters of ASCII to those whose other byte is the null byte."""

_HIGH_SURROGATES: Final = frozenset(bytes((byte,)) for byte in range(0xD8, 0xDC))
_LONE_SURROGATE: Final = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_INVALID: Final = b"\xff"
"""Byte that is not valid in UTF-8; it stands for what is not valid in UTF-16."""


def find_utf16(head: bytes, *, final: bool) -> str | None:
    """Return the encoding of a file that begins with UTF-16; "" for another file, None if more is needed.

    Args:
        head: the beginning, from an even offset before which there are only null bytes.
        final: there is no more.
    """
    mark = head[:2]
    if mark in BYTE_ORDER_MARKS:
        return BYTE_ORDER_MARKS[mark]
    if not final and head in (b"\xff", b"\xfe"):
        return None
    head = head[:HEAD_BYTES]
    end, hole = head.find(b"\n"), head.find(bytes(HOLE_BYTES), 1)
    has_break = end >= 0 and not 0 <= hole < end
    if not has_break:
        if hole < 0 and len(head) < HEAD_BYTES and not final:
            return None
        end = (hole if hole >= 0 else len(head)) & ~1
    # In UTF-16-LE a line break begins at an even offset; in UTF-16-BE its second byte is this one.
    return _by_null_bytes(head[: end & ~1], is_odd=end % 2 == 1, has_break=has_break)


def _by_null_bytes(text: bytes, *, is_odd: bool, has_break: bool) -> str:
    units = [text[index : index + 2] for index in range(0, len(text), 2)]
    if b"\0\0" in units:  # a hole
        units = units[: units.index(b"\0\0")]
    first = sum(unit[0] == 0 for unit in units)
    second = sum(unit[1] == 0 for unit in units)
    count, other, name = (first, second, UTF_16_BE) if first > second else (second, first, UTF_16_LE)
    # Few characters have a null byte as their other one; U+4E00 and U+5F00 are frequent in Chinese.
    if count < max(_MIN_ASCII, len(units) / 3, _MIN_RATIO * other):
        return ""
    return name if not has_break or is_odd == (name == UTF_16_BE) else ""


class Utf16Lines(LineBuffer):
    """Buffer that splits chunks of UTF-16 into lines of UTF-8.

    Args:
        codec: "utf-16-le" or "utf-16-be".
        offset: offset in the file at which the first chunk starts.
    """

    def __init__(self, codec: str, offset: int) -> None:
        super().__init__()
        self._codec = codec
        self._high = slice(1, 2) if codec == UTF_16_LE else slice(0, 1)
        self._rest = b""  # of a character whose other bytes have not been read
        self._skips_byte = offset % 2 == 1

    def __bool__(self) -> bool:
        return super().__bool__() or bool(self._rest.strip(b"\0"))

    def split(self, data: bytes, start: int) -> tuple[list[bytes], list[int], frozenset[int]]:
        """Add a chunk and return the lines that it completes; see ``LineBuffer.split``."""
        if self._skips_byte:
            self._skips_byte = False
            data, start = data[1:], start + 1
        data, start = self._rest + data, start - len(self._rest)
        size = len(data) & ~1
        if data[size - 2 : size][self._high] in _HIGH_SURROGATES:
            size -= 2
        self._rest = data[size:]
        if not size:
            return [], [], frozenset()
        text = data[:size].decode(self._codec, "surrogatepass").encode("utf-8", "surrogatepass")
        if b"\xed" in text:
            text = _LONE_SURROGATE.sub(_INVALID, text)
        lines, ends, truncated = super().split(text, 0)
        if 2 * len(text) == size:
            return lines, [start + 2 * end for end in ends], truncated
        return lines, list(_offsets(text, ends, start)), truncated

    def take(self) -> tuple[bytes, frozenset[int]]:
        """Remove and return what is buffered as a line; see ``LineBuffer.take``."""
        rest, self._rest = self._rest, b""
        line, truncated = super().take()
        self._skips_byte = len(rest) % 2 == 1
        # A null byte can be half of a character as well; without text before it, it belongs to a hole.
        if rest.strip(b"\0") or (rest and line):
            line += _INVALID * ((len(rest) + 1) // 2)
        return line, truncated


def _offsets(text: bytes, ends: list[int], start: int) -> Iterator[int]:
    """Return the offsets in a file of ends in UTF-8 text, which are in order and between two characters.

    Args:
        text: the text of a chunk; ends before it are among null bytes.
        ends: offsets in it.
        start: offset in the file at which it starts.
    """
    done, offset = 0, start
    for end in ends:
        if end <= 0:
            yield start + 2 * end
            continue
        part = text[done:end]
        pairs = sum(part.count(byte) for byte in range(0xF0, 0xF5))
        offset += 2 * (len(part.decode("utf-8", "replace")) + pairs)
        done = end
        yield offset
