"""The room in a publisher's window: how many events and how many bytes it holds, and who waits for a place.

Invariants:

1. Never more than the limits, but for one event that is larger than all the room: it enters alone.
2. Who waits enters in the order of coming; nobody passes those who wait.
3. A waiter that is cancelled gives back what it was given.
"""

import asyncio
from collections import deque
from typing import Final, Literal

WhenFull = Literal["block", "drop_oldest", "raise"]
"""What happens to a new event when there is no room: its caller waits, the oldest event is given up for it,
or it is refused."""

POLICIES: Final = ("block", "drop_oldest", "raise")

MAX_PENDING: Final = 1024
"""Events in flight; at 1 ms round trip this allows a million a second."""

MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Bytes of payload in flight."""


def check_limits(events: int, size: int, when_full: str) -> None:
    """Check what a publisher's user said of its room.

    Raises:
        ValueError: a limit is below 1, or the policy is none.
    """
    if events < 1 or size < 1:
        raise ValueError(f"max_pending is {events} and max_pending_bytes {size}; each is at least 1")
    if when_full not in POLICIES:
        raise ValueError(f"when_full is {when_full!r}; it is one of {', '.join(POLICIES)}")


class Capacity:
    """Counts what is inside; used by one event loop.

    Args:
        events: how many may be inside.
        size: bytes of their payloads together.
    """

    def __init__(self, events: int, size: int) -> None:
        self.events = 0
        self.size = 0
        self._most_events = events
        self._most_size = size
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()
        self._waking = 0  # admitted, and not yet running again
        self._open = True

    def __repr__(self) -> str:
        return f"<Capacity {self.events} events, {self.size} bytes, {len(self._waiting)} waiting>"

    def fits(self, size: int) -> bool:
        """Tell whether an event can enter now, before anyone else does."""
        if self._waiting or self._waking:
            return False
        return self._has_place(size)

    def take(self, size: int) -> None:
        """Let an event in; the caller has asked ``fits``, or has a reason to go beyond the limits."""
        self.events += 1
        self.size += size

    async def enter(self, size: int) -> None:
        """Wait for a place, and take it; also returns, with a place, when the room is closed."""
        if self.fits(size) or not self._open:
            self.take(size)
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, size))
        self._admit()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiting.remove((waiter, size))
                self._admit()
            else:
                self._waking -= 1
                self.leave(size)
            raise
        self._waking -= 1

    def leave(self, size: int) -> None:
        """Note that an event has left; whoever waits may enter."""
        self.events -= 1
        self.size -= size
        if self._waiting:
            self._admit()

    def close(self) -> None:
        """Let everyone in who waits, to be told by the caller that there is no more sending."""
        self._open = False
        self._admit()

    def _has_place(self, size: int) -> bool:
        if self.events >= self._most_events:
            return False
        return self.size + size <= self._most_size or not self.events

    def _admit(self) -> None:
        kept: list[tuple[asyncio.Future[None], int]] = []
        while self._waiting:
            waiter, size = self._waiting[0]
            if waiter.done():
                kept.append(self._waiting.popleft())  # cancelled; it takes itself out
            elif self._has_place(size) or not self._open:
                self._waiting.popleft()
                self.take(size)
                self._waking += 1
                waiter.set_result(None)
            else:
                break
        self._waiting.extendleft(reversed(kept))
