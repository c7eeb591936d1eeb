"""Snapshot: the newest event of each state subject, which a client without a cursor receives first.

Clients read it in pieces, as their sockets accept them, from a list of states that all of them share.

Invariants:

1. A reading shows only states that are the newest of their subject, none of them after its position. A
   state that is replaced while a client reads is not shown: the newer one follows as an event.
2. A list only grows at its end, so a reading needs no copy. It is replaced before it holds many stale states.
3. A reading continues in the newest list and keeps no other, nor a state: clients that read slowly while
   states change hold no memory.
"""

from bisect import bisect_right
from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Final

from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.state_pool import Bounds, StatePool

from tickertape.text import MIB

FAMILIES: Final[Mapping[str, Bounds]] = MappingProxyType(
    {"gateway.status": Bounds(100_000, 128 * MIB), "system.health": Bounds(16_000, 32 * MIB)}
)
"""Bounds of the families, by the first two tokens of their subjects."""

OTHER_FAMILIES: Final = Bounds(16_000, 32 * MIB)
"""Bounds of each family that a later version of the contract adds."""

MAX_EXAMINED: Final = 1_000
"""Maximum number of states to examine for one piece: filters may match few of them."""

MAX_STALE: Final = 1_000
"""Number of states that are added to a list, or a quarter of its length if that is more; they make others
stale."""

MAX_STALE_BYTES: Final = 8 * MIB
"""Bytes of states that are added to a list."""

_sequence = attrgetter("seq")


class Reading:
    """Snapshot that a client is reading: its position in the list of states, and where it ends.

    Args:
        upto: sequence of the last state to read.

    Attributes:
        generation: number of the list that ``index`` and ``end`` belong to, which identifies it.
        index: index of the next state to read.
        end: index after the last state of this reading.
        after: sequence of the last state that was read.
    """

    __slots__ = ("after", "end", "generation", "index", "upto")

    def __init__(self, upto: int) -> None:
        self.upto = upto
        self.generation = -1
        self.index = self.end = self.after = 0

    def __repr__(self) -> str:
        return f"Reading({self.index} of {self.end} in list {self.generation})"


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
        self._states: list[Record] | None = None  # in stream order; replaced states stay in it
        self._capacity = self._capacity_bytes = 0  # number and bytes of the states that may be added to it
        self._generation = 0

    def __len__(self) -> int:
        return sum(len(pool.records) for pool in self.pools.values())

    def __repr__(self) -> str:
        return f"Snapshot({len(self)} subjects)"

    def clear(self) -> None:
        """Remove all records."""
        for pool in self.pools.values():
            pool.clear()
        self._states = None
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
        self._append(record)
        return known is None or known.seq < record.seq

    def is_newest(self, record: Record) -> bool:
        """Return whether no newer event of the record's subject is known."""
        known = self._pool(record).get(record.route.subject)
        return known is None or known.seq <= record.seq

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

    def read(self, upto: int) -> Reading:
        """Start to read the newest states up to a sequence; this takes no copy of them."""
        reading = Reading(upto)
        self.renew(reading)
        return reading

    def renew(self, reading: Reading) -> None:
        """Continue a reading in the newest list: it has all states of an older one that are not stale."""
        states = self._ordered()
        if reading.generation != self._generation:
            reading.generation = self._generation
            reading.index = bisect_right(states, reading.after, key=_sequence)
            reading.end = bisect_right(states, reading.upto, key=_sequence)

    def move(self, reading: Reading, index: int) -> None:
        """Move a reading that was just renewed."""
        if index > reading.index:
            reading.index, reading.after = index, self._ordered()[index - 1].seq

    def advance(self, reading: Reading, event_filter: Filter, max_bytes: int) -> tuple[list[Record], int]:
        """Return the next states of a reading.

        Args:
            reading: reading that was just renewed; it is not changed.
            event_filter: filter that the states have to match.
            max_bytes: maximum bytes of their encoded events; a larger state is returned alone.

        Returns:
            The states, which may be none although others follow, and the index after them.
        """
        states = self._ordered()
        found: list[Record] = []
        size, index = 0, reading.index
        # Decided once per family where possible, so that a filter does not have to remember each subject.
        matched = {family: event_filter.covers(f"{family}.>") for family in self.pools}
        while index < min(reading.end, reading.index + MAX_EXAMINED):
            record = states[index]
            route = record.route
            if (
                matched[route.bucket] is not False
                and self.pools[route.bucket].records.get(route.subject) is record
                and (matched[route.bucket] or event_filter.matches(route.subject))
            ):
                size += len(record.encoded) + 1  # with the comma between events
                if size > max_bytes and found:
                    break
                found.append(record)
            index += 1
        return found, index

    def changed(self, event_filter: Filter, after: int, upto: int) -> list[Record]:
        """Return the newest states in ``after < sequence <= upto``, including removals, in stream order."""
        states = self._ordered()
        begin = bisect_right(states, after, key=_sequence)
        end = bisect_right(states, upto, lo=begin, key=_sequence)
        # Removals are included, since the client may still show the gateway.
        return [
            record
            for record in states[begin:end]
            if self._pool(record).get(record.route.subject) is record
            and event_filter.matches(record.route.subject)
        ]

    def _pool(self, record: Record) -> StatePool:
        family = record.route.bucket
        pool = self.pools.get(family)
        if pool is None:
            pool = self.pools[family] = StatePool(OTHER_FAMILIES)
        return pool

    def _append(self, record: Record) -> None:
        """Add a new state to the list, or discard the list if that would break its order or its bound."""
        states = self._states
        if states is None:
            return
        self._capacity -= 1
        self._capacity_bytes -= len(record.encoded)
        if self._capacity < 0 or self._capacity_bytes < 0 or (states and states[-1].seq >= record.seq):
            self._states = None
        else:
            states.append(record)

    def _ordered(self) -> list[Record]:
        """Return the list of all newest states in stream order, with some stale ones among them."""
        if self._states is None:
            self._states = sorted(
                (
                    record
                    for pool in self.pools.values()
                    for records in (pool.records, pool.tombstones)
                    for record in records.values()
                ),
                key=_sequence,
            )
            self._capacity, self._capacity_bytes = max(MAX_STALE, len(self._states) // 4), MAX_STALE_BYTES
            self._generation += 1
        return self._states
