"""When a gateway is to be brought back: literal times."""

from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.gateway.recovery_policy import Recovery


def recovery(**settings: object) -> Recovery:
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


def test_a_course_from_beginning_to_success() -> None:
    """Started once, attempted after the wait, done when the gateway is well."""
    one = recovery(after="5s")
    assert phases(one.start(100.0), one.start(100.0)) == ["started", "-"]
    assert phases(one.next_event(104.9), one.next_event(105.0), one.next_event(500.0)) == [
        "-",
        "attempt",
        "-",
    ]
    one.finish_attempt(106.0)
    assert one.due() == 136.0
    assert phases(one.succeed(120.0), one.succeed(121.0)) == ["succeeded", "-"]
    assert phases(one.next_event(1_000.0)) == ["-"]


def test_attempts_wait_longer_and_end() -> None:
    """The wait doubles; after the last attempt it has failed, and is not begun again until it was well."""
    one = recovery()
    one.start(0.0)
    assert phases(one.next_event(0.0)) == ["attempt"]
    one.finish_attempt(1.0)
    assert phases(one.next_event(30.9), one.next_event(31.0)) == ["-", "attempt"]
    one.finish_attempt(32.0)
    last = one.next_event(92.0)
    assert last is not None
    assert (last.phase, last.attempt, last.metadata["reason"]) == (
        "failed",
        2,
        "not recovered after 2 attempts",
    )
    assert phases(one.start(100.0), one.next_event(1_000.0)) == ["-", "-"]
    one.abandon()
    assert phases(one.start(200.0)) == ["started"]


def test_no_more_attempts_in_an_hour_than_allowed() -> None:
    """However often it fails and comes back by itself; the next hour has its own."""
    one = recovery(per_hour=2)
    made = 0
    for round_ in range(6):
        now = round_ * 100.0
        one.start(now)
        event = one.next_event(now)
        assert event is not None
        made += event.phase == "attempt"
        one.finish_attempt(now)
        one.succeed(now + 10)
    assert made == 2
    one.abandon()
    one.start(3_601.0)
    assert phases(one.next_event(3_601.0)) == ["attempt"]


def test_another_monitor_sees_to_it() -> None:
    """Its attempts and its end are told by the other one alone."""
    one = recovery()
    one.start(0.0)
    one.cede()
    assert phases(one.next_event(10.0), one.start(20.0), one.succeed(30.0)) == ["-", "-", "-"]
    assert phases(one.start(40.0)) == ["started"]
