"""A relay under steady load with clients that connect and disconnect: after the warm-up its memory stays
flat.

``CHAOS=full`` runs it for 30 minutes, ``SOAK_MINUTES`` for another time; otherwise it
is skipped, because a short run says little about memory. ``tests/integration/transport/test_churn.py`` counts
leaked objects instead.
"""

import asyncio
import os
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.support.clients.churn import Churn, publish
from tests.support.clients.feed_client import FeedClient, follow
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tickertape.text import MIB

MINUTES: Final = float(os.environ.get("SOAK_MINUTES") or (30 if os.environ.get("CHAOS") == "full" else 0))
WARM: Final = 300.0
"""Seconds of warm-up, in which the event log has been filled several times."""

CHURN: Final = 50.0
EVENTS: Final = 200.0
STEADY: Final = 20
"""Number of clients that stay connected."""

SAMPLE: Final = 10.0


async def stay(client: FeedClient) -> None:
    while True:
        await client.read()
        client.messages.clear()


async def soak(relay: Relay, nats_url: str, seconds: float) -> tuple[list[tuple[float, int, int]], Churn]:
    """Return samples of time, resident bytes and descriptors."""
    samples: list[tuple[float, int, int]] = []
    began = time.monotonic()
    over = asyncio.Event()
    churn = Churn(relay.ws_url, CHURN)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publish(nats_url, EVENTS, over))
        clients = [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(STEADY)]
        staying = [tasks.create_task(stay(client)) for client in clients]
        coming = tasks.create_task(churn.run(seconds))
        while not coming.done():
            await asyncio.wait({coming}, timeout=SAMPLE)
            descriptors = len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))
            samples.append((time.monotonic() - began, relay.resident_bytes, descriptors))
            print(f"{samples[-1][0]:6.0f} s {samples[-1][1] / MIB:7.2f} MiB {descriptors} fds", flush=True)
        over.set()
        await publishing
        for task in staying:
            task.cancel()
    return samples, churn


@pytest.mark.skipif(MINUTES <= WARM / 60, reason="a soak takes half an hour: CHAOS=full")
def test_memory_stays_flat(nats_server: NatsServer) -> None:
    """After five minutes the relay's memory stays within 5 MiB."""
    with Relay(nats_server.url, "--client-rate", "0", "--log-size", "20000") as relay:
        samples, churn = asyncio.run(soak(relay, nats_server.url, MINUTES * 60))
    warm = [resident for at, resident, _ in samples if at >= WARM]
    print(f"{churn.made} connections; {min(warm) / MIB:.1f} to {max(warm) / MIB:.1f} MiB after {WARM:.0f} s")
    assert churn.failed == []
    assert max(warm) - min(warm) <= 5 * MIB
