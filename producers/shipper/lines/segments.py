"""Places at which a text can be divided into files that are read on their own."""

from typing import Final

from tickertape.producers.shipper.encodings.names import AUTO, UTF_16, UTF_16_BE, UTF_16_LE, WIDE
from tickertape.producers.shipper.lines.utf16_lines import BYTE_ORDER_MARKS, find_utf16

HEAD_BYTES: Final = 1024
"""Bytes at the beginning of a file from which ``find_split`` tells whether it is UTF-16."""

MARK_BYTES: Final = 2
"""Bytes of a byte order mark."""

_MARKS: Final = {name: mark for mark, name in BYTE_ORDER_MARKS.items()}


def find_split(chunk: bytes, start: int, head: bytes, encoding: str) -> tuple[int, bytes]:
    """Find the end of the last line in a chunk.

    Args:
        chunk: bytes that are to be divided.
        start: their offset in the file.
        head: the beginning of the file.
        encoding: canonical name of the encoding, or "auto".

    Returns:
        The offset in the chunk after the last line break, and what the next file begins with, so that it is
        recognized as well. Without a line break, the offset is 0.
    """
    wide = _wide(head, encoding)
    if not wide:
        return chunk.rfind(b"\n") + 1, b""
    line_break, end = "\n".encode(wide), len(chunk)
    # Other characters have these two bytes at odd offsets.
    while (end := chunk.rfind(line_break, 0, end)) >= 0 and (start + end) % 2:
        end += 1
    return end + 2 if end >= 0 else 0, _MARKS[wide]


def _wide(head: bytes, encoding: str) -> str:
    if encoding not in (AUTO, UTF_16, *WIDE):
        return ""
    if encoding in WIDE:
        return encoding
    text = head.lstrip(b"\0")
    found = find_utf16(head[(len(head) - len(text)) & ~1 :], final=True) or ""
    return found if encoding == AUTO else UTF_16_BE if found == UTF_16_BE else UTF_16_LE
