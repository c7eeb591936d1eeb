"""Tests of the supervisor's regular look at its workers' numbers."""

import asyncio
import logging

import pytest
from tickertape.relay.settings import ServeSettings
from tickertape.relay.workers import supervisor as module
from tickertape.relay.workers.shared_counters import SharedCounters
from tickertape.relay.workers.supervisor import Supervisor, SupervisorSignals

from tests.support.patience import PATIENCE


def test_a_look_that_fails_is_told_and_the_next_one_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Numbers that cannot be read are no reason to look no more."""
    monkeypatch.setattr(module, "COLLECT_EVERY", 0.001)

    async def check() -> None:
        settings = ServeSettings(workers=1)
        supervisor = Supervisor(
            settings, SharedCounters.create(1), "nats://127.0.0.1:1", 1, SupervisorSignals(), print
        )
        collections, again = 0, asyncio.Event()

        async def collect() -> list[object]:
            nonlocal collections
            collections += 1
            if collections > 1:
                again.set()
                return []
            raise ValueError("not an exposition")

        monkeypatch.setattr(supervisor.aggregate, "collect", collect)
        collecting = asyncio.create_task(supervisor._collect_metrics())
        async with asyncio.timeout(PATIENCE):
            await again.wait()
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)

    with caplog.at_level(logging.ERROR, "tickertape.workers"):
        asyncio.run(check())
    assert "not an exposition" in caplog.text
