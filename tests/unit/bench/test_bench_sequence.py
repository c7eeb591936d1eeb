"""The check that a client received every event once and in order."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.measures.measure import descriptors
from tests.bench.measures.sequence import SequenceChecker


def _frame(*sequences: int) -> bytes:
    events = [
        {
            "subject": "log.info.bench",
            "seq": number,
            "event": {"metadata": {"n": number, "sent": number * 10}},
        }
        for number in sequences
    ]
    return orjson.dumps({"type": "events", "events": events, "cursor": "a-9"})


def _checked(after: int, frames: list[list[int]], *, fully: bool) -> SequenceChecker:
    checker = SequenceChecker(after, fully=fully)
    for frame in frames:
        checker.check(_frame(*frame))
    return checker


@pytest.mark.parametrize("fully", [False, True])
@given(
    st.integers(min_value=0, max_value=10**6), st.lists(st.integers(min_value=1, max_value=20), max_size=20)
)
def test_a_complete_run_has_no_loss(fully: bool, after: int, sizes: list[int]) -> None:
    """Events that arrive once and in order are neither lost nor repeated, however they are batched."""
    frames = []
    next_one = after + 1
    for size in sizes:
        frames.append(list(range(next_one, next_one + size)))
        next_one += size
    checker = _checked(after, frames, fully=fully)
    assert (checker.next, checker.events, checker.lost, checker.repeated) == (next_one, sum(sizes), 0, 0)


@pytest.mark.parametrize("fully", [False, True])
@pytest.mark.parametrize(
    ("frames", "lost", "repeated"),
    [
        ([[1, 2], [5, 6]], 2, 0),
        ([[1, 2, 5]], 2, 0),
        ([[2, 3]], 1, 0),
        ([[1, 2], [1, 2]], 0, 2),
        ([[1, 2], [2, 3]], 0, 1),
        ([[1, 2, 2, 3]], 0, 1),
        ([[3], [1, 2]], 2, 2),
    ],
)
def test_lost_and_repeated_events_are_counted(
    fully: bool, frames: list[list[int]], lost: int, repeated: int
) -> None:
    """A missing number counts as lost and an earlier one as repeated, within a frame and between two."""
    checker = _checked(0, frames, fully=fully)
    assert (checker.lost, checker.repeated) == (lost, repeated)


def test_only_reading_each_number_finds_an_exchange() -> None:
    """The complete check detects two swapped events within a frame."""
    assert _checked(0, [[1, 3, 2, 4]], fully=True).repeated == 1
    assert _checked(0, [[1, 3, 2, 4]], fully=False).repeated == 0


def test_time_of_the_last_event_is_returned() -> None:
    """A batch yields the send time of its last event; other messages yield none, and gaps are counted."""
    checker = SequenceChecker(0)
    assert checker.check(_frame(1, 2, 3)) == 30
    assert checker.check(b'{"type":"heartbeat","cursor":"a-3"}') == 0
    assert checker.check(b'{"type":"gap","from":"a-3","to":"a-5","dropped":2}') == 0
    assert checker.gaps == 1


def test_the_client_limit_follows_the_descriptor_limit() -> None:
    """The number of clients is derived from the descriptor limit, whatever that is."""
    assert descriptors() >= 1
