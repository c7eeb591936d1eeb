"""Availability and incidents, in tables and against a model that looks at each millisecond."""

from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.contracts.events import Status
from tickertape.relay.core.timeline import availability
from tickertape.relay.core.timeline.availability import Durations, Incident, Sliced, incidents_of, measure
from tickertape.relay.core.timeline.changes import STATUSES, GatewayKey
from tickertape.relay.core.timeline.timeline import StoredSilence, Timeline

T = TypeVar("T")

LETTERS = {
    "h": Status.HEALTHY,
    "d": Status.DEGRADED,
    "u": Status.UNHEALTHY,
    "r": Status.RECOVERING,
    "o": Status.OFF_SESSION,
    "?": Status.UNKNOWN,
    "x": Status.REMOVED,
}


class Change(NamedTuple):
    """Change of the model."""

    time: int
    status: Status
    until: int | None = None


def timeline_of(changes: list[Change]) -> Timeline:
    """Return the timeline of some changes."""
    timeline = Timeline(GatewayKey("ctp", "main"))
    for number, (time, status, until) in enumerate(changes):
        silence = None if until is None else StoredSilence(until, 0, 0)
        timeline.add(time, STATUSES.index(status), number, is_error=False, silence=silence)
    return timeline


def result(work: Sliced[T], between: Callable[[], object] = lambda: None) -> T:
    """Return the result of a computation; do something in each of its pauses."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found
        between()


@pytest.mark.parametrize(
    ("text", "expected", "incidents"),
    [
        ("hhhhhhhhhh", Durations(10, 0, 0, 0, 0), []),
        ("hhuuuhhhhh", Durations(7, 3, 0, 0, 1), [(2, 5)]),
        ("hhuurrhhuu", Durations(4, 6, 0, 0, 2), [(2, 6), (8, None)]),
        ("dddduudddd", Durations(8, 2, 0, 0, 1), [(4, 6)]),
        ("hhuu??uuhh", Durations(4, 4, 0, 2, 1), [(2, 8)]),
        ("??uu??hhhh", Durations(4, 2, 0, 4, 1), [(2, 6)]),
        ("hhuuoooohh", Durations(4, 2, 4, 0, 1), [(2, 4)]),
        ("hhuuxxxxhh", Durations(4, 2, 0, 4, 1), [(2, 4)]),
        ("hhuuoouuhh", Durations(4, 4, 2, 0, 2), [(2, 4), (6, 8)]),
        ("oooooooooo", Durations(0, 0, 10, 0, 0), []),
        ("hhUUUUhhhh", Durations(6, 0, 4, 0, 0), [(2, 6)]),
        ("hhUUuuhhhh", Durations(6, 2, 2, 0, 1), [(2, 6)]),
        ("HHHHHHHHHH", Durations(10, 0, 0, 0, 0), []),
    ],
)
def test_a_timeline_is_measured(
    text: str, expected: Durations, incidents: list[tuple[int, int | None]]
) -> None:
    """Each letter is a status for a millisecond; capitals are silenced."""
    changes = [
        Change(time, LETTERS[letter.lower()], 99 if letter.isupper() else None)
        for time, letter in enumerate(text)
        if time == 0 or text[time - 1] != letter
    ]
    timeline = timeline_of(changes)
    assert result(measure(timeline, [0], 10)) == [expected]
    assert [(one.start, one.end) for one in result(incidents_of(timeline, 0, 10))] == incidents


def test_availability_needs_time_that_is_known() -> None:
    """Planned and unknown time do not count, and without any other there is no availability."""
    assert Durations(9, 1, 90, 900, 1).availability == 0.9
    assert Durations(0, 0, 5, 5, 0).availability is None


def test_a_silence_ends_without_an_event() -> None:
    """If no monitor publishes the end of a silence, the gateway is down from then on."""
    timeline = timeline_of([Change(0, Status.HEALTHY), Change(2, Status.UNHEALTHY, until=5)])
    assert result(measure(timeline, [0], 9)) == [Durations(2, 4, 3, 0, 1)]


def test_an_incident_before_the_range_has_its_beginning() -> None:
    """An incident that began before a range has its start, and counts if it was down in the range."""
    timeline = timeline_of(
        [
            Change(1, Status.HEALTHY),
            Change(3, Status.UNHEALTHY),
            Change(5, Status.UNKNOWN),
            Change(9, Status.HEALTHY),
        ]
    )
    [incident] = result(incidents_of(timeline, 7, 20))
    assert incident == Incident(3, 9, down=2, planned=0, last_down=5, last=3)
    assert [one.incidents for one in result(measure(timeline, [0, 4, 5, 7], 20))] == [1, 1, 0, 0]
    assert result(incidents_of(timeline, 9, 20)) == []


_changes = st.lists(
    st.builds(
        Change,
        st.integers(0, 40),
        st.sampled_from(list(Status)),
        st.none() | st.integers(0, 45),
    ),
    max_size=14,
    unique_by=lambda change: change.time,
)


def model_kinds(changes: list[Change], end: int) -> list[str]:
    """Return the kind of each millisecond."""
    kinds = []
    for moment in range(end):
        before = [change for change in changes if change.time <= moment]
        change = max(before, key=lambda one: one.time, default=Change(0, Status.UNKNOWN))
        if change.status in (Status.HEALTHY, Status.DEGRADED):
            kinds.append("up")
        elif change.status in (Status.UNHEALTHY, Status.RECOVERING):
            kinds.append("down" if change.until is None or moment >= change.until else "silenced")
        else:
            kinds.append({"OFF_SESSION": "closed", "UNKNOWN": "unknown", "REMOVED": "removed"}[change.status])
    return kinds


def model_incidents(kinds: list[str]) -> list[tuple[int, int | None, int]]:
    """Return start and end of each incident, and the end of its last unplanned time."""
    found: list[tuple[int, int | None, int]] = []
    start: int | None = None
    last_down = 0
    for moment, kind in enumerate(kinds):
        if kind in ("down", "silenced"):
            if start is None:
                start, last_down = moment, 0
            last_down = moment + 1 if kind == "down" else last_down
        elif start is not None and kind != "unknown":
            found.append((start, moment, last_down))
            start = None
    return [*found, (start, None, last_down)] if start is not None else found


@given(_changes, st.lists(st.integers(0, 49), min_size=1, max_size=4).map(sorted), st.integers(50, 60))
@settings(max_examples=300)
def test_measures_agree_with_the_model(changes: list[Change], starts: list[int], end: int) -> None:
    """Durations and incidents of every range are those of a model, in whichever order the changes arrive."""
    timeline = timeline_of(changes)
    kinds = model_kinds(changes, end)
    incidents = model_incidents(kinds)
    for start, found in zip(starts, result(measure(timeline, starts, end)), strict=True):
        part = kinds[start:]
        count = sum(last_down > start for _, _, last_down in incidents)
        planned, unknown = ("silenced", "closed"), ("unknown", "removed")
        assert found == Durations(
            part.count("up"),
            part.count("down"),
            sum(map(part.count, planned)),
            sum(map(part.count, unknown)),
            count,
        )
        listed = [(one.start, one.end, one.last_down) for one in result(incidents_of(timeline, start, end))]
        assert listed == [one for one in incidents if one[1] is None or one[1] > start]


@given(_changes, st.randoms(use_true_random=False))
def test_the_order_of_arrival_has_no_effect(changes: list[Change], random: object) -> None:
    """A timeline is ordered by the timestamps, and an event that arrives again changes nothing."""
    expected = timeline_of(sorted(changes))
    again = Timeline(GatewayKey("ctp", "main"))
    numbered = [(change, number) for number, change in enumerate(sorted(changes))] * 2
    random.shuffle(numbered)  # type: ignore[attr-defined]
    for (time, status, until), number in numbered:
        silence = None if until is None else StoredSilence(until, 0, 0)
        again.add(time, STATUSES.index(status), number, is_error=False, silence=silence)
    for name in ("times", "codes", "texts", "silences"):
        assert getattr(again, name) == getattr(expected, name)


@pytest.mark.parametrize("slice_size", [1, 7])
def test_a_long_timeline_is_read_in_slices(monkeypatch: pytest.MonkeyPatch, slice_size: int) -> None:
    """A computation pauses after each slice, and what happens to the timeline meanwhile has no effect."""
    statuses = [Status.HEALTHY, Status.UNHEALTHY, Status.DEGRADED, Status.UNKNOWN, Status.OFF_SESSION]
    changes = [Change(number, statuses[number * number % 5], number + 1) for number in range(60)]
    whole = timeline_of(changes)
    expected = result(measure(whole, [5, 30], 60)), result(incidents_of(whole, 5, 60))
    monkeypatch.setattr(availability, "SLICE", slice_size)
    timeline = timeline_of(changes)
    times: Iterator[int] = count(100)
    pauses = 0

    def change() -> None:
        nonlocal pauses
        pauses += 1
        timeline.add(next(times), STATUSES.index(Status.UNHEALTHY), 0, is_error=False, silence=None)
        timeline.trim(60)

    first = result(measure(timeline, [5, 30], 60), change)
    timeline = timeline_of(changes)
    assert (first, result(incidents_of(timeline, 5, 60), change)) == expected
    assert pauses > 50 / slice_size
