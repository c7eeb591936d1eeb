"""Status changes of a monitored gateway, and the events that they cause."""

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


def make_state(stored_status: StoredStatus | None = None, probes: int = 1) -> GatewayState[ProbeSettings]:
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
    return GatewayState(config.resolve_gateways()[0], "m1", stored_status, 0.0)


def stored_status(status: Status, probes: dict[str, str] | None = None) -> StoredStatus:
    return StoredStatus("ctp", "main", status, "2025-01-01T00:00:00Z", "m1", probes or {})


def path(event: GatewayStatusChange | None) -> str:
    return f"{event.previous_status}>{event.current_status}" if event else "-"


def test_a_new_gateway_is_published_as_unknown() -> None:
    """A new gateway is published as UNKNOWN before its first result, so that the page shows it."""
    assert path(make_state().initial_event(0.0)) == "UNKNOWN>UNKNOWN"


def test_a_stored_gateway_is_not_published_again() -> None:
    """After a restart a gateway with a stored status is not published until its status changes."""
    state = make_state(stored_status(Status.HEALTHY))
    assert state.initial_event(0.0) is None
    assert path(state.record_result(0, FAILED, 1.0)) == "-"
    assert path(state.record_result(0, FAILED, 2.0)) == "HEALTHY>UNHEALTHY"


def test_a_gateway_that_is_in_the_file_again_is_published() -> None:
    """A removed gateway that is in the file again changes from REMOVED to UNKNOWN."""
    assert path(make_state(stored_status(Status.REMOVED)).initial_event(0.0)) == "REMOVED>UNKNOWN"


def test_each_change_continues_from_the_preceding_one() -> None:
    """The previous status of each event is the current status of the preceding one."""
    state = make_state()
    results = [OK, OK, FAILED, FAILED, OK, OK, SLOW, SLOW]
    changes = [path(state.record_result(0, result, float(at))) for at, result in enumerate(results)]
    assert [change for change in changes if change != "-"] == [
        "UNKNOWN>HEALTHY",
        "HEALTHY>UNHEALTHY",
        "UNHEALTHY>RECOVERING",
        "RECOVERING>HEALTHY",
        "HEALTHY>DEGRADED",
    ]


def test_an_event_is_valid_and_contains_the_cause() -> None:
    """An event is valid, and contains the failing probe, its error, the group and the labels."""
    state = make_state(stored_status(Status.HEALTHY), probes=2)
    state.record_result(1, FAILED, 10.0)
    state.record_result(0, OK, 10.5)
    event = state.record_result(1, FAILED, 11.0)
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


def test_a_restart_restores_each_probe() -> None:
    """After a restart a gateway recovers as soon as its failing probe does, before the others have run."""
    state = make_state(
        stored_status(Status.UNHEALTHY, {"tcp h:1": "HEALTHY", "tcp h:2": "UNHEALTHY"}), probes=2
    )
    assert path(state.record_result(0, OK, 1.0)) == "-"
    assert path(state.record_result(1, OK, 2.0)) == "UNHEALTHY>RECOVERING"
    assert path(state.record_result(1, OK, 3.0)) == "RECOVERING>HEALTHY"


def test_a_removal_event_has_the_last_status() -> None:
    """The removal event has the last status of the gateway and is published on the gateway's subject."""
    event = make_removal_event(stored_status(Status.UNHEALTHY), "m1", 5.0)
    assert path(event) == "UNHEALTHY>REMOVED"
    assert event.subject == "gateway.status.ctp.main"


def test_first_probes_are_spread_over_the_interval() -> None:
    """The first probes of many gateways are spread over the interval, with a constant delay for each."""
    moments = [initial_delay(f"gateway {number}", 5.0) for number in range(1000)]
    assert all(0 <= moment < 5 for moment in moments)
    fifths = [sum(1 for moment in moments if int(moment) == fifth) for fifth in range(5)]
    assert min(fifths) > 150
    assert initial_delay("gateway 7", 5.0) == moments[7]


def known_gateway(**settings: object) -> GatewayState[ProbeSettings]:
    body = {"id": "main", "type": "ctp", "probes": [{"kind": "tcp", "address": "h:1"}], **settings}
    defaults = {"unhealthy_after": 2, "healthy_after": 2}
    config = MonitorConfig.model_validate({"defaults": defaults, "gateways": [body]})
    return GatewayState(config.resolve_gateways()[0], "m1", stored_status(Status.HEALTHY), 0.0)


def peer_status(status: Status, **more: object) -> StoredStatus:
    return replace(stored_status(status), monitor="m2", since=format_time(50.0), **more)  # type: ignore[arg-type]


def test_the_status_of_a_peer_is_adopted() -> None:
    """A status published by a peer is adopted as after a restart, and the next event continues from it."""
    state = known_gateway()
    state.record_result(0, FAILED, 1.0)
    assert state.adopt(peer_status(Status.UNHEALTHY), 50.0) is None
    assert (state.status, state.since) == (Status.UNHEALTHY, format_time(50.0))
    assert path(state.record_result(0, OK, 51.0)) == "UNHEALTHY>RECOVERING"


def test_a_probe_started_before_the_adoption_is_ignored() -> None:
    """A probe that started before the peer published its status does not override that status."""
    state = known_gateway()
    state.adopt(peer_status(Status.UNHEALTHY), 50.0)
    assert path(state.record_result(0, OK, 50.5, started=49.9)) == "-"
    assert state.status is Status.UNHEALTHY


def test_the_same_status_from_a_peer_changes_nothing() -> None:
    """If a peer publishes the status that the gateway has, consecutive results continue to count."""
    state = known_gateway()
    state.record_result(0, FAILED, 1.0)
    state.adopt(peer_status(Status.HEALTHY), 2.0)
    assert path(state.record_result(0, FAILED, 3.0)) == "HEALTHY>UNHEALTHY"


def test_the_first_monitor_that_is_back_needs_no_threshold() -> None:
    """After a time without any monitor, the first result of each probe decides without a threshold."""
    known = replace(stored_status(Status.UNKNOWN), reason="monitor_silent")
    state = make_state(known, probes=2)
    assert path(state.record_result(0, OK, 1.0)) == "-"
    event = state.record_result(1, FAILED, 2.0)
    assert path(event) == "UNKNOWN>UNHEALTHY"
    assert event is not None
    assert event.metadata["reason"] == "monitor_recovered"


def test_a_running_monitor_overrides_the_dead_mans_switch() -> None:
    """The results of a monitor that kept probing during a NATS outage override the dead man's switch."""
    state = known_gateway()
    state.record_result(0, FAILED, 1.0)
    state.record_result(0, FAILED, 2.0)
    assert (
        path(state.adopt(peer_status(Status.UNKNOWN, reason="monitor_silent"), 60.0)) == "UNKNOWN>UNHEALTHY"
    )


def test_a_gateway_that_a_peer_removes_is_published_again() -> None:
    """A gateway that a peer removes, but that is in this monitor's file, is published again."""
    assert path(known_gateway().adopt(peer_status(Status.REMOVED), 5.0)) == "REMOVED>HEALTHY"


def test_only_a_better_status_waits_for_the_dwell_time() -> None:
    """A better status waits until the dwell time of the current one has passed; a worse one does not."""
    state = known_gateway(dwell="10s")
    state.record_result(0, FAILED, 100.0)
    assert path(state.record_result(0, FAILED, 101.0)) == "HEALTHY>UNHEALTHY"
    assert [path(state.record_result(0, OK, at)) for at in (102.0, 103.0, 110.9)] == ["-", "-", "-"]
    assert path(state.record_result(0, OK, 111.0)) == "UNHEALTHY>HEALTHY"


def test_flapping_starts_and_ends_with_one_event_each() -> None:
    """The beginning and the end of flapping are one event each, and only the first is marked as flapping."""
    state = known_gateway(flapping={"window": 5, "enter": 0.6, "leave": 0.2})
    events = [state.record_result(0, OK if at % 2 else FAILED, float(at)) for at in range(8)]
    changes = [event for event in events if event]
    assert [path(event) for event in changes] == ["HEALTHY>HEALTHY"]
    assert changes[0].metadata["flapping"] is True
    events = [state.record_result(0, OK, float(at)) for at in range(8, 16)]
    changes = [event for event in events if event]
    assert [path(event) for event in changes] == ["HEALTHY>HEALTHY"]
    assert "flapping" not in changes[0].metadata


def test_a_gateway_is_off_session_while_its_exchange_is_closed() -> None:
    """A gateway whose exchange is closed is OFF_SESSION and ignores results; it reopens as UNKNOWN."""
    state = known_gateway()
    state.record_result(0, FAILED, 1.0)
    closed = state.close_session(2.0)
    assert path(closed) == "HEALTHY>OFF_SESSION"
    assert state.close_session(3.0) is None
    assert [path(state.record_result(0, FAILED, at)) for at in (3.0, 4.0, 5.0)] == ["-", "-", "-"]
    assert path(state.open_session(6.0)) == "OFF_SESSION>UNKNOWN"
    assert state.open_session(7.0) is None
    assert [path(state.record_result(0, OK, at)) for at in (8.0, 9.0)] == ["-", "UNKNOWN>HEALTHY"]


def test_a_silence_marks_events() -> None:
    """A silence marks the events of status changes; its beginning and its end are events, too."""
    state = known_gateway()
    quiet = state.set_silence(Silence(100.0, "exchange test", "ops"), 1.0)
    assert quiet is not None
    assert quiet.metadata["silenced"] == {"until": format_time(100.0), "reason": "exchange test", "by": "ops"}
    state.record_result(0, FAILED, 2.0)
    event = state.record_result(0, FAILED, 3.0)
    assert event is not None
    assert "silenced" in event.metadata
    ended = state.set_silence(None, 101.0)
    assert ended is not None
    assert "silenced" not in ended.metadata


def test_a_silence_that_a_peer_published_is_not_published_again() -> None:
    """A silence whose beginning or end a peer has published is not published again."""
    state = known_gateway()
    state.adopt(peer_status(Status.HEALTHY, silenced=True), 1.0)
    assert state.set_silence(Silence(100.0, "", "ops"), 2.0) is None
    state.adopt(peer_status(Status.HEALTHY), 101.0)
    assert state.set_silence(None, 102.0) is None


@given(st.lists(st.sampled_from([OK, SLOW, FAILED]), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_a_change_requires_consecutive_results(results: list[Result], down: int, up: int) -> None:
    """A gateway becomes UNHEALTHY only after enough consecutive failures, and HEALTHY only after enough
    consecutive answers.
    """
    state = known_gateway(unhealthy_after=down, healthy_after=up)
    for number, result in enumerate(results):
        event = state.record_result(0, result, float(number))
        if event is None or event.previous_status is event.current_status:
            continue
        failed = [item.outcome is Outcome.FAILED for item in results[: number + 1]]
        if event.current_status is Status.UNHEALTHY and event.previous_status is not Status.RECOVERING:
            assert len(failed) >= down
            assert all(failed[-down:])
        if event.current_status is Status.HEALTHY:
            assert not any(failed[-up:])
