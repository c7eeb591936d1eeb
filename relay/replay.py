"""What the stream holds already, read once from a place to a place."""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from nats.aio.client import Client

from contracts.consumer import SILENCE, Delivery, OrderedConsumer
from contracts.streams import StreamsError

BATCH: Final = 512
"""Most messages handed on at once, so that the event loop gets its turn between."""


async def read(
    nc: Client, stream: str, first: int, last: int | None = None, subjects: tuple[str, ...] = ()
) -> AsyncIterator[list[Delivery]]:
    """Read messages of a stream in order, in batches.

    Args:
        nc: a connected client.
        stream: name in NATS.
        first: sequence to begin at.
        last: sequence to end with; None ends where the stream ends at the start.
        subjects: patterns as in NATS; none means all.

    Raises:
        StreamsError: the server refuses, or stops answering.
    """
    batch: list[Delivery] = []
    ready = asyncio.Event()
    done = False
    failed: list[str] = []

    def handle(delivery: Delivery) -> None:
        nonlocal done
        if done:
            return
        if last is not None and delivery.seq > last:
            done = True
        else:
            batch.append(delivery)
            done = delivery.pending == 0 or delivery.seq == last
        ready.set()

    def lost(reason: str) -> None:
        failed.append(reason)
        ready.set()

    consumer = OrderedConsumer(nc, stream, handle, lost)
    await consumer.start(first, subjects)
    try:
        if consumer.pending == 0 and not batch:
            return
        while not (done and not batch):
            try:
                await asyncio.wait_for(ready.wait(), SILENCE)
            except TimeoutError:
                raise StreamsError(
                    f"reading stream {stream} stopped: nothing came for {SILENCE:g} s",
                    "it is tried again",
                    passing=True,
                ) from None
            ready.clear()
            if failed:
                raise StreamsError(
                    f"reading stream {stream} stopped: {failed[0]}", "it is tried again", passing=True
                )
            while batch:
                some, batch[:BATCH] = batch[:BATCH], []
                yield some
                await asyncio.sleep(0)
    finally:
        await consumer.stop()
