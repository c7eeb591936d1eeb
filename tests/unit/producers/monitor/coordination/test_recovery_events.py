"""Recovery events that a monitor reads before it starts a recovery."""

import asyncio
from typing import Any

import pytest
from nats.errors import Error as NatsError
from tickertape.producers.monitor.coordination import recovery_events
from tickertape.producers.monitor.coordination.recovery_events import RecoveryLoader
from tickertape.producers.monitor.failures import Failures

from tests.support.patience import PATIENCE
from tests.unit.producers.monitor.test_decisions import Desk, recovery_event
from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.direct_get import StoredMessage

SUBJECT = "gateway.recovery.ctp.main"


@pytest.mark.parametrize("sequence", [7, 9, 10])
def test_no_recovery_starts_before_its_latest_event_is_read(
    sequence: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What NATS does not answer is read again; an event that is older than a received one is not adopted."""
    monkeypatch.setattr(recovery_events, "RETRY_DELAY", 0.0)
    desk = Desk(recovery={"command": ["true"]})
    gateway = desk.gateway
    known: list[bool] = []
    reports: list[str] = []

    async def read(*_: Any) -> StoredMessage:
        known.append(gateway.recovery_is_known)
        if len(known) < 3:
            raise NatsError("no answer")
        body = recovery_event("attempt", 1, "m2").encode()
        return StoredMessage(sequence, SUBJECT, body, None, None)

    monkeypatch.setattr(direct_get, "get_last_message", read)

    async def work() -> None:
        desk.publisher.record_sequence(SUBJECT, 9)
        client: Any = desk
        loader = RecoveryLoader(
            Names(), desk.monitored, Failures(pytest.fail), desk.publisher, reports.append
        )
        task = asyncio.create_task(loader.run(client))
        loader.request()
        async with asyncio.timeout(PATIENCE):
            while not gateway.recovery_is_known:
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())
    assert known == [False] * 3
    assert reports == ["recoveries of 1 gateway cannot be read, so none is started: no answer"]
    assert gateway.recovery is not None
    assert gateway.recovery.owner == ("m2" if sequence >= 9 else None)
    assert desk.publisher.last_sequence(SUBJECT) == max(9, sequence)


def test_the_events_of_many_gateways_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is not answered does not delay the others for as long as NATS takes."""
    reading = 0
    most = 0

    async def read(*_: Any) -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0)
        reading -= 1

    monkeypatch.setattr(direct_get, "get_last_message", read)
    desks = [Desk(recovery={"command": ["true"]}) for _ in range(100)]
    monitored = {str(number): desk.gateway for number, desk in enumerate(desks)}

    async def work() -> None:
        client: Any = desks[0]
        loader = RecoveryLoader(Names(), monitored, Failures(pytest.fail), desks[0].publisher, pytest.fail)
        task = asyncio.create_task(loader.run(client))
        loader.request()
        async with asyncio.timeout(PATIENCE):
            while not all(gateway.recovery_is_known for gateway in monitored.values()):
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())
    assert most == recovery_events.BATCH_SIZE
