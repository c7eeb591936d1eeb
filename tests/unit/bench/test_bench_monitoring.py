"""The benchmark of the monitor: transitions are matched with failures, and a history is valid."""

from itertools import pairwise

import orjson
import pytest
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event

from tests.bench.detection import LONGEST, Change, Detection, judge
from tests.bench.load.transitions import transitions

_UP = Change(1.0, 0, "HEALTHY")
_FOUND = Change(11.5, 0, "UNHEALTHY")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([_UP, _FOUND], ([1.5], 0, 0)),
        ([_UP], ([], 1, 0)),
        ([_UP, _FOUND, Change(12.5, 0, "UNHEALTHY")], ([1.5], 0, 1)),
        ([_UP, Change(9.0, 0, "UNHEALTHY")], ([], 0, 1)),
        ([_UP, _FOUND, Change(11.5, 1, "UNHEALTHY")], ([1.5], 0, 1)),
        ([_UP, Change(10.0 + LONGEST + 0.1, 0, "UNHEALTHY")], ([], 1, 1)),
        ([_UP, Change(8.0, 0, "RECOVERING"), _FOUND], ([], 0, 0)),
        ([_FOUND], ([], 0, 0)),
    ],
)
def test_a_transition_needs_a_failure(changes: list[Change], expected: tuple[list[float], int, int]) -> None:
    """A failure of a gateway that was up is found or missed, and a transition without one is false."""
    assert judge([(0, 10.0)], changes, 100.0) == expected


def test_a_failure_at_the_end_is_not_missed() -> None:
    """A failure just before the end of the run does not count."""
    assert judge([(0, 95.0)], [_UP], 100.0) == ([], 0, 0)


def test_percentiles_are_of_the_failures_found() -> None:
    """A percentile is one of the delays; without any it is no good figure."""
    found = Detection(60.0, tuple(number / 100 for number in range(1, 101)), 0, 0)
    assert (found.percentile(50), found.percentile(95)) == (0.5, 0.95)
    assert Detection(60.0, (), 0, 0).percentile(95) == float("inf")


def test_transitions_are_events_in_order() -> None:
    """Each is a valid event, which begins with the status before; all end at the given time."""
    found = [orjson.loads(payload) for _, payload in transitions(10, 100, 1_000.0, 1_700_000_000.0)]
    events = [decode(subject, payload) for subject, payload in transitions(10, 100, 1_000.0, 1_700_000_000.0)]
    assert all(isinstance(event, Event) for event in events)
    assert [event["timestamp"] for event in found] == sorted(event["timestamp"] for event in found)
    own = [event for event in found if event["gateway_id"] == "g3"]
    assert len(own) == 10
    assert all(before["current_status"] == after["previous_status"] for before, after in pairwise(own))
