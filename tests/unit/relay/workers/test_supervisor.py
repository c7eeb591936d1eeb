"""The supervisor's regular collection of its workers' metrics."""

import asyncio
import logging

import pytest
from tickertape.relay.settings import ServeSettings
from tickertape.relay.workers import supervisor as supervisor_module
from tickertape.relay.workers.shared_counters import SharedCounters
from tickertape.relay.workers.supervisor import Supervisor, SupervisorSignals

from tests.support.patience import PATIENCE


def test_a_failed_collection_is_logged_and_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A failed collection is logged, and metrics are still collected afterwards."""
    monkeypatch.setattr(supervisor_module, "COLLECT_EVERY", 0.001)

    async def scenario() -> None:
        settings = ServeSettings(workers=1)
        supervisor = Supervisor(
            settings, SharedCounters.create(1), "nats://127.0.0.1:1", 1, SupervisorSignals(), print
        )
        collections, repeated = 0, asyncio.Event()

        async def collect() -> list[object]:
            nonlocal collections
            collections += 1
            if collections > 1:
                repeated.set()
                return []
            raise ValueError("not an exposition")

        monkeypatch.setattr(supervisor.aggregate, "collect", collect)
        collecting = asyncio.create_task(supervisor._collect_metrics())
        async with asyncio.timeout(PATIENCE):
            await repeated.wait()
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)

    with caplog.at_level(logging.ERROR, "tickertape.workers"):
        asyncio.run(scenario())
    assert "not an exposition" in caplog.text
