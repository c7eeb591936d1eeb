"""The tail of the stream, read into memory while events flow already."""

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

log = logging.getLogger("tickertape.ingest")

AGAIN: Final = 2.0
"""Seconds before the tail is read again; until then clients are served from the stream."""


async def warm(nc: Client, hub: Hub, source: RangeReader, names: Names, head: int) -> None:
    """Fill the log with what lies before a place, as much as it holds; end when that is done, or of no use.

    Args:
        nc: a connected client.
        hub: has begun at the place.
        source: reads EVENTS.
        names: of subjects.
        head: the place.
    """
    if head == 0:
        return
    generation, said = hub.generation, False
    while generation == hub.generation and hub.log.floor == head:
        found: list[tuple[int, str, Event, int]] = []

        def take(delivery: Delivery, found: list[tuple[int, str, Event, int]] = found) -> None:
            subject = names.strip_prefix(delivery.subject)
            event = decode(subject, delivery.data)
            if isinstance(event, Event):
                found.append((delivery.seq, subject, event, delivery.stored_ns))

        try:
            there = await stream_info(nc, source.stream)
            if there is None:
                return  # when it is there again, it is another one
            first = max(1, head - hub.settings.log_events + 1, int(there["state"]["first_seq"]))
            missing = await source.read(nc, first, head, take)
        except (StreamsError, NatsError, OSError) as error:
            if not said:
                log.warning("the tail of the stream is not in memory yet: %s", error)
            said = True
            await asyncio.sleep(AGAIN)
            continue
        if generation == hub.generation and hub.log.floor == head:
            kept = hub.warm(found, first - 1, missing)
            log.info("%d events from the stream's tail are in memory", kept)
        return


__all__ = ["warm"]
