"""Warm-up: reads the tail of the stream into memory while new events are already delivered."""

import asyncio
import logging
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest.range_reader import RangeReader

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError, stream_info
from tickertape.text import count

log = logging.getLogger("tickertape.ingest")

RETRY_DELAY: Final = 2.0
"""Seconds before the next attempt; until it succeeds, clients are served from the stream."""


async def warm_up(nc: Client, hub: Hub, source: RangeReader, names: Names, head: int) -> None:
    """Fill the event log with as many events up to a sequence as it can hold.

    Stop early if the hub restarts, or if its log evicts events meanwhile.

    Args:
        nc: connected client.
        hub: hub that started at ``head``.
        source: reader of EVENTS.
        names: names of subjects.
        head: last sequence to read.
    """
    if head == 0:
        return
    generation, logged = hub.generation, False
    # The log accepts older events only right before its floor. A floor above ``head`` means that live events
    # have already filled the log.
    while generation == hub.generation and hub.log.floor == head:
        events: list[tuple[int, str, Event, int]] = []

        # The default argument binds the list of this attempt; a closure would see that of the last one.
        def take(delivery: Delivery, events: list[tuple[int, str, Event, int]] = events) -> None:
            subject = names.strip_prefix(delivery.subject)
            event = decode(subject, delivery.data)
            if isinstance(event, Event):
                events.append((delivery.seq, subject, event, delivery.stored_ns))

        try:
            info = await stream_info(nc, source.stream)
            if info is None:
                return  # the stream was deleted; the ingest handles that
            first = max(1, head - hub.settings.log_events + 1, int(info["state"]["first_seq"]))
            missing = await source.read(nc, first, head, take)
        except (StreamsError, NatsError, OSError) as error:
            if not logged:
                log.warning("cannot load the stream's tail into memory, retrying: %s", error)
            logged = True
            await asyncio.sleep(RETRY_DELAY)
            continue
        if generation == hub.generation and hub.log.floor == head:
            kept = hub.warm(events, first - 1, missing)
            log.info("loaded %s from the stream's tail into memory", count(kept, "event"))
        return


__all__ = ["warm_up"]
