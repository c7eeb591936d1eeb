"""Cache of replay chunks: waiting sessions, order of reads, and eviction."""

import pytest
from tickertape.relay.core import replay_cache as replay_cache_module
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.filters import Route
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, ChunkRequest, ReplayCache

ROUTE = Route("log.info.x")


class CacheBench:
    """Replay cache whose requests for a reader are counted."""

    def __init__(self, max_bytes: int = 1000) -> None:
        self.calls = 0
        self.replay_cache = ReplayCache[object](self._fetch, max_bytes)

    def _fetch(self) -> None:
        self.calls += 1

    def wait(self, position: int) -> object:
        """Add a new waiter for the chunk after a position."""
        waiter = object()
        self.replay_cache.wait(waiter, position)
        return waiter

    def load(self, number: int, size: int = 10, head: int | None = None) -> list[object]:
        """Add a chunk with one event of a size, and return its waiters."""
        return self.replay_cache.add(ChunkRequest(number), chunk(number, size, head))


def chunk(number: int, size: int = 10, head: int | None = None) -> EventLog:
    """Build a chunk as a reader does."""
    log = EventLog(CHUNK_SEQUENCES, 1 << 40)
    log.reset(number * CHUNK_SEQUENCES)
    log.append(Record(number * CHUNK_SEQUENCES + 1, ROUTE, b"x" * size, False, False, 0.0, 0.0, 0))
    log.advance((number + 1) * CHUNK_SEQUENCES if head is None else head)
    return log


def test_a_chunk_is_requested_once_and_shared() -> None:
    """A chunk is requested once for all its waiters, including those that arrive while it is being read."""
    bench = CacheBench()
    first = [bench.wait(position) for position in (0, 1, CHUNK_SEQUENCES - 1)]
    assert bench.calls == 1
    assert bench.replay_cache.next_request() == ChunkRequest(0)
    assert (ChunkRequest(0).first, ChunkRequest(0).last) == (1, CHUNK_SEQUENCES)
    assert (ChunkRequest(1).first, ChunkRequest(1).last) == (CHUNK_SEQUENCES + 1, 2 * CHUNK_SEQUENCES)
    late = bench.wait(7)
    assert (bench.calls, bench.replay_cache.next_request()) == (1, None)
    assert bench.replay_cache.waiting == 4
    assert bench.load(0) == [*first, late]
    assert bench.replay_cache.waiting == 0
    assert late not in bench.replay_cache


def test_a_position_at_the_end_of_a_chunk_belongs_to_the_next() -> None:
    """A position at the end of a chunk belongs to the next one, which holds the events after it."""
    bench = CacheBench()
    bench.wait(CHUNK_SEQUENCES)
    assert bench.replay_cache.next_request() == ChunkRequest(1)
    bench.load(1)
    kept = bench.replay_cache.get(CHUNK_SEQUENCES)
    assert kept is not None
    assert kept.floor == CHUNK_SEQUENCES
    assert bench.replay_cache.get(CHUNK_SEQUENCES - 1) is None
    assert bench.replay_cache.get(2 * CHUNK_SEQUENCES) is None


def test_the_first_requested_chunk_is_read_first() -> None:
    """Chunks are read in the order in which they were first requested."""
    bench = CacheBench()
    for number in (5, 2, 9, 2, 5):
        bench.wait(number * CHUNK_SEQUENCES)
    order = []
    while (expected := bench.replay_cache.next_request()) is not None:
        order.append(expected.number)
    assert order == [5, 2, 9]


def test_a_chunk_without_waiters_is_not_read() -> None:
    """A chunk is read only while at least one waiter is left."""
    bench = CacheBench()
    one, two = bench.wait(0), bench.wait(1)
    assert bench.replay_cache.waiters() == [one, two]
    bench.replay_cache.forget(one)
    assert one not in bench.replay_cache
    assert two in bench.replay_cache
    bench.replay_cache.forget(one)
    bench.replay_cache.forget(two)
    assert bench.replay_cache.next_request() is None


def test_a_chunk_that_arrives_late_is_kept() -> None:
    """A chunk whose waiters left while it was read is kept for a later request."""
    bench = CacheBench()
    session = bench.wait(0)
    bench.replay_cache.next_request()
    bench.replay_cache.forget(session)
    assert bench.load(0) == []
    assert bench.replay_cache.get(0) is not None


def test_the_least_recently_used_chunk_is_evicted() -> None:
    """Memory is bounded, and the least recently used chunk is evicted first."""
    bench = CacheBench(max_bytes=100)
    bench.load(0, 40)
    bench.load(1, 40)
    assert bench.replay_cache.get(0) is not None
    bench.load(2, 40)
    assert [bench.replay_cache.get(number * CHUNK_SEQUENCES) is not None for number in range(3)] == [
        True,
        False,
        True,
    ]
    bench.load(3, 90)
    assert [bench.replay_cache.get(number * CHUNK_SEQUENCES) is not None for number in range(4)] == [
        False
    ] * 3 + [True]


def test_a_chunk_larger_than_the_limit_serves_its_waiters() -> None:
    """A chunk larger than the memory limit is kept until the next one arrives, so its waiters can use it."""
    bench = CacheBench(max_bytes=100)
    session = bench.wait(0)
    bench.replay_cache.next_request()
    assert bench.load(0, 500) == [session]
    assert bench.replay_cache.get(0) is not None
    bench.load(1, 10)
    assert bench.replay_cache.get(0) is None


def test_a_chunk_that_replaces_another_counts_once() -> None:
    """A chunk that replaces another counts once against the memory limit."""
    bench = CacheBench(max_bytes=100)
    bench.load(1, 30)
    for _ in range(5):
        bench.load(0, 40)
    assert bench.replay_cache.get(CHUNK_SEQUENCES) is not None


def test_a_failed_read_is_requested_again() -> None:
    """A chunk that could not be read is requested again while it has waiters."""
    bench = CacheBench()
    session = bench.wait(0)
    assert bench.replay_cache.next_request() is not None
    bench.replay_cache.retry(0)
    assert bench.calls == 2
    assert bench.replay_cache.next_request() == ChunkRequest(0)
    bench.replay_cache.forget(session)
    bench.replay_cache.retry(0)
    assert (bench.calls, bench.replay_cache.next_request()) == (2, None)


def test_a_chunk_that_ended_early_is_read_again() -> None:
    """A chunk that ended at the stream's head is used up to its end, and then continued."""
    bench = CacheBench()
    bench.load(0, head=100)
    assert bench.replay_cache.get(99) is not None
    assert bench.replay_cache.get(100) is None
    bench.wait(100)
    assert bench.replay_cache.next_request() == ChunkRequest(0, 100)
    assert ChunkRequest(0, 100).first == 101


def test_a_large_chunk_is_read_in_parts() -> None:
    """Each part is requested where the one before it has ended, and all members share these parts."""
    bench = CacheBench()
    cache = bench.replay_cache

    def part(request: ChunkRequest, head: int) -> list[object]:
        log = EventLog(CHUNK_SEQUENCES, 1 << 40)
        log.reset(request.first - 1)
        log.advance(head)
        return cache.add(request, log)

    far, near = bench.wait(250), bench.wait(50)
    first = cache.next_request()
    assert first == ChunkRequest(0)
    assert part(first, 100) == [far, near]
    assert (cache.get(50) is not None, cache.get(99) is not None) == (True, True)
    assert cache.get(100) is cache.get(250) is None
    for position, head in ((250, 200), (250, 300)):
        bench.wait(position)
        request = cache.next_request()
        assert request is not None
        part(request, head)
    assert [cache.request_for(at).first for at in (0, 99, 100, 250, 300)] == [1, 1, 101, 201, 301]
    assert all(cache.get(at) is not None for at in (0, 100, 199, 200, 299))
    assert cache.get(300) is None


def test_empty_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of chunks is bounded, since those without events have no bytes."""
    monkeypatch.setattr(replay_cache_module, "MAX_CHUNKS", 3)
    bench = CacheBench()
    for number in range(5):
        bench.load(number, 0)
    cached = [bench.replay_cache.get(number * CHUNK_SEQUENCES) is not None for number in range(5)]
    assert cached == [False, False, True, True, True]


def test_the_next_chunk_is_prefetched() -> None:
    """The next chunk is prefetched if it begins before the log and is neither cached nor being read."""
    bench = CacheBench()
    bench.replay_cache.prefetch(0, CHUNK_SEQUENCES)
    assert bench.replay_cache.next_request() is None
    bench.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    bench.replay_cache.prefetch(5, CHUNK_SEQUENCES + 1)
    assert bench.replay_cache.next_request() == ChunkRequest(1)
    bench.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    assert bench.replay_cache.next_request() is None
    bench.load(1)
    bench.replay_cache.prefetch(0, CHUNK_SEQUENCES + 1)
    assert bench.replay_cache.next_request() is None


def test_clearing_discards_everything() -> None:
    """Clearing the cache returns all waiters and discards chunks and requests."""
    bench = CacheBench()
    bench.load(0)
    waiting = [bench.wait(number * CHUNK_SEQUENCES) for number in (3, 4, 3)]
    assert bench.replay_cache.clear() == [waiting[0], waiting[2], waiting[1]]
    assert (bench.replay_cache.waiting, bench.replay_cache.next_request(), bench.replay_cache.get(0)) == (
        0,
        None,
        None,
    )


@pytest.mark.parametrize("readable", [True, False])
def test_availability_depends_on_the_reader(readable: bool) -> None:
    """Without a reader nothing is requested."""
    replay_cache = ReplayCache[object]((lambda: None) if readable else None)
    assert replay_cache.available is readable
    replay_cache.wait(object(), 0)
    assert (replay_cache.next_request() is not None) is readable


def test_repr() -> None:
    """The repr of the cache counts its chunks and waiters."""
    bench = CacheBench()
    bench.load(0)
    bench.wait(CHUNK_SEQUENCES)
    assert repr(bench.replay_cache) == "ReplayCache(1 chunks, 1 waiting)"


def test_clients_take_turns() -> None:
    """A client with many members at many positions delays the chunk of another client by one read."""
    cache = ReplayCache[tuple[str, int]](lambda: None, owner=lambda waiter: waiter[0])
    for number in range(100):
        cache.wait(("greedy", number), number * CHUNK_SEQUENCES)
    assert cache.next_request() == ChunkRequest(0)
    cache.wait(("late", 0), 500 * CHUNK_SEQUENCES)
    cache.wait(("late", 1), 600 * CHUNK_SEQUENCES)
    cache.wait(("third", 0), 3 * CHUNK_SEQUENCES)
    cache.prefetch(700 * CHUNK_SEQUENCES, 800 * CHUNK_SEQUENCES)
    order = []
    while (request := cache.next_request()) is not None:
        order.append(request.number)
    assert order[:4] == [3, 500, 1, 600], "what several clients wait for is read in the first one's turn"
    assert order[4:-2] == [2, *range(4, 100)]
    assert order[-2:] == [701, 702], "no client waits for these"
