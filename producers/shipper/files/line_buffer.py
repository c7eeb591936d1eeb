"""Pieces of a file become lines; the start of a line waits for the rest of it.

Invariant: what is held is bounded by ``MAX_LINE_BYTES``, and a line that was longer says so.
"""

from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES


class LineBuffer:
    """The line whose break was not read yet."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._cut = False

    def __bool__(self) -> bool:
        return bool(self._held)

    def clear(self) -> None:
        """Forget what is held."""
        self._held.clear()
        self._cut = False

    def split(self, data: bytes, begin: int) -> tuple[list[bytes], list[int], frozenset[int]]:
        """Take a piece; return the lines that it completes.

        Args:
            data: not empty.
            begin: its offset in the file.

        Returns:
            the lines, the offset after each, and the indexes of those that were cut at the limit.
        """
        last = data.rfind(b"\n")
        if last < 0:
            self._hold(data)
            return [], [], frozenset()
        lines = data[:last].split(b"\n")
        ends = []
        end = begin
        for line in lines:
            end += len(line) + 1
            ends.append(end)
        cut = frozenset[int]()
        if self._held:
            self._hold(lines[0])
            lines[0] = bytes(self._held)
            cut = self._cuts()
            self.clear()
        if b"\r" in data:
            lines = [line.removesuffix(b"\r") for line in lines]
        self._hold(data[last + 1 :])
        return lines, ends, cut

    def take(self) -> tuple[bytes, frozenset[int]]:
        """Return what is held as a line of its own, and 0 if it was cut at the limit."""
        line, cut = bytes(self._held).removesuffix(b"\r"), self._cuts()
        self.clear()
        return line, cut

    def _cuts(self) -> frozenset[int]:
        return frozenset({0} if self._cut else ())

    def _hold(self, piece: bytes) -> None:
        room = MAX_LINE_BYTES - len(self._held)
        if len(piece) > room:
            self._cut = True
            piece = piece[:room]
        self._held += piece
