"""When a fan-out is flushed, and what a fault in that does."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.flush_pacer import FlushPacer
from tickertape.relay.transport import flush_loop
from tickertape.relay.transport.flush_loop import FlushLoop, clock

from tests.support.programs.relay_process import PATIENCE


class InjectedError(Exception):
    """What the tests raise."""


class FakeFanout:
    """Counts its flushes; each of its methods may raise once."""

    def __init__(self) -> None:
        self.pacer = FlushPacer()
        self.broken: set[str] = set()
        self.held: float | None = None
        self.behind = False
        self.flushes: list[float] = []

    def _raise(self, name: str) -> None:
        if name in self.broken:
            self.broken.discard(name)
            raise InjectedError

    def flush(self, now: float) -> None:
        """Note it."""
        self._raise("flush")
        self.flushes.append(now)
        self.held = None

    def next_due(self) -> float | None:
        """When one is due."""
        self._raise("next_due")
        return self.held

    def catch_up(self, now: float) -> bool:
        """Whether there is more to do."""
        self._raise("catch_up")
        return self.behind


class Stand:
    """A loop at work."""

    def __init__(self) -> None:
        self.fanout = FakeFanout()
        self.wanted = asyncio.Event()
        self.busy: list[float] = []
        self.now = clock()
        fanout: Any = self.fanout
        self.loop = FlushLoop(fanout, Stats(), self.wanted, self.now, self._busy)

    def _busy(self, seconds: float) -> None:
        self.fanout._raise("busy")
        self.busy.append(seconds)

    async def flushed(self, times: int) -> None:
        """Wait for so many flushes."""
        while len(self.fanout.flushes) < times:
            await asyncio.sleep(0.001)


def play(part: Callable[[Stand], Awaitable[None]]) -> None:
    """Run a test beside a loop at work."""

    async def work() -> None:
        stand = Stand()
        running = asyncio.create_task(stand.loop.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await part(stand)
            assert not running.done()
        finally:
            running.cancel()

    asyncio.run(work())


def test_a_wish_is_a_flush() -> None:
    """One for each, however often it is asked for before; what is asked for meanwhile is not forgotten."""

    async def part(stand: Stand) -> None:
        for _ in range(3):
            stand.wanted.set()
        await stand.flushed(1)
        stand.wanted.set()
        await stand.flushed(2)
        await asyncio.sleep(0.01)
        assert len(stand.fanout.flushes) == 2

    play(part)


class SlowPacer(FlushPacer):
    """Lets no flush begin for a minute."""

    def earliest(self) -> float:
        """In a minute."""
        return clock()() + 60.0


def test_what_is_held_back_is_flushed_when_it_is_due() -> None:
    """Nothing asks for it, and the pacing of other flushes does not hold it."""

    async def part(stand: Stand) -> None:
        stand.fanout.pacer = SlowPacer()
        stand.fanout.held = stand.now() + 0.02
        await stand.flushed(1)

    play(part)


@pytest.mark.parametrize("place", ["flush", "next_due", "catch_up", "busy"])
def test_a_fault_does_not_end_it(
    place: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Wherever it is raised: it is logged once, and the next flush comes."""
    monkeypatch.setattr(flush_loop, "ERROR_DELAY", 0.0)
    monkeypatch.setattr(flush_loop, "MIN_READ_PAUSE", -1e9)

    async def part(stand: Stand) -> None:
        stand.wanted.set()
        await stand.flushed(1)
        stand.fanout.pacer.record_flush(stand.now() - 0.01, 0.02)  # so that the time between flushes is used
        stand.fanout.broken = {place}
        before = len(stand.fanout.flushes)
        stand.wanted.set()
        while stand.fanout.broken:
            await asyncio.sleep(0.001)
        stand.wanted.set()
        await stand.flushed(before + 1)

    play(part)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [InjectedError]
