"""The clock of the NATS server, which is measured again when the clock of this host is set."""

import asyncio
from typing import Any

import pytest
from tickertape.producers.monitor.coordination import server_clock
from tickertape.producers.monitor.coordination.server_clock import ServerClock

from tests.support.patience import PATIENCE


class Connected:
    """Client that is connected."""

    is_connected = True


def test_a_set_clock_is_measured_before_the_interval_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A switch that is armed by the time before the step would fire an hour too early or too late."""
    times = ["2026-10-01T10:00:00Z", "2026-10-01T09:00:00Z"]
    measured = asyncio.Event()

    async def stream_info(client: Any, stream: str) -> dict[str, Any]:
        measured.set()
        return {"ts": times.pop(0)}

    monkeypatch.setattr(server_clock, "stream_info", stream_info)
    monkeypatch.setattr(server_clock, "INTERVAL", 3_600.0)

    async def main() -> float:
        client: Any = Connected()
        clock = ServerClock(client, "WATCHDOG", monotonic=lambda: 0.0)
        await clock.measure()
        before = clock.now()
        task = asyncio.create_task(clock.run())
        measured.clear()
        clock.request_measurement()
        async with asyncio.timeout(PATIENCE):
            await measured.wait()
            while clock.now() == before:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        return clock.now() - before

    assert asyncio.run(main()) == -3_600.0
