"""Pool of the newest states of one family, such as ``gateway.status``, bounded by count and by bytes.

Producers choose the ids in subjects, so the number of states has no other bound. Within a family, states are
grouped by the third token of their subject, which permissions of NATS limit for each producer: the type of a
gateway, or a component.

Invariants:

1. A pool holds at most ``max_states`` records and ``max_bytes`` bytes, tombstones included.
2. Tombstones are evicted first. A new state of a group that has more than its share evicts from that group;
   another state evicts from the largest group that has more than its share, otherwise from the family. So a
   producer that may use one group takes at most ``1 / SHARES`` of a full pool from the others.
3. The least recently changed is evicted first, which may be the new one, if it arrives late.
"""

from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from tickertape.relay.core.event_log import Record

SHARES: Final = 8
"""The share of a group is this fraction of the pool; it only matters while the pool is full."""

MAX_MISSING: Final = 100_000
"""Maximum number of evicted subjects that are remembered, to count the states that are missing now."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of a pool.

    Attributes:
        max_states: maximum number of states.
        max_bytes: maximum bytes of their encoded events.
    """

    max_states: int
    max_bytes: int


class _Queue:
    """Subjects from the least to the most recently changed.

    A subject keeps its place when it changes, so that a change costs nothing; ``oldest`` corrects the places
    that it meets.
    """

    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[int, str]] = []

    def add(self, record: Record, count: int, records: dict[str, Record]) -> None:
        """Add a subject that is new to ``records``, to a queue of ``count`` subjects."""
        heap = self._heap
        # Subjects that were evicted by way of another queue still have places. Removing these only when they
        # are the majority takes amortized constant time.
        if len(heap) > 2 * count + 8:
            subjects = {subject for _, subject in heap if subject in records}
            heap[:] = [(records[subject].seq, subject) for subject in subjects]
            heapify(heap)
        heappush(heap, (record.seq, record.route.subject))

    def oldest(self, records: dict[str, Record]) -> Record:
        """Return the least recently changed record; there must be one."""
        heap = self._heap
        while True:
            seq, subject = heap[0]
            record = records.get(subject)
            if record is None:
                heappop(heap)
            elif record.seq != seq:
                heapreplace(heap, (record.seq, subject))
            else:
                return record


class _Group:
    """States of a family whose subjects share the third token."""

    __slots__ = ("bytes", "count", "name", "queue")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = _Queue()
        self.count = 0
        self.bytes = 0


class StatePool:
    """Newest record of each subject of one family.

    Args:
        bounds: bounds of the pool.

    Attributes:
        records: records by subject, without those that removed their subject.
        tombstones: records that removed their subject.
        bytes: bytes of all encoded events.
        evicted: number of evicted states since the start; tombstones are not counted.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.records: dict[str, Record] = {}
        self.tombstones: dict[str, Record] = {}
        self.bytes = 0
        self.evicted = 0
        self._bounds = bounds
        self._queue = _Queue()
        self._groups: dict[str, _Group] = {}
        self._over_share: dict[str, _Group] = {}  # at most ``SHARES`` by count and as many by bytes
        # Hashes of evicted subjects, which are smaller than the subjects. Their seed is random in each
        # process, so a producer cannot make two of them equal.
        self._missing: dict[int, None] = {}

    def __repr__(self) -> str:
        return f"StatePool({len(self.records)} states, {self.bytes} bytes, {self.evicted} evicted)"

    @property
    def missing(self) -> int:
        """Number of states that were evicted and have not changed since, up to ``MAX_MISSING``."""
        return len(self._missing)

    @property
    def largest_group(self) -> tuple[str, int]:
        """Name and number of states of the group with the most states."""
        group = max(self._groups.values(), key=lambda group: group.count, default=_Group(""))
        return group.name, group.count

    def get(self, subject: str) -> Record | None:
        """Return the newest record of a subject, which may be a tombstone."""
        return self.records.get(subject) or self.tombstones.get(subject)

    def clear(self) -> None:
        """Remove everything except the count of evicted states."""
        self.records.clear()
        self.tombstones.clear()
        self.bytes = 0
        self._queue = _Queue()
        self._groups.clear()
        self._over_share.clear()
        self._missing.clear()

    def put(self, record: Record) -> None:
        """Add a record that is not older than the known one of its subject, which it replaces."""
        subject = record.route.subject
        known = self.records.get(subject)
        if known is not None and not record.removed:
            self.records[subject] = record
            growth = len(record.encoded) - len(known.encoded)
            if not growth:
                return
            self._resize(record.route.group, 0, growth)
        else:
            self._replace(known or self.tombstones.get(subject), record)
        bounds = self._bounds
        while self.bytes > bounds.max_bytes or len(self.records) + len(self.tombstones) > bounds.max_states:
            self._evict(record)

    def _replace(self, known: Record | None, record: Record) -> None:
        """Add a record of an unknown subject, or one that removes its subject or brings it back."""
        if known is not None:
            self._remove(known)
        if self._missing:
            self._missing.pop(hash(record.route.subject), None)
        if record.removed:
            self.tombstones[record.route.subject] = record
            self.bytes += len(record.encoded)
            return
        group = self._resize(record.route.group, 1, len(record.encoded))
        group.queue.add(record, group.count, self.records)
        self._queue.add(record, len(self.records), self.records)
        self.records[record.route.subject] = record

    def _remove(self, record: Record) -> None:
        if record.removed:
            del self.tombstones[record.route.subject]
            self.bytes -= len(record.encoded)
        else:
            del self.records[record.route.subject]
            self._resize(record.route.group, -1, -len(record.encoded))

    def _resize(self, name: str, count: int, size: int) -> _Group:
        """Count what a group gains or loses, and return it."""
        self.bytes += size
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(name)
        group.count += count
        group.bytes += size
        if self._use(group) > 1 / SHARES:
            self._over_share[name] = group
        else:
            self._over_share.pop(name, None)
            if not group.count:
                del self._groups[name]
        return group

    def _use(self, group: _Group) -> float:
        """Return the fraction of the pool that a group uses."""
        return max(group.count / self._bounds.max_states, group.bytes / self._bounds.max_bytes)

    def _rank(self, group: _Group) -> tuple[float, str]:
        return self._use(group), group.name

    def _evict(self, newcomer: Record) -> None:
        """Remove one record, which may be the one that was just added."""
        if self.tombstones:
            self._remove(next(iter(self.tombstones.values())))
            return
        queue = self._queue
        if self._over_share:
            own = self._over_share.get(newcomer.route.group)
            queue = (own or max(self._over_share.values(), key=self._rank)).queue
        victim = queue.oldest(self.records)
        self._remove(victim)
        self.evicted += 1
        self._missing[hash(victim.route.subject)] = None
        if len(self._missing) > MAX_MISSING:
            del self._missing[next(iter(self._missing))]
