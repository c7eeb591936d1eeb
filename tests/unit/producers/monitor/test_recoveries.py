"""Recovery attempts, which are made only after NATS has stored their events."""

import asyncio
from typing import Any

import pytest
from tickertape.producers.monitor import recovery_action
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.recovery_policy import NOT_CONFIGURED
from tickertape.producers.monitor.probes.context import HourlyLimits
from tickertape.producers.monitor.recoveries import Recoveries

from tests.unit.producers.monitor.test_decisions import FAILED, Desk

SUBJECT = "gateway.recovery.ctp.main"


async def until_queued(desk: Desk) -> None:
    """Wait until a recovery event is queued."""
    while not desk.publisher.is_pending(SUBJECT):
        await asyncio.sleep(0)


async def settle(desk: Desk, *, stored: bool) -> None:
    """Take the recovery event that is queued, as if NATS had answered."""
    (change,) = desk.publisher._queues.pop(SUBJECT)
    change.settle(stored=stored)
    await asyncio.sleep(0)


@pytest.mark.parametrize("stored", [True, False])
def test_an_attempt_is_made_when_its_event_is_stored(
    monkeypatch: pytest.MonkeyPatch, *, stored: bool
) -> None:
    """An attempt whose event was dropped is not made, because no other monitor would know about it."""
    made: list[int] = []

    async def attempt(_: Any, event: Any) -> None:
        made.append(event.attempt)

    monkeypatch.setattr(recovery_action, "attempt", attempt)

    async def work() -> None:
        desk = Desk(recovery={"command": ["true"]})
        gateway = desk.gateway
        recoveries = Recoveries(
            desk.publisher, HourlyLimits(), Failures(pytest.fail), asyncio.create_task, desk.reports.append,
            lambda: desk.now,
        )  # fmt: skip
        gateway.recovery_is_known = True
        desk.record(0, FAILED)
        desk.store_votes()
        await settle(desk, stored=True)
        recoveries.proceed(gateway, desk.now)
        await until_queued(desk)
        assert made == []
        await settle(desk, stored=stored)
        assert gateway.attempt is not None
        await gateway.attempt
        assert made == [1] * stored
        # It counts all the same.
        assert gateway.recovery is not None
        assert (gateway.recovery.attempt, gateway.recovery.in_progress) == (1, True)
        recoveries.stop(gateway)
        assert desk.phases() == ["started", "attempt", "failed"]
        assert desk.publisher.events[-1].metadata["reason"] == NOT_CONFIGURED  # type: ignore[attr-defined]

    asyncio.run(work())
