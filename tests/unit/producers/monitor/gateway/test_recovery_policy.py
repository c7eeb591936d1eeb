"""The schedule of recovery attempts, with literal times."""

from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.gateway.recovery_policy import Recovery


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


def phases(*events: object) -> list[str]:
    return [getattr(event, "phase", "-") for event in events]


def test_a_recovery_starts_attempts_and_succeeds() -> None:
    """A recovery starts once, attempts after its delay, and succeeds when the gateway is healthy."""
    recovery = make_recovery(after="5s")
    assert phases(recovery.start(100.0), recovery.start(100.0)) == ["started", "-"]
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
    recovery.start(0.0)
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
    assert phases(recovery.start(100.0), recovery.next_event(1_000.0)) == ["-", "-"]
    recovery.abandon()
    assert phases(recovery.start(200.0)) == ["started"]


def test_attempts_are_limited_per_hour() -> None:
    """Attempts are limited per hour, even if the gateway recovers on its own in between."""
    recovery = make_recovery(per_hour=2)
    attempts = 0
    for round_ in range(6):
        now = round_ * 100.0
        recovery.start(now)
        event = recovery.next_event(now)
        assert event is not None
        attempts += event.phase == "attempt"
        recovery.finish_attempt(now)
        recovery.succeed(now + 10)
    assert attempts == 2
    recovery.abandon()
    recovery.start(3_601.0)
    assert phases(recovery.next_event(3_601.0)) == ["attempt"]


def test_a_recovery_is_ceded_to_another_monitor() -> None:
    """After another monitor takes over a recovery, this one publishes neither its attempts nor its result."""
    recovery = make_recovery()
    recovery.start(0.0)
    recovery.cede()
    assert phases(recovery.next_event(10.0), recovery.start(20.0), recovery.succeed(30.0)) == ["-", "-", "-"]
    assert phases(recovery.start(40.0)) == ["started"]
