"""A gateway under watch: which events its results make."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import GatewayStatusChange, Rejection, Status, format_time
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.gateway.model import Silence, StoredStatus
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.gateway.state import GatewayState, make_removal_event
from tickertape.producers.monitor.monitored_gateway import initial_delay
from tickertape.producers.monitor.probes import ProbeSettings

OK = Result(Outcome.OK, None, 0.002)
FAILED = Result(Outcome.FAILED, "connection refused")
SLOW = Result(Outcome.DEGRADED, "answered in 700 ms", 0.7)


def watch(newest: StoredStatus | None = None, probes: int = 1) -> GatewayState[ProbeSettings]:
    config = MonitorConfig.model_validate(
        {
            "defaults": {"unhealthy_after": 2, "healthy_after": 2},
            "gateways": [
                {
                    "id": "main",
                    "type": "ctp",
                    "group": "futures",
                    "labels": {"site": "sh"},
                    "probes": [{"kind": "tcp", "address": f"h:{port}"} for port in range(1, probes + 1)],
                }
            ],
        }
    )
    return GatewayState(config.resolve_gateways()[0], "m1", newest, 0.0)


def newest(status: Status, probes: dict[str, str] | None = None) -> StoredStatus:
    return StoredStatus("ctp", "main", status, "2025-01-01T00:00:00Z", "m1", probes or {})


def path(event: GatewayStatusChange | None) -> str:
    return f"{event.previous_status}>{event.current_status}" if event else "-"


def test_a_gateway_that_nobody_knows_is_told_as_unknown() -> None:
    """The page shows a new gateway before its first verdict."""
    assert path(watch().initial_event(0.0)) == "UNKNOWN>UNKNOWN"


def test_a_gateway_that_is_known_is_not_told_again() -> None:
    """After a restart nothing is told until something changes."""
    one = watch(newest(Status.HEALTHY))
    assert one.initial_event(0.0) is None
    assert path(one.record_result(0, FAILED, 1.0)) == "-"
    assert path(one.record_result(0, FAILED, 2.0)) == "HEALTHY>UNHEALTHY"


def test_a_gateway_that_comes_back_to_the_file_is_told() -> None:
    """REMOVED is followed by UNKNOWN."""
    assert path(watch(newest(Status.REMOVED)).initial_event(0.0)) == "REMOVED>UNKNOWN"


def test_changes_follow_on_one_another() -> None:
    """Each event begins with the status that the one before ended with."""
    one = watch()
    results = [OK, OK, FAILED, FAILED, OK, OK, SLOW, SLOW]
    told = [path(one.record_result(0, result, float(at))) for at, result in enumerate(results)]
    assert [change for change in told if change != "-"] == [
        "UNKNOWN>HEALTHY",
        "HEALTHY>UNHEALTHY",
        "UNHEALTHY>RECOVERING",
        "RECOVERING>HEALTHY",
        "HEALTHY>DEGRADED",
    ]


def test_an_event_says_why_and_keeps_the_contract() -> None:
    """The failing probe, its error, the group and the labels stand in the event."""
    one = watch(newest(Status.HEALTHY), probes=2)
    one.record_result(1, FAILED, 10.0)
    one.record_result(0, OK, 10.5)
    event = one.record_result(1, FAILED, 11.0)
    assert event is not None
    assert event.metadata == {
        "monitor": "m1",
        "since": "1970-01-01T00:00:11.000Z",
        "probes": {"tcp h:1": "HEALTHY", "tcp h:2": "UNHEALTHY"},
        "labels": {"site": "sh"},
        "group": "futures",
        "probe": "tcp h:2",
        "error": "connection refused",
        "latency_ms": 2.0,
    }
    assert not isinstance(decode(event.subject, event.encode()), Rejection)


def test_a_restart_goes_on_with_each_probe() -> None:
    """When the failing probe answers again, the gateway recovers, though the other was never asked."""
    one = watch(newest(Status.UNHEALTHY, {"tcp h:1": "HEALTHY", "tcp h:2": "UNHEALTHY"}), probes=2)
    assert path(one.record_result(0, OK, 1.0)) == "-"
    assert path(one.record_result(1, OK, 2.0)) == "UNHEALTHY>RECOVERING"
    assert path(one.record_result(1, OK, 3.0)) == "RECOVERING>HEALTHY"


def test_a_removed_gateway_leaves_with_its_last_status() -> None:
    """The event goes to the gateway's own subject."""
    event = make_removal_event(newest(Status.UNHEALTHY), "m1", 5.0)
    assert path(event) == "UNHEALTHY>REMOVED"
    assert event.subject == "gateway.status.ctp.main"


def test_first_probes_are_spread_over_the_interval() -> None:
    """A thousand gateways are not asked in the same moment, and each has the same moment at every start."""
    moments = [initial_delay(f"gateway {number}", 5.0) for number in range(1000)]
    assert all(0 <= moment < 5 for moment in moments)
    fifths = [sum(1 for moment in moments if int(moment) == fifth) for fifth in range(5)]
    assert min(fifths) > 150
    assert initial_delay("gateway 7", 5.0) == moments[7]


def gateway(**settings: object) -> GatewayState[ProbeSettings]:
    body = {"id": "main", "type": "ctp", "probes": [{"kind": "tcp", "address": "h:1"}], **settings}
    defaults = {"unhealthy_after": 2, "healthy_after": 2}
    config = MonitorConfig.model_validate({"defaults": defaults, "gateways": [body]})
    return GatewayState(config.resolve_gateways()[0], "m1", newest(Status.HEALTHY), 0.0)


def said(status: Status, **more: object) -> StoredStatus:
    return replace(newest(status), monitor="m2", since=format_time(50.0), **more)  # type: ignore[arg-type]


def test_anothers_word_counts() -> None:
    """It is taken over as after a restart, and what is told next begins with it."""
    one = gateway()
    one.record_result(0, FAILED, 1.0)
    assert one.adopt(said(Status.UNHEALTHY), 50.0) is None
    assert (one.status, one.since) == (Status.UNHEALTHY, format_time(50.0))
    assert path(one.record_result(0, OK, 51.0)) == "UNHEALTHY>RECOVERING"


def test_a_look_from_before_says_nothing_against_it() -> None:
    """It began before the other one spoke, and saw what was then."""
    one = gateway()
    one.adopt(said(Status.UNHEALTHY), 50.0)
    assert path(one.record_result(0, OK, 50.5, started=49.9)) == "-"
    assert one.status is Status.UNHEALTHY


def test_the_same_word_from_another_changes_nothing() -> None:
    """The runs of results go on; only the moment is that of who was first."""
    one = gateway()
    one.record_result(0, FAILED, 1.0)
    one.adopt(said(Status.HEALTHY), 2.0)
    assert path(one.record_result(0, FAILED, 3.0)) == "HEALTHY>UNHEALTHY"


def test_the_first_monitor_back_needs_no_threshold() -> None:
    """NATS said that nobody watches: the first look at each probe decides."""
    known = replace(newest(Status.UNKNOWN), reason="monitor_silent")
    one = watch(known, probes=2)
    assert path(one.record_result(0, OK, 1.0)) == "-"
    event = one.record_result(1, FAILED, 2.0)
    assert path(event) == "UNKNOWN>UNHEALTHY"
    assert event is not None
    assert event.metadata["reason"] == "monitor_back"


def test_a_monitor_that_lives_contradicts_at_once() -> None:
    """NATS was away and its switch fired at its return; what was found meanwhile counts."""
    one = gateway()
    one.record_result(0, FAILED, 1.0)
    one.record_result(0, FAILED, 2.0)
    assert path(one.adopt(said(Status.UNKNOWN, reason="monitor_silent"), 60.0)) == "UNKNOWN>UNHEALTHY"


def test_a_gateway_that_left_another_file_is_still_in_ours() -> None:
    """It is told again."""
    assert path(gateway().adopt(said(Status.REMOVED), 5.0)) == "REMOVED>HEALTHY"


def test_a_better_status_waits_for_the_dwell_and_a_worse_one_does_not() -> None:
    """As long as it has not been in its status for that long."""
    one = gateway(dwell="10s")
    one.record_result(0, FAILED, 100.0)
    assert path(one.record_result(0, FAILED, 101.0)) == "HEALTHY>UNHEALTHY"
    assert [path(one.record_result(0, OK, at)) for at in (102.0, 103.0, 110.9)] == ["-", "-", "-"]
    assert path(one.record_result(0, OK, 111.0)) == "UNHEALTHY>HEALTHY"


def test_flapping_begins_and_ends_with_one_event_each() -> None:
    """Its changes are told on, marked."""
    one = gateway(flapping={"window": 5, "enter": 0.6, "leave": 0.2})
    events = [one.record_result(0, OK if at % 2 else FAILED, float(at)) for at in range(8)]
    told = [event for event in events if event]
    assert [path(event) for event in told] == ["HEALTHY>HEALTHY"]
    assert told[0].metadata["flapping"] is True
    events = [one.record_result(0, OK, float(at)) for at in range(8, 16)]
    told = [event for event in events if event]
    assert [path(event) for event in told] == ["HEALTHY>HEALTHY"]
    assert "flapping" not in told[0].metadata


def test_outside_of_its_session_nothing_alarms() -> None:
    """It is told when it closes, is not judged, and begins anew when it opens."""
    one = gateway()
    one.record_result(0, FAILED, 1.0)
    closed = one.close_session(2.0)
    assert path(closed) == "HEALTHY>OFF_SESSION"
    assert one.close_session(3.0) is None
    assert [path(one.record_result(0, FAILED, at)) for at in (3.0, 4.0, 5.0)] == ["-", "-", "-"]
    assert path(one.open_session(6.0)) == "OFF_SESSION>UNKNOWN"
    assert one.open_session(7.0) is None
    assert [path(one.record_result(0, OK, at)) for at in (8.0, 9.0)] == ["-", "UNKNOWN>HEALTHY"]


def test_a_silence_marks_what_is_told() -> None:
    """Its beginning and its end are told; the status goes on."""
    one = gateway()
    quiet = one.set_silence(Silence(100.0, "exchange test", "ops"), 1.0)
    assert quiet is not None
    assert quiet.metadata["silenced"] == {"until": format_time(100.0), "reason": "exchange test", "by": "ops"}
    one.record_result(0, FAILED, 2.0)
    event = one.record_result(0, FAILED, 3.0)
    assert event is not None
    assert "silenced" in event.metadata
    ended = one.set_silence(None, 101.0)
    assert ended is not None
    assert "silenced" not in ended.metadata


def test_a_silence_that_another_has_told_is_not_told_again() -> None:
    """Neither its beginning nor its end."""
    one = gateway()
    one.adopt(said(Status.HEALTHY, silenced=True), 1.0)
    assert one.set_silence(Silence(100.0, "", "ops"), 2.0) is None
    one.adopt(said(Status.HEALTHY), 101.0)
    assert one.set_silence(None, 102.0) is None


@given(st.lists(st.sampled_from([OK, SLOW, FAILED]), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_nothing_changes_without_results_in_a_row(results: list[Result], down: int, up: int) -> None:
    """To UNHEALTHY only after so many failures on end, to HEALTHY only after so many answers on end."""
    one = gateway(unhealthy_after=down, healthy_after=up)
    for number, result in enumerate(results):
        event = one.record_result(0, result, float(number))
        if event is None or event.previous_status is event.current_status:
            continue
        seen = [item.outcome is Outcome.FAILED for item in results[: number + 1]]
        if event.current_status is Status.UNHEALTHY and event.previous_status is not Status.RECOVERING:
            assert len(seen) >= down
            assert all(seen[-down:])
        if event.current_status is Status.HEALTHY:
            assert not any(seen[-up:])
