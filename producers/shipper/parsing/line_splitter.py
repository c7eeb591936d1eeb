"""Splitting of a byte stream into lines with their offsets, and standard input as such a stream.

Invariants:

1. Lines are in order and contiguous: every byte belongs to exactly one line.
2. An incomplete line is kept until its line break arrives, or until ``finish`` is called.
3. Memory is bounded by the limit of one line, however long a line without a line break is.
"""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
"""Bytes that one read of standard input requests."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """Line without its line break.

    Attributes:
        start: offset of the first byte.
        end: offset after the line break.
        data: content, up to the limit.
        truncated: the line was longer than the limit.
    """

    start: int
    end: int
    data: bytes
    truncated: bool


class LineSplitter:
    """Incremental splitter of a byte stream at line breaks.

    Args:
        limit: maximum number of bytes of a line that are kept.
        offset: offset of the first byte.
    """

    def __init__(self, limit: int, offset: int = 0) -> None:
        self.limit = limit
        self.offset = offset
        """Offset after the last byte that was fed."""
        self._start = offset
        self._buffer = bytearray()
        self._truncated = False

    def __repr__(self) -> str:
        return f"<LineSplitter at {self.offset}, {self.offset - self._start} of an incomplete line>"

    @property
    def has_partial(self) -> bool:
        """Whether an incomplete line is buffered."""
        return self.offset > self._start

    def feed(self, data: bytes) -> list[RawLine]:
        """Add bytes; return the lines that they complete."""
        *complete, rest = data.split(b"\n")
        lines = []
        for chunk in complete:
            self._append(chunk)
            self.offset += 1
            lines.append(self._take_line())
        self._append(rest)
        return lines

    def finish(self) -> list[RawLine]:
        """Return the incomplete line at the end of the stream, if there is one."""
        return [self._take_line()] if self.has_partial else []

    def _append(self, chunk: bytes) -> None:
        self.offset += len(chunk)
        capacity = self.limit - len(self._buffer)
        if len(chunk) > capacity:
            self._truncated = True
            chunk = chunk[:capacity]
        self._buffer += chunk

    def _take_line(self) -> RawLine:
        line = RawLine(self._start, self.offset, bytes(self._buffer).removesuffix(b"\r"), self._truncated)
        self._start = self.offset
        self._buffer.clear()
        self._truncated = False
        return line


async def standard_input() -> AsyncGenerator[bytes, None]:
    """Yield chunks of standard input as they arrive, until its end."""
    fd = sys.stdin.fileno()
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)):
        # Files and devices such as /dev/null never block, and the event loop cannot poll them.
        while data := os.read(fd, CHUNK_BYTES):
            yield data
            # These reads never suspend, so the other tasks get their turn here.
            await asyncio.sleep(0)
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    # Duplicated, so that closing the transport leaves standard input open.
    pipe = os.fdopen(os.dup(fd), "rb", buffering=0)
    blocking = os.get_blocking(fd)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(CHUNK_BYTES):
            yield data
    finally:
        transport.close()
        os.set_blocking(fd, blocking)  # a terminal shares this flag with its shell
