"""Bytes in pieces become lines, with the place of each; and standard input as such pieces.

Invariants:

1. Lines come in order, and their places follow on one another: no byte belongs to two lines or to none.
2. A half line waits for its rest; ``finish`` says that there will be none.
3. Memory is bounded by the limit of one line, however long a line without a break is.
"""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

CHUNK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line without its break.

    Attributes:
        start: offset of its first byte.
        end: offset after its break.
        cut: True when it was longer than the limit; ``data`` is its beginning.
    """

    start: int
    end: int
    data: bytes
    truncated: bool


class LineSplitter:
    """Splits a stream of bytes at line breaks.

    Args:
        limit: bytes of a line that are kept.
        offset: place of the first byte.
    """

    def __init__(self, limit: int, offset: int = 0) -> None:
        self.limit = limit
        self.offset = offset
        """Place after the last byte that was fed."""
        self._start = offset
        self._held = bytearray()
        self._cut = False

    def __repr__(self) -> str:
        return f"<LineSplitter at {self.offset}, {self.offset - self._start} of a half line>"

    @property
    def has_partial(self) -> bool:
        """True while a line waits for its rest."""
        return self.offset > self._start

    def feed(self, data: bytes) -> list[RawLine]:
        """Take in bytes; return the lines that are complete."""
        *whole, rest = data.split(b"\n")
        lines = []
        for chunk in whole:
            self._hold(chunk)
            self.offset += 1
            lines.append(self._line())
        self._hold(rest)
        return lines

    def finish(self) -> list[RawLine]:
        """Return the half line at the end, if there is one; nothing more is fed."""
        return [self._line()] if self.has_partial else []

    def _hold(self, chunk: bytes) -> None:
        self.offset += len(chunk)
        capacity = self.limit - len(self._held)
        if len(chunk) > capacity:
            self._cut = True
            chunk = chunk[:capacity]
        self._held += chunk

    def _line(self) -> RawLine:
        line = RawLine(self._start, self.offset, bytes(self._held).removesuffix(b"\r"), self._cut)
        self._start = self.offset
        self._held.clear()
        self._cut = False
        return line


async def standard_input() -> AsyncGenerator[bytes, None]:
    """Yield what comes on standard input, as it comes, until its end."""
    handle = sys.stdin.fileno()
    kind = os.fstat(handle).st_mode
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(handle)):
        # A file, or a device such as /dev/null: the event loop cannot wait for it, and need not.
        while data := os.read(handle, CHUNK_BYTES):
            yield data
            await asyncio.sleep(0)
        return
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=CHUNK_BYTES)
    # A copy of the handle, so that closing the transport leaves standard input open.
    pipe = os.fdopen(os.dup(handle), "rb", buffering=0)
    blocking = os.get_blocking(handle)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        while data := await reader.read(CHUNK_BYTES):
            yield data
    finally:
        transport.close()
        os.set_blocking(handle, blocking)  # the flag belongs to what the terminal shares with its shell
