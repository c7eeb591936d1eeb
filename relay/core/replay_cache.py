"""What is older than the log: stretches of the stream, read again on demand and shared by all who need them.

Invariants:

1. A stretch is asked for once, however many sessions wait for it; the longest-waiting one is read next.
2. Stretches in memory stay within a bound of bytes; the one that was used longest ago leaves first.
3. No waiter is left behind: a session that leaves or stalls is forgotten here.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

from tickertape.relay.core.event_log import EventLog

W = TypeVar("W")

CHUNK_SEQUENCES: Final = 4096
"""Sequences in one stretch: a hundred milliseconds of reading, a megabyte or two."""

AHEAD: Final = 2
"""Stretches read ahead of whoever reads on, so that none waits while the next is asked for."""

MAX_BYTES: Final = 64 * 1024 * 1024


class ChunkRequest(NamedTuple):
    """A stretch to read: sequences ``first`` to ``last``."""

    number: int
    first: int
    last: int


class ReplayCache(Generic[W]):
    """Stretches of the stream, and those that wait for them.

    Args:
        fetch: called when there is something to read; None when nobody can read.
        max_bytes: most bytes of items kept.
    """

    def __init__(self, fetch: Callable[[], None] | None, max_bytes: int = MAX_BYTES) -> None:
        self._fetch = fetch
        self._max_bytes = max_bytes
        self._stretches: OrderedDict[int, EventLog] = OrderedDict()
        self._wanted: dict[int, None] = {}
        self._reading: set[int] = set()
        self._waiting: dict[int, dict[W, None]] = {}
        self._where: dict[W, int] = {}

    def __repr__(self) -> str:
        return f"ReplayCache({len(self._stretches)} stretches, {len(self._where)} waiting)"

    def __contains__(self, waiter: object) -> bool:
        return waiter in self._where

    @property
    def available(self) -> bool:
        """True when somebody can read the stream."""
        return self._fetch is not None

    @property
    def waiting(self) -> int:
        """How many wait for a stretch."""
        return len(self._where)

    def waiters(self) -> list[W]:
        """Return those that wait."""
        return list(self._where)

    def get(self, place: int) -> EventLog | None:
        """The stretch that leads on from a place, when it is here."""
        number = place // CHUNK_SEQUENCES
        stretch = self._stretches.get(number)
        if stretch is None:
            return None
        if stretch.head <= place:
            # It was read when the stream ended here; there may be more by now.
            del self._stretches[number]
            return None
        self._stretches.move_to_end(number)
        return stretch

    def wait(self, waiter: W, place: int) -> None:
        """Let one wait for the stretch that leads on from a place."""
        number = place // CHUNK_SEQUENCES
        self._where[waiter] = number
        self._waiting.setdefault(number, {})[waiter] = None
        self._want(number)

    def prefetch(self, place: int, upto: int) -> None:
        """Have the stretches after a place's read ahead, those that lie before ``upto`` and are not here."""
        here = place // CHUNK_SEQUENCES
        for number in range(here + 1, here + 1 + AHEAD):
            if number * CHUNK_SEQUENCES < upto and number not in self._stretches:
                self._want(number)

    def forget(self, waiter: W) -> None:
        """Let one wait no longer."""
        number = self._where.pop(waiter, None)
        if number is None:
            return
        waiting = self._waiting[number]
        del waiting[waiter]
        if not waiting:
            del self._waiting[number]
            self._wanted.pop(number, None)

    def next_request(self) -> ChunkRequest | None:
        """The stretch to read next; ``loaded`` or ``failed`` must follow."""
        for number in self._wanted:
            del self._wanted[number]
            self._reading.add(number)
            return ChunkRequest(number, number * CHUNK_SEQUENCES + 1, (number + 1) * CHUNK_SEQUENCES)
        return None

    def add(self, number: int, stretch: EventLog) -> list[W]:
        """Take in a stretch; returns who waited for it."""
        self._reading.discard(number)
        self._stretches[number] = stretch
        self._stretches.move_to_end(number)
        size = sum(kept.bytes for kept in self._stretches.values())
        while size > self._max_bytes and len(self._stretches) > 1:
            _, gone = self._stretches.popitem(last=False)
            size -= gone.bytes
        return self._released(number)

    def retry(self, number: int) -> None:
        """A stretch could not be read: it is wanted again while somebody waits."""
        self._reading.discard(number)
        if number in self._waiting:
            self._want(number)

    def abandon(self, number: int) -> list[W]:
        """Give up a stretch that no retry can read; returns those that waited for it."""
        self._reading.discard(number)
        self._wanted.pop(number, None)
        return self._released(number)

    def clear(self) -> list[W]:
        """Forget everything: the stream is another one; returns who waited."""
        self._stretches.clear()
        self._wanted.clear()
        return [waiter for number in list(self._waiting) for waiter in self._released(number)]

    def _released(self, number: int) -> list[W]:
        waiters = list(self._waiting.pop(number, ()))
        for waiter in waiters:
            del self._where[waiter]
        return waiters

    def _want(self, number: int) -> None:
        if number not in self._reading and number not in self._wanted and self._fetch is not None:
            self._wanted[number] = None
            self._fetch()
