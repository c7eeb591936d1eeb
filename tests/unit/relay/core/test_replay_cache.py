"""Stretches of the stream: who waits for them, which is read next, and how long they stay."""

import pytest
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.filters import Route
from tickertape.relay.core.replay_cache import STRETCH, ReplayCache, Wanted

ROUTE = Route("log.info.x")


class Shelf:
    """An archive whose calls for a reader are counted."""

    def __init__(self, max_bytes: int = 1000) -> None:
        self.calls = 0
        self.archive = ReplayCache[object](self._fetch, max_bytes)

    def _fetch(self) -> None:
        self.calls += 1

    def wait(self, place: int) -> object:
        """Somebody new waits for the stretch after a place."""
        waiter = object()
        self.archive.wait(waiter, place)
        return waiter

    def load(self, number: int, size: int = 10, head: int | None = None) -> list[object]:
        """A stretch with one event of a size comes."""
        return self.archive.loaded(number, stretch(number, size, head))


def stretch(number: int, size: int = 10, head: int | None = None) -> EventLog:
    """A stretch as a reader makes it."""
    made = EventLog(STRETCH, 1 << 40)
    made.start(number * STRETCH)
    made.append(Record(number * STRETCH + 1, ROUTE, b"x" * size, False, False, 0.0, 0.0, 0))
    made.advance((number + 1) * STRETCH if head is None else head)
    return made


def test_a_stretch_is_asked_for_once_and_shared() -> None:
    """However many wait for it, before it is being read and while it is."""
    shelf = Shelf()
    first = [shelf.wait(place) for place in (0, 1, STRETCH - 1)]
    assert shelf.calls == 1
    assert shelf.archive.next() == Wanted(0, 1, STRETCH)
    late = shelf.wait(7)
    assert (shelf.calls, shelf.archive.next()) == (1, None)
    assert shelf.archive.waiting == 4
    assert shelf.load(0) == [*first, late]
    assert shelf.archive.waiting == 0
    assert late not in shelf.archive


def test_a_place_at_the_end_of_a_stretch_leads_into_the_next() -> None:
    """A stretch holds what comes after its places."""
    shelf = Shelf()
    shelf.wait(STRETCH)
    assert shelf.archive.next() == Wanted(1, STRETCH + 1, 2 * STRETCH)
    shelf.load(1)
    kept = shelf.archive.get(STRETCH)
    assert kept is not None
    assert kept.floor == STRETCH
    assert shelf.archive.get(STRETCH - 1) is None
    assert shelf.archive.get(2 * STRETCH) is None


def test_the_longest_waiting_is_read_first() -> None:
    """Nobody is overtaken, wherever it stands."""
    shelf = Shelf()
    for number in (5, 2, 9, 2, 5):
        shelf.wait(number * STRETCH)
    order = []
    while (wanted := shelf.archive.next()) is not None:
        order.append(wanted.number)
    assert order == [5, 2, 9]


def test_nothing_is_read_for_those_who_left() -> None:
    """A stretch is wanted while one at least waits for it."""
    shelf = Shelf()
    one, two = shelf.wait(0), shelf.wait(1)
    assert shelf.archive.waiters() == [one, two]
    shelf.archive.forget(one)
    assert one not in shelf.archive
    assert two in shelf.archive
    shelf.archive.forget(one)
    shelf.archive.forget(two)
    assert shelf.archive.next() is None


def test_a_stretch_that_comes_too_late_is_kept() -> None:
    """Who left while it was read is not told; who comes back finds it."""
    shelf = Shelf()
    session = shelf.wait(0)
    shelf.archive.next()
    shelf.archive.forget(session)
    assert shelf.load(0) == []
    assert shelf.archive.get(0) is not None


def test_memory_is_bounded_and_the_longest_unused_leaves() -> None:
    """What is used stays."""
    shelf = Shelf(max_bytes=100)
    shelf.load(0, 40)
    shelf.load(1, 40)
    assert shelf.archive.get(0) is not None
    shelf.load(2, 40)
    assert [shelf.archive.get(number * STRETCH) is not None for number in range(3)] == [True, False, True]
    shelf.load(3, 90)
    assert [shelf.archive.get(number * STRETCH) is not None for number in range(4)] == [False] * 3 + [True]


def test_a_stretch_larger_than_the_memory_serves_those_who_wait() -> None:
    """It stays until the next one comes; otherwise it would be read again for ever."""
    shelf = Shelf(max_bytes=100)
    session = shelf.wait(0)
    shelf.archive.next()
    assert shelf.load(0, 500) == [session]
    assert shelf.archive.get(0) is not None
    shelf.load(1, 10)
    assert shelf.archive.get(0) is None


def test_a_stretch_that_replaces_another_counts_once() -> None:
    """The bound is of what is kept."""
    shelf = Shelf(max_bytes=100)
    shelf.load(1, 30)
    for _ in range(5):
        shelf.load(0, 40)
    assert shelf.archive.get(STRETCH) is not None


def test_what_could_not_be_read_is_wanted_again() -> None:
    """While somebody waits for it."""
    shelf = Shelf()
    session = shelf.wait(0)
    assert shelf.archive.next() is not None
    shelf.archive.failed(0)
    assert shelf.calls == 2
    assert shelf.archive.next() == Wanted(0, 1, STRETCH)
    shelf.archive.forget(session)
    shelf.archive.failed(0)
    assert (shelf.calls, shelf.archive.next()) == (2, None)


def test_a_stretch_that_ended_early_is_read_again() -> None:
    """The stream has gone on since; what was read of it is of use up to its end."""
    shelf = Shelf()
    shelf.load(0, head=100)
    assert shelf.archive.get(99) is not None
    assert shelf.archive.get(100) is None
    shelf.wait(100)
    assert shelf.archive.next() == Wanted(0, 1, STRETCH)


def test_the_next_stretch_is_read_ahead() -> None:
    """When it begins before the log does, and is not here or under way."""
    shelf = Shelf()
    shelf.archive.prefetch(0, STRETCH)
    assert shelf.archive.next() is None
    shelf.archive.prefetch(0, STRETCH + 1)
    shelf.archive.prefetch(5, STRETCH + 1)
    assert shelf.archive.next() == Wanted(1, STRETCH + 1, 2 * STRETCH)
    shelf.archive.prefetch(0, STRETCH + 1)
    assert shelf.archive.next() is None
    shelf.load(1)
    shelf.archive.prefetch(0, STRETCH + 1)
    assert shelf.archive.next() is None


def test_another_stream_forgets_everything() -> None:
    """Those who waited are handed back, and nothing old is read or shown."""
    shelf = Shelf()
    shelf.load(0)
    waiting = [shelf.wait(number * STRETCH) for number in (3, 4, 3)]
    assert shelf.archive.clear() == [waiting[0], waiting[2], waiting[1]]
    assert (shelf.archive.waiting, shelf.archive.next(), shelf.archive.get(0)) == (0, None, None)


@pytest.mark.parametrize("readable", [True, False])
def test_it_knows_whether_it_can_be_read(readable: bool) -> None:
    """Without a reader nothing is wanted."""
    archive = ReplayCache[object]((lambda: None) if readable else None)
    assert archive.available is readable
    archive.wait(object(), 0)
    assert (archive.next() is not None) is readable


def test_it_says_what_it_is() -> None:
    """The text counts what is kept, and who waits."""
    shelf = Shelf()
    shelf.load(0)
    shelf.wait(STRETCH)
    assert repr(shelf.archive) == "ReplayCache(1 stretches, 1 waiting)"
