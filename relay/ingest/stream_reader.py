"""What the stream holds already, read once from a place to a place."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Final

from nats.aio.client import Client
from tickertape.relay.ingest.unparsable_messages import (
    POLL,
    DisconnectTracker,
    fail_on_disconnect,
    find_unparsable,
    start_after,
)

from tickertape.nats.client import protocol_errors
from tickertape.nats.ordered_consumer import HEARTBEAT_TIMEOUT, Delivery, OrderedConsumer
from tickertape.nats.streams import StreamsError

BATCH: Final = 512
"""Most messages handed on at once, so that the event loop gets its turn between."""


CONNECT_AGAIN: Final = 10.0
"""Seconds that a read waits for the connection that a message has ended."""

log = logging.getLogger("tickertape.replay")


async def read(
    nc: Client,
    stream: str,
    first: int,
    last: int | None = None,
    subjects: tuple[str, ...] = (),
    passed_over: Callable[[int], None] = lambda _: None,
) -> AsyncIterator[list[Delivery]]:
    """Read messages of a stream in order, in batches; what cannot be parsed at all is passed over.

    Args:
        nc: a connected client.
        stream: name in NATS.
        first: sequence to begin at.
        last: sequence to end with; None ends where the stream ends at the start.
        subjects: patterns as in NATS; none means all.
        passed_over: gets the sequence of each message that is, in its place.

    Raises:
        StreamsError: the server refuses, or stops answering.
    """
    stumbles, place, end = DisconnectTracker(nc), first, last
    while end is None or place <= end:
        seen = protocol_errors(nc)
        try:
            async with aclosing(_read(nc, stream, place, end, subjects)) as batches:
                async for batch in batches:
                    place = batch[-1].seq + 1
                    yield batch
            return
        except StreamsError:
            if protocol_errors(nc) == seen:
                raise
        await _connect_again(nc, stream)
        if stumbles.again(place - 1) and (
            found := await find_unparsable(nc, stream, start_after(place - 1), subjects)
        ):
            log.error("message %d of stream %s cannot be parsed and is passed over", found.seq, stream)
            passed_over(found.seq)
            place = found.seq + 1


async def _connect_again(nc: Client, stream: str) -> None:
    """Wait until the connection has been made again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_AGAIN):
            while not nc.is_connected:  # noqa: ASYNC110 - nats-py tells of it by one callback, which is taken
                await asyncio.sleep(POLL)
    if not nc.is_connected:
        raise StreamsError(f"reading stream {stream} stopped", "it is tried again", transient=True)


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
    try:
        await fail_on_disconnect(nc, consumer.start(first, subjects))
        if consumer.pending == 0 and not batch:
            return
        while not (done and not batch):
            await _until_ready(ready, stream)
            for some in _pieces(batch):
                yield some
                await asyncio.sleep(0)
            if failed:
                raise StreamsError(
                    f"reading stream {stream} stopped: {failed[0]}", "it is tried again", transient=True
                )
    except StreamsError:
        # Not before what came: else the first of it would be taken for the message that failed.
        for some in _pieces(batch):
            yield some
        raise
    finally:
        await consumer.stop()


async def _until_ready(ready: asyncio.Event, stream: str) -> None:
    """Wait until something has come."""
    try:
        async with asyncio.timeout(HEARTBEAT_TIMEOUT):
            await ready.wait()
    except TimeoutError:
        raise StreamsError(
            f"reading stream {stream} stopped: nothing came for {HEARTBEAT_TIMEOUT:g} s",
            "it is tried again",
            transient=True,
        ) from None
    ready.clear()


def _pieces(batch: list[Delivery]) -> Iterator[list[Delivery]]:
    """Take what has come out of a batch, and what comes meanwhile."""
    while batch:
        some, batch[:BATCH] = batch[:BATCH], []
        yield some
