"""Slots of the probes that run concurrently, shared so that failed gateways do not delay the others.

A probe of a gateway that does not answer takes a slot until its timeout; more of them than there are slots
would delay all other probes by that time. So probes that failed the last time may take only a share of the
slots, and those that have no result yet a larger one.

Invariants:

1. At most ``total`` probes have a slot, and at most ``SHARES`` of them have that standing or a lower one.
2. Of the probes that may have a slot, the one that has waited longest gets it, so that none starves.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Final


class Standing(IntEnum):
    """Result of a probe the last time, by which its share of the slots is chosen."""

    FAILED = 0
    NEW = 1
    ANSWERED = 2


SHARES: Final = {Standing.FAILED: 0.5, Standing.NEW: 0.75, Standing.ANSWERED: 1.0}
"""Share of the slots for the probes of a standing and all lower ones."""


class ProbeSlots:
    """Slots of concurrent probes.

    Args:
        total: number of slots.
    """

    def __init__(self, total: int) -> None:
        self._limits = {standing: max(1, int(total * share)) for standing, share in SHARES.items()}
        self._taken = dict.fromkeys(Standing, 0)
        self._waiting: dict[Standing, deque[tuple[int, asyncio.Future[None]]]] = {
            standing: deque() for standing in Standing
        }
        self._arrivals = 0

    def __repr__(self) -> str:
        waiting = {standing.name: len(queue) for standing, queue in self._waiting.items()}
        return f"<ProbeSlots {sum(self._taken.values())} taken, waiting {waiting}>"

    @contextlib.asynccontextmanager
    async def slot(self, standing: Standing) -> AsyncIterator[None]:
        """Wait for a slot, and hold it until the context is left.

        Args:
            standing: result of the probe the last time.
        """
        if self._is_free(standing) and not self._waiting[standing]:
            self._taken[standing] += 1
        else:
            await self._wait(standing)
        try:
            yield
        finally:
            self._taken[standing] -= 1
            self._grant()

    async def _wait(self, standing: Standing) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        self._waiting[standing].append((self._arrivals, granted))
        try:
            await granted
        except asyncio.CancelledError:
            # It may have been granted in the same iteration of the event loop.
            if granted.done() and not granted.cancelled():
                self._taken[standing] -= 1
                self._grant()
            raise

    def _is_free(self, standing: Standing) -> bool:
        """Return whether a probe of a standing may take a slot, by its own share and by all larger ones."""
        return all(
            sum(self._taken[lower] for lower in Standing if lower <= share) < limit
            for share, limit in self._limits.items()
            if share >= standing
        )

    def _grant(self) -> None:
        """Give the slots that are free to the probes that have waited longest."""
        while True:
            heads: list[tuple[int, Standing]] = []
            for standing, queue in self._waiting.items():
                while queue and queue[0][1].done():  # cancelled
                    queue.popleft()
                if queue and self._is_free(standing):
                    heads.append((queue[0][0], standing))
            if not heads:
                return
            _, standing = min(heads)
            self._taken[standing] += 1
            self._waiting[standing].popleft()[1].set_result(None)
