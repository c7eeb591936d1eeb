"""Decisions of a monitor: which of its votes count, and what it publishes by them."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tickertape.contracts.events import (
    EventModel,
    GatewayRecovery,
    GatewayStatusChange,
    Status,
    format_time,
)
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.coordination import election, peer_updates, vote_messages
from tickertape.producers.monitor.coordination.election import Election
from tickertape.producers.monitor.coordination.peer_updates import PeerUpdates
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.decisions import TAKEOVER_DELAY, Decisions
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.majority import View
from tickertape.producers.monitor.gateway.model import StoredStatus
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.gateway.recovery_policy import POSTPONEMENT
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery

SUBJECT = "gateway.status.ctp.main"
NOW = 1_750_000_000.0
OK = Result(Outcome.OK)
FAILED = Result(Outcome.FAILED, "connection refused")
NO_VERDICT = Result(Outcome.UNKNOWN, "no license")
SILENT = StoredStatus("ctp", "main", Status.UNKNOWN, format_time(NOW), "m1", {}, "monitor_silent")


class Recorder(StatusPublisher):
    """Queue of events that also keeps them."""

    def __init__(self) -> None:
        publisher: Any = None
        super().__init__(publisher, Names(), lambda *_: True, pytest.fail)
        self.events: list[EventModel] = []

    def enqueue(self, event: EventModel) -> asyncio.Future[bool]:
        """Queue and keep an event."""
        self.events.append(event)
        return super().enqueue(event)


class Desk:
    """Monitor ``m1`` with one gateway, and the votes and events that leave it; nothing reaches NATS."""

    def __init__(self, *, has_lease: bool = True, **settings: Any) -> None:
        self.monitored: dict[str, MonitoredGateway] = {}
        self.online = True
        self.sequence = 0
        self.now = NOW
        self.adopting: list[list[str]] = []
        self.reports: list[str] = []
        self.publisher = publisher = Recorder()
        failures = Failures(pytest.fail)
        client: Any = self
        self.is_connected = True
        ignored: Callable[..., None] = lambda *_: None  # noqa: E731
        self.decisions = Decisions(
            "m1", self.monitored, failures, publisher, ignored, self.adopting.append,
            self.reports.append, lambda: self.now,
        )  # fmt: skip
        self.election = self.decisions.election = Election(
            client, Names(), "m1", lambda: self.online, self.decisions.apply_vote,
            self.decisions.apply_peer_vote, self.decisions.apply_lease, ignored, supported=True,
        )  # fmt: skip
        self.updates = PeerUpdates(
            "m1", Names(), self.monitored, failures, publisher, self.decisions.update, ignored,
            lambda: self.election, lambda: self.now,
        )  # fmt: skip
        self.add(StoredStatus("ctp", "main", Status.HEALTHY, format_time(NOW), "m1", {}), **settings)
        if has_lease:
            self.renew("m1", self.election._instance)

    @property
    def gateway(self) -> MonitoredGateway:
        """The monitored gateway."""
        return self.monitored[SUBJECT]

    def add(self, stored: StoredStatus | None = None, *, probes: int = 1, **settings: Any) -> None:
        """Add the gateway, or replace its probes, as a reload does."""
        gateway = {
            "id": "main", "type": "ctp", "unhealthy_after": 1, "healthy_after": 1,
            "probes": [{"kind": "tcp", "address": f"h:{port}"} for port in range(1, probes + 1)],
            **settings,
        }  # fmt: skip
        (resolved,) = MonitorConfig.model_validate({"gateways": [gateway]}).resolve_gateways()
        before = self.monitored.get(SUBJECT)
        stored = before.to_stored_status() if before is not None else stored
        self.monitored[SUBJECT] = MonitoredGateway(resolved, "m1", stored, NOW)
        if before is not None:
            before.hand_over(self.gateway)
        self.gateway.update_session(NOW)
        self.decisions.update(self.gateway)

    def renew(self, monitor: str, instance: str) -> None:
        """Apply a lease."""
        self.receive(vote_messages.lease_subject(monitor), vote_messages.encode_lease(instance))

    def release(self) -> None:
        """Apply that the own lease is released."""
        body = vote_messages.encode_lease(self.election._instance, released=True)
        self.receive(vote_messages.lease_subject("m1"), body)

    def receive(self, subject: str, body: bytes) -> None:
        """Apply a message from WATCHDOG."""
        self.sequence += 1
        self.election.receive(Delivery(self.sequence, subject, body, 0, 0, None))

    def vote(self, monitor: str, instance: str, status: Status) -> None:
        """Apply a vote."""
        body = vote_messages.encode_vote(instance, View(status, format_time(NOW)))
        self.receive(vote_messages.vote_subject(SUBJECT, monitor), body)

    def store_votes(self) -> list[Status]:
        """Apply the own votes that wait for NATS; return them."""
        views = list(self.election._queues.pop(SUBJECT, ()))
        for view in views:
            self.vote("m1", self.election._instance, view.status)
        return [view.status for view in views]

    def record(self, index: int, result: Result) -> None:
        """Record a probe result."""
        self.gateway.record_result(index, result, NOW)
        self.decisions.update(self.gateway)

    def statuses(self) -> list[Status]:
        """Return the published statuses."""
        events = self.publisher.events
        return [event.current_status for event in events if isinstance(event, GatewayStatusChange)]

    def phases(self) -> list[str]:
        """Return the phases of the published recoveries."""
        return [event.phase for event in self.publisher.events if isinstance(event, GatewayRecovery)]

    def deliver(self, event: EventModel, sequence: int) -> None:
        """Apply an event from EVENTS."""
        self.updates.receive(Delivery(sequence, event.subject, event.encode(), 0, 0, None))


def healthy_desk(**settings: Any) -> Desk:
    """Return a desk whose monitor has voted HEALTHY."""
    desk = Desk(**settings)
    desk.record(0, OK)
    assert desk.store_votes() == [Status.HEALTHY]
    return desk


def replace_probes(desk: Desk) -> None:
    """Reload other probes, none of which has a verdict."""
    desk.add(probes=2)
    desk.record(0, NO_VERDICT)
    desk.record(1, NO_VERDICT)


def go_offline_for_a_moment(desk: Desk) -> None:
    """Discard the results, and be online again before the lease is released."""
    desk.gateway.own.discard()
    desk.decisions.update(desk.gateway)


def lose_the_vote(desk: Desk) -> None:
    """Withdraw the view, and drop the vote on it for an unexpected error."""
    desk.record(0, NO_VERDICT)
    desk.election._queues.clear()
    desk.decisions.update(desk.gateway)


def replace_probes_twice(desk: Desk) -> None:
    """Reload again before the vote that withdraws the view is stored."""
    replace_probes(desk)
    desk.add(probes=1)


def fall_silent(desk: Desk) -> None:
    """Let the dead man's switch fire although the new probes have not run yet."""
    desk.add(probes=2)
    desk.updates.adopt(desk.gateway, SILENT)


STALE = [replace_probes, go_offline_for_a_moment, lose_the_vote, replace_probes_twice, fall_silent]


@pytest.mark.parametrize("lose_view", STALE)
def test_a_vote_counts_only_while_it_is_the_own_view(lose_view: Callable[[Desk], None]) -> None:
    """When NATS publishes that the gateway is not monitored, no earlier vote contradicts that."""

    async def work() -> None:
        desk = healthy_desk()
        lose_view(desk)
        desk.updates.adopt(desk.gateway, SILENT)
        desk.decisions.update(desk.gateway)
        assert desk.statuses() == []
        assert desk.store_votes()[-1:] == [Status.UNKNOWN]
        desk.decisions.update(desk.gateway)
        assert (desk.statuses(), desk.gateway.status) == ([], Status.UNKNOWN)
        # Neither is the vote repeated, nor does it prevent the next ones.
        assert desk.store_votes() == []
        for index in range(len(desk.gateway.gateway.checks)):
            desk.record(index, FAILED)
        assert desk.store_votes() == [Status.UNHEALTHY]
        assert desk.statuses() == [Status.UNHEALTHY]

    asyncio.run(work())


def test_an_offline_monitor_has_no_say_before_its_lease_is_released() -> None:
    """What it has voted before is out of date as soon as it notices that it is offline."""

    async def work() -> None:
        desk = healthy_desk()
        desk.online = False
        desk.updates.adopt(desk.gateway, SILENT)
        assert desk.statuses() == []

    asyncio.run(work())


def test_new_probes_keep_the_vote_until_they_have_run() -> None:
    """A reload does not withdraw a verdict, which another monitor alone might contradict."""

    async def work() -> None:
        desk = healthy_desk()
        desk.add(probes=2)
        desk.decisions.update(desk.gateway)
        assert desk.store_votes() == []
        desk.record(0, FAILED)
        assert desk.store_votes() == [Status.UNHEALTHY]

    asyncio.run(work())


def test_without_its_exchange_a_gateway_is_not_off_session() -> None:
    """A reload that removes the session withdraws the vote on it, even if others have voted it down."""

    async def work() -> None:
        desk = healthy_desk()
        desk.renew("m2", "other")
        desk.gateway.close_session(NOW)
        desk.decisions.update(desk.gateway)
        desk.vote("m2", "other", Status.HEALTHY)
        assert desk.store_votes() == [Status.OFF_SESSION]
        assert desk.gateway.status is Status.HEALTHY
        desk.add(probes=2)
        assert desk.store_votes() == [Status.UNKNOWN]

    asyncio.run(work())


def test_an_announcement_survives_new_probes() -> None:
    """A gateway that could not be announced yet, for lack of a lease, is announced after a reload."""

    async def work() -> None:
        desk = Desk()
        desk.monitored.clear()
        desk.release()
        desk.add()
        desk.add(probes=2)
        desk.renew("m1", desk.election._instance)
        desk.decisions.update(desk.gateway)
        assert desk.statuses() == [Status.UNKNOWN]

    asyncio.run(work())


def test_after_an_outage_new_probes_need_no_threshold() -> None:
    """A reload does not hide that no monitor was running."""

    async def work() -> None:
        desk = Desk(healthy_after=2)
        desk.updates.adopt(desk.gateway, SILENT)
        desk.add(probes=2, healthy_after=2)
        desk.record(0, OK)
        desk.record(1, OK)
        assert desk.store_votes() == [Status.HEALTHY]
        assert desk.statuses() == [Status.HEALTHY]

    asyncio.run(work())


def status_event(status: Status, monitor: str = "m1") -> GatewayStatusChange:
    """Return an event on the gateway."""
    return GatewayStatusChange(
        gateway_id="main", gateway_type="ctp", previous_status=Status.HEALTHY, current_status=status,
        metadata={"monitor": monitor},
    )  # fmt: skip


def recovery_event(phase: str, attempt: int, monitor: str) -> GatewayRecovery:
    """Return an event on the gateway's recovery."""
    return GatewayRecovery.model_validate({
        "timestamp": format_time(NOW), "gateway_id": "main", "gateway_type": "ctp", "phase": phase,
        "attempt": attempt, "metadata": {"monitor": monitor},
    })  # fmt: skip


def test_an_event_of_an_earlier_process_is_adopted() -> None:
    """A predecessor with the same id may have published after the stored statuses were read."""

    async def work() -> None:
        desk = Desk()
        desk.deliver(status_event(Status.UNHEALTHY), 5)
        assert desk.gateway.status is Status.UNHEALTHY

    asyncio.run(work())


def test_an_own_event_is_not_adopted_before_its_acknowledgement() -> None:
    """It must not discard those that were queued behind it; an earlier one of a predecessor must."""

    async def work() -> None:
        desk = healthy_desk()
        desk.record(0, FAILED)
        desk.store_votes()
        desk.record(0, OK)
        desk.store_votes()
        assert desk.statuses() == [Status.UNHEALTHY, Status.HEALTHY]
        desk.deliver(desk.publisher.events[0], 5)
        assert desk.publisher.pending == 2
        desk.deliver(status_event(Status.DEGRADED), 6)
        assert desk.publisher.pending == 0
        assert desk.gateway.status is Status.DEGRADED

    asyncio.run(work())


def test_an_invalid_event_discards_nothing() -> None:
    """What any client may publish on the subject is no status, and another one follows it."""

    async def work() -> None:
        desk = healthy_desk()
        desk.record(0, FAILED)
        desk.store_votes()
        desk.updates.receive(Delivery(5, SUBJECT, b"{}", 0, 0, None))
        assert desk.publisher.pending == 1
        assert desk.publisher.last_sequence(SUBJECT) == 5

    asyncio.run(work())


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_discarded_announcement_is_repeated(monkeypatch: pytest.MonkeyPatch, *, is_stored: bool) -> None:
    """When the lease is back, what was decided without NATS is discarded; an announcement must not be."""

    async def read(*_: Any) -> dict[str, StoredStatus]:
        return {SUBJECT: SILENT} if is_stored else {}

    monkeypatch.setattr(peer_updates, "read_stored_statuses", read)

    async def work() -> None:
        desk = Desk()
        desk.monitored.clear()
        desk.add()
        assert desk.statuses() == [Status.UNKNOWN]
        desk.renew("m2", "other")
        desk.decisions.apply_lease()
        assert desk.adopting == [[SUBJECT]]
        client: Any = None
        await desk.updates.adopt_stored(client, [SUBJECT])
        assert desk.statuses() == [Status.UNKNOWN] * (1 if is_stored else 2)

    asyncio.run(work())


def test_all_statuses_are_published_again_when_their_stream_is_created_again() -> None:
    """Its sequences start over, and none of the events of before is in it."""

    async def work() -> None:
        desk = healthy_desk()
        desk.publisher.record_sequence(SUBJECT, 500)
        desk.updates.start_over()
        desk.decisions.update(desk.gateway)
        assert desk.statuses() == [Status.HEALTHY]
        assert desk.publisher.last_sequence(SUBJECT) == 0

    asyncio.run(work())


def desk_with_recovery() -> Desk:
    """Return a desk with a failed gateway, whose recovery another monitor has started."""
    desk = Desk(recovery={"command": ["true"]})
    desk.renew("m0", "zero")
    desk.renew("m3", "three")
    for monitor, instance in (("m0", "zero"), ("m3", "three")):
        desk.vote(monitor, instance, Status.UNHEALTHY)
    desk.record(0, FAILED)
    desk.store_votes()
    desk.deliver(recovery_event("started", 0, "m3"), 5)
    assert desk.gateway.status is Status.UNHEALTHY
    assert desk.phases() == []
    return desk


def test_a_recovery_is_taken_over_although_the_first_monitor_has_none() -> None:
    """The recovery may not be in the file of the first of the other monitors."""

    async def work() -> None:
        desk = desk_with_recovery()
        desk.receive(vote_messages.lease_subject("m3"), vote_messages.encode_lease("three", released=True))
        recovery = desk.gateway.recovery
        assert recovery is not None
        assert (recovery.owner, recovery.due()) == (None, NOW + TAKEOVER_DELAY)
        # If it has one, it has made the attempt by then.
        desk.deliver(recovery_event("attempt", 1, "m0"), 6)
        desk.decisions.update(desk.gateway)
        assert (recovery.owner, recovery.due()) == ("m0", None)

    asyncio.run(work())


def test_a_recovery_that_is_configured_again_is_read_again() -> None:
    """Another monitor may have started one while this monitor's file had none."""

    async def work() -> None:
        desk = desk_with_recovery()
        with_recovery = desk.gateway.gateway
        desk.gateway.replace_settings(replace(with_recovery, recovery=None))
        desk.deliver(recovery_event("attempt", 1, "m3"), 6)
        desk.gateway.replace_settings(with_recovery)
        desk.decisions.update(desk.gateway)
        assert desk.phases() == []
        desk.deliver(recovery_event("attempt", 2, "m3"), 7)
        desk.decisions.update(desk.gateway)
        assert desk.phases() == []
        assert desk.gateway.recovery is not None
        assert desk.gateway.recovery.owner == "m3"

    asyncio.run(work())


def test_a_recovery_begins_when_its_start_is_stored() -> None:
    """A start that NATS rejects is followed by no attempt, and repeated."""

    async def work() -> None:
        desk = Desk(recovery={"command": ["true"]})
        desk.gateway.recovery_is_known = True
        desk.record(0, FAILED)
        desk.store_votes()
        recovery = desk.gateway.recovery
        assert recovery is not None
        for stored in (False, True):
            assert desk.phases() == ["started"] * (1 + stored)
            assert not recovery.is_attempt_due(desk.now)
            (change,) = desk.publisher._queues.pop("gateway.recovery.ctp.main")
            change.settle(stored=stored)
            await asyncio.sleep(0)
            assert recovery.is_attempt_due(desk.now) is stored
            desk.now += POSTPONEMENT
            desk.decisions.update(desk.gateway)

    asyncio.run(work())


def test_a_monitor_that_never_got_its_lease_is_not_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has some time after its start, as the lease of a predecessor has to expire."""

    async def work() -> None:
        desk = Desk()
        assert not desk.decisions.lacks_lease
        desk.release()
        assert desk.decisions.lacks_lease
        other = Desk(has_lease=False)
        assert not other.decisions.lacks_lease
        monkeypatch.setattr(election, "LEASE_TTL", -1)
        assert other.decisions.lacks_lease

    asyncio.run(work())
