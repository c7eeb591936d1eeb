"""Splitting of a stream of bytes into lines.

Invariants:

1. The lines do not depend on how the stream is divided into chunks.
2. An incomplete line is kept until its line break arrives, or until ``finish`` is called.
3. Memory is bounded by the limit of one line, however long a line without a line break is.
"""


class LineSplitter:
    """Incremental splitter of a stream of bytes at line breaks.

    Args:
        limit: maximum number of bytes of a line that are kept; its rest is skipped.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._line = bytearray()
        self._has_partial = False

    def __repr__(self) -> str:
        return f"<LineSplitter, {len(self._line)} bytes of an incomplete line>"

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes; return the lines that they complete, without line breaks."""
        *complete, rest = data.split(b"\n")
        lines = []
        for chunk in complete:
            self._append(chunk)
            lines.append(self._take_line())
        self._append(rest)
        self._has_partial = bool(rest) or (self._has_partial and not complete)
        return lines

    def finish(self) -> list[bytes]:
        """Return the incomplete line at the end of the stream, if there is one."""
        has_partial, self._has_partial = self._has_partial, False
        return [self._take_line()] if has_partial else []

    def _append(self, chunk: bytes) -> None:
        self._line += chunk[: self._limit - len(self._line)]

    def _take_line(self) -> bytes:
        line = bytes(self._line).removesuffix(b"\r")
        self._line.clear()
        return line
