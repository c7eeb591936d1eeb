"""Responses of a worker to its supervisor."""

import asyncio
import socket
from typing import Any

import orjson
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.workers.ipc import SupervisorChannel
from tickertape.relay.workers.worker_slot import MAX_PENDING_REQUESTS

from tests.support.patience import PATIENCE


def test_a_failing_request_is_answered() -> None:
    """Every request whose handler raises is answered with 500."""

    async def failing(*_: Any) -> None:
        raise RuntimeError("broken on purpose")

    async def scenario() -> None:
        supervisor_end, worker_end = socket.socketpair()
        channel = await SupervisorChannel.open(worker_end)
        channel.serve(failing, MetricsSnapshot)
        reader, writer = await asyncio.open_unix_connection(sock=supervisor_end)
        async with asyncio.timeout(PATIENCE):
            for number in range(MAX_PENDING_REQUESTS + 1):
                writer.write(orjson.dumps({"id": number, "path": "/metrics"}) + b"\n")
                response = orjson.loads(await reader.readline())
                assert response == {"id": number, "status": 500, "body": ""}
        await channel.close()
        writer.close()

    asyncio.run(scenario())
