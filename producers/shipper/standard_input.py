"""Standard input as a stream of chunks: pipes, terminals, files and devices."""

import asyncio
import os
import stat
import sys
from collections.abc import AsyncGenerator
from typing import Final

CHUNK_BYTES: Final = 64 * 1024
"""Bytes that one read of standard input requests."""


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
