"""Splitting of a file's chunks into lines, with the start of an incomplete line kept for the next chunk.

Invariants:

1. At most ``MAX_LINE_BYTES`` are buffered, and a line that exceeds them is reported as truncated.
2. Null bytes around a line are removed, and a hole, which is a long run of null bytes, ends a line: after a
   crash, and after a truncation of a file whose writer does not append, they stand for bytes that were never
   written.
"""

import re
from typing import Final

from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES

HOLE_BYTES: Final = 16
"""Consecutive null bytes that are a hole. Text in UTF-16 or UTF-32 has at most three."""

_NULL: Final = b"\0"
# At the beginning of a line a hole ends none: blank lines can be part of an event.
_HOLE: Final = re.compile(rb"(?<=[^\n\0])\0{%d,}" % HOLE_BYTES)


class LineBuffer:
    """Buffer for the line whose line break has not been read yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._nulls = 0  # null bytes after the buffered ones; they may be the start of a hole
        self._truncated = False

    def __bool__(self) -> bool:
        return bool(self._buffer)

    def clear(self) -> None:
        """Discard the buffered bytes."""
        self._buffer.clear()
        self._nulls = 0
        self._truncated = False

    def split(self, data: bytes, start: int) -> tuple[list[bytes], list[int], frozenset[int]]:
        """Add a chunk and return the lines that it completes.

        Args:
            data: the chunk; not empty.
            start: its offset in the file.

        Returns:
            The lines, the offset after each, and the indexes of those that were truncated at the limit. If a
            hole ends the first line, its offset may be before the chunk.
        """
        if _NULL not in data:
            return self._split(data, start, has_nulls=False)
        ended = self._end_at_hole(data, start)
        # The length stays the same, and with it all offsets.
        found = self._split(_HOLE.sub(_end_line, data), start, has_nulls=True)
        if ended is None:
            return found
        line, end, was_truncated = ended
        indexes = [0] * was_truncated + [index + 1 for index in found[2]]
        return [line, *found[0]], [end, *found[1]], frozenset(indexes)

    def take(self) -> tuple[bytes, frozenset[int]]:
        """Remove and return the buffered bytes as a line, and ``{0}`` if it was truncated at the limit."""
        line, truncated = bytes(self._buffer).removesuffix(b"\r"), self._truncated_indexes()
        self.clear()
        return line, truncated

    def _end_at_hole(self, data: bytes, start: int) -> tuple[bytes, int, bool] | None:
        """End the buffered line at a hole that began after it and is long enough with this chunk."""
        before, first = self._nulls, len(data) - len(data.lstrip(_NULL))
        if not self._buffer or not first or not before < HOLE_BYTES <= before + first:
            return None
        line, was_truncated = bytes(self._buffer).removesuffix(b"\r"), self._truncated
        self.clear()
        return line, start - before + 1, was_truncated

    def _split(
        self, data: bytes, start: int, *, has_nulls: bool
    ) -> tuple[list[bytes], list[int], frozenset[int]]:
        last_break = data.rfind(b"\n")
        if last_break < 0:
            self._append(data)
            return [], [], frozenset()
        lines = data[:last_break].split(b"\n")
        ends = []
        end = start
        for line in lines:
            end += len(line) + 1
            ends.append(end)
        truncated = frozenset[int]()
        # Only the first line can continue one of an earlier chunk.
        if self._buffer:
            self._append(lines[0])
            lines[0] = bytes(self._buffer)
            truncated = self._truncated_indexes()
        self.clear()
        if has_nulls:
            lines = [line.strip(_NULL) for line in lines]
        # Most logs have no carriage returns, and one search costs less than a test for each line.
        if b"\r" in data or (lines and lines[0].endswith(b"\r")):
            lines = [line.removesuffix(b"\r") for line in lines]
        self._append(data[last_break + 1 :])
        return lines, ends, truncated

    def _truncated_indexes(self) -> frozenset[int]:
        return frozenset({0} if self._truncated else ())

    def _append(self, chunk: bytes) -> None:
        text = chunk.rstrip(_NULL)
        after = len(chunk) - len(text)
        if not text:
            self._nulls += after
            return
        if not self._buffer:
            text = text.lstrip(_NULL)
        elif self._nulls:
            text = bytes(self._nulls) + text
        self._nulls = after
        capacity = MAX_LINE_BYTES - len(self._buffer)
        if len(text) > capacity:
            self._truncated = True
            text = text[:capacity]
        self._buffer += text


def _end_line(hole: re.Match[bytes]) -> bytes:
    return b"\n" + hole[0][1:]
