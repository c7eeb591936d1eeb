"""When the hub is flushed: its wishes, and the pacing that it asks for, as callbacks of the event loop."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tickertape.relay.core.hub import Hub
    from tickertape.relay.ingest.ingest import Intake

REST_FROM: Final = 0.002
"""Seconds until the next flush from which it pays to leave new events in the socket until then."""


class Flusher:
    """Turns the hub's wishes into callbacks of the event loop.

    While the pacing holds events back anyway, they are left in NATS' socket: reading thirty at once costs a
    quarter of thirty times reading one.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.hub: Hub
        self.intake: Intake
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._wanted = False
        self._serving = False
        self._held: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Flush as soon as the pacing lets it."""
        if self._flushing:
            self._wanted = True
            return
        wait = self.hub.fanout.pacer.earliest() - self._now()
        if wait <= 0:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_later(wait, self._flush)
            if not self._serving:
                self._serving = True
                self._loop.call_soon(self._between)

    def _between(self) -> None:
        """Use the time until the next flush for those who are behind, a few in each turn of the loop."""
        self._serving = False
        self._serving = not self._flushing and self.hub.fanout.serve_behind(self._now())
        if self._serving:
            self._loop.call_soon(self._between)

    def _flush(self) -> None:
        started = self._now()
        if self._held is not None:
            self._held.cancel()
            self._held = None
        self._flushing = True
        cpu = time.thread_time()
        try:
            self.hub.fanout.flush(started)
        finally:
            # uvloop sends at the end of this turn of the loop: only after that is it known how long it took.
            self._loop.call_soon(self._flushed, started, cpu)

    def _flushed(self, started: float, cpu: float) -> None:
        now = self._now()
        self.hub.stats.flush.observe(now - started)
        pacer = self.hub.fanout.pacer
        # The processor's time, not the clock's: on a busy machine flushes are no dearer, only later.
        pacer.flushed(started, time.thread_time() - cpu)
        self._flushing = False
        if (wait := pacer.earliest() - now) > REST_FROM:
            self.intake.rest()
            self._loop.call_later(wait, self.intake.go_on)
        if self._wanted:
            self._wanted = False
            self.wake()
        elif (until := self.hub.fanout.held_until()) is not None:
            self._held = self._loop.call_later(max(0.0, until - now), self._flush)


def clock() -> Callable[[], float]:
    """UNIX seconds that never go back: the wall clock at the start, carried on by the monotonic one."""
    offset = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: monotonic() + offset
