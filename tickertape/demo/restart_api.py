"""HTTP API that restarts the demo's services, as a process supervisor does: ``POST /restart/<gateway>``."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Final

from tickertape.demo.ports import HOST

PORT_NAME: Final = "supervisor"
"""Name of the API's port in the template of ``gateways.yaml``."""

_REQUEST_TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request."""

_MAX_HEAD_BYTES: Final = 16 * 1024
_RESTART: Final = re.compile(rb"POST /restart/(\w+) HTTP/1\.[01]\r\n")


async def start_restart_api(port: int, restart: Callable[[str], bool]) -> asyncio.Server:
    """Start the API server.

    Args:
        port: port on loopback to listen on.
        restart: begins to restart a gateway; returns False if no gateway has this id.
    """

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_REQUEST_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                request = _RESTART.match(head)
                accepted = request is not None and restart(request[1].decode())
                status = "202 Accepted" if accepted else "404 Not Found"
                response = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                writer.write(response.encode())
                await writer.drain()
        writer.close()

    return await asyncio.start_server(respond, HOST, port, limit=_MAX_HEAD_BYTES)
