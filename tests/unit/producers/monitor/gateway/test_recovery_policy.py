"""The schedule of recovery attempts, with literal times."""

import pytest
from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.gateway.recovery_policy import (
    NOT_CONFIGURED,
    POSTPONEMENT,
    SILENCED,
    Recovery,
)


def make_recovery(**settings: object) -> Recovery:
    config = MonitorConfig.model_validate(
        {
            "gateways": [
                {
                    "id": "main",
                    "type": "ctp",
                    "probes": [{"kind": "tcp", "address": "h:1"}],
                    "recovery": {"command": ["true"], "attempts": 2, "backoff": "30s", **settings},
                }
            ]
        }
    )
    gateway = config.resolve_gateways()[0]
    assert gateway.recovery is not None
    metadata = {"monitor": "m1", "labels": gateway.labels}
    return Recovery(gateway.recovery, gateway.type, gateway.id, metadata)


def begin(recovery: Recovery, now: float) -> GatewayRecovery | None:
    """Start a recovery whose first event NATS stores."""
    started = recovery.start(now)
    if started is not None:
        recovery.settle_start(started, now, stored=True)
    return started


def phases(*events: object) -> list[str]:
    return [getattr(event, "phase", "-") for event in events]


def test_a_recovery_starts_attempts_and_succeeds() -> None:
    """A recovery starts once, attempts after its delay, and succeeds when the gateway is healthy."""
    recovery = make_recovery(after="5s")
    assert phases(begin(recovery, 100.0), begin(recovery, 100.0)) == ["started", "-"]
    assert phases(recovery.next_event(104.9), recovery.next_event(105.0), recovery.next_event(500.0)) == [
        "-",
        "attempt",
        "-",
    ]
    recovery.finish_attempt(106.0)
    assert recovery.due() == 136.0
    assert phases(recovery.succeed(120.0), recovery.succeed(121.0)) == ["succeeded", "-"]
    assert phases(recovery.next_event(1_000.0)) == ["-"]


def test_attempts_back_off_and_end() -> None:
    """The delay doubles with each attempt; after the last one the recovery fails, and does not start again
    before the gateway was healthy.
    """
    recovery = make_recovery()
    begin(recovery, 0.0)
    assert phases(recovery.next_event(0.0)) == ["attempt"]
    recovery.finish_attempt(1.0)
    assert phases(recovery.next_event(30.9), recovery.next_event(31.0)) == ["-", "attempt"]
    recovery.finish_attempt(32.0)
    last = recovery.next_event(92.0)
    assert last is not None
    assert (last.phase, last.attempt, last.metadata["reason"]) == (
        "failed",
        2,
        "not recovered after 2 attempts",
    )
    assert phases(begin(recovery, 100.0), recovery.next_event(1_000.0)) == ["-", "-"]
    recovery.abandon()
    assert phases(begin(recovery, 200.0)) == ["started"]


def test_a_limit_ends_the_recovery() -> None:
    """If no slot of the limit per hour is free, the recovery fails, until the gateway was healthy."""
    recovery = make_recovery(per_hour=2)
    begin(recovery, 0.0)
    assert recovery.is_attempt_due(0.0)
    event = recovery.next_event(0.0, allowed=False)
    assert event is not None
    assert (event.phase, event.metadata["reason"]) == ("failed", "limit of 2 attempts per hour reached")
    assert phases(begin(recovery, 10.0), recovery.succeed(20.0)) == ["-", "succeeded"]
    assert phases(begin(recovery, 30.0)) == ["started"]


def test_an_attempt_is_postponed_while_the_limit_is_unknown() -> None:
    """While NATS is unreachable, nothing is attempted."""
    recovery = make_recovery()
    begin(recovery, 0.0)
    recovery.postpone(1.0)
    assert phases(recovery.next_event(POSTPONEMENT), recovery.next_event(1.0 + POSTPONEMENT)) == [
        "-",
        "attempt",
    ]


def test_a_recovery_is_left_to_another_monitor() -> None:
    """While another monitor recovers the gateway, this one publishes neither its attempts nor its result."""
    recovery = make_recovery()
    begin(recovery, 0.0)
    recovery.adopt("started", 0, "m2")
    assert phases(recovery.next_event(10.0), begin(recovery, 20.0), recovery.succeed(30.0)) == ["-", "-", "-"]
    assert phases(begin(recovery, 40.0)) == ["started"]


def test_a_recovery_is_taken_over() -> None:
    """The attempts continue where those of the monitor that died ended, after its backoff."""
    recovery = make_recovery(attempts=2)
    recovery.adopt("attempt", 1, "m2")
    assert phases(begin(recovery, 0.0), recovery.next_event(999.0)) == ["-", "-"]
    recovery.take_over(1_000.0)
    assert recovery.due() == 1_030.0
    event = recovery.next_event(1_030.0)
    assert event is not None
    assert (event.phase, event.attempt, event.metadata["monitor"]) == ("attempt", 2, "m1")
    recovery.finish_attempt(1_040.0)
    assert phases(recovery.next_event(1_100.0), recovery.succeed(1_200.0)) == ["failed", "succeeded"]


@pytest.mark.parametrize(("phase", "ended"), [("failed", "-"), ("succeeded", "started")])
def test_an_ended_recovery_of_another_monitor(phase: str, ended: str) -> None:
    """After a restart, a failed recovery does not start again before the gateway was healthy."""
    recovery = make_recovery()
    recovery.adopt(phase, 2, "m2")
    recovery.take_over(10.0)
    assert phases(recovery.next_event(999.0), begin(recovery, 1_000.0)) == ["-", ended]


def test_a_stopped_recovery_starts_over() -> None:
    """A recovery that was stopped has failed, and a later one counts from the first attempt."""
    recovery = make_recovery()
    begin(recovery, 0.0)
    recovery.next_event(0.0)
    event = recovery.stop(5.0, "silenced")
    assert event is not None
    assert (event.phase, event.attempt, event.metadata["reason"]) == ("failed", 1, "silenced")
    recovery.finish_attempt(6.0)
    assert phases(recovery.stop(7.0, "silenced"), recovery.next_event(999.0)) == ["-", "-"]
    assert phases(begin(recovery, 1_000.0)) == ["started"]
    assert recovery.attempt == 0


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_changes_no_wait(step: float) -> None:
    """The pause before an attempt keeps its length."""
    recovery = make_recovery(after="10s")
    begin(recovery, 1000.0)
    recovery.shift_clock(step)
    assert recovery.next_event(1009.0 + step) is None
    assert phases(recovery.next_event(1010.0 + step)) == ["attempt"]


def test_nothing_follows_a_start_that_is_not_stored() -> None:
    """No attempt is due before NATS has stored the start; a rejected one is repeated after a while."""
    recovery = make_recovery()
    started = recovery.start(0.0)
    assert started is not None
    assert not recovery.is_attempt_due(999.0)
    assert phases(recovery.next_event(999.0)) == ["-"]
    recovery.settle_start(started, 1_000.0, stored=False)
    later = 1_000.0 + POSTPONEMENT
    assert phases(recovery.next_event(later), recovery.start(later - 0.1), begin(recovery, later)) == [
        "-",
        "-",
        "started",
    ]
    # What became of the first one no longer matters.
    recovery.settle_start(started, later, stored=False)
    assert phases(recovery.next_event(later)) == ["attempt"]


def test_a_start_that_another_monitor_preceded_is_not_repeated() -> None:
    """The recovery is the one that NATS has stored."""
    recovery = make_recovery()
    started = recovery.start(0.0)
    assert started is not None
    recovery.adopt("started", 0, "m2")
    recovery.settle_start(started, 1.0, stored=False)
    assert recovery.owner == "m2"
    assert recovery.active


@pytest.mark.parametrize("reason", [SILENCED, NOT_CONFIGURED])
def test_any_monitor_may_start_over_after_a_recovery_was_stopped(reason: str) -> None:
    """The monitor that stopped it may have no recovery of the gateway any longer, or have died."""
    recovery = make_recovery()
    recovery.adopt("attempt", 1, "m2")
    recovery.adopt("failed", 1, "m2", reason)
    assert phases(recovery.start(0.0)) == ["started"]


def test_a_recovery_is_taken_over_later_than_by_others() -> None:
    """Within the delay, another monitor may make the attempt."""
    recovery = make_recovery(after="5s")
    recovery.adopt("started", 0, "m2")
    recovery.take_over(100.0, 15.0)
    assert phases(recovery.next_event(119.9), recovery.next_event(120.0)) == ["-", "attempt"]
