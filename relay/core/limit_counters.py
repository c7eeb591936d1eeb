"""Counters behind the connection limits: for one relay, or for all relays that share a port.

Invariants:

1. What is acquired under a key is released under the same key, once.
2. The number of token buckets is bounded: full ones are forgotten, and the least recently used ones if there
   are too many.
"""

from collections import Counter, OrderedDict
from typing import Final, Protocol

from tickertape.rate_limit import TokenBucket

BURST_SECONDS: Final = 10.0
"""Burst of an address, in seconds of its rate: after a restart, all clients behind it reconnect together."""

MAX_ADDRESSES: Final = 100_000
"""Maximum number of addresses with a token bucket; the least recently used one is forgotten first."""

PRUNE_BATCH: Final = 10_000
"""Maximum number of addresses forgotten in one call; a hundred thousand would block the event loop."""

ALL: Final = ""
"""Key of the total over all clients."""


class LimitCounters(Protocol):
    """Counts and token buckets, by key."""

    def acquire(self, key: str, limit: int) -> bool:
        """Increment the count of a key; return False if it has reached ``limit`` (0 means no limit)."""

    def release(self, key: str) -> None:
        """Decrement the count of a key that ``acquire`` incremented."""

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend tokens of a key.

        Args:
            key: key of the token bucket.
            rate: tokens that are refilled per second.
            cost: tokens to spend.
            now: time in seconds.
            allow_debt: whether to spend more tokens than there are.

        Returns:
            False if there are not enough tokens.
        """

    def prune(self, rate: float, now: float) -> None:
        """Forget keys whose token buckets are full; call this periodically."""


class LocalLimitCounters:
    """Limit counters of one relay."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._total: TokenBucket | None = None
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()  # least recently used first

    def __repr__(self) -> str:
        return f"LocalLimitCounters({len(self._counts)} keys, {len(self._buckets)} token buckets)"

    @property
    def counted(self) -> int:
        """Sum of the counts of all keys; 0 when all connections are closed."""
        return self._counts.total()

    @property
    def remembered(self) -> list[str]:
        """Keys with a token bucket, least recently used first."""
        return list(self._buckets)

    def acquire(self, key: str, limit: int) -> bool:
        """Increment the count of a key; return False if it has reached the limit."""
        if limit and self._counts[key] >= limit:
            return False
        self._counts[key] += 1
        return True

    def release(self, key: str) -> None:
        """Decrement the count of a key."""
        # A key is deleted at zero, so that addresses without connections use no memory.
        if self._counts[key] > 1:
            self._counts[key] -= 1
        else:
            del self._counts[key]

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend tokens of a key."""
        return self._bucket(key, rate, now).allow(now, cost, allow_debt=allow_debt)

    def prune(self, rate: float, now: float) -> None:
        """Forget full token buckets, a bounded number per call."""
        for _ in range(min(PRUNE_BATCH, len(self._buckets))):
            key, bucket = next(iter(self._buckets.items()))
            bucket.refill(now)
            if bucket.tokens < bucket.burst:
                break  # full buckets behind it are pruned once this one is full
            del self._buckets[key]  # no effect on limits, since a new bucket starts full

    def _bucket(self, key: str, rate: float, now: float) -> TokenBucket:
        if key == ALL:  # the total has its own rate, and is never forgotten
            if self._total is None:
                self._total = TokenBucket(rate, rate * BURST_SECONDS, now)
            return self._total
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= MAX_ADDRESSES:
                self._buckets.popitem(last=False)
            bucket = self._buckets[key] = TokenBucket(rate, rate * BURST_SECONDS, now)
        else:
            self._buckets.move_to_end(key)
        return bucket
