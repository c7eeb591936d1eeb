"""Division of a connection's bytes into request heads, each within its limit.

Invariant: a head is cut out in the same way however it is split into reads.
"""

from typing import Final

from tickertape.relay.transport.http.request_head import RequestLine

MAX_HEAD_BYTES: Final = 32 * 1024
"""Maximum bytes of a request head; uvicorn's parser has no limit."""

_BLANK_LINE: Final = b"\r\n\r\n"


class HeadReader:
    """Reader of the request heads of one connection.

    Attributes:
        size: bytes since the end of the previous head.
        has_valid_line: whether the request line is not malformed, as far as it has arrived.
    """

    __slots__ = ("_line", "_tail", "has_valid_line", "size")

    def __init__(self) -> None:
        self.size = 0
        self.has_valid_line = True
        self._tail = b""  # last bytes of the head so far: a blank line may be split across reads
        self._line = RequestLine()

    def read(self, data: bytes, offset: int) -> tuple[bytes, bool]:
        """Return the bytes up to the end of the head or the data, and whether the limit allows all of them.

        Args:
            data: bytes of one read.
            offset: position after the bytes that were returned before.
        """
        end = self._find_end(data, offset)
        stop = min(end, offset + MAX_HEAD_BYTES - self.size)
        # The parser stores whatever it is fed, so it is never fed more than the limit.
        chunk = data[offset:stop]
        self.size += len(chunk)
        self._tail = b"" if chunk.endswith(_BLANK_LINE) else (self._tail + chunk)[-len(_BLANK_LINE) + 1 :]
        self.has_valid_line = self._line.is_valid_after(chunk)
        return chunk, stop == end

    def is_whole(self, chunk: bytes) -> bool:
        """Return whether the last chunk is a complete head."""
        return self.size == len(chunk) and chunk.endswith(_BLANK_LINE)

    def end(self) -> None:
        """End a head; the next bytes belong to another one."""
        self.size = 0
        self._line = RequestLine()

    def _find_end(self, data: bytes, offset: int) -> int:
        """Return the offset after the next blank line, or the length of the data."""
        if offset == 0 and self._tail:
            # Only the first head of a read can have begun in an earlier one.
            position = (self._tail + data[: len(_BLANK_LINE) - 1]).find(_BLANK_LINE)
            if position >= 0:
                return position + len(_BLANK_LINE) - len(self._tail)
        position = data.find(_BLANK_LINE, offset)
        return len(data) if position < 0 else position + len(_BLANK_LINE)
