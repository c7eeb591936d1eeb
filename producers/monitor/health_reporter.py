"""Health events of a monitor: at each interval, and immediately when the status changes."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from tickertape.contracts.events import Status, SystemHealth
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publisher import Publisher


class HealthReporter:
    """Publisher of a monitor's own health.

    Args:
        id: name of the monitor.
        publisher: started publisher; the caller closes it.
        interval: seconds between two events.
        status: returns the current status.
        checks: returns the details of an event.
        report: receives lines for the operator.
    """

    def __init__(
        self,
        id: str,
        publisher: Publisher,
        interval: float,
        status: Callable[[], Status],
        checks: Callable[[], Mapping[str, Any]],
        report: Callable[[str], None],
    ) -> None:
        self._id = id
        self._publisher = publisher
        self._interval = interval
        self._status = status
        self._checks = checks
        self._report = report
        self._changed = asyncio.Event()
        self._published: Status | None = None

    def __repr__(self) -> str:
        return f"HealthReporter({self._id}, {self._published})"

    def update(self) -> None:
        """Publish an event soon if the status differs from that of the latest event."""
        if self._published is not None and self._status() is not self._published:
            self._changed.set()

    async def run(self) -> None:
        """Publish events until cancelled."""
        while True:
            self._changed.clear()
            self._published = self._status()
            event = SystemHealth(
                component="monitor", instance=self._id, status=self._published, checks=dict(self._checks())
            )
            try:
                await self._publisher.publish(event)
            except PublishError as error:
                self._report(f"health event not published: {error}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._changed.wait()
