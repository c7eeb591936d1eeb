"""Stretches of the stream: who waits for them, which is read next, and how long they stay."""

import pytest
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.filters import Route
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, ChunkRequest, ReplayCache

ROUTE = Route("log.info.x")


class Shelf:
    """An archive whose calls for a reader are counted."""

    def __init__(self, max_bytes: int = 1000) -> None:
        self.calls = 0
        self.replay_cache = ReplayCache[object](self._fetch, max_bytes)

    def _fetch(self) -> None:
        self.calls += 1

    def wait(self, place: int) -> object:
        """Somebody new waits for the stretch after a place."""
        waiter = object()
        self.replay_cache.wait(waiter, place)
        return waiter

    def load(self, number: int, size: int = 10, head: int | None = None) -> list[object]:
        """A stretch with one event of a size comes."""
        return self.replay_cache.add(number, chunk(number, size, head))


def chunk(number: int, size: int = 10, head: int | None = None) -> EventLog:
    """A stretch as a reader makes it."""
    made = EventLog(CHUNK_SEQUENCES, 1 << 40)
    made.reset(number * CHUNK_SEQUENCES)
    made.append(Record(number * CHUNK_SEQUENCES + 1, ROUTE, b"x" * size, False, False, 0.0, 0.0, 0))
    made.advance((number + 1) * CHUNK_SEQUENCES if head is None else head)
    return made


def test_a_stretch_is_asked_for_once_and_shared() -> None:
    """However many wait for it, before it is being read and while it is."""
    shelf = Shelf()
    first = [shelf.wait(place) for place in (0, 1, CHUNK_SEQUENCES - 1)]
    assert shelf.calls == 1
    assert shelf.replay_cache.next_request() == ChunkRequest(0, 1, CHUNK_SEQUENCES)
    late = shelf.wait(7)
    assert (shelf.calls, shelf.replay_cache.next_request()) == (1, None)
    assert shelf.replay_cache.waiting == 4
    assert shelf.load(0) == [*first, late]
    assert shelf.replay_cache.waiting == 0
    assert late not in shelf.replay_cache


def test_a_place_at_the_end_of_a_stretch_leads_into_the_next() -> None:
    """A stretch holds what comes after its places."""
    shelf = Shelf()
    shelf.wait(CHUNK_SEQUENCES)
    assert shelf.replay_cache.next_request() == ChunkRequest(1, CHUNK_SEQUENCES + 1, 2 * CHUNK_SEQUENCES)
    shelf.load(1)
    kept = shelf.replay_cache.get(CHUNK_SEQUENCES)
    assert kept is not None
    assert kept.floor == CHUNK_SEQUENCES
    assert shelf.replay_cache.get(CHUNK_SEQUENCES - 1) is None
    assert shelf.replay_cache.get(2 * CHUNK_SEQUENCES) is None


def test_the_longest_waiting_is_read_first() -> None:
    """Nobody is overtaken, wherever it stands."""
    shelf = Shelf()
    for number in (5, 2, 9, 2, 5):
        shelf.wait(number * CHUNK_SEQUENCES)
    order = []
    while (wanted := shelf.replay_cache.next_request()) is not None:
        order.append(wanted.number)
    assert order == [5, 2, 9]


def test_nothing_is_read_for_those_who_left() -> None:
    """A stretch is wanted while one at least waits for it."""
    shelf = Shelf()
    one, two = shelf.wait(0), shelf.wait(1)
    assert shelf.replay_cache.waiters() == [one, two]
    shelf.replay_cache.forget(one)
    assert one not in shelf.replay_cache
    assert two in shelf.replay_cache
    shelf.replay_cache.forget(one)
    shelf.replay_cache.forget(two)
    assert shelf.replay_cache.next_request() is None


def test_a_stretch_that_comes_too_late_is_kept() -> None:
    """Who left while it was read is not told; who comes back finds it."""
    shelf = Shelf()
    session = shelf.wait(0)
    shelf.replay_cache.next_request()
    shelf.replay_cache.forget(session)
    assert shelf.load(0) == []
    assert shelf.replay_cache.get(0) is not None


def test_memory_is_bounded_and_the_longest_unused_leaves() -> None:
    """What is used stays."""
    shelf = Shelf(max_bytes=100)
    shelf.load(0, 40)
    shelf.load(1, 40)
    assert shelf.replay_cache.get(0) is not None
    shelf.load(2, 40)
    assert [shelf.replay_cache.get(number * CHUNK_SEQUENCES) is not None for number in range(3)] == [
        True,
        False,
        True,
    ]
    shelf.load(3, 90)
    assert [shelf.replay_cache.get(number * CHUNK_SEQUENCES) is not None for number in range(4)] == [
        False
    ] * 3 + [True]


def test_a_stretch_larger_than_the_memory_serves_those_who_wait() -> None:
    """It stays until the next one comes; otherwise it would be read again for ever."""
    shelf = Shelf(max_bytes=100)
    session = shelf.wait(0)
    shelf.replay_cache.next_request()
    assert shelf.load(0, 500) == [session]
    assert shelf.replay_cache.get(0) is not None
    shelf.load(1, 10)
    assert shelf.replay_cache.get(0) is None


def test_a_stretch_that_replaces_another_counts_once() -> None:
    """The bound is of what is kept."""
    shelf = Shelf(max_bytes=100)
    shelf.load(1, 30)
    for _ in range(5):
        shelf.load(0, 40)
    assert shelf.replay_cache.get(CHUNK_SEQUENCES) is not None


def test_what_could_not_be_read_is_wanted_again() -> None:
    """While somebody waits for it."""
    shelf = Shelf()
    session = shelf.wait(0)
    assert shelf.replay_cache.next_request() is not None
    shelf.replay_cache.retry(0)
    assert shelf.calls == 2
    assert shelf.replay_cache.next_request() == ChunkRequest(0, 1, CHUNK_SEQUENCES)
    shelf.replay_cache.forget(session)
    shelf.replay_cache.retry(0)
    assert (shelf.calls, shelf.replay_cache.next_request()) == (2, None)


def test_a_stretch_that_ended_early_is_read_again() -> None:
    """The stream has gone on since; what was read of it is of use up to its end."""
    shelf = Shelf()
    shelf.load(0, head=100)
    assert shelf.replay_cache.get(99) is not None
    assert shelf.replay_cache.get(100) is None
    shelf.wait(100)
    assert shelf.replay_cache.next_request() == ChunkRequest(0, 1, CHUNK_SEQUENCES)


def test_the_next_stretch_is_read_ahead() -> None:
    """When it begins before the log does, and is not here or under way."""
    shelf = Shelf()
    shelf.replay_cache.prefetch(0, CHUNK_SEQUENCES)
    assert shelf.replay_cache.next_request() is None
    shelf.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    shelf.replay_cache.prefetch(5, CHUNK_SEQUENCES + 1)
    assert shelf.replay_cache.next_request() == ChunkRequest(1, CHUNK_SEQUENCES + 1, 2 * CHUNK_SEQUENCES)
    shelf.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    assert shelf.replay_cache.next_request() is None
    shelf.load(1)
    shelf.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    assert shelf.replay_cache.next_request() is None


def test_another_stream_forgets_everything() -> None:
    """Those who waited are handed back, and nothing old is read or shown."""
    shelf = Shelf()
    shelf.load(0)
    waiting = [shelf.wait(number * CHUNK_SEQUENCES) for number in (3, 4, 3)]
    assert shelf.replay_cache.clear() == [waiting[0], waiting[2], waiting[1]]
    assert (shelf.replay_cache.waiting, shelf.replay_cache.next_request(), shelf.replay_cache.get(0)) == (
        0,
        None,
        None,
    )


@pytest.mark.parametrize("readable", [True, False])
def test_it_knows_whether_it_can_be_read(readable: bool) -> None:
    """Without a reader nothing is wanted."""
    replay_cache = ReplayCache[object]((lambda: None) if readable else None)
    assert replay_cache.available is readable
    replay_cache.wait(object(), 0)
    assert (replay_cache.next_request() is not None) is readable


def test_it_says_what_it_is() -> None:
    """The text counts what is kept, and who waits."""
    shelf = Shelf()
    shelf.load(0)
    shelf.wait(CHUNK_SEQUENCES)
    assert repr(shelf.replay_cache) == "ReplayCache(1 chunks, 1 waiting)"
