"""Stream follower: an ordered consumer that is recreated whenever it is lost.

Invariant: ``handle`` receives every message after the start in order, exactly once; of a stream that was
created again, every message.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.producers.monitor.failures import describe_exception

from tickertape.nats.errors import DENIAL_REPORT_INTERVAL, PermissionDenied
from tickertape.nats.layout.epochs import epoch_of
from tickertape.nats.ordered_consumer import Delivery, OrderedConsumer
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError, stream_info
from tickertape.rate_limit import RepeatFilter

CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks whether the consumer still receives heartbeats."""


class Position(NamedTuple):
    """Position in a stream.

    Attributes:
        sequence: sequence of the last message before it; 0 at the start of the stream.
        epoch: identifies the creation of the stream; None if that is not known.
    """

    sequence: int = 0
    epoch: str | None = None


async def end_of(client: Client, stream: str) -> Position:
    """Return the position at the end of a stream.

    Raises:
        StreamsError: the stream does not exist, or JetStream does not reply.
    """
    existing = await stream_info(client, stream)
    if existing is None:
        raise StreamsError(f"stream {stream} does not exist", "run 'tickertape streams apply'")
    return Position(int(existing["state"]["last_seq"]), epoch_of(existing["created"]))


async def follow(
    client: Client,
    stream: str,
    patterns: tuple[str, ...],
    start: Position,
    handle: Callable[[Delivery], None],
    report: Callable[[str], None],
    on_recreated: Callable[[], None] = lambda: None,
) -> None:
    """Pass each message of a stream to ``handle``, until cancelled.

    Args:
        client: NATS client; its connection may be lost and recovered meanwhile.
        stream: name of the stream in NATS.
        patterns: subjects to filter by, with the deployment's prefix.
        start: position at which to start.
        handle: receives each message; must not block.
        report: receives a line for the operator when NATS denies a permission.
        on_recreated: called before the messages of a stream that was created again.
    """
    after, epoch = start
    denials = RepeatFilter(DENIAL_REPORT_INTERVAL)
    loop = asyncio.get_running_loop()
    while True:
        lost = asyncio.Event()

        def receive(delivery: Delivery) -> None:
            nonlocal after
            after = delivery.seq
            try:
                handle(delivery)
            except Exception as error:  # one message must not end the subscription to all others
                report(f"message on {delivery.subject} ignored: {describe_exception(error)}")

        consumer = OrderedConsumer(client, stream, receive, lambda _, lost=lost: lost.set())  # type: ignore[misc]
        try:
            end = await end_of(client, stream)
            # All messages of a stream that was created again are new, also if it is longer than it was.
            if end.sequence < after or epoch not in (None, end.epoch):
                after = 0
                on_recreated()
            epoch = end.epoch
            await consumer.start(after + 1, patterns)
            # A connection can look alive while nothing arrives, so missing heartbeats count as a loss, too.
            while not lost.is_set() and not consumer.is_stale(loop.time()):
                try:
                    async with asyncio.timeout(CHECK_INTERVAL):
                        await lost.wait()
                except TimeoutError:
                    continue
        except PermissionDenied as error:
            if denials.allow(str(error), loop.time()):
                report(f"stream {stream} cannot be followed, retrying: {error}")
        except (StreamsError, NatsError, OSError, TimeoutError):
            pass  # NATS is unreachable, which the owner of the connection reports
        finally:
            with contextlib.suppress(NatsError):
                await consumer.stop()
        await asyncio.sleep(RETRY_DELAY)
