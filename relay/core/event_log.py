"""The bounded log of recent events that every client is a cursor in.

Invariants:

1. Records lie in stream order, each sequence once.
2. Every event of the stream with ``floor < sequence <= head`` that the relay takes in is here, or its
   sequence lies in one of ``holes``; nothing is said about what lies outside.
3. Events and bytes stay within their bounds; the oldest leave first, and raise ``floor``.
4. Holes lie in stream order, and a record lies between any two of them.
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


class Record:
    """One event as the relay keeps it.

    Attributes:
        seq: sequence in the stream.
        route: what its subject means; shared by all events of the subject.
        encoded: the JSON of ``{"subject","seq","event"}``, as clients get it.
        state: True when only the newest of its subject matters.
        removed: True for a state that leaves snapshots.
        received: when the relay took it in, UNIX seconds.
        timestamp: the event's own time, UNIX seconds.
        stored_ns: when the stream stored it, UNIX nanoseconds.
        traceparent: W3C's header of its message, if it had one and just came.
    """

    __slots__ = (
        "encoded", "received", "removed", "route", "seq", "state", "stored_ns", "timestamp", "traceparent",
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

    def __repr__(self) -> str:
        return f"Record(seq={self.seq}, subject={self.route.subject!r})"


class MissingRange(NamedTuple):
    """Events that the stream let go before the relay could take them in: after ``start``, up to ``end``."""

    start: int
    end: int


class EventLog:
    """Recent events, bounded by count and by bytes.

    Args:
        max_events: most records kept.
        max_bytes: most bytes of encoded events kept.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self.floor = 0
        self.head = 0
        self.bytes = 0
        self.missing_ranges: list[MissingRange] = []
        self._head_stored_ns: int | None = None
        self._passed: dict[int, int] = {}  # when messages that are not kept were stored, by sequence
        self._records: list[Record] = []
        self._first = 0  # index of the oldest record that is still in; those before it await compaction

    def __len__(self) -> int:
        return len(self._records) - self._first

    def __iter__(self) -> Iterator[Record]:
        for index in range(self._first, len(self._records)):
            yield self._records[index]

    def __repr__(self) -> str:
        return f"EventLog({self.floor} < {len(self)} records <= {self.head}, {self.bytes} bytes)"

    @property
    def since(self) -> float | None:
        """When the stream stored the oldest event in it, UNIX seconds; None while it is empty."""
        oldest = next(iter(self), None)
        return None if oldest is None else oldest.stored_ns / 1e9

    def stored_at(self, seq: int) -> int | None:
        """Tell when the stream stored the message with a sequence, UNIX nanoseconds; None if unknown."""
        if seq == self.head:
            return self._head_stored_ns
        index = self._index_after(seq) - 1
        if index < self._first or self._records[index].seq != seq:
            return self._passed.get(seq)
        return self._records[index].stored_ns

    def reset(self, head: int, stored_ns: int | None = None) -> None:
        """Forget everything.

        Args:
            head: sequence after which events will come.
            stored_ns: when the stream stored the message there, UNIX nanoseconds, if that is known.
        """
        self._records.clear()
        self._first = 0
        self.bytes = 0
        self.missing_ranges.clear()
        self.floor = self.head = head
        self._head_stored_ns = stored_ns
        self._passed.clear()

    def append(self, record: Record) -> None:
        """Add the newest event, and let the oldest go when a bound is passed."""
        self._records.append(record)
        self.head = record.seq
        self._head_stored_ns = record.stored_ns
        self.bytes += len(record.encoded)
        if self.bytes > self.max_bytes or len(self._records) - self._first > self.max_events:
            self._evict()

    def advance(self, seq: int, stored_ns: int | None = None) -> None:
        """Move the head over a message that is not kept, such as one that was rejected."""
        if seq > self.head:
            self.head = seq
            self._head_stored_ns = stored_ns
            if stored_ns is not None:
                # Cursors point at such a message, too: a checkpoint ends each batch of a shipper.
                self._passed[seq] = stored_ns
                if len(self._passed) > self.max_events:
                    del self._passed[next(iter(self._passed))]

    def append_missing(self, end: int) -> MissingRange:
        """Note that events after the head, up to ``end``, will never come."""
        hole = MissingRange(self.head, end)
        last = self._records[-1].seq if len(self) else self.floor
        if self.missing_ranges and self.missing_ranges[-1].end >= last:
            # Nothing was kept since the one before: they are one, or their number would have no bound.
            self.missing_ranges[-1] = MissingRange(self.missing_ranges[-1].start, end)
        else:
            self.missing_ranges.append(hole)
        self.head = end
        self._head_stored_ns = None
        return hole

    def fill(self, records: Iterable[Record], gone: Iterable[tuple[int, int]]) -> None:
        """Add events in order, and note the sequences between them, first to last, that will never come."""
        holes = deque(gone)
        for record in records:
            while holes and holes[0][0] < record.seq:
                self._gone(*holes.popleft())
            self.append(record)
        for first, last in holes:
            self._gone(first, last)

    def _gone(self, first: int, last: int) -> None:
        self.advance(first - 1)
        self.append_missing(last)

    def prepend(self, records: Iterable[Record], floor: int, missing: Iterable[tuple[int, int]] = ()) -> int:
        """Add older events, all of those after ``floor`` up to the present floor.

        Args:
            records: in order.
            floor: sequence before the first that is told of.
            missing: ranges of sequences, first to last, that will never come; in order.

        Returns:
            how many were kept, from the newest; the bounds come first.
        """
        kept: list[Record] = []
        room = self.max_events - len(self)
        size = self.bytes
        for record in reversed(list(records)):
            size += len(record.encoded)
            if len(kept) == room or size > self.max_bytes:
                floor = record.seq
                break
            kept.append(record)
            self.bytes = size
        kept.reverse()
        self._records[: self._first] = kept
        self._first = 0
        self.floor = floor
        self.missing_ranges[:0] = [
            MissingRange(max(floor, first - 1), last) for first, last in missing if last > floor
        ]
        return len(kept)

    def count_after(self, seq: int) -> int:
        """How many records lie after a sequence, whatever their subject."""
        return len(self._records) - self._index_after(seq)

    def select(
        self, wanted: Filter, after: int, upto: int, max_events: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Read what a filter matches, ``after < sequence <= upto``, within bounds.

        Returns:
            the records, and the place reached: ``upto``, or the last record's when a bound was met first.
            One record is returned even when it alone is over ``max_bytes``.
        """
        found: list[Record] = []
        size = 0
        records = self._records
        matches = wanted.matches
        for index in range(self._index_after(after), len(records)):
            record = records[index]
            if record.seq > upto:
                break
            if not matches(record.route.subject):
                continue
            size += len(record.encoded)
            if found and size > max_bytes:
                return found, found[-1].seq
            found.append(record)
            if len(found) >= max_events:
                return found, record.seq
        return found, upto

    def select_last(
        self, wanted: Filter, after: int, upto: int, max_events: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Like ``select``, from the end: the last records that match, in stream order.

        Returns:
            the records, and the place before them: ``after``, or the one before the first record when a bound
            was met there. One record is returned even when it alone is over ``max_bytes``.
        """
        found: list[Record] = []
        size = 0
        records = self._records
        matches = wanted.matches
        place = after
        for index in range(self._index_after(upto) - 1, self._index_after(after) - 1, -1):
            record = records[index]
            if not matches(record.route.subject):
                continue
            size += len(record.encoded)
            if found and (len(found) == max_events or size > max_bytes):
                place = found[-1].seq - 1
                break
            found.append(record)
        found.reverse()
        return found, place

    def after_time(self, moment: float) -> int:
        """Cursor before the first event that the stream stored at or after a time, UNIX seconds."""
        records = self._records
        index = bisect_left(records, moment * 1e9, lo=self._first, key=_stored)
        if index == len(records):
            return self.head
        return self.floor if index == self._first else records[index - 1].seq

    def reaches(self, moment: float) -> bool:
        """True when all events that the stream stored at or after a time, UNIX seconds, are surely here."""
        return len(self) > 0 and self._records[self._first].stored_ns < moment * 1e9

    def missing_ranges_between(self, after: int, upto: int) -> list[MissingRange]:
        """Holes that reach beyond ``after`` and begin before ``upto``."""
        begin = bisect_right(self.missing_ranges, after, key=_end)
        return self.missing_ranges[begin : bisect_left(self.missing_ranges, upto, lo=begin, key=_start)]

    def next_missing_range(self, after: int, upto: int) -> MissingRange | None:
        """First hole that reaches beyond ``after`` and begins before ``upto``."""
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
        if first > _COMPACT_AFTER or first * 2 > len(records):
            # The list is moved rarely, so that letting go costs a constant per event.
            del records[:first]
            self._first = 0
        if self.missing_ranges and self.missing_ranges[0].end <= self.floor:
            del self.missing_ranges[: bisect_right(self.missing_ranges, self.floor, key=_end)]
