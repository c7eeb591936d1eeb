"""Flush loop of the hub: flushes on request, as fast as the pacer allows."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.fanout import Fanout

log = logging.getLogger("tickertape.flush")

MIN_READ_PAUSE: Final = 0.002
"""Minimum seconds until the next flush for which pausing reads from NATS pays off."""

ERROR_DELAY: Final = 0.1
"""Seconds to wait after an internal error, so that a persistent error does not use up the CPU."""


class FlushLoop:
    """Loop that flushes a fan-out, and serves clients that are behind between two flushes.

    Args:
        fanout: fan-out to flush.
        stats: statistics with the flush durations.
        flush_requested: set by the fan-out's ``wake`` when there is something to flush.
        now: returns the current time in seconds.
        pause_reading: called with the seconds until the next flush: events that arrive meanwhile may wait in
            NATS' socket, since reading thirty in one batch costs a quarter of thirty single reads.
    """

    def __init__(
        self,
        fanout: Fanout,
        stats: Stats,
        flush_requested: asyncio.Event,
        now: Callable[[], float],
        pause_reading: Callable[[float], None],
    ) -> None:
        self._fanout = fanout
        self._stats = stats
        self._flush_requested = flush_requested
        self._now = now
        self._pause_reading = pause_reading

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            try:
                # What is due without a request has been held back already, so the pacer does not delay it
                # further.
                if await self._wait_for_request():
                    await self._wait_for_pacer()
                # Before the flush: the fan-out requests the next flush once, and may do so while this one
                # suspends.
                self._flush_requested.clear()
                await self._flush()
            except Exception:
                log.exception("flush failed with an internal error; the loop continues")
                await asyncio.sleep(ERROR_DELAY)

    async def _wait_for_request(self) -> bool:
        """Wait until the fan-out requests a flush; return False if a delayed flush is due first."""
        if not self._flush_requested.is_set() and (until := self._fanout.next_due()) is not None:
            try:
                async with asyncio.timeout(max(0.0, until - self._now())):
                    await self._flush_requested.wait()
            except TimeoutError:
                return False
        await self._flush_requested.wait()
        return True

    async def _wait_for_pacer(self) -> None:
        """Wait until the pacer allows the next flush; serve clients that are behind meanwhile."""
        earliest = self._fanout.pacer.earliest()
        while self._now() < earliest and self._fanout.catch_up(self._now()):  # noqa: ASYNC110 - works between sleeps
            await asyncio.sleep(0)  # serve a few clients per iteration of the event loop
        if (wait := earliest - self._now()) > 0:
            await asyncio.sleep(wait)

    async def _flush(self) -> None:
        started, cpu = self._now(), time.thread_time()
        self._fanout.flush(started)
        # uvloop sends at the end of this event loop iteration, so only then is the duration known.
        await asyncio.sleep(0)
        now, pacer = self._now(), self._fanout.pacer
        self._stats.flush.observe(now - started)
        # CPU time, not wall time: on a busy machine, flushes do not cost more, they only take longer.
        pacer.record_flush(started, time.thread_time() - cpu)
        if (wait := pacer.earliest() - now) > MIN_READ_PAUSE:
            self._pause_reading(wait)


def clock() -> Callable[[], float]:
    """Return a clock that never goes back: UNIX seconds at the start, advanced by the monotonic clock."""
    offset = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: monotonic() + offset
