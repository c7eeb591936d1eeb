"""Limit counters in memory that all workers share, so that a limit applies to all of them together.

Invariants:

1. Only the worker of a slot writes the column of the slot; a count is the sum over all columns. The column of
   a worker that died is cleared before its successor starts.
2. A process reads or writes a row only while it holds the lock of the row's bucket; only ``clear_slot`` needs
   none. The kernel releases the lock when the process dies.
3. A key never moves: it keeps its row within its bucket until its count is 0 and another key needs the row.
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
"""Maximum number of keys: 262 144. Memory is allocated as rows are used, up to 10 MiB with four workers."""


class SharedCounters:
    """Hash table of counts and token buckets in shared memory.

    Args:
        descriptor: file descriptor of the memory, as created by ``create``.
        slots: number of workers that share the memory.
    """

    def __init__(self, descriptor: int, slots: int) -> None:
        self.descriptor = descriptor
        self.slots = slots
        self._memory = mmap.mmap(descriptor, _size(slots))
        view = memoryview(self._memory)
        self._seed = bytes(view[:_SEED_BYTES])
        # Layout: the header with the seed; 8 bytes per row for each of key, tokens and time; then, for each
        # slot, a column of 4 bytes per row. Every field is contiguous, so that a bucket is read in one slice.
        rows = view[_HEADER : _HEADER + 24 * ROWS]
        self.keys = rows[: 8 * ROWS].cast("Q")
        self.tokens = rows[8 * ROWS : 16 * ROWS].cast("d")
        self.updated_at = rows[16 * ROWS :].cast("d")  # when the tokens were refilled; 0: never
        counts = view[_HEADER + 24 * ROWS :].cast("I")
        self.columns = [counts[slot * ROWS : (slot + 1) * ROWS] for slot in range(slots)]

    def __repr__(self) -> str:
        return f"SharedCounters({self.slots} slots)"

    @classmethod
    def create(cls, slots: int) -> "SharedCounters":
        """Create an empty table; pass its descriptor to the workers."""
        descriptor = os.memfd_create("tickertape-limits", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(slots))
        # With a random seed, a client cannot construct keys that fall into one bucket.
        os.pwrite(descriptor, os.urandom(_SEED_BYTES), 0)
        return cls(descriptor, slots)

    def clear_slot(self, slot: int) -> None:
        """Clear the counts of a worker that has died."""
        # Without locks: the column has no writer now, and it is only set to zeros, so that a concurrent
        # reader sees either count.
        self.columns[slot][:] = memoryview(bytes(4 * ROWS)).cast("I")

    def count(self, row: int) -> int:
        """Return the sum of a row over all workers."""
        return sum([column[row] for column in self.columns])

    @contextlib.contextmanager
    def row(self, key: str) -> Iterator[int | None]:
        """Lock and yield the row of a key; None if its bucket is full of keys that are in use."""
        # Rows contain only a hash of the key; 0 marks a row that has never been used.
        number = int.from_bytes(blake2b(key.encode(), digest_size=8, key=self._seed).digest()) or 1
        bucket = number >> (64 - _BUCKET_BITS)
        # Record locks belong to a process, so all workers can use the descriptor that they inherited.
        # The locked byte only names the bucket. Waiting for it blocks the event loop, but a lock is held for
        # a few microseconds, without any I/O.
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, 1, bucket)
        try:
            yield self._find(number, bucket * _WAYS)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, bucket)

    def _find(self, number: int, start: int) -> int | None:
        keys = self.keys[start : start + _WAYS].tolist()
        if number in keys:
            return start + keys.index(number)
        if 0 in keys:
            row = start + keys.index(0)
        else:
            free = [row for row in range(start, start + _WAYS) if not self.count(row)]
            if not free:
                return None
            # The token bucket of the previous key is forgotten; the one that was used least recently is the
            # likeliest to be full.
            row = min(free, key=self.updated_at.__getitem__)  # least recently used
        self.updated_at[row] = 0.0
        self.keys[row] = number
        return row


class SharedLimitCounters:
    """Limit counters of one worker, backed by the shared table.

    Args:
        counters: shared table.
        slot: slot of this worker.
        capacity: number of sockets for which this process has descriptors.
    """

    def __init__(self, counters: SharedCounters, slot: int, capacity: int) -> None:
        self._counters = counters
        self._column = counters.columns[slot]
        self._capacity = capacity
        self._open = 0

    def __repr__(self) -> str:
        return f"SharedLimitCounters({self._open} open, {self._counters!r})"

    def acquire(self, key: str, limit: int) -> bool:
        """Increment the count of a key; return False if it has reached the limit."""
        # The limit applies to all workers together, but descriptors belong to one process.
        if key == ALL and self._open >= self._capacity:
            return False
        with self._counters.row(key) as row:
            # About one table in a million has a full bucket; a key that falls into one is not limited.
            if row is not None:
                if limit and self._counters.count(row) >= limit:
                    return False
                # Also without a limit, so that every release has its counterpart.
                self._column[row] += 1
        self._open += key == ALL
        return True

    def release(self, key: str) -> None:
        """Decrement the count of a key."""
        self._open -= key == ALL
        with self._counters.row(key) as row:
            # A key whose bucket was full was not counted, and may have a row by now; the count must not fall
            # below 0.
            if row is not None and self._column[row]:
                self._column[row] -= 1

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend tokens of a key; return False if there are not enough tokens."""
        now = time.monotonic()  # the same in all processes, unlike a relay's own clock
        counters = self._counters
        with counters.row(key) as row:
            if row is None:
                return True
            bucket = TokenBucket(rate, rate * BURST_SECONDS, now)
            if counters.updated_at[row]:
                bucket.tokens, bucket.updated_at = counters.tokens[row], counters.updated_at[row]
            allowed = bucket.allow(now, cost, allow_debt=allow_debt)
            counters.tokens[row], counters.updated_at[row] = bucket.tokens, bucket.updated_at
        return allowed

    def prune(self, rate: float, now: float) -> None:
        """Do nothing: a row that is not in use is reclaimed when another key needs it."""


def _size(slots: int) -> int:
    return _HEADER + ROWS * (24 + 4 * slots)
