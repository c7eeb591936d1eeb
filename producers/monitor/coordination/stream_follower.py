"""Stream follower: an ordered consumer that is recreated whenever it is lost.

Invariant: ``handle`` receives every message after the start sequence in order, exactly once, unless the
stream is recreated.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.nats.ordered_consumer import Delivery, OrderedConsumer
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError, stream_info

CHECK_INTERVAL: Final = 0.5
"""Seconds between two checks whether the consumer still receives heartbeats."""


async def last_sequence(client: Client, stream: str) -> int:
    """Return the last sequence of a stream.

    Raises:
        StreamsError: the stream does not exist, or JetStream does not reply.
    """
    existing = await stream_info(client, stream)
    if existing is None:
        raise StreamsError(f"stream {stream} does not exist", "run 'tickertape streams apply'")
    return int(existing["state"]["last_seq"])


async def follow(
    client: Client, stream: str, patterns: tuple[str, ...], after: int, handle: Callable[[Delivery], None]
) -> None:
    """Pass each message of a stream to ``handle``, until cancelled.

    Args:
        client: NATS client; its connection may be lost and recovered meanwhile.
        stream: name of the stream in NATS.
        patterns: subjects to filter by, with the deployment's prefix.
        after: sequence after which to start.
        handle: receives each message; must not block.
    """
    loop = asyncio.get_running_loop()
    while True:
        lost = asyncio.Event()

        def receive(delivery: Delivery) -> None:
            nonlocal after
            after = delivery.seq
            handle(delivery)

        consumer = OrderedConsumer(client, stream, receive, lambda _, lost=lost: lost.set())  # type: ignore[misc]
        try:
            # A recreated stream starts at sequence 1 again, so its end may be before ``after``.
            after = min(after, await last_sequence(client, stream))
            await consumer.start(after + 1, patterns)
            # A connection can look alive while nothing arrives, so missing heartbeats count as a loss, too.
            while not lost.is_set() and not consumer.is_stale(loop.time()):
                try:
                    async with asyncio.timeout(CHECK_INTERVAL):
                        await lost.wait()
                except TimeoutError:
                    continue
        except (StreamsError, NatsError, OSError, TimeoutError):
            pass  # NATS is unreachable, which the owner of the connection reports
        finally:
            with contextlib.suppress(NatsError):
                await consumer.stop()
        await asyncio.sleep(RETRY_DELAY)
