"""Log lines on evicted states: one when evictions begin, one when they have ended."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from tickertape.relay.core.snapshot import Snapshot

log = logging.getLogger("tickertape.ingest")

CHECK_INTERVAL: Final = 1.0
"""Seconds between two checks."""

QUIET: Final = 60.0
"""Seconds without an eviction after which they have ended; a flood with pauses is one episode."""


class EvictionLog:
    """Reporter of evictions, family by family; a flood of any length leads to two lines.

    Args:
        snapshot: newest states.
        clock: UNIX seconds that never decrease.
    """

    def __init__(self, snapshot: Snapshot, clock: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._episodes: dict[str, tuple[int, float]] = {}  # count before the first, and time of the last one

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self.check()
            await asyncio.sleep(CHECK_INTERVAL)

    def check(self) -> None:
        """Log the beginning and the end of episodes."""
        now = self._clock()
        for family, pool in self._snapshot.pools.items():
            before = self._counts.get(family, 0)
            self._counts[family] = pool.evicted
            episode = self._episodes.get(family)
            if pool.evicted > before:
                if episode is None:
                    name, count = pool.largest_group
                    log.warning(
                        "more states of %s than a relay can hold: the least recently changed are evicted and "
                        "missing from snapshots (%d so far); most are of %s.%s (%d)",
                        family,
                        pool.missing,
                        family,
                        name,
                        count,
                    )
                self._episodes[family] = (before if episode is None else episode[0], now)
            elif episode is not None and now - episode[1] >= QUIET:
                del self._episodes[family]
                evicted = pool.evicted - episode[0]
                log.warning(
                    "no more states of %s are evicted; %d were, and %d are missing from snapshots",
                    family,
                    evicted,
                    pool.missing,
                )
