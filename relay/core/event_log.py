"""Bounded log of recent events, in which every client is a cursor.

Invariants:

1. Records are in stream order, each sequence once.
2. The log holds every event of the stream with ``floor < sequence <= head`` that the relay reads, except
   those in ``missing_ranges``; it makes no statement about other sequences.
3. The number of events and of bytes is bounded; the oldest events are evicted first, which raises ``floor``.
4. Missing ranges are in stream order. Appended ones have at least one record between any two of them, which
   bounds their number; ``prepend`` takes ranges as the stream has them.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from tickertape.relay.core.filters import Filter, Route

_sequence = attrgetter("seq")
_stored = attrgetter("stored_ns")
_start = attrgetter("start")
_end = attrgetter("end")
_COMPACT_AFTER = 4096
"""Number of evicted records after which the list is compacted."""


class Record:
    """Event as the relay keeps it.

    Attributes:
        seq: sequence in the stream.
        route: route of its subject; shared by all events of the subject.
        encoded: JSON of ``{"subject","seq","event"}``, as clients receive it.
        state: whether only the newest event of its subject matters.
        removed: whether the event removes its subject from snapshots.
        received: time at which the relay received it, UNIX seconds.
        timestamp: timestamp in the event itself, UNIX seconds.
        stored_ns: time at which the stream stored it, UNIX nanoseconds.
        traceparent: W3C ``traceparent`` header of a live event's message; otherwise None.
        verdicts: results of conditions; see ``where/condition.py``.
    """

    __slots__ = (
        "encoded", "received", "removed", "route", "seq", "state", "stored_ns", "timestamp", "traceparent",
        "verdicts",
    )  # fmt: skip

    def __init__(
        self,
        seq: int,
        route: Route,
        encoded: bytes,
        state: bool,
        removed: bool,
        received: float,
        timestamp: float,
        stored_ns: int,
        traceparent: str | None = None,
    ) -> None:
        self.seq = seq
        self.route = route
        self.encoded = encoded
        self.state = state
        self.removed = removed
        self.received = received
        self.timestamp = timestamp
        self.stored_ns = stored_ns
        self.traceparent = traceparent
        self.verdicts = 0

    def __repr__(self) -> str:
        return f"Record(seq={self.seq}, subject={self.route.subject!r})"


class MissingRange(NamedTuple):
    """Events that the stream deleted before the relay could read them: after ``start``, up to ``end``."""

    start: int
    end: int


class EventLog:
    """Recent events, bounded by count and by bytes.

    Args:
        max_events: maximum number of records.
        max_bytes: maximum bytes of encoded events.

    Attributes:
        floor: position before the oldest event that the log can still hold.
        head: sequence of the newest message of the stream that the log accounts for.
        bytes: bytes of the encoded events in the log.
        missing_ranges: events between ``floor`` and ``head`` that the stream no longer has.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.floor = 0
        self.head = 0
        self.bytes = 0
        self.missing_ranges: list[MissingRange] = []
        self._head_stored_ns: int | None = None
        self._skipped: dict[int, int] = {}  # stored_ns of messages without a record, by sequence
        self._records: list[Record] = []
        self._first = 0  # index of the oldest record; those before it are evicted and await compaction

    def __len__(self) -> int:
        return len(self._records) - self._first

    def __iter__(self) -> Iterator[Record]:
        for index in range(self._first, len(self._records)):
            yield self._records[index]

    def __repr__(self) -> str:
        return f"EventLog({self.floor} < {len(self)} records <= {self.head}, {self.bytes} bytes)"

    @property
    def since(self) -> float | None:
        """Time at which the stream stored the oldest event in the log, UNIX seconds; None if empty."""
        try:
            return self._records[self._first].stored_ns / 1e9
        # Also if another thread reads metrics while the log is compacted.
        except IndexError:
            return None

    def stored_at(self, seq: int) -> int | None:
        """Return when the stream stored the message with a sequence, UNIX nanoseconds; None if unknown."""
        # After a reset the message at the head has no record, and only this time is known.
        if seq == self.head:
            return self._head_stored_ns
        index = self._index_after(seq) - 1
        if index < self._first or self._records[index].seq != seq:
            return self._skipped.get(seq)
        return self._records[index].stored_ns

    def reset(self, head: int, stored_ns: int | None = None) -> None:
        """Clear the log and restart it at a position.

        Args:
            head: sequence after which events follow.
            stored_ns: time at which the stream stored the message there, UNIX nanoseconds, if known.
        """
        self._records.clear()
        self._first = 0
        self.bytes = 0
        self.missing_ranges.clear()
        self.floor = self.head = head
        self._head_stored_ns = stored_ns
        self._skipped.clear()

    def append(self, record: Record) -> None:
        """Append the newest event, and evict the oldest ones if a bound is exceeded."""
        self._records.append(record)
        self.head = record.seq
        self._head_stored_ns = record.stored_ns
        self.bytes += len(record.encoded)
        if self.bytes > self.max_bytes or len(self._records) - self._first > self.max_events:
            self._evict()

    def advance(self, seq: int, stored_ns: int | None = None) -> None:
        """Advance the head past a message without a record, such as a rejected one."""
        # Never back: callers also pass positions that the last record has reached already.
        if seq > self.head:
            self.head = seq
            self._head_stored_ns = stored_ns
            if stored_ns is not None:
                # Cursors can point at such a message too: each batch of a shipper ends with a checkpoint.
                self._skipped[seq] = stored_ns
                if len(self._skipped) > self.max_events:
                    # Entries below ``floor`` may stay, since the time of a stored message never changes.
                    del self._skipped[next(iter(self._skipped))]

    def append_missing(self, end: int) -> MissingRange:
        """Record that the events after the head, up to ``end``, are missing."""
        missing = MissingRange(self.head, end)
        last = self._records[-1].seq if len(self) else self.floor
        if self.missing_ranges and self.missing_ranges[-1].end >= last:
            # Ranges without a record between them are merged; otherwise their number would be unbounded.
            self.missing_ranges[-1] = MissingRange(self.missing_ranges[-1].start, end)
        else:
            self.missing_ranges.append(missing)
        self.head = end
        self._head_stored_ns = None  # no message has this sequence any more
        # Not the merged range: live members have already been sent the earlier part.
        return missing

    def fill(self, records: Iterable[Record], deleted: Iterable[tuple[int, int]]) -> None:
        """Append events in order, and the ranges of deleted sequences (first, last) between them."""
        ranges = deque(deleted)
        for record in records:
            while ranges and ranges[0][0] < record.seq:
                self._append_deleted(*ranges.popleft())
            self.append(record)
        for first, last in ranges:
            self._append_deleted(first, last)

    def _append_deleted(self, first: int, last: int) -> None:
        # The sequences up to here are messages without a record; the range begins after them.
        self.advance(first - 1)
        self.append_missing(last)

    def prepend(self, records: Iterable[Record], floor: int, missing: Iterable[tuple[int, int]] = ()) -> int:
        """Insert older events: all those after ``floor`` up to the current floor.

        Args:
            records: older events, in order.
            floor: position before the first of them.
            missing: ranges of deleted sequences (first, last) among them, in order.

        Returns:
            The number of events that fit within the bounds, counted from the newest.
        """
        kept: list[Record] = []
        capacity = self.max_events - len(self)
        size = self.bytes
        for record in reversed(list(records)):
            size += len(record.encoded)
            if len(kept) == capacity or size > self.max_bytes:
                # Smaller records before it might fit, but the log must not have holes after ``floor``.
                floor = record.seq
                break
            kept.append(record)
            self.bytes = size
        kept.reverse()
        # The slice holds evicted records that await compaction.
        self._records[: self._first] = kept
        self._first = 0
        self.floor = floor
        self.missing_ranges[:0] = [
            MissingRange(max(floor, first - 1), last) for first, last in missing if last > floor
        ]
        return len(kept)

    def between(self, after: int, upto: int, *, newest_first: bool = False) -> Iterator[Record]:
        """Return the records ``after < sequence <= upto`` in stream order, or in reverse."""
        records, indexes = self._records, range(self._index_after(after), self._index_after(upto))
        for index in reversed(indexes) if newest_first else indexes:
            yield records[index]

    def count_after(self, seq: int) -> int:
        """Return the number of records after a sequence, of any subject."""
        return len(self._records) - self._index_after(seq)

    def select(
        self, event_filter: Filter, after: int, upto: int, max_events: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Select the records that a filter matches, ``after < sequence <= upto``, within bounds.

        Returns:
            The records and the position reached: ``upto``, or that of the last record if a bound was met
            first. The first match is returned even if it alone exceeds ``max_bytes``.
        """
        found: list[Record] = []
        size = 0
        matches, where = event_filter.matches, event_filter.where
        for record in self.between(after, upto):
            if not matches(record.route.subject) or (where is not None and not where.passes(record)):
                continue
            size += len(record.encoded)
            if found and size > max_bytes:
                return found, found[-1].seq
            found.append(record)
            if len(found) >= max_events:
                return found, record.seq
        return found, upto

    def select_last(
        self, event_filter: Filter, after: int, upto: int, max_events: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Select the last records that a filter matches, in stream order.

        Returns:
            The records and the position before them: ``after``, or the one before the first record if a bound
            was met there. The last match is returned even if it alone exceeds ``max_bytes``.
        """
        found: list[Record] = []
        size = 0
        matches, where = event_filter.matches, event_filter.where
        position = after
        for record in self.between(after, upto, newest_first=True):
            if not matches(record.route.subject) or (where is not None and not where.passes(record)):
                continue
            size += len(record.encoded)
            if found and (len(found) == max_events or size > max_bytes):
                position = found[-1].seq - 1
                break
            found.append(record)
        found.reverse()
        return found, position

    def position_at(self, moment: float) -> int:
        """Return the position before the first event stored at or after a time, UNIX seconds."""
        records = self._records
        index = bisect_left(records, moment * 1e9, lo=self._first, key=_stored)
        if index == len(records):
            return self.head
        # At the record before it, not right before it: the storage times of a missing range in between are
        # unknown, so the range is reported.
        return self.floor if index == self._first else records[index - 1].seq

    def covers(self, moment: float) -> bool:
        """Return whether the log certainly has all events stored at or after a time, UNIX seconds."""
        # Strictly before: the log may have evicted an event with the same time as its oldest one.
        return len(self) > 0 and self._records[self._first].stored_ns < moment * 1e9

    def missing_ranges_between(self, after: int, upto: int) -> list[MissingRange]:
        """Return the missing ranges that end after ``after`` and start before ``upto``."""
        begin = bisect_right(self.missing_ranges, after, key=_end)
        return self.missing_ranges[begin : bisect_left(self.missing_ranges, upto, lo=begin, key=_start)]

    def next_missing_range(self, after: int, upto: int) -> MissingRange | None:
        """Return the first missing range that ends after ``after`` and starts before ``upto``."""
        index = bisect_right(self.missing_ranges, after, key=_end)
        return (
            self.missing_ranges[index]
            if index < len(self.missing_ranges) and self.missing_ranges[index].start < upto
            else None
        )

    def _index_after(self, seq: int) -> int:
        return bisect_right(self._records, seq, lo=self._first, key=_sequence)

    def _evict(self) -> None:
        records = self._records
        first = self._first
        while first < len(records) and (
            len(records) - first > self.max_events or self.bytes > self.max_bytes
        ):
            self.bytes -= len(records[first].encoded)
            self.floor = records[first].seq
            first += 1
        self._first = first
        # Evicted records stay in the list until then, at most ``_COMPACT_AFTER`` of them.
        if first > _COMPACT_AFTER or first * 2 > len(records):
            # Compaction is rare, so that eviction costs amortized constant time per event.
            del records[:first]
            self._first = 0
        if self.missing_ranges and self.missing_ranges[0].end <= self.floor:
            del self.missing_ranges[: bisect_right(self.missing_ranges, self.floor, key=_end)]
