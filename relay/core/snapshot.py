"""Snapshot: the newest event of each state subject, which a client without a cursor receives first."""

from bisect import bisect_right
from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.state_pool import Bounds, StatePool

_MIB: Final = 1024 * 1024

FAMILIES: Final[Mapping[str, Bounds]] = MappingProxyType(
    {"gateway.status": Bounds(100_000, 128 * _MIB), "system.health": Bounds(16_000, 32 * _MIB)}
)
"""Bounds of the families, by the first two tokens of their subjects."""

OTHER_FAMILIES: Final = Bounds(16_000, 32 * _MIB)
"""Bounds of each family that a later version of the contract adds."""

_sequence = attrgetter("seq")


class Snapshot:
    """Newest record of each state subject, in one bounded pool per family.

    A removed gateway leaves a tombstone, so that an older event that arrives late does not bring it back.

    Args:
        families: bounds of the families.

    Attributes:
        pools: pools by family.
        version: number that changes with the content, so that encoded snapshots can be cached.
    """

    def __init__(self, families: Mapping[str, Bounds] = FAMILIES) -> None:
        self.pools = {family: StatePool(bounds) for family, bounds in families.items()}
        self.version = 0
        self._ordered: list[Record] = []  # in stream order, as of ``_ordered_at``
        self._ordered_at = 0

    def __len__(self) -> int:
        return sum(len(pool.records) for pool in self.pools.values())

    def __repr__(self) -> str:
        return f"Snapshot({len(self)} subjects)"

    def clear(self) -> None:
        """Remove all records."""
        for pool in self.pools.values():
            pool.clear()
        self.version += 1

    def put(self, record: Record) -> bool:
        """Add a state event, in any order; return False if it or a newer one of its subject is known."""
        pool = self._pool(record)
        known = pool.get(record.route.subject)
        # A record with the same sequence was loaded before the stream reached it. It becomes visible now, so
        # the version changes.
        if known is not None and known.seq > record.seq:
            return False
        pool.put(record)
        self.version += 1
        return known is None or known.seq < record.seq

    def is_newest(self, record: Record) -> bool:
        """Return whether no newer event of the record's subject is known."""
        known = self._pool(record).get(record.route.subject)
        return known is None or known.seq <= record.seq

    def select(self, event_filter: Filter, upto: int) -> tuple[Record, ...]:
        """Return the newest states that a filter matches, up to a sequence, in stream order."""
        found: list[Record] = []
        for family, pool in self.pools.items():
            covered = event_filter.covers(f"{family}.>")
            if covered is not False:
                found += [
                    record
                    for subject, record in pool.records.items()
                    if record.seq <= upto and (covered or event_filter.matches(subject))
                ]
        return tuple(sorted(found, key=_sequence))

    def missing(self, event_filter: Filter) -> dict[str, int]:
        """Return how many states are missing from the families that a filter can match, by family.

        These were evicted and have not changed since. The count covers the whole family, because their
        subjects are not kept.
        """
        return {
            family: pool.missing
            for family, pool in self.pools.items()
            if pool.missing and event_filter.covers(f"{family}.>") is not False
        }

    def changed(self, event_filter: Filter, after: int, upto: int) -> list[Record]:
        """Return the newest states in ``after < sequence <= upto``, including removals, in stream order."""
        if self._ordered_at != self.version:
            # Sorted once for all gaps of members that catch up; there can be thousands in a row.
            self._ordered = sorted(
                (
                    record
                    for pool in self.pools.values()
                    for records in (pool.records, pool.tombstones)
                    for record in records.values()
                ),
                key=_sequence,
            )
            self._ordered_at = self.version
        begin = bisect_right(self._ordered, after, key=_sequence)
        end = bisect_right(self._ordered, upto, lo=begin, key=_sequence)
        # Removals are included, since the client may still show the gateway.
        return [record for record in self._ordered[begin:end] if event_filter.matches(record.route.subject)]

    def _pool(self, record: Record) -> StatePool:
        family = record.route.bucket
        pool = self.pools.get(family)
        if pool is None:
            pool = self.pools[family] = StatePool(OTHER_FAMILIES)
        return pool
