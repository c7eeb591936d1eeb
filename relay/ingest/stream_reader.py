"""Reader of the messages that a stream already holds, from one sequence to another."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Final

from nats.aio.client import Client
from tickertape.relay.ingest.unparsable_messages import (
    POLL_INTERVAL,
    DisconnectTracker,
    fail_on_disconnect,
    find_unparsable,
    start_after,
)

from tickertape.nats.client import protocol_errors
from tickertape.nats.ordered_consumer import HEARTBEAT_TIMEOUT, Delivery, OrderedConsumer
from tickertape.nats.streams import StreamsError

BATCH_SIZE: Final = 512
"""Maximum number of messages in a batch; the event loop runs between two batches."""

RECONNECT_TIMEOUT: Final = 10.0
"""Seconds to wait for the reconnection after a message has ended the connection."""

log = logging.getLogger("tickertape.replay")


async def read(
    nc: Client,
    stream: str,
    first: int,
    last: int | None = None,
    subjects: tuple[str, ...] = (),
    on_skip: Callable[[int], None] = lambda _: None,
    *,
    alone: bool = False,
) -> AsyncGenerator[list[Delivery], None]:
    """Read messages of a stream in order, in batches; skip those that cannot be parsed.

    Args:
        nc: connected client.
        stream: name of the stream in NATS.
        first: first sequence.
        last: last sequence; None for the last one when reading starts.
        subjects: patterns as in NATS; empty for all subjects.
        on_skip: called with the sequence of each skipped message, in order with the batches.
        alone: whether nothing else uses the connection, which is then read no faster than batches are taken.

    Raises:
        StreamsError: the server rejects the request or stops responding.
    """
    disconnects, position = DisconnectTracker(nc), first
    while last is None or position <= last:
        errors = protocol_errors(nc)
        try:
            # Closed here, because a generator that is only dropped would
            # stop its consumer at some later time.
            async with aclosing(_read(nc, stream, position, last, subjects, alone)) as batches:
                async for batch in batches:
                    position = batch[-1].seq + 1
                    yield batch
            return
        except StreamsError:
            # Only a connection that ended because of its bytes is handled here; the caller retries the rest.
            if protocol_errors(nc) == errors:
                raise
        await _wait_for_reconnect(nc, stream)
        # Every batch moves the position, so only a message right before which the
        # connection ended twice is tested.
        if not disconnects.record_restart(position - 1):
            continue
        unparsable = await find_unparsable(nc, stream, start_after(position - 1), subjects)
        if unparsable is not None:
            log.error("skipping message %d of stream %s, which cannot be parsed", unparsable.seq, stream)
            on_skip(unparsable.seq)
            position = unparsable.seq + 1


async def _wait_for_reconnect(nc: Client, stream: str) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(RECONNECT_TIMEOUT):
            while not nc.is_connected:  # noqa: ASYNC110 - nats-py has only one callback for this, in use elsewhere
                await asyncio.sleep(POLL_INTERVAL)
    if not nc.is_connected:
        raise StreamsError(
            f"lost the connection to NATS while reading stream {stream}", "retrying", transient=True
        )


async def _read(
    nc: Client, stream: str, first: int, last: int | None, subjects: tuple[str, ...], alone: bool
) -> AsyncGenerator[list[Delivery], None]:
    received: list[Delivery] = []
    ready = asyncio.Event()
    taken = asyncio.Event()
    done = started = False
    failures: list[str] = []

    def handle(delivery: Delivery) -> Awaitable[object] | None:
        nonlocal done
        if done:
            return None
        # ``last`` itself may be deleted or outside of the filter, so that it never arrives.
        if last is not None and delivery.seq > last:
            done = True
        else:
            received.append(delivery)
            done = delivery.pending == 0 or delivery.seq == last
        ready.set()
        # Not before the server's reply to ``start`` was read, which may follow.
        if not alone or not started or len(received) < BATCH_SIZE:
            return None
        taken.clear()
        return taken.wait()

    def lost(reason: str) -> None:
        failures.append(reason)
        ready.set()

    consumer = OrderedConsumer(nc, stream, handle, lost)
    try:
        await fail_on_disconnect(nc, consumer.start(first, subjects))
        started = True
        # Messages may arrive before the reply, which may then not count them as pending.
        if consumer.pending == 0 and not received:
            return
        while not (done and not received):
            await _wait_until(ready, stream)
            for batch in _take_batches(received):
                taken.set()
                yield batch
                await asyncio.sleep(0)
            if failures:
                raise StreamsError(
                    f"cannot continue reading stream {stream}: {failures[0]}", "retrying", transient=True
                )
    except StreamsError:
        # First yield what was received, so that only the message after it is suspected of the failure.
        for batch in _take_batches(received):
            yield batch
        raise
    finally:
        done = True
        taken.set()
        await consumer.stop()


async def _wait_until(ready: asyncio.Event, stream: str) -> None:
    try:
        # Messages are pending whenever this waits, so heartbeats alone do not count as progress.
        async with asyncio.timeout(HEARTBEAT_TIMEOUT):
            await ready.wait()
    except TimeoutError:
        raise StreamsError(
            f"received nothing from stream {stream} for {HEARTBEAT_TIMEOUT:g} s", "retrying", transient=True
        ) from None
    ready.clear()


def _take_batches(received: list[Delivery]) -> Iterator[list[Delivery]]:
    """Remove and yield messages in batches, including those received meanwhile."""
    while received:
        batch, received[:BATCH_SIZE] = received[:BATCH_SIZE], []
        yield batch
