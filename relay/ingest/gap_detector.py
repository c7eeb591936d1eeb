"""Gap detector between consumer and hub: reports sequences that the stream deleted before their delivery.

Invariants:

1. ``deliver`` is called with every message in order; before the first message after a range that will never
   arrive, ``report_missing`` is called with the end of the range. A message that may follow such a range is
   held until the stream has been queried.
2. After ``lost`` was called, nothing is delivered until ``restart``.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.relay.ingest.range_reader import Range, RangeReader

from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError

log = logging.getLogger("tickertape.ingest")

QUERY_INTERVAL: Final = 0.1
"""Minimum seconds between two queries for deleted sequences. A relay with narrow ``--subjects`` needs a query
after almost every event, and meanwhile holds the messages that follow. The interval is therefore the maximum
delay that is added, and ten small requests per second are little load for a server."""

MAX_HELD: Final = 50_000
"""Maximum number of held messages; it is only reached if NATS does not respond to queries."""


class GapDetector:
    """Stage that delivers messages in order, and reports the deleted ranges between them.

    Args:
        source: reader of the stream. Without filters, each jump in the sequence is a deleted range; with
            filters, the stream has to be queried.
        head: returns the last sequence that was delivered or reported as missing.
        deliver: called with each message.
        report_missing: called with the last sequence of a range after ``head`` that will never arrive.
        lost: called with a reason when the consumer has to be recreated.

    Attributes:
        sequences_reused: whether a sequence arrived twice: the stream has lost messages and assigned their
            sequences to new messages.
    """

    def __init__(
        self,
        source: RangeReader,
        head: Callable[[], int],
        deliver: Callable[[Delivery], None],
        report_missing: Callable[[int], None],
        lost: Callable[[str], None],
    ) -> None:
        self.sequences_reused = False
        self._source = source
        self._head = head
        self._deliver = deliver
        self._report_missing = report_missing
        self._lost = lost
        self._next = 0  # sequence that is expected next
        self._held: deque[Delivery] = deque()
        self._jumped = asyncio.Event()
        self._stopped = True

    def __repr__(self) -> str:
        return f"GapDetector(next={self._next}, {len(self._held)} held)"

    def restart(self) -> None:
        """Restart after ``head`` with a new consumer."""
        # The new consumer delivers the held messages again, because the head has not passed them.
        self._held.clear()
        self._jumped.clear()
        self._next = self._head() + 1
        self._stopped = False

    def receive(self, delivery: Delivery) -> None:
        """Handle the next message of the consumer."""
        if self._stopped:
            return
        seq = delivery.seq
        if seq < self._next:
            self.sequences_reused = True
            self._fail(f"message {seq} arrived after message {self._next - 1}")
            return
        # While a message is held, all later ones are held too, or they would overtake it.
        if self._source.filters and (self._held or seq > self._next):
            self._hold(delivery)
            return
        if seq > self._next:
            self._report_missing(seq - 1)
        self._next = seq + 1
        self._deliver(delivery)

    async def run(self, nc: Client) -> None:
        """Query the stream for deleted sequences when a filtered consumer jumps, until cancelled."""
        while True:
            await self._jumped.wait()
            self._jumped.clear()
            # Messages that arrive during the query are not covered by its result.
            held = list(self._held)
            if not held:
                continue
            try:
                missing = await self._source.deleted.find(
                    nc, self._head() + 1, held[-1].seq, (delivery.seq for delivery in held)
                )
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                self._fail(f"cannot query deleted sequences: {error}")
                continue
            if self._held and self._held[0] is held[0]:  # otherwise the consumer was recreated meanwhile
                self._release(len(held), missing)
            await asyncio.sleep(QUERY_INTERVAL)

    def _hold(self, delivery: Delivery) -> None:
        if len(self._held) >= MAX_HELD:
            self._fail(f"{MAX_HELD} messages are held until deleted sequences are known")
            return
        self._next = delivery.seq + 1
        self._held.append(delivery)
        self._jumped.set()

    def _release(self, count: int, missing: list[Range]) -> None:
        """Deliver ``count`` held messages, which the query covered, and those that follow without a jump."""
        ranges = deque(missing)
        # A held message right after the head follows no jump, so it needs no query of its own.
        while self._held and (count > 0 or self._held[0].seq == self._head() + 1):
            delivery = self._held.popleft()
            count -= 1
            # The query ends at the last covered message, so no range is left over.
            while ranges and ranges[0][0] < delivery.seq:
                self._report_missing(ranges.popleft()[1])
            self._deliver(delivery)
        if self._held:
            self._jumped.set()

    def _fail(self, reason: str) -> None:
        self._stopped = True
        self._held.clear()
        self._lost(reason)


__all__ = ["GapDetector"]
