"""Timelines of all gateways: what they accept, and their bounds."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import (
    MODELS,
    Event,
    GatewayRecovery,
    GatewayStatusChange,
    Status,
    format_time,
)
from tickertape.relay.core.timeline import timelines as module
from tickertape.relay.core.timeline.changes import GatewayKey, RecoveryStep, read_change
from tickertape.relay.core.timeline.texts import Texts
from tickertape.relay.core.timeline.timeline import StoredSilence
from tickertape.relay.core.timeline.timelines import Timelines, subjects_of

MAIN = GatewayKey("ctp", "main")


def status(time: float, current: Status, gateway: str = "main", kind: str = "ctp", **metadata: Any) -> bytes:
    """Return a status event."""
    return GatewayStatusChange(
        timestamp=format_time(time),
        gateway_id=gateway,
        gateway_type=kind,
        previous_status=Status.UNKNOWN,
        current_status=current,
        metadata=metadata,
    ).encode()


def filled(count: int, *, max_entries: int = 100, max_gateways: int = 100) -> Timelines:
    """Return timelines with some gateways of one event each."""
    found = Timelines(max_entries, max_gateways)
    for number in range(count):
        found.add(f"gateway.status.ctp.g{number}", status(number, Status.HEALTHY, f"g{number}"))
    return found


def test_events_of_a_gateway_make_a_timeline() -> None:
    """Statuses, errors, silences and recoveries are kept by gateway."""
    timelines = Timelines()
    silenced = {"until": format_time(99), "reason": "moving", "by": "alice"}
    assert timelines.add("gateway.status.ctp.main", status(1, Status.UNHEALTHY, error="refused", reason="x"))
    assert timelines.add("gateway.status.ctp.main", status(2, Status.UNKNOWN, reason="monitor_silent"))
    assert timelines.add("gateway.status.ctp.main", status(3, Status.UNHEALTHY, silenced=silenced))
    step = GatewayRecovery(
        timestamp=format_time(2), gateway_id="main", gateway_type="ctp", phase="attempt", attempt=3
    )
    for expected in (True, False):  # the second one is the same event
        assert timelines.add("gateway.recovery.ctp.main", step.encode()) is expected
    timeline = timelines.get(MAIN)
    assert timeline is not None
    entries = [timeline.entry(index) for index in range(3)]
    assert [(one.time, one.status, timelines.texts[one.text], one.is_error) for one in entries] == [
        (1000, Status.UNHEALTHY, "refused", True),
        (2000, Status.UNKNOWN, "monitor_silent", False),
        (3000, Status.UNHEALTHY, "", False),
    ]
    silence = entries[2].silence
    assert isinstance(silence, StoredSilence)
    assert (silence.until, timelines.texts[silence.reason], timelines.texts[silence.by]) == (
        99_000,
        "moving",
        "alice",
    )
    assert list(timeline.steps(0, 2000)) == [RecoveryStep(2000, 1, 3)]
    assert timeline.at(999) is None
    assert timeline.at(2500) == entries[1]
    assert timelines.entries == len(timeline) == 4
    assert subjects_of(GatewayKey("c.p", "a/b")) == (
        "gateway.status.c=2Ep.a=2Fb",
        "gateway.recovery.c=2Ep.a=2Fb",
    )


def test_other_messages_are_ignored() -> None:
    """An event of another type, or of another gateway than its subject names, has no effect."""
    timelines = Timelines()
    main = status(1, Status.HEALTHY)
    for subject in (
        "log.info.x",
        "gateway.status.ctp.other",
        "gateway.status.ctp",
        "gateway.history.x",
        "a..b",
    ):
        assert not timelines.add(subject, main)
    assert not timelines.add("gateway.recovery.ctp.main", main)
    assert len(timelines) == timelines.entries == 0


_values: st.SearchStrategy[Any] = st.sampled_from(
    [
        "ctp",
        "main",
        "",
        "HEALTHY",
        "attempt",
        "2026-01-01T00:00:00Z",
        "gateway_recovery",
        None,
        1,
        -1,
        True,
        1.0,
        {},
        [],
        {"error": 3},
    ]
)
_status = {
    "event_type": "gateway_status_change",
    "timestamp": "2026-01-01T00:00:00.5Z",
    "gateway_id": "main",
    "gateway_type": "ctp",
    "previous_status": "HEALTHY",
    "current_status": "UNHEALTHY",
    "metadata": {"error": "x", "silenced": {"until": "never"}},
}
_step = {**_status, "event_type": "gateway_recovery", "phase": "failed", "attempt": 2}


@given(
    st.sampled_from(["status", "recovery"]),
    st.sampled_from([_status, _step]),
    st.dictionaries(st.sampled_from([*_step, "extra"]), _values, max_size=2),
    st.sets(st.sampled_from(list(_step)), max_size=1),
    st.sampled_from(["", ',"attempt":2}', ',"metadata":{}}', "[" * 61 + "]" * 61, " ", "x"]),
)
def test_the_contract_decides(
    kind: str, base: dict[str, Any], changed: dict[str, Any], removed: set[str], tail: str
) -> None:
    """Exactly the events that clients receive are read."""
    subject = f"gateway.{kind}.ctp.main"
    body = {key: value for key, value in {**base, **changed}.items() if key not in removed}
    text = json.dumps(body)
    payload = (text[:-1] + tail if tail.startswith(",") else text + tail).encode()
    if tail.startswith("["):
        payload = f'{text[:-1]},"deep":{tail}}}'.encode()
    # On these subjects, clients also receive events of types that the contract does not define.
    accepted = isinstance(decode(subject, payload), Event) and body.get("event_type") in MODELS
    assert (read_change(subject, MAIN, payload) is not None) is accepted


def test_too_large_an_event_is_not_read() -> None:
    """An event beyond the limit of the contract is ignored, like by clients."""
    payload = status(1, Status.HEALTHY, error="x" * 256 * 1024)
    assert read_change("gateway.status.ctp.main", MAIN, payload) is None


def test_gateways_are_listed_in_order() -> None:
    """Gateways are listed by type and id, from any one on, also while gateways are added."""
    timelines = filled(12)
    ids = [one.gateway.id for one in timelines.after(None)]
    assert ids == sorted(ids)
    assert [one.gateway.id for one in timelines.after(GatewayKey("ctp", "g7"))] == ["g8", "g9"]
    assert list(timelines.after(GatewayKey("zzz", ""))) == []
    listing = timelines.after(None)
    next(listing)
    timelines.add("gateway.status.ctp.aa", status(1, Status.HEALTHY, "aa"))
    assert [one.gateway.id for one in listing] == ids[1:]
    assert [one.gateway.id for one in timelines.after(None)] == ["aa", *ids]


def test_a_busy_gateway_takes_nothing_from_others() -> None:
    """Beyond the bound, the longest timeline loses its oldest entries."""
    timelines = filled(9)
    for number in range(500):
        timelines.add("gateway.status.ctp.busy", status(number, list(Status)[number % 2], "busy"))
        assert timelines.entries <= 100
    busy = timelines.get(GatewayKey("ctp", "busy"))
    assert busy is not None
    assert busy.times[-1] == 499_000
    assert 30 < len(busy) < 100
    assert timelines.entries == sum(map(len, timelines.after(None)))
    assert timelines.truncated == 1
    assert len(timelines) == 10


def test_a_timeline_is_bounded(monkeypatch: "Any") -> None:
    """A gateway keeps its newest entries and steps, and removed ones are not added again."""
    monkeypatch.setattr(module, "MAX_TIMELINE", 80)
    timelines = filled(3, max_entries=1000)
    events = []
    for number in range(200):
        step = GatewayRecovery(
            timestamp=format_time(number),
            gateway_id="main",
            gateway_type="ctp",
            phase="attempt",
            attempt=number,
        )
        silenced = {"until": format_time(number + 1), "reason": "moving", "by": "alice"}
        events.append(
            ("gateway.status.ctp.main", status(number, list(Status)[number % 2], silenced=silenced))
        )
        events.append(("gateway.recovery.ctp.main", step.encode()))
    assert all(timelines.add(*event) for event in events)
    timeline = timelines.get(MAIN)
    assert timeline is not None
    assert 70 <= len(timeline.times) <= 80
    assert 70 <= len(timeline.step_times) <= 80
    assert (timeline.status_start, timeline.step_start) == (timeline.times[0], timeline.step_times[0])
    assert timeline.times[-1] == timeline.step_times[-1] == 199_000
    assert set(timeline.silences) == set(timeline.times)
    assert (timelines.entries, timelines.truncated) == (len(timeline) + 3, 1)
    # A relay may read them again, or find an old state.
    assert not any(timelines.add(*event) for event in events)
    assert timelines.entries == len(timeline) + 3


def test_a_type_with_many_gateways_displaces_its_own() -> None:
    """Beyond the bound, the type with more than an eighth loses its least recently changed gateways."""
    timelines = filled(10, max_gateways=50)
    for number in range(200):
        subject = f"gateway.status.flood.f{number}"
        timelines.add(subject, status(100 + number, Status.HEALTHY, f"f{number}", "flood"))
        assert len(timelines) <= 50
    types = [one.gateway.type for one in timelines.after(None)]
    assert types.count("ctp") == 10
    assert timelines.get(GatewayKey("flood", "f199")) is not None
    assert timelines.entries == len(timelines)


def test_without_a_large_type_the_oldest_gateways_go() -> None:
    """If every gateway has a type of its own, the least recently changed ones go."""
    timelines = Timelines(max_gateways=50)
    for number in range(80):
        timelines.add(f"gateway.status.t{number}.a", status(number, Status.HEALTHY, "a", f"t{number}"))
    assert 40 < len(timelines) <= 50
    assert timelines.get(GatewayKey("t79", "a")) is not None
    assert timelines.get(GatewayKey("t0", "a")) is None


def test_texts_are_bounded() -> None:
    """Old entries lose their errors when there are too many different ones; new ones keep them."""
    timelines = Timelines(texts=Texts(20_000))
    for number in range(2000):
        timelines.add("gateway.status.ctp.main", status(number, Status.UNHEALTHY, error=f"error {number}"))
        assert timelines.texts.bytes < 21_000
    timeline = timelines.get(MAIN)
    assert timeline is not None
    texts = [timelines.texts[number] for number in timeline.texts]
    assert texts[-1] == "error 1999"
    kept = [number for number, text in enumerate(texts) if text]
    assert kept == list(range(kept[0], 2000))
    assert all(texts[number] == f"error {number}" for number in kept)


def test_details_of_silences_are_bounded(monkeypatch: "Any") -> None:
    """Old entries lose the details of their silence, but remain silenced."""
    monkeypatch.setattr(module, "MAX_SILENCES", 10)
    timelines = Timelines()
    for number in range(40):
        silenced = {"until": format_time(9999), "reason": f"{number}", "by": "alice"}
        timelines.add("gateway.status.ctp.main", status(number, Status.UNHEALTHY, silenced=silenced))
    timeline = timelines.get(MAIN)
    assert timeline is not None
    assert len(timeline.silences) <= 10
    assert timeline.entry(0).silenced
    assert timeline.entry(0).silence is None
    newest = timeline.entry(39).silence
    assert newest is not None
    assert timelines.texts[newest.reason] == "39"
