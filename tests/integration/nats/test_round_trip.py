"""The measured round trip to NATS is that of a ping and its answer."""

import asyncio
import time
from pathlib import Path

from tickertape.relay.ingest.upstream import RoundTrip

from tests.support.clients.feed_client import run
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.nats import connection


def test_there_is_no_round_trip_without_a_connection(tmp_path: Path) -> None:
    """While the client reconnects, the round trip is absent instead of almost zero."""

    async def body(server: NatsServer) -> None:
        client = await connection.connect(server.url, name="test")
        round_trip = RoundTrip(time.perf_counter)
        try:
            await round_trip.measure_once(client)
            assert round_trip.seconds is not None
            server.kill()
            async with asyncio.timeout(PATIENCE):
                while client.is_connected:
                    await asyncio.sleep(0.01)
            await round_trip.measure_once(client)
            assert round_trip.seconds is None
        finally:
            await connection.close(client)

    with NatsServer(tmp_path) as server:
        run(body(server))
