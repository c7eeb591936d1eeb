"""Status changes of a monitored gateway, and the events that they cause."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import GatewayStatusChange, Rejection, Status, format_time
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.gateway.majority import View, Vote
from tickertape.producers.monitor.gateway.model import Silence, StoredStatus
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.gateway.state import (
    DISPUTE_DELAY,
    DISPUTE_INTERVAL,
    SETTLE_TIME,
    GatewayState,
    make_removal_event,
)
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


def votes_of(state: GatewayState[ProbeSettings], **others: Status) -> dict[str, Vote]:
    """Return the own vote, and those of other monitors."""
    own = {} if state.own.status is Status.UNKNOWN else {"m1": Vote("i1", state.own.current(), 1)}
    return own | {monitor: Vote("i", View(status, format_time(0.0)), 1) for monitor, status in others.items()}


def decide(state: GatewayState[ProbeSettings], now: float, **others: Status) -> GatewayStatusChange | None:
    return state.decide(votes_of(state, **others), 0, now)


def record(
    state: GatewayState[ProbeSettings], index: int, result: Result, now: float, started: float | None = None
) -> GatewayStatusChange | None:
    """Record a result in a monitor without peers; return the event that follows."""
    state.record_result(index, result, now, started)
    return decide(state, now)


def path(event: GatewayStatusChange | None) -> str:
    return f"{event.previous_status}>{event.current_status}" if event else "-"


def test_a_new_gateway_is_published_as_unknown() -> None:
    """A new gateway is published as UNKNOWN before its first result, so that the page shows it."""
    assert path(decide(make_state(), 0.0)) == "UNKNOWN>UNKNOWN"


def test_a_stored_gateway_is_not_published_again() -> None:
    """After a restart a gateway with a stored status is not published until its status changes."""
    state = make_state(stored_status(Status.HEALTHY))
    assert decide(state, 0.0) is None
    assert path(record(state, 0, FAILED, 1.0)) == "-"
    assert path(record(state, 0, FAILED, 2.0)) == "HEALTHY>UNHEALTHY"


def test_a_gateway_that_is_in_the_file_again_is_published() -> None:
    """A removed gateway that is in the file again changes from REMOVED to UNKNOWN."""
    assert path(decide(make_state(stored_status(Status.REMOVED)), 0.0)) == "REMOVED>UNKNOWN"


def test_each_change_continues_from_the_preceding_one() -> None:
    """The previous status of each event is the current status of the preceding one."""
    state = make_state()
    decide(state, 0.0)
    results = [OK, OK, FAILED, FAILED, OK, OK, SLOW, SLOW]
    changes = [path(record(state, 0, result, float(at))) for at, result in enumerate(results)]
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
    record(state, 1, FAILED, 10.0)
    record(state, 0, OK, 10.5)
    event = record(state, 1, FAILED, 11.0)
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
    assert path(record(state, 0, OK, 1.0)) == "-"
    assert path(record(state, 1, OK, 2.0)) == "UNHEALTHY>RECOVERING"
    assert path(record(state, 1, OK, 3.0)) == "RECOVERING>HEALTHY"


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


def test_the_status_of_a_peer_is_adopted_but_not_its_view() -> None:
    """A status published by a peer is adopted, and the next event continues from it; the own view stays."""
    state = known_gateway()
    assert path(record(state, 0, OK, 1.0)) == "-"
    state.adopt(peer_status(Status.UNHEALTHY), 50.0)
    assert (state.status, state.since) == (Status.UNHEALTHY, format_time(50.0))
    assert state.own.status is Status.HEALTHY
    assert path(decide(state, 50.0 + SETTLE_TIME, m2=Status.HEALTHY)) == "UNHEALTHY>HEALTHY"


def test_without_votes_the_view_continues_from_a_peer() -> None:
    """Where there are no votes, a status of a peer is the own view, too, so that it is not changed back."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    state.adopt(peer_status(Status.UNHEALTHY), 50.0, as_view=True)
    assert path(decide(state, 90.0)) == "-"
    assert path(record(state, 0, OK, 91.0)) == "UNHEALTHY>RECOVERING"


def test_a_decision_is_changed_only_by_a_later_vote() -> None:
    """A monitor that knows fewer votes than a peer does not change the status back."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    state.adopt(peer_status(Status.UNHEALTHY, vote_sequence=7), 50.0, 6)
    own = Vote("i1", state.own.current(), 3)
    peers = {"m2": Vote("i2", View(Status.HEALTHY, format_time(0.0)), 8)}
    assert path(state.decide({"m1": own}, 6, 51.0)) == "-"
    assert path(state.decide({"m1": own}, 7, 51.0)) == "-"
    assert path(state.decide({"m1": own} | peers, 6, 51.0)) == "-"
    assert path(state.decide({"m1": own} | peers, 8, 51.0)) == "UNHEALTHY>HEALTHY"


def test_the_same_status_from_a_peer_changes_nothing() -> None:
    """If a peer publishes the status that the gateway has, consecutive results continue to count."""
    state = known_gateway()
    record(state, 0, FAILED, 1.0)
    state.adopt(peer_status(Status.HEALTHY), 2.0)
    assert path(record(state, 0, FAILED, 3.0 + SETTLE_TIME)) == "HEALTHY>UNHEALTHY"


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({}, "HEALTHY>UNHEALTHY"),
        ({"m2": Status.UNKNOWN}, "HEALTHY>UNHEALTHY"),
        ({"m2": Status.HEALTHY}, "-"),
        ({"m2": Status.UNHEALTHY}, "HEALTHY>UNHEALTHY"),
        ({"m2": Status.HEALTHY, "m3": Status.UNHEALTHY}, "HEALTHY>UNHEALTHY"),
        ({"m2": Status.HEALTHY, "m3": Status.HEALTHY}, "-"),
        ({"m2": Status.DEGRADED, "m3": Status.HEALTHY}, "-"),
    ],
)
def test_the_majority_decides(others: dict[str, Status], expected: str) -> None:
    """The status changes on a strict majority of the monitors with a verdict, and otherwise stays."""
    state = known_gateway()
    state.record_result(0, FAILED, 1.0)
    state.record_result(0, FAILED, 2.0)
    assert path(decide(state, 3.0, **others)) == expected


def test_a_monitor_publishes_only_what_its_own_results_explain() -> None:
    """A monitor that disagrees leaves the event to those of the majority."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    assert path(decide(state, 2.0, m2=Status.UNHEALTHY, m3=Status.UNHEALTHY)) == "-"


def test_a_lasting_disagreement_is_published_once() -> None:
    """The views are published when monitors have disagreed for a while, and when they agree again."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    down = {"m2": Status.UNHEALTHY}
    delay = max(DISPUTE_DELAY, 2 * state.gateway.interval)
    assert state.dissent(votes_of(state, **down)) == 1
    assert [path(decide(state, at, **down)) for at in (2.0, 2.0 + delay / 2)] == ["-", "-"]
    event = decide(state, 2.0 + delay, **down)
    assert path(event) == "HEALTHY>HEALTHY"
    assert event is not None
    assert event.metadata["views"] == {"m1": "HEALTHY", "m2": "UNHEALTHY"}
    later = 2.0 + delay + DISPUTE_INTERVAL
    assert path(decide(state, later, **down)) == "-"
    assert path(decide(state, later)) == "-"
    event = decide(state, later + delay)
    assert path(event) == "HEALTHY>HEALTHY"
    assert event is not None
    assert "views" not in event.metadata


def test_a_status_began_with_the_decisive_vote() -> None:
    """The start of a status is the time of the vote that made it the majority."""
    state = make_state(replace(stored_status(Status.HEALTHY), since=format_time(0.0)))
    state.record_result(0, FAILED, 10.0)
    state.record_result(0, FAILED, 11.0)
    votes = votes_of(state) | {
        "m2": Vote("i2", View(Status.UNHEALTHY, format_time(9.0)), 2),
        "m3": Vote("i3", View(Status.HEALTHY, format_time(0.0)), 1),
    }
    event = state.decide(votes, 0, 60.0)
    assert event is not None
    assert event.metadata["since"] == format_time(11.0)


def test_the_first_monitor_that_is_back_needs_no_threshold() -> None:
    """After a time without any monitor, the first result of each probe decides without a threshold."""
    known = replace(stored_status(Status.UNKNOWN), reason="monitor_silent")
    state = make_state(known, probes=2)
    assert path(record(state, 0, OK, 1.0)) == "-"
    event = record(state, 1, FAILED, 2.0)
    assert path(event) == "UNKNOWN>UNHEALTHY"
    assert event is not None
    assert event.metadata["reason"] == "monitor_recovered"


@pytest.mark.parametrize("silent_since_start", [True, False])
def test_a_failure_after_an_outage_of_all_monitors_waits_for_no_other_probe(
    *, silent_since_start: bool
) -> None:
    """The gateway has the status of its worst probe, although another one has no verdict or never ends."""
    known = replace(stored_status(Status.UNKNOWN), reason="monitor_silent")
    state = make_state(known, probes=3)
    if not silent_since_start:
        state.record_result(2, Result(Outcome.UNKNOWN, "no license"), 1.0)
    assert path(record(state, 0, OK, 1.0)) == "-"
    assert path(record(state, 1, FAILED, 2.0)) == "UNKNOWN>UNHEALTHY"
    # Only first results need no threshold.
    assert [path(record(state, 1, OK, at)) for at in (3.0, 4.0)] == [
        "UNHEALTHY>RECOVERING",
        "RECOVERING>HEALTHY",
    ]
    assert [path(record(state, 1, FAILED, at)) for at in (5.0, 6.0)] == ["-", "HEALTHY>UNHEALTHY"]
    assert [path(record(state, 1, OK, at)) for at in (7.0, 8.0)] == [
        "UNHEALTHY>RECOVERING",
        "RECOVERING>HEALTHY",
    ]
    assert path(record(state, 2, FAILED, 9.0)) == "HEALTHY>UNHEALTHY"


def test_a_running_monitor_overrides_the_dead_mans_switch() -> None:
    """The results of a monitor that kept probing during a NATS outage override the dead man's switch."""
    state = known_gateway()
    record(state, 0, FAILED, 1.0)
    record(state, 0, FAILED, 2.0)
    state.adopt(peer_status(Status.UNKNOWN, reason="monitor_silent"), 60.0)
    assert path(decide(state, 60.0)) == "UNKNOWN>UNHEALTHY"


def test_a_gateway_that_a_peer_removes_is_published_again() -> None:
    """A gateway that a peer removes, but that is in this monitor's file, is published again."""
    state = known_gateway()
    state.adopt(peer_status(Status.REMOVED), 5.0)
    assert path(decide(state, 5.0)) == "REMOVED>HEALTHY"


def test_only_a_better_status_waits_for_the_dwell_time() -> None:
    """A better status waits until the dwell time of the current one has passed; a worse one does not."""
    state = known_gateway(dwell="10s")
    record(state, 0, FAILED, 100.0)
    assert path(record(state, 0, FAILED, 101.0)) == "HEALTHY>UNHEALTHY"
    assert [path(record(state, 0, OK, at)) for at in (102.0, 103.0, 110.9)] == ["-", "-", "-"]
    assert path(record(state, 0, OK, 111.0)) == "UNHEALTHY>HEALTHY"


def test_flapping_starts_and_ends_with_one_event_each() -> None:
    """Transitions that follow one another as fast as the thresholds allow are flapping, until they end."""
    state = known_gateway(flapping={"window": 8, "enter": 0.6, "leave": 0.2})
    down, up = [FAILED, FAILED], [OK, OK]
    found = [record(state, 0, result, float(at)) for at, result in enumerate((down + up) * 4)]
    changes = [event for event in found if event is not None]
    flags = [event.metadata.get("flapping") is True for event in changes]
    assert flags == sorted(flags), "it starts once"
    assert not flags[0]
    assert flags[-1]
    found = [record(state, 0, OK, 100.0 + at) for at in range(16)]
    assert [path(event) for event in found if event is not None] == ["HEALTHY>HEALTHY"]
    assert not state.is_flapping


def test_failures_below_the_threshold_are_no_flapping() -> None:
    """Only published transitions count, not the results of one monitor."""
    state = known_gateway(flapping={"window": 5, "enter": 0.2, "leave": 0.1})
    assert not any(record(state, 0, OK if at % 2 else FAILED, float(at)) for at in range(20))


def test_transitions_of_a_peer_are_flapping_too() -> None:
    """Transitions that other monitors publish count like the own ones."""
    state = known_gateway(flapping={"window": 8, "enter": 0.6, "leave": 0.2})
    for at in range(20):
        state.adopt(peer_status((Status.UNHEALTHY, Status.HEALTHY)[at % 2]), float(at))
        state.record_result(0, OK, float(at))
    assert state.is_flapping


def test_the_flapping_state_of_a_peer_is_kept_for_a_window() -> None:
    """A monitor that has seen none of the transitions, as after a restart, does not end it immediately."""
    state = known_gateway(flapping={"window": 8, "enter": 0.6, "leave": 0.2})
    state.adopt(peer_status(Status.HEALTHY, flapping=True), 0.0)
    found = [record(state, 0, OK, 10.0 + at) for at in range(8)]
    assert [path(event) for event in found] == ["-"] * 7 + ["HEALTHY>HEALTHY"]


def test_flapping_ends_after_a_restart() -> None:
    """The event that marks a gateway as flapping is followed by one that does not, by whichever process."""
    state = make_state(replace(stored_status(Status.HEALTHY), flapping=True))
    found = [record(state, 0, OK, 10.0 + at) for at in range(30)]
    assert [path(event) for event in found if event is not None] == ["HEALTHY>HEALTHY"]
    assert not state.is_flapping


def test_a_gateway_is_off_session_while_its_exchange_is_closed() -> None:
    """A gateway whose exchange is closed is OFF_SESSION and ignores results; it reopens as UNKNOWN."""
    state = known_gateway()
    record(state, 0, FAILED, 1.0)
    state.close_session(2.0)
    assert path(decide(state, 2.0)) == "HEALTHY>OFF_SESSION"
    assert [path(record(state, 0, FAILED, at)) for at in (3.0, 4.0, 5.0)] == ["-", "-", "-"]
    state.open_session(6.0)
    assert path(state.decide({"m1": Vote("i1", state.own.current(), 1)}, 0, 6.0)) == "OFF_SESSION>UNKNOWN"
    assert [path(record(state, 0, OK, at)) for at in (8.0, 9.0)] == ["-", "UNKNOWN>HEALTHY"]


def test_a_monitor_with_another_calendar_does_not_close_a_gateway() -> None:
    """The exchange is closed, and open, when a majority of the monitors says so."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    assert path(decide(state, 2.0, m2=Status.OFF_SESSION, m3=Status.HEALTHY)) == "-"
    state.close_session(3.0)
    assert path(decide(state, 3.0, m2=Status.OFF_SESSION, m3=Status.HEALTHY)) == "HEALTHY>OFF_SESSION"


def test_a_silence_marks_events() -> None:
    """A silence marks the events of status changes; its beginning and its end are events, too."""
    state = known_gateway()
    state.set_silence(Silence(100.0, "exchange test", "ops"), 1.0)
    quiet = decide(state, 1.0)
    assert quiet is not None
    assert quiet.metadata["silenced"] == {"until": format_time(100.0), "reason": "exchange test", "by": "ops"}
    record(state, 0, FAILED, 2.0)
    event = record(state, 0, FAILED, 3.0)
    assert event is not None
    assert "silenced" in event.metadata
    state.set_silence(None, 101.0)
    ended = decide(state, 101.0)
    assert ended is not None
    assert "silenced" not in ended.metadata
    assert decide(state, 101.0) is None


def test_a_silence_that_a_peer_published_is_not_published_again() -> None:
    """A silence whose beginning or end a peer has published is not published again."""
    state = known_gateway()
    state.adopt(peer_status(Status.HEALTHY, silenced=True), 1.0)
    state.set_silence(Silence(100.0, "", "ops"), 2.0)
    assert decide(state, 2.0) is None
    state.adopt(peer_status(Status.HEALTHY), 101.0)
    state.set_silence(None, 102.0)
    assert decide(state, 102.0) is None


def test_after_an_outage_of_its_own_a_monitor_continues_from_the_published_status() -> None:
    """A monitor that was offline has no verdict before a result, which supports what was published."""
    state = known_gateway()
    record(state, 0, OK, 1.0)
    state.own.discard()
    state.adopt(peer_status(Status.UNHEALTHY), 20.0)
    assert state.own.take_new() is None
    state.record_result(0, FAILED, 30.0)
    assert state.own.current().status is Status.UNHEALTHY


def test_the_probes_of_a_monitor_that_disagreed_are_not_restored() -> None:
    """After a restart, probes of an event that do not explain its status take the status."""
    state = make_state(stored_status(Status.UNHEALTHY, {"tcp h:1": "HEALTHY"}))
    state.record_result(0, FAILED, 1.0)
    assert state.own.status is Status.UNHEALTHY


@given(st.lists(st.sampled_from([OK, SLOW, FAILED]), max_size=60), st.integers(1, 4), st.integers(1, 4))
def test_a_change_requires_consecutive_results(results: list[Result], down: int, up: int) -> None:
    """A gateway becomes UNHEALTHY only after enough consecutive failures, and HEALTHY only after enough
    consecutive answers.
    """
    state = known_gateway(unhealthy_after=down, healthy_after=up)
    for number, result in enumerate(results):
        event = record(state, 0, result, float(number))
        if event is None or event.previous_status is event.current_status:
            continue
        failed = [item.outcome is Outcome.FAILED for item in results[: number + 1]]
        if event.current_status is Status.UNHEALTHY and event.previous_status is not Status.RECOVERING:
            assert len(failed) >= down
            assert all(failed[-down:])
        if event.current_status is Status.HEALTHY:
            assert not any(failed[-up:])


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_neither_ends_nor_extends_the_dwell_time(step: float) -> None:
    """The time in a status is measured from its change, on whichever side of a step that was."""
    state = known_gateway(dwell="10s")
    assert path(record(state, 0, FAILED, 100.0)) == "-"
    assert path(record(state, 0, FAILED, 101.0)) == "HEALTHY>UNHEALTHY"
    state.shift_clock(step)
    now = 100.0 + step
    assert [path(record(state, 0, OK, now + seconds)) for seconds in (2, 3, 4)] == ["-"] * 3
    assert path(record(state, 0, OK, now + 12)) == "UNHEALTHY>HEALTHY"


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_results_count_after_the_clock_was_set(step: float) -> None:
    """The status of a peer that was adopted before a step does not suppress the results after it."""
    state = known_gateway()
    state.adopt(stored_status(Status.HEALTHY), 100.0)
    state.shift_clock(step)
    now = 100.0 + step + 1
    assert path(record(state, 0, FAILED, now, now)) == "-"
    assert path(record(state, 0, FAILED, now + 1, now + 1)) == "HEALTHY>UNHEALTHY"
