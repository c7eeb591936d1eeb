"""Gateways that fail and return, in a child process: ports that are closed and opened again.

Each line to the parent has the port that was closed, and when, by the monotonic clock.
"""

import asyncio
import random
import sys
import time
from typing import Any, Final

import orjson

from tests.bench.load.children import report

UP_SECONDS: Final = (4.0, 8.0)
"""Shortest and longest time for which a gateway is up: enough for a monitor to notice."""

DOWN_SECONDS: Final = (4.0, 6.0)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def toggle(port: int) -> None:
    """Close and open a port again and again."""
    while True:
        server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1024)
        await asyncio.sleep(random.uniform(*UP_SECONDS))
        server.close()
        report(port=port, closed=time.monotonic())
        await asyncio.sleep(random.uniform(*DOWN_SECONDS))


async def run(spec: dict[str, Any]) -> None:
    """Close and open the failing ports, and serve the steady one."""
    await asyncio.start_server(_serve, "127.0.0.1", spec["steady"], backlog=1024)
    await asyncio.gather(*(toggle(port) for port in spec["failing"]))


if __name__ == "__main__":
    asyncio.run(run(orjson.loads(sys.argv[1])))
