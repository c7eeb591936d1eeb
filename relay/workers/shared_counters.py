"""Counts that all workers share: a table in memory of all of them, so that a limit is one for the whole.

Invariants:

1. Each slot has a column of its own, which it alone writes; a count is the sum over all columns. The column
   of a worker that died is emptied before its successor starts.
2. Whoever reads or writes a row holds the lock of its bucket. The system lets go of it when a process dies.
3. A key never moves: it has its row within its bucket until it is counted nowhere and the row is needed.
"""

import contextlib
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from tickertape.relay.core.limit_counters import ALL, BURST_SECONDS

from tickertape.rate_limit import TokenBucket

_SEED_BYTES: Final = 16
_HEADER: Final = 64
_WAYS: Final = 16
_BUCKET_BITS: Final = 14
ROWS: Final = _WAYS << _BUCKET_BITS
"""Keys at most: 262 144. Memory is taken as they are used, and comes to 12 MB with four workers."""


class SharedCounters:
    """The memory itself.

    Args:
        descriptor: of the memory, as ``create`` made it.
        slots: how many workers share it.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._memory = mmap.mmap(descriptor, _size(slots))
        view = memoryview(self._memory)
        self._seed = bytes(view[:_SEED_BYTES])
        wide = view[_HEADER : _HEADER + 24 * ROWS]
        self.keys = wide[: 8 * ROWS].cast("Q")
        self.tokens = wide[8 * ROWS : 16 * ROWS].cast("d")
        self.heard = wide[16 * ROWS :].cast("d")  # when the tokens were counted; 0: never
        counts = view[_HEADER + 24 * ROWS :].cast("I")
        self.columns = [counts[slot * ROWS : (slot + 1) * ROWS] for slot in range(slots)]

    def __repr__(self) -> str:
        return f"SharedCounters({self.slots} slots)"

    @classmethod
    def create(cls, slots: int) -> "SharedCounters":
        """Make an empty one; its processes get the descriptor."""
        descriptor = os.memfd_create("tickertape-limits", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(slots))
        # Nobody outside can make keys that fall into one bucket.
        os.pwrite(descriptor, os.urandom(_SEED_BYTES), 0)
        return cls(descriptor, slots)

    def empty(self, slot: int) -> None:
        """Forget what a worker that has died had counted."""
        self.columns[slot][:] = memoryview(bytes(4 * ROWS)).cast("I")

    def count(self, row: int) -> int:
        """What all workers together have counted."""
        return sum([column[row] for column in self.columns])

    @contextlib.contextmanager
    def row(self, key: str) -> Iterator[int | None]:
        """Lock a key's row; None when its bucket is full of keys that are counted."""
        number = int.from_bytes(blake2b(key.encode(), digest_size=8, key=self._seed).digest()) or 1
        bucket = number >> (64 - _BUCKET_BITS)
        # Record locks belong to the process, so the descriptor may be the one that all have inherited.
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, bucket)
        try:
            yield self._find(number, bucket * _WAYS)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, bucket)

    def _find(self, number: int, start: int) -> int | None:
        rows = self.keys[start : start + _WAYS].tolist()
        if number in rows:
            return start + rows.index(number)
        if 0 in rows:
            row = start + rows.index(0)
        else:
            free = [row for row in range(start, start + _WAYS) if not self.count(row)]
            if not free:
                return None
            row = min(free, key=self.heard.__getitem__)  # whose was heard of longest ago
        self.heard[row] = 0.0
        self.keys[row] = number
        return row


class SharedLimitCounters:
    """One worker's way to count in the table.

    Args:
        table: that all share.
        slot: of this worker.
        room: for how many sockets this process has descriptors.
    """

    def __init__(self, table: SharedCounters, slot: int, room: int) -> None:
        self._table = table
        self._own = table.columns[slot]
        self._room = room
        self._open = 0

    def __repr__(self) -> str:
        return f"SharedLimitCounters({self._open} open, {self._table!r})"

    def acquire(self, key: str, limit: int) -> bool:
        """Count one more."""
        if key == ALL and self._open >= self._room:
            return False
        with self._table.row(key) as row:
            # A bucket full of others is one in a million tables; who falls into it is not counted.
            if row is not None:
                if limit and self._table.count(row) >= limit:
                    return False
                self._own[row] += 1
        self._open += key == ALL
        return True

    def release(self, key: str) -> None:
        """Count one less."""
        self._open -= key == ALL
        with self._table.row(key) as row:
            if row is not None and self._own[row]:
                self._own[row] -= 1

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend of a key's allowance."""
        now = time.monotonic()  # the same in all processes, which a relay's own clock is not
        table = self._table
        with table.row(key) as row:
            if row is None:
                return True
            bucket = TokenBucket(rate, rate * BURST_SECONDS, now)
            if table.heard[row]:
                bucket.tokens, bucket.updated_at = table.tokens[row], table.heard[row]
            allowed = bucket.allow(now, cost, allow_debt=allow_debt)
            table.tokens[row], table.heard[row] = bucket.tokens, bucket.updated_at
        return allowed

    def prune(self, rate: float, now: float) -> None:
        """Do nothing: a row is taken from whoever is counted nowhere when another needs it."""


def _size(slots: int) -> int:
    return _HEADER + ROWS * (24 + 4 * slots)
