"""Warm-up: reads the tail of the stream into memory while new events are already delivered.

Meanwhile, no more than fits into the event log is kept in memory.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest.range_reader import RangeReader

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError, stream_info
from tickertape.text import count

log = logging.getLogger("tickertape.ingest")

RETRY_DELAY: Final = 2.0
"""Seconds before the next attempt; until it succeeds, clients are served from the stream."""


class Tail:
    """Tail of the stream on its way into the event log; holds no more bytes than the log can.

    Args:
        hub: hub that started at the end of the tail.

    Attributes:
        records: newest events of the tail, in order.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.records: deque[Record] = deque()
        self._bytes = 0
        self._floor = 0  # sequence of the last event that was dropped

    def add(self, seq: int, subject: str, event: Event, stored_ns: int) -> None:
        """Add the next event; ``stored_ns`` is the time of its storage, UNIX nanoseconds."""
        record = self._hub.make_record(seq, subject, event, stored_ns, stored_ns / 1e9)
        # The snapshot takes all states, also those of events that do not fit into the log.
        if record.state:
            self._hub.snapshot.put(record)
        self.records.append(record)
        self._bytes += len(record.encoded)
        while self._bytes > self._hub.log.max_bytes:
            self._floor = self.records[0].seq
            self._bytes -= len(self.records.popleft().encoded)

    def finish(self, floor: int, missing: Iterable[tuple[int, int]] = ()) -> int:
        """Fill the log backwards, and return the number of events that fit.

        Args:
            floor: position before the first event that was read.
            missing: ranges of deleted sequences (first, last) after ``floor``.
        """
        return self._hub.log.prepend(self.records, max(floor, self._floor), missing)


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
        tail = Tail(hub)

        # The default argument binds the tail of this attempt; a closure would see that of the last one.
        def take(delivery: Delivery, tail: Tail = tail) -> bool:
            subject = names.strip_prefix(delivery.subject)
            event = decode(subject, delivery.data)
            if isinstance(event, Event) and generation == hub.generation:
                tail.add(delivery.seq, subject, event, delivery.stored_ns)
            return True

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
            kept = tail.finish(first - 1, missing)
            log.info("loaded %s from the stream's tail into memory", count(kept, "event"))
        return


__all__ = ["Tail", "warm_up"]
