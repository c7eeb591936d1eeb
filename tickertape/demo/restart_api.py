"""Who restarts the demo's services: ``POST /restart/<gateway>``, as a supervisor's HTTP API would take it."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Final

from tickertape.demo.ports import HOST

PORT_NAME: Final = "supervisor"
_PATIENCE: Final = 5.0
_MAX_HEAD_BYTES: Final = 16 * 1024
_RESTART: Final = re.compile(rb"POST /restart/(\w+) HTTP/1\.[01]\r\n")


async def supervise(port: int, restart: Callable[[str], bool]) -> asyncio.Server:
    """Listen.

    Args:
        port: on loopback.
        restart: begins to restart a gateway; False when there is none of that name.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_PATIENCE):
                head = await reader.readuntil(b"\r\n\r\n")
            wanted = _RESTART.match(head)
            done = wanted is not None and restart(wanted[1].decode())
            status = "202 Accepted" if done else "404 Not Found"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, HOST, port, limit=_MAX_HEAD_BYTES)
