"""Schedule of file streams: which are shipped next, and when those that wait for a time are looked at.

Invariants:

1. A stream is queued or shipped at most once at any time.
2. Streams are shipped in the order in which they had work; after its turn, one with more to ship goes to the
   end of the queue.
3. The streams that are shipped simultaneously have about ``MAX_UNSHIPPED_BYTES`` to read at most; one is
   always shipped.
"""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from tickertape.producers.shipper.files.batch import MAX_BATCH_BYTES
from tickertape.producers.shipper.sources.event_stream import EventStream
from tickertape.producers.shipper.timing import MULTILINE_TIMEOUT

MAX_CONCURRENT_STREAMS: Final = 512
"""File streams that are shipped simultaneously: enough for several full batches of one line of each."""

MAX_UNSHIPPED_BYTES: Final = 8 * 2 * MAX_BATCH_BYTES
"""Bytes to read of the streams that are shipped simultaneously; each has two batches in memory at most."""

MIN_COALESCED: Final = 32
"""Streams with new lines from which on these wait until the last line is complete, to be shipped together."""

SETTLED_AFTER: Final = 0.15
"""Seconds without a report after which a stream does not change: a write can be reported twice, and late."""

HASTY_SCAN_BACKOFF: Final = 10
"""Minimum ratio of the pause between two scans to the time that known files took, while others change."""

MAX_HASTY_PAUSE: Final = 10.0
"""Maximum seconds between two scans while files change that are not tailed, however long a scan takes."""

MIN_WAIT: Final = 0.02
"""Minimum seconds until a stream is looked at again."""


def hasty_pause(duration: float, minimum: float, known: float) -> float:
    """Return the seconds until the next scan while files change that are not tailed.

    Args:
        duration: seconds that the last scan took.
        minimum: minimum seconds.
        known: share of the streams that were known before that scan; the time for the others was well spent.
    """
    return max(minimum, min(duration * known * HASTY_SCAN_BACKOFF, MAX_HASTY_PAUSE))


class Schedule:
    """Queue of file streams with work, and the times of those that have some later.

    Args:
        wake: called when a stream is due earlier than ``wake_at``.

    Attributes:
        busy: streams that are queued or being shipped.
        wake_at: monotonic seconds at which the owner next looks at the streams that are due.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self.busy: set[EventStream] = set()
        self.wake_at = 0.0
        self._wake = wake
        self._queue: deque[EventStream] = deque()
        self._running: dict[EventStream, int] = {}
        self._unshipped = 0
        # Times of the waiting streams, and a heap of them in which earlier times of a stream remain.
        self._due: dict[EventStream, float] = {}
        self._heap: list[tuple[float, int, EventStream]] = []
        self._ids = itertools.count()
        # Monotonic seconds of the last report of a change, for streams that wait for the last one.
        self._reported: dict[EventStream, float] = {}

    def add(self, stream: EventStream) -> None:
        """Queue a stream that has work and is not busy."""
        self._due.pop(stream, None)
        self.busy.add(stream)
        self._queue.append(stream)

    def take(self) -> EventStream | None:
        """Return the stream to be shipped next; None if there is none, or no memory for it."""
        full = len(self._running) >= MAX_CONCURRENT_STREAMS or self._unshipped >= MAX_UNSHIPPED_BYTES
        if full or not self._queue:
            return None
        stream = self._queue.popleft()
        size = self._running[stream] = min(stream.lag, 2 * MAX_BATCH_BYTES)
        self._unshipped += size
        return stream

    def release(self, stream: EventStream) -> None:
        """Record that the turn of a stream is over."""
        self._unshipped -= self._running.pop(stream)
        self.busy.discard(stream)

    def attend(self, stream: EventStream, interval: float) -> None:
        """Look at a stream that is not busy soon if something other than new data is due in it.

        Args:
            stream: the stream.
            interval: seconds after which it is looked at, unless a line has to be flushed earlier.
        """
        self._reported.pop(stream, None)
        if not stream.needs_attention:
            self._due.pop(stream, None)
            return
        now = time.monotonic()
        self._wait(stream, max(now + MIN_WAIT, min(now + interval, stream.flush_at)))

    def _wait(self, stream: EventStream, due: float) -> None:
        self._due[stream] = due
        heapq.heappush(self._heap, (due, next(self._ids), stream))
        if due < self.wake_at:
            self._wake()

    def select(self, changed: set[EventStream]) -> set[EventStream]:
        """Return the streams to look at now, of those with reported changes and those that are due."""
        return self.coalesce(changed).union(self.take_due(time.monotonic()))

    def coalesce(self, changed: set[EventStream]) -> set[EventStream]:
        """Return those of the streams with reported changes that are looked at without delay.

        A parser holds the last line of a file for ``MULTILINE_TIMEOUT``, so an append to a quiet file takes
        two batches. If many files change, they are read after this time, which saves one of the two.
        """
        if len(changed) + len(self.busy) < MIN_COALESCED:
            return changed
        now = time.monotonic()
        settled_at = now + MULTILINE_TIMEOUT
        for stream in changed:
            if stream in self._reported:
                self._reported[stream] = now
            elif stream not in self.busy:
                self._reported[stream] = now
                if self._due.get(stream, settled_at) >= settled_at:
                    self._wait(stream, settled_at)
        return set()

    def take_settled(self, stream: EventStream) -> bool:
        """Forget that a stream has changed; return whether that was ``SETTLED_AFTER`` ago."""
        reported = self._reported.pop(stream, None)
        return reported is not None and time.monotonic() - reported >= SETTLED_AFTER

    def take_due(self, now: float) -> list[EventStream]:
        """Return the streams whose time has come, in monotonic seconds, and forget it."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, _, stream = heapq.heappop(self._heap)
            if self._due.get(stream) == at:
                del self._due[stream]
                due.append(stream)
        return due

    @property
    def next_due(self) -> float:
        """Monotonic seconds at which a stream is due; infinity if none waits."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else float("inf")
