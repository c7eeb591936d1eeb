"""Splitting of a file's chunks into lines, with the start of an incomplete line kept for the next chunk.

Invariant: at most ``MAX_LINE_BYTES`` are buffered, and a line that exceeds them is reported as truncated.
"""

from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES


class LineBuffer:
    """Buffer for the line whose line break has not been read yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._truncated = False

    def __bool__(self) -> bool:
        return bool(self._buffer)

    def clear(self) -> None:
        """Discard the buffered bytes."""
        self._buffer.clear()
        self._truncated = False

    def split(self, data: bytes, start: int) -> tuple[list[bytes], list[int], frozenset[int]]:
        """Add a chunk and return the lines that it completes.

        Args:
            data: the chunk; not empty.
            start: its offset in the file.

        Returns:
            The lines, the offset after each, and the indexes of those that were truncated at the limit.
        """
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
        # Most logs have no carriage returns, and one search costs less than a test for each line.
        if b"\r" in data:
            lines = [line.removesuffix(b"\r") for line in lines]
        self._append(data[last_break + 1 :])
        return lines, ends, truncated

    def take(self) -> tuple[bytes, frozenset[int]]:
        """Remove and return the buffered bytes as a line, and ``{0}`` if it was truncated at the limit."""
        line, truncated = bytes(self._buffer).removesuffix(b"\r"), self._truncated_indexes()
        self.clear()
        return line, truncated

    def _truncated_indexes(self) -> frozenset[int]:
        return frozenset({0} if self._truncated else ())

    def _append(self, chunk: bytes) -> None:
        capacity = MAX_LINE_BYTES - len(self._buffer)
        if len(chunk) > capacity:
            self._truncated = True
            chunk = chunk[:capacity]
        self._buffer += chunk
