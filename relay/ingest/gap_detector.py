"""Between consumer and hub: finds what the stream deleted before it was delivered, and says so in its place.

Invariants:

1. ``take`` gets every message, in order; ``missing`` is called before it with the end of each range that
   will never come. A message that may lie behind such a range waits until that is known.
2. After ``lost``, nothing more is handed on until ``restart``.
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

ASK_EVERY: Final = 0.1
"""Seconds between two questions what the stream has deleted. A relay with narrow ``--subjects`` has to ask
after nearly every event, and holds meanwhile what may lie behind a gap; so this is what it adds to the delay
at most, and ten small questions a second are little to a server."""

MAX_HELD: Final = 50_000
"""Messages that wait for the answer; NATS has stopped answering long before."""


class GapDetector:
    """Hands messages on, and the deleted ranges between them.

    Args:
        source: how the stream is read: whole, where each jump of the sequence is such a range, or through a
            filter, where the stream has to be asked.
        head: gives the sequence up to which everything was handed on.
        take: gets each message.
        missing: gets the last sequence of each range after ``head`` that will never come.
        lost: gets the reason when the consumer has to be created again.

    Attributes:
        regrown: True once a sequence came that was handed on already: the stream has lost messages, and given
            their places to others.
    """

    def __init__(
        self,
        source: RangeReader,
        head: Callable[[], int],
        take: Callable[[Delivery], None],
        missing: Callable[[int], None],
        lost: Callable[[str], None],
    ) -> None:
        self.regrown = False
        self._source = source
        self._head = head
        self._take = take
        self._missing = missing
        self._lost = lost
        self._next = 0  # the sequence that comes next when nothing is missing
        self._held: deque[Delivery] = deque()
        self._jumped = asyncio.Event()
        self._over = True

    def __repr__(self) -> str:
        return f"GapDetector(next={self._next}, {len(self._held)} held)"

    def restart(self) -> None:
        """Begin after ``head``, with another consumer."""
        self._held.clear()
        self._jumped.clear()
        self._next = self._head() + 1
        self._over = False

    def receive(self, delivery: Delivery) -> None:
        """Take in the consumer's next message."""
        if self._over:
            return
        seq = delivery.seq
        if seq < self._next:
            self.regrown = True
            self._fail(f"message {seq} came after message {self._next - 1}")
            return
        if self._source.filters and (self._held or seq > self._next):
            self._hold(delivery)
            return
        if seq > self._next:
            self._missing(seq - 1)
        self._next = seq + 1
        self._take(delivery)

    async def run(self, nc: Client) -> None:
        """Ask the stream what it has deleted in the jumps that a filter makes; until cancelled."""
        while True:
            await self._jumped.wait()
            self._jumped.clear()
            held = list(self._held)
            if not held:
                continue
            try:
                missing = await self._source.deleted.missing(
                    nc, self._head() + 1, held[-1].seq, (one.seq for one in held)
                )
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                self._fail(f"the stream does not tell what it has deleted: {error}")
                continue
            if self._held and self._held[0] is held[0]:  # else the consumer was created again meanwhile
                self._release(len(held), missing)
            await asyncio.sleep(ASK_EVERY)

    def _hold(self, delivery: Delivery) -> None:
        if len(self._held) >= MAX_HELD:
            self._fail(f"{MAX_HELD} messages wait for the stream to tell what it has deleted")
            return
        self._next = delivery.seq + 1
        self._held.append(delivery)
        self._jumped.set()

    def _release(self, count: int, missing: list[Range]) -> None:
        """Hand on what was held when the stream was asked, and what follows it without a jump."""
        ranges = deque(missing)
        while self._held and (count > 0 or self._held[0].seq == self._head() + 1):
            delivery = self._held.popleft()
            count -= 1
            while ranges and ranges[0][0] < delivery.seq:
                self._missing(ranges.popleft()[1])
            self._take(delivery)
        if self._held:
            self._jumped.set()

    def _fail(self, reason: str) -> None:
        self._over = True
        self._held.clear()
        self._lost(reason)


__all__ = ["GapDetector"]
