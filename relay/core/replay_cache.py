"""Cache of replay chunks: parts of the stream older than the log, read on demand and shared by all members.

Invariants:

1. A chunk is requested once, however many members wait for it. Clients take turns, so that one with many
   members does not delay the others; a chunk that is only prefetched comes last.
2. Each chunk, and all chunks in memory, are bounded in bytes; the least recently used one is evicted first.
3. No waiter is leaked: a member that disconnects or stalls is removed from the cache.
"""

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from tickertape.relay.core.event_log import EventLog

W = TypeVar("W")

CHUNK_SEQUENCES: Final = 4096
"""Number of sequences in one chunk, which takes about 100 ms to read and has 1 to 2 MB."""

PREFETCH_CHUNKS: Final = 2
"""Number of chunks requested ahead of a member that catches up, so that it does not wait for each chunk."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Maximum bytes of encoded events in the cache."""

MAX_CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Bytes of encoded events after which a chunk ends early; what follows is a chunk as well."""

MAX_CLIENTS: Final = 10_000
"""Maximum number of clients whose last turn is remembered."""

MAX_CHUNKS: Final = 1_024
"""Maximum number of chunks in the cache, some of which may be empty."""


class ChunkRequest(NamedTuple):
    """Request for a chunk, or the rest of one: sequences ``first`` to ``last``; chunk 0 starts at sequence 1.

    Attributes:
        number: number of the chunk.
        skip: number of sequences at its beginning that an earlier request has read.
    """

    number: int
    skip: int = 0

    @property
    def first(self) -> int:
        """First sequence to read."""
        return self.number * CHUNK_SEQUENCES + self.skip + 1

    @property
    def last(self) -> int:
        """Last sequence of the chunk."""
        return (self.number + 1) * CHUNK_SEQUENCES


class ReplayCache(Generic[W]):
    """Chunks of the stream, and the waiters for chunks that are not cached.

    Args:
        fetch: called when there is a chunk to read; None if the stream cannot be read.
        max_bytes: maximum bytes of encoded events in the cache.
        owner: returns the client of a waiter, such as the subject of its token.
    """

    def __init__(
        self,
        fetch: Callable[[], None] | None,
        max_bytes: int = MAX_BYTES,
        owner: Callable[[W], str] = lambda waiter: "",
    ) -> None:
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._owner = owner
        self._reads = 0  # number of requests taken so far
        self._last_read: dict[str, int] = {}  # its value when a client was last served, by client
        self._chunks: OrderedDict[int, EventLog] = OrderedDict()  # by the position that each continues from
        # Positions at which chunks have ended early, by number. All members use the same parts of a chunk, so
        # that these are shared as well.
        self._ends: OrderedDict[int, list[int]] = OrderedDict()
        self._requested: dict[int, None] = {}
        self._reading: set[int] = set()
        self._waiters: dict[int, dict[W, int]] = {}  # positions by waiter, by number of the chunk
        self._chunk_of: dict[W, int] = {}  # inverse of ``_waiters``, so that ``forget`` takes constant time

    def __repr__(self) -> str:
        return f"ReplayCache({len(self._chunks)} chunks, {len(self._chunk_of)} waiting)"

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._chunk_of

    @property
    def available(self) -> bool:
        """Whether the stream can be read."""
        return self._fetch is not None

    @property
    def waiting(self) -> int:
        """Number of waiters."""
        return len(self._chunk_of)

    def chunks(self) -> list[EventLog]:
        """Return all chunks."""
        return list(self._chunks.values())

    def waiters(self) -> list[W]:
        """Return all waiters."""
        return list(self._chunk_of)

    def get(self, position: int) -> EventLog | None:
        """Return the chunk that continues from a position, or None if it is not cached."""
        begin = self._begin(position)
        chunk = self._chunks.get(begin)
        # A chunk that has ended before the position was not recorded in ``_ends``, or that was forgotten.
        if chunk is None or chunk.head <= position:
            return None
        self._chunks.move_to_end(begin)
        return chunk

    def request_for(self, position: int) -> ChunkRequest:
        """Return the request for the chunk that continues from a position."""
        number, skip = divmod(self._begin(position), CHUNK_SEQUENCES)
        return ChunkRequest(number, skip)

    def wait(self, waiter: W, position: int) -> None:
        """Add a waiter for the chunk that continues from a position, and request the chunk."""
        number = position // CHUNK_SEQUENCES
        self._chunk_of[waiter] = number
        self._waiters.setdefault(number, {})[waiter] = position
        self._request(number)

    def prefetch(self, position: int, upto: int) -> None:
        """Request the next chunks after a position, as far as they start before ``upto``."""
        current = position // CHUNK_SEQUENCES
        for number in range(current + 1, current + 1 + PREFETCH_CHUNKS):
            if number * CHUNK_SEQUENCES < upto and number * CHUNK_SEQUENCES not in self._chunks:
                self._request(number)

    def forget(self, waiter: W) -> None:
        """Remove a waiter, and its request if no other member waits for the chunk."""
        number = self._chunk_of.pop(waiter, None)
        if number is None:
            return
        waiters = self._waiters[number]
        del waiters[waiter]
        if not waiters:
            del self._waiters[number]
            self._requested.pop(number, None)

    def next_request(self) -> ChunkRequest | None:
        """Return the next request, or None; call ``add``, ``retry`` or ``abandon`` after the read."""
        if not self._requested:
            return None
        # The first of those whose client has waited longest since its last turn.
        number = min(self._requested, key=self._turn)
        del self._requested[number]
        self._reading.add(number)
        waiters = self._waiters.get(number, {})
        self._reads += 1
        if len(self._last_read) > MAX_CLIENTS:
            self._last_read.clear()
        self._last_read.update((self._owner(waiter), self._reads) for waiter in waiters)
        # Members further on request the next part when they find that this one ends before them.
        return self.request_for(min(waiters.values()) if waiters else number * CHUNK_SEQUENCES)

    def _turn(self, number: int) -> int:
        """Return the rank of a requested chunk; the lowest is read next."""
        waiters = self._waiters.get(number)
        if not waiters:
            return self._reads + 1
        return min(self._last_read.get(self._owner(waiter), 0) for waiter in waiters)

    def add(self, request: ChunkRequest, chunk: EventLog) -> list[W]:
        """Add the chunk that was read for a request, and return the waiters for its number."""
        self._reading.discard(request.number)
        begin = request.first - 1
        self._chunks[begin] = chunk
        self._chunks.move_to_end(begin)
        if chunk.head < request.last:
            # Because of its size, or because the stream ended here and may have grown since.
            ends = self._ends.setdefault(request.number, [])
            if chunk.head not in ends:
                insort(ends, chunk.head)
            self._ends.move_to_end(request.number)
            if len(self._ends) > MAX_CHUNKS:
                self._ends.popitem(last=False)
        size = sum(cached.bytes for cached in self._chunks.values())
        # The new chunk stays even if it is too large by itself, since its waiters read it next.
        while (size > self._max_bytes and len(self._chunks) > 1) or len(self._chunks) > MAX_CHUNKS:
            _, evicted = self._chunks.popitem(last=False)
            size -= evicted.bytes
        return self._pop_waiters(request.number)

    def retry(self, number: int) -> None:
        """Request a chunk again after a failed read, if members still wait for it."""
        self._reading.discard(number)
        # A prefetched chunk without waiters is not read again.
        if number in self._waiters:
            self._request(number)

    def abandon(self, number: int) -> list[W]:
        """Give up on a chunk that no retry can read, and return the waiters for it."""
        self._reading.discard(number)
        self._requested.pop(number, None)
        return self._pop_waiters(number)

    def clear(self) -> list[W]:
        """Remove all chunks and requests, since the stream was replaced, and return all waiters."""
        self._chunks.clear()
        self._ends.clear()
        # Reads in progress are not interrupted: their readers notice the new stream and call ``retry``.
        self._requested.clear()
        return [waiter for number in list(self._waiters) for waiter in self._pop_waiters(number)]

    def _begin(self, position: int) -> int:
        """Return the position where the chunk that continues from a position begins."""
        number = position // CHUNK_SEQUENCES
        ends = self._ends.get(number, ())
        index = bisect_right(ends, position)
        return ends[index - 1] if index else number * CHUNK_SEQUENCES

    def _pop_waiters(self, number: int) -> list[W]:
        waiters = list(self._waiters.pop(number, ()))
        for waiter in waiters:
            del self._chunk_of[waiter]
        return waiters

    def _request(self, number: int) -> None:
        if number not in self._reading and number not in self._requested and self._fetch is not None:
            self._requested[number] = None
            self._fetch()
