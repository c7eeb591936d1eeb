"""Journal stream: the entries of a journal as batches, whose checkpoint is the cursor of the last entry.

Invariants:

1. A batch holds all events up to an entry, and its checkpoint the cursor of that entry.
2. If a batch is not shipped, no later batch is: reading resumes after the last shipped entry.
"""

import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Final

from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.files.batch import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Batch
from tickertape.producers.shipper.journal.journal_reader import JournalReader
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.position import digest
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.throttle import Throttle
from tickertape.producers.shipper.timing import MULTILINE_TIMEOUT

_FEED: Final = 256
"""Entries that are parsed together."""

_NEVER: Final = float("inf")


class JournalStream:
    """Entries of a journal as a stream of events; see ``EventStream``.

    Args:
        path: name of the journal in checkpoints.
        stored: its last checkpoint.
        reader: reads the entries after the cursor of that checkpoint.
        parser: factory of the parser.
        throttle: decides which events are shipped.
        run_id: identifier of this process in checkpoints.
    """

    failures = 0
    deferred = False
    is_backing_off = False
    encoding = "utf-8"

    def __init__(
        self,
        path: str,
        stored: StoredCheckpoint | None,
        reader: JournalReader,
        parser: Callable[[], Parser],
        throttle: Throttle,
        run_id: str,
    ) -> None:
        self.path = path
        self.sequence = stored.sequence if stored is not None else 0
        self.caught_up_at = 0.0
        self.throttle = throttle
        self._reader = reader
        self._make_parser = parser
        self._parser = parser()
        self._run_id = run_id
        self._count = stored.checkpoint.count if stored is not None else 0
        self._cursor = stored.checkpoint.cursor if stored is not None else ""
        if stored is not None:
            throttle.restore_unreported(stored.checkpoint.suppressed)
        self._ready: deque[ParsedEvent] = deque()
        # Positions after the entries that are read and not batched, in bytes, and their cursors.
        self._ends: list[int] = []
        self._cursors: list[str] = []
        self._end = 0
        self._unsaved = False
        self._fed_at = 0.0

    @property
    def paths(self) -> Iterable[str]:
        """Name by which new entries are announced."""
        return [self.path]

    @property
    def flush_at(self) -> float:
        """Monotonic seconds at which an event no longer waits for further entries."""
        return self._fed_at + MULTILINE_TIMEOUT if self.has_partial else _NEVER

    @property
    def has_partial(self) -> bool:
        """Whether an event waits for further entries."""
        return self._parser.has_partial

    @property
    def needs_attention(self) -> bool:
        """Whether there may be work that no new entry announces."""
        return bool(self._ready or self._unsaved or self.throttle.unreported or self.has_partial)

    @property
    def lag(self) -> int:
        """Number of bytes of the entries that wait to be shipped."""
        return self._reader.buffered

    def has_work(self, now: float) -> bool:
        """Return whether there may be something to ship."""
        is_due = self.has_partial and time.monotonic() >= self.flush_at
        has_work = bool(self._ready or len(self._reader) or self._unsaved or is_due)
        if not has_work and not self.throttle.report_due(now):
            self.caught_up_at = time.monotonic()
            return False
        return True

    def next_batch(self, now: float, *, finish: bool = False) -> Batch | None:
        """Return the next batch; None if there is nothing to ship now. See ``EventStream.next_batch``."""
        events: list[OutgoingEvent] = []
        size = 0
        is_full = False
        covered = 0
        while not is_full and (self._ready or self._fill(now, finish=finish)):
            parsed = self._ready.popleft()
            self._unsaved = True
            index = bisect_left(self._ends, parsed.end)
            if parsed.may_end_batch:
                self._cursor, covered = self._cursors[index], index + 1
            if self.throttle.admit(parsed, now):
                # It differs for each event, and depends on the entries alone.
                id = f"{digest(self._cursors[index].encode())}-{self._ends[index] - parsed.end}"
                events.append(OutgoingEvent(parsed.subject, parsed.encode(), id))
                size += len(events[-1].payload)
            is_full = parsed.may_end_batch and (len(events) >= MAX_BATCH_EVENTS or size >= MAX_BATCH_BYTES)
        del self._ends[:covered], self._cursors[:covered]
        if not self._ready and len(events) <= MAX_BATCH_EVENTS - len(LEVELS):
            events += self.throttle.report_suppressed(now, finish=finish)
        if not events and not self._unsaved:
            return None
        self._unsaved = False
        self._count += 1
        checkpoint = Checkpoint(
            self.path,
            (),
            Counter(self.throttle.unreported),
            now,
            self._count,
            self._run_id,
            cursor=self._cursor,
        )
        return Batch(events, checkpoint, [], [])

    def _fill(self, now: float, *, finish: bool) -> bool:
        """Parse entries until an event is ready; return whether there is one."""
        while not self._ready:
            entries = self._reader.take(_FEED)
            if entries:
                ends = list(accumulate((entry.size for entry in entries), initial=self._end))[1:]
                self._end = ends[-1]
                self._ends += ends
                self._cursors += [entry.cursor for entry in entries]
                self._ready.extend(self._parser.feed_streams([entry.line for entry in entries], ends, now))
                self._fed_at = time.monotonic()
            elif self.has_partial and (finish or time.monotonic() >= self.flush_at):
                self._ready.extend(self._parser.flush(now))
            else:
                break
        return bool(self._ready)

    def set_settled(self, *, settled: bool) -> None:
        """Ignore it: no event waits for a line."""

    def mark_shipped(self, batch: Batch, sequence: int) -> None:
        """Record that a batch is acknowledged."""
        self.sequence = sequence

    def rewind(self, batches: list[Batch], stored: StoredCheckpoint) -> list[str]:
        """Resume after the entry that another process has shipped last."""
        self.sequence = stored.sequence
        self._count = stored.checkpoint.count
        self._cursor = stored.checkpoint.cursor
        self.throttle.restore_unreported(stored.checkpoint.suppressed)
        self._ready.clear()
        self._ends.clear()
        self._cursors.clear()
        self._unsaved = False
        self._parser = self._make_parser()
        self._reader.seek(self._cursor)
        return []

    def back_off(self) -> None:
        """Do nothing: ``JournalReader`` retries by itself."""

    def shift_clock(self, step: float) -> None:
        """Shift all times because the system clock was set by ``step`` seconds."""
        self.throttle.shift_clock(step)


class JournalSource:
    """Source of a journal's only stream; see ``FileSource``.

    Args:
        stream: stream of the journal.
    """

    read_error: tuple[str, OSError] | None = None
    forbidden = 0
    unreadable = False
    lost_files = lost_bytes = 0

    def __init__(self, stream: JournalStream) -> None:
        self.streams = {stream.path: stream}

    def scan(self, now: float) -> None:
        """Do nothing: ``JournalReader`` finds new entries."""

    def shift_clock(self, step: float) -> None:
        """Shift the times of the stream because the system clock was set by ``step`` seconds."""
        for stream in self.streams.values():
            stream.shift_clock(step)

    def close(self) -> None:
        """Do nothing: ``JournalReader`` ends with its task."""
