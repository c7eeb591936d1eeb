"""Snapshot: the newest event of each state subject, which a client without a cursor receives first."""

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter

MAX_SUBJECTS: Final = 100_000
"""Maximum number of state subjects; beyond it, the subject that was added first is evicted."""

_sequence = attrgetter("seq")


class Snapshot:
    """Newest record of each state subject.

    A removed gateway leaves a tombstone, so that an older event that arrives late does not bring it back.
    """

    def __init__(self) -> None:
        self._newest: dict[str, Record] = {}
        self.version = 0  # changes with the content, so that encoded snapshots can be cached
        self._ordered: list[Record] = []  # in stream order, as of ``_ordered_at``
        self._ordered_at = 0

    def __len__(self) -> int:
        return sum(not record.removed for record in self._newest.values())

    def __repr__(self) -> str:
        return f"Snapshot({len(self)} subjects)"

    def clear(self) -> None:
        """Remove all records."""
        self._newest.clear()
        self.version += 1

    def put(self, record: Record) -> bool:
        """Add a state event, in any order; return False if it or a newer one of its subject is known."""
        subject = record.route.subject
        known = self._newest.get(subject)
        if known is not None:
            # A record with the same sequence was loaded before the stream reached it. It becomes visible
            # now, so the version changes.
            if known.seq > record.seq:
                return False
        elif len(self._newest) >= MAX_SUBJECTS:
            del self._newest[next(iter(self._newest))]
        self._newest[subject] = record
        self.version += 1
        return known is None or known.seq < record.seq

    def is_newest(self, record: Record) -> bool:
        """Return whether no newer event of the record's subject is known."""
        known = self._newest.get(record.route.subject)
        return known is None or known.seq <= record.seq

    def select(self, event_filter: Filter, upto: int) -> list[Record]:
        """Return the newest states that a filter matches, up to a sequence, in stream order."""
        return sorted(
            (record for record in self._matching(event_filter) if record.seq <= upto and not record.removed),
            key=lambda record: record.seq,
        )

    def changed(self, event_filter: Filter, after: int, upto: int) -> list[Record]:
        """Return the newest states in ``after < sequence <= upto``, including removals, in stream order."""
        if self._ordered_at != self.version:
            # Sorted once for all gaps of members that catch up; there can be thousands in a row.
            self._ordered = sorted(self._newest.values(), key=_sequence)
            self._ordered_at = self.version
        begin = bisect_right(self._ordered, after, key=_sequence)
        end = bisect_right(self._ordered, upto, lo=begin, key=_sequence)
        # Removals are included, since the client may still show the gateway.
        return [record for record in self._ordered[begin:end] if event_filter.matches(record.route.subject)]

    def _matching(self, event_filter: Filter) -> Iterator[Record]:
        return (record for subject, record in self._newest.items() if event_filter.matches(subject))
