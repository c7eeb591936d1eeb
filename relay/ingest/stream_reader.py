"""What the stream holds already, read once from a place to a place."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from nats.aio.client import Client
from tickertape.relay.ingest.last_resort import POLL, Stumbles, find

from tickertape.nats.client import faults
from tickertape.nats.ordered_consumer import SILENCE, Delivery, OrderedConsumer
from tickertape.nats.streams import StreamsError, info

BATCH: Final = 512
"""Most messages handed on at once, so that the event loop gets its turn between."""


CONNECT_AGAIN: Final = 10.0
"""Seconds that a read waits for the connection that a message has ended."""

log = logging.getLogger("tickertape.replay")


async def read(
    nc: Client, stream: str, first: int, last: int | None = None, subjects: tuple[str, ...] = ()
) -> AsyncIterator[list[Delivery]]:
    """Read messages of a stream in order, in batches; what cannot be parsed at all is passed over.

    Args:
        nc: a connected client.
        stream: name in NATS.
        first: sequence to begin at.
        last: sequence to end with; None ends where the stream ends at the start.
        subjects: patterns as in NATS; none means all.

    Raises:
        StreamsError: the server refuses, or stops answering.
    """
    stumbles, place, end = Stumbles(nc), first, last
    while end is None or place <= end:
        seen = faults(nc)
        try:
            async with aclosing(_read(nc, stream, place, end, subjects)) as batches:
                async for batch in batches:
                    place = batch[-1].seq + 1
                    yield batch
            return
        except StreamsError:
            if faults(nc) == seen:
                raise
        there = await _stream_again(nc, stream)
        if stumbles.again(place - 1):
            found = await find(nc, stream, place - 1, int(there["state"]["last_seq"]), subjects)
            if found is None:
                return
            log.error("message %d of stream %s cannot be parsed and is passed over", found.seq, stream)
            place = found.seq + 1
            await _stream_again(nc, stream)


async def _stream_again(nc: Client, stream: str) -> dict[str, Any]:
    """Information on a stream, once the connection has been made again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_AGAIN):
            while not nc.is_connected:  # noqa: ASYNC110 - nats-py tells of it by one callback, which is taken
                await asyncio.sleep(POLL)
    there = await info(nc, stream) if nc.is_connected else None
    if there is None:
        raise StreamsError(f"reading stream {stream} stopped", "it is tried again", passing=True)
    return there


async def _read(
    nc: Client, stream: str, first: int, last: int | None = None, subjects: tuple[str, ...] = ()
) -> AsyncGenerator[list[Delivery], None]:
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
                async with asyncio.timeout(SILENCE):
                    await ready.wait()
            except TimeoutError:
                raise StreamsError(
                    f"reading stream {stream} stopped: nothing came for {SILENCE:g} s",
                    "it is tried again",
                    passing=True,
                ) from None
            ready.clear()
            while batch:
                some, batch[:BATCH] = batch[:BATCH], []
                yield some
                await asyncio.sleep(0)
            if failed:
                # After what came before: else the first of it would be taken for the message that failed.
                raise StreamsError(
                    f"reading stream {stream} stopped: {failed[0]}", "it is tried again", passing=True
                )
    finally:
        await consumer.stop()
