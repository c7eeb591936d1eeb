"""The flush loop: when it flushes a fan-out, and how it handles exceptions."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tickertape.relay import flush_loop
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.flush_pacer import FlushPacer
from tickertape.relay.flush_loop import FlushLoop, clock

from tests.support.programs.relay_process import PATIENCE


class InjectedError(Exception):
    """Exception raised by the tests."""


class FakeFanout:
    """Fan-out that records its flushes; each of its methods can be made to raise once."""

    def __init__(self) -> None:
        self.pacer = FlushPacer()
        self.broken: set[str] = set()
        self.due_at: float | None = None
        self.behind = False
        self.flushes: list[float] = []

    def _raise(self, name: str) -> None:
        if name in self.broken:
            self.broken.discard(name)
            raise InjectedError

    def flush(self, now: float) -> None:
        """Record the flush."""
        self._raise("flush")
        self.flushes.append(now)
        self.due_at = None

    def next_due(self) -> float | None:
        """Return when the next flush is due."""
        self._raise("next_due")
        return self.due_at

    def catch_up(self, now: float) -> bool:
        """Return whether there are more sessions to catch up."""
        self._raise("catch_up")
        return self.behind


class Harness:
    """Running flush loop with a fake fan-out."""

    def __init__(self) -> None:
        self.fanout = FakeFanout()
        self.requested = asyncio.Event()
        self.busy: list[float] = []
        self.now = clock()
        fanout: Any = self.fanout
        self.loop = FlushLoop(fanout, Stats(), self.requested, self.now, self._busy)

    def _busy(self, seconds: float) -> None:
        self.fanout._raise("busy")
        self.busy.append(seconds)

    async def wait_for_flushes(self, times: int) -> None:
        """Wait for this many flushes."""
        while len(self.fanout.flushes) < times:
            await asyncio.sleep(0.001)


def run_scenario(scenario: Callable[[Harness], Awaitable[None]]) -> None:
    """Run a scenario beside a running flush loop."""

    async def work() -> None:
        harness = Harness()
        running = asyncio.create_task(harness.loop.run())
        try:
            async with asyncio.timeout(PATIENCE):
                await scenario(harness)
            assert not running.done()
        finally:
            running.cancel()

    asyncio.run(work())


def test_a_request_leads_to_a_flush() -> None:
    """Several requests before a flush lead to one flush, and a request made during a flush is not lost."""

    async def scenario(harness: Harness) -> None:
        for _ in range(3):
            harness.requested.set()
        await harness.wait_for_flushes(1)
        harness.requested.set()
        await harness.wait_for_flushes(2)
        await asyncio.sleep(0.01)
        assert len(harness.fanout.flushes) == 2

    run_scenario(scenario)


class SlowPacer(FlushPacer):
    """Pacer that delays every flush by a minute."""

    def earliest(self) -> float:
        """Return the time in a minute."""
        return clock()() + 60.0


def test_held_back_events_are_flushed_when_due() -> None:
    """Held-back events are flushed when due, without a request and without pacing."""

    async def scenario(harness: Harness) -> None:
        harness.fanout.pacer = SlowPacer()
        harness.fanout.due_at = harness.now() + 0.02
        await harness.wait_for_flushes(1)

    run_scenario(scenario)


@pytest.mark.parametrize("method", ["flush", "next_due", "catch_up", "busy"])
def test_an_exception_does_not_end_the_loop(
    method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception in any step is logged once, and the next flush still happens."""
    monkeypatch.setattr(flush_loop, "ERROR_DELAY", 0.0)
    monkeypatch.setattr(flush_loop, "MIN_READ_PAUSE", -1e9)

    async def scenario(harness: Harness) -> None:
        harness.requested.set()
        await harness.wait_for_flushes(1)
        # Makes the loop wait before the next flush, and so call `catch_up` and `busy`.
        harness.fanout.pacer.record_flush(harness.now() - 0.01, 0.02)
        harness.fanout.broken = {method}
        before = len(harness.fanout.flushes)
        harness.requested.set()
        while harness.fanout.broken:
            await asyncio.sleep(0.001)
        harness.requested.set()
        await harness.wait_for_flushes(before + 1)

    run_scenario(scenario)
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [InjectedError]
