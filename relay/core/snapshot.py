"""The newest event of each state subject: what a client that starts afresh is shown first."""

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter

MAX_SUBJECTS: Final = 100_000
"""State subjects remembered; past it the one that was first seen earliest leaves."""

_sequence = attrgetter("seq")


class Snapshot:
    """Newest record per state subject.

    A removed gateway stays as a tombstone, so that older news of it, arriving late, does not bring it back.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Record] = {}
        self.version = 0  # changes with the content; lets frames made from it be kept
        self._ordered: list[Record] = []  # in stream order, as of ``_ordered_at``
        self._ordered_at = 0

    def __len__(self) -> int:
        return sum(not record.removed for record in self._newest.values())

    def __repr__(self) -> str:
        return f"Snapshot({len(self)} subjects)"

    def clear(self) -> None:
        """Forget everything."""
        self._newest.clear()
        self.version += 1

    def put(self, record: Record) -> bool:
        """Note a state event, in any order; False when it or a newer one of its subject is known."""
        subject = record.route.subject
        known = self._newest.get(subject)
        if known is not None:
            # An equal one was loaded ahead of the stream, and is shown from its place on: that is a change.
            if known.seq > record.seq:
                return False
        elif len(self._newest) >= MAX_SUBJECTS:
            del self._newest[next(iter(self._newest))]
        self._newest[subject] = record
        self.version += 1
        return known is None or known.seq < record.seq

    def is_newest(self, record: Record) -> bool:
        """True when no newer event of the record's subject is known."""
        known = self._newest.get(record.route.subject)
        return known is None or known.seq <= record.seq

    def select(self, wanted: Filter, upto: int) -> list[Record]:
        """Newest states that a filter matches and whose sequence is not after ``upto``, in stream order."""
        return sorted(
            (record for record in self._matching(wanted) if record.seq <= upto and not record.removed),
            key=lambda record: record.seq,
        )

    def changed(self, wanted: Filter, after: int, upto: int) -> list[Record]:
        """Newest states in ``after < sequence <= upto``, removals too, in stream order."""
        if self._ordered_at != self.version:
            # A member that catches up asks for each gap, and thousands of gaps may lie behind each other.
            self._ordered = sorted(self._newest.values(), key=_sequence)
            self._ordered_at = self.version
        begin = bisect_right(self._ordered, after, key=_sequence)
        end = bisect_right(self._ordered, upto, lo=begin, key=_sequence)
        return [record for record in self._ordered[begin:end] if wanted.matches(record.route.subject)]

    def _matching(self, wanted: Filter) -> Iterator[Record]:
        return (record for subject, record in self._newest.items() if wanted.matches(subject))
