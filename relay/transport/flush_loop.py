"""When the hub is flushed: as soon as it wants, and as its pacing lets it."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.fanout import Fanout

log = logging.getLogger("tickertape.flush")

MIN_READ_PAUSE: Final = 0.002
"""Seconds until the next flush from which it pays to leave new events in the socket until then."""

ERROR_DELAY: Final = 0.1
"""Seconds of rest after an internal error, so that one that stays does not take the processor."""


class FlushLoop:
    """Flushes a fan-out, and uses the time between two flushes for those who are behind.

    Args:
        fanout: what is flushed.
        stats: where to count.
        wanted: set, by the fan-out's ``wake``, when there is something to flush.
        now: the clock.
        busy: called with how many seconds there will be no other flush: events that come meanwhile may wait
            in NATS' socket, since reading thirty at once costs a quarter of thirty times reading one.
    """

    def __init__(
        self,
        fanout: Fanout,
        stats: Stats,
        wanted: asyncio.Event,
        now: Callable[[], float],
        busy: Callable[[float], None],
    ) -> None:
        self._fanout = fanout
        self._stats = stats
        self._wanted = wanted
        self._now = now
        self._busy = busy

    async def run(self) -> None:
        """Flush, until cancelled."""
        while True:
            try:
                if await self._until_wanted():
                    await self._until_earliest()
                self._wanted.clear()
                await self._flush()
            except Exception:
                log.exception("flushing met an internal error, and continues")
                await asyncio.sleep(ERROR_DELAY)

    async def _until_wanted(self) -> bool:
        """Wait until the fan-out asks for a flush; False when one that it held back is due now."""
        if not self._wanted.is_set() and (until := self._fanout.held_until()) is not None:
            try:
                async with asyncio.timeout(max(0.0, until - self._now())):
                    await self._wanted.wait()
            except TimeoutError:
                return False
        await self._wanted.wait()
        return True

    async def _until_earliest(self) -> None:
        """Wait until the pacing lets the next flush begin; serve those who are behind meanwhile."""
        earliest = self._fanout.pacer.earliest()
        while self._now() < earliest and self._fanout.serve_behind(self._now()):  # noqa: ASYNC110 - it works
            await asyncio.sleep(0)  # a few in each turn of the loop
        if (wait := earliest - self._now()) > 0:
            await asyncio.sleep(wait)

    async def _flush(self) -> None:
        started, cpu = self._now(), time.thread_time()
        self._fanout.flush(started)
        # uvloop sends at the end of this turn of the loop: only after that is it known how long it took.
        await asyncio.sleep(0)
        now, pacer = self._now(), self._fanout.pacer
        self._stats.flush.observe(now - started)
        # The processor's time, not the clock's: on a busy machine flushes are no dearer, only later.
        pacer.flushed(started, time.thread_time() - cpu)
        if (wait := pacer.earliest() - now) > MIN_READ_PAUSE:
            self._busy(wait)


def clock() -> Callable[[], float]:
    """Return a clock that never goes back: UNIX seconds at its start, then carried by the monotonic clock."""
    offset = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: monotonic() + offset
