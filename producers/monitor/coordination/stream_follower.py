"""Hears what others say: one ordered consumer on a stream, made again whenever it is lost.

Invariant: ``handle`` gets every message after the place where it began, in order, each once, for as long
as the stream is the same.
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

CHECK_EVERY: Final = 0.5


async def end_of(client: Client, stream: str) -> int:
    """Last sequence of a stream.

    Raises:
        StreamsError: it is not there, or JetStream does not answer.
    """
    there = await stream_info(client, stream)
    if there is None:
        raise StreamsError(f"stream {stream} is absent", "'tickertape streams apply'")
    return int(there["state"]["last_seq"])


async def follow(
    client: Client, stream: str, patterns: tuple[str, ...], after: int, handle: Callable[[Delivery], None]
) -> None:
    """Hand on what comes, until cancelled.

    Args:
        client: connected; it may go away and come back.
        stream: name in NATS.
        patterns: as in NATS.
        after: sequence after which to begin.
        handle: gets each message; must not block.
    """
    loop = asyncio.get_running_loop()
    while True:
        lost = asyncio.Event()

        def take(delivery: Delivery) -> None:
            nonlocal after
            after = delivery.seq
            handle(delivery)

        consumer = OrderedConsumer(client, stream, take, lambda _, lost=lost: lost.set())  # type: ignore[misc]
        try:
            # A stream that was made again begins anew, and so do we.
            after = min(after, await end_of(client, stream))
            await consumer.start(after + 1, patterns)
            while not lost.is_set() and not consumer.is_stale(loop.time()):
                try:
                    async with asyncio.timeout(CHECK_EVERY):
                        await lost.wait()
                except TimeoutError:
                    continue
        except (StreamsError, NatsError, OSError, TimeoutError):
            pass  # NATS is away; whoever owns the connection says so
        finally:
            with contextlib.suppress(NatsError):
                await consumer.stop()
        await asyncio.sleep(RETRY_DELAY)
