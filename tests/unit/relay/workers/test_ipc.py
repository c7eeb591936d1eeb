"""Tests of a worker's answers to its supervisor."""

import asyncio
import socket
from typing import Any

import orjson
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.workers.ipc import SupervisorChannel
from tickertape.relay.workers.worker_slot import MAX_PENDING_REQUESTS

from tests.support.patience import PATIENCE


def test_a_page_that_raises_is_answered() -> None:
    """Every question gets its answer, with 500."""

    async def failing(*_: Any) -> None:
        raise RuntimeError("no page")

    async def check() -> None:
        ours, theirs = socket.socketpair()
        channel = await SupervisorChannel.open(theirs)
        channel.serve(failing, MetricsSnapshot)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        async with asyncio.timeout(PATIENCE):
            for number in range(MAX_PENDING_REQUESTS + 1):
                writer.write(orjson.dumps({"id": number, "path": "/metrics"}) + b"\n")
                answer = orjson.loads(await reader.readline())
                assert answer == {"id": number, "status": 500, "body": ""}
        await channel.close()
        writer.close()

    asyncio.run(check())
