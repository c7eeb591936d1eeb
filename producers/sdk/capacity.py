"""Capacity of a publisher: how many events and bytes may be in flight, and the queue of callers that wait.

Invariants:

1. The limits are never exceeded, except by a single event that is larger than ``max_bytes``: it is admitted
   alone.
2. Waiting callers are served in order of arrival; no newcomer overtakes them.
3. A cancelled waiter releases what it was granted.
"""

import asyncio
from collections import deque
from typing import Final, Literal

from tickertape.producers.sdk.errors import PublisherFull

from tickertape.text import count

WhenFull = Literal["block", "drop_oldest", "raise"]
"""Policy for a new event at capacity: its caller waits, the oldest event is dropped to admit it, or it is
rejected.
"""

POLICIES: Final = ("block", "drop_oldest", "raise")

MAX_PENDING: Final = 1024
"""Events in flight; with a round trip of 1 ms this allows a million events per second."""

MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Payload bytes in flight."""


def check_limits(max_events: int, max_bytes: int, when_full: str) -> None:
    """Check the limits and the policy of a publisher.

    Raises:
        ValueError: a limit is below 1, or the policy is unknown.
    """
    if max_events < 1 or max_bytes < 1:
        raise ValueError(
            f"max_pending is {max_events} and max_pending_bytes is {max_bytes}; each must be at least 1"
        )
    if when_full not in POLICIES:
        raise ValueError(f"when_full is {when_full!r}; it must be one of {', '.join(POLICIES)}")


class Capacity:
    """Counter of the events and bytes in flight; not safe outside of its event loop's thread.

    Args:
        max_events: maximum number of events in flight.
        max_bytes: maximum total size of their payloads.

    Attributes:
        events: events in flight.
        size: total bytes of their payloads.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.events = 0
        self.size = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._waking = 0  # waiters that hold capacity, and whose tasks have not resumed yet
        self._open = True

    def __repr__(self) -> str:
        return f"<Capacity {self.events} events, {self.size} bytes, {len(self._waiters)} waiting>"

    def fits(self, size: int) -> bool:
        """Return whether an event can be admitted now without overtaking a waiter."""
        # A waiter that is admitted and has not resumed has yet to send its event; a newcomer must not
        # overtake it.
        if self._waiters or self._waking:
            return False
        return self._is_free(size)

    def reserve(self, size: int) -> None:
        """Admit an event unconditionally; the caller has checked ``fits``, or may exceed the limits."""
        self.events += 1
        self.size += size

    def full_error(self, subject: str) -> PublisherFull:
        """Return the error of an event that does not fit, for the policy ``raise``."""
        in_flight = f"{count(self.events, 'event')} of {count(self.size, 'byte')}"
        return PublisherFull(
            subject,
            f"already in flight: {in_flight}",
            "it was not sent; publish it later, or raise max_pending",
        )

    async def acquire(self, size: int) -> None:
        """Wait until an event fits, and admit it; also admits it when the capacity is closed meanwhile."""
        if self.fits(size) or not self._open:
            self.reserve(size)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((waiter, size))
        self._admit()
        try:
            await waiter
        except asyncio.CancelledError:
            # Otherwise it was admitted in the same turn of the event loop, and holds capacity that it no
            # longer needs.
            if waiter.cancelled():
                self._waiters.remove((waiter, size))
                self._admit()
            else:
                self._waking -= 1
                self.release(size)
            raise
        self._waking -= 1

    def release(self, size: int) -> None:
        """Release the capacity of an event, and admit waiters that now fit."""
        self.events -= 1
        self.size -= size
        if self._waiters:
            self._admit()

    def close(self) -> None:
        """Admit all waiters: each then sees that the publisher is closed, and fails."""
        self._open = False
        self._admit()

    def _is_free(self, size: int) -> bool:
        if self.events >= self._max_events:
            return False
        # An event larger than the limit is admitted alone; otherwise it would wait without end.
        return self.size + size <= self._max_bytes or not self.events

    def _admit(self) -> None:
        cancelled: list[tuple[asyncio.Future[None], int]] = []
        while self._waiters:
            waiter, size = self._waiters[0]
            if waiter.done():
                cancelled.append(self._waiters.popleft())  # removes itself in acquire()
            elif self._is_free(size) or not self._open:
                self._waiters.popleft()
                self.reserve(size)
                self._waking += 1
                waiter.set_result(None)
            else:
                break
        self._waiters.extendleft(reversed(cancelled))
