"""Standard input as a stream of chunks: pipes, terminals, files and devices.

Invariant: nothing is read ahead. What ``read`` has not returned is still in the pipe, for another process.
"""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator
from typing import Final

from tickertape.process.standard_streams import check_input

CHUNK_BYTES: Final = 64 * 1024
"""Bytes that one read of standard input requests."""


class InputReader:
    """Reader of a file descriptor, without a buffer.

    Args:
        fd: the descriptor; stays open.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        # Files and devices such as /dev/null never block, and the event loop cannot poll them.
        self._blocks = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)
        self._was_blocking = os.get_blocking(fd)
        if self._blocks:
            os.set_blocking(fd, False)

    async def wait(self) -> None:
        """Wait until there is something to read, or the end."""
        if not self._blocks:
            # Such reads never suspend, so the other tasks get their turn here.
            await asyncio.sleep(0)
            return
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)

    def read(self) -> bytes | None:
        """Read up to ``CHUNK_BYTES``; return nothing at the end, and None if there is nothing to read yet.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return os.read(self._fd, CHUNK_BYTES)
        except BlockingIOError:
            return None

    def confirm(self) -> None:
        """Do nothing: a pipe has no acknowledgements."""

    def close(self) -> None:
        """Restore the state of the descriptor, as a terminal shares it with its shell."""
        os.set_blocking(self._fd, self._was_blocking)


def open_standard_input() -> InputReader:
    """Return a reader of standard input.

    Raises:
        InputClosed: standard input was closed when the program started.
    """
    check_input()
    return InputReader(sys.stdin.fileno())


async def standard_input() -> AsyncGenerator[bytes, None]:
    """Yield chunks of standard input as they arrive, until its end.

    Raises:
        InputClosed: standard input was closed when the program started.
        OSError: it cannot be read.
    """
    reader = open_standard_input()
    try:
        while True:
            await reader.wait()
            data = reader.read()
            if data:
                yield data
            elif data is not None:
                return
    finally:
        reader.close()
