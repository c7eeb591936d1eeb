"""Where sockets and rates are counted for limits: within one relay, or for all that share its port.

Invariants:

1. What was taken under a key is given back under the same key, once.
2. What is kept is bounded: an allowance that is full again is forgotten, and so is the one that was heard of
   longest ago when there are too many.
"""

from collections import Counter, OrderedDict
from typing import Final, Protocol

from tickertape.rate_limit import TokenBucket

BURST_SECONDS: Final = 10.0
"""Seconds of its rate that an address may use at once: all behind it come back together after a restart."""

MAX_ADDRESSES: Final = 100_000
"""Addresses that are remembered; the one that was heard of longest ago is forgotten first."""

PRUNE_BATCH: Final = 10_000
"""Addresses that are forgotten at once; with a hundred thousand the sessions would notice it."""

ALL: Final = ""
"""Key of what is counted for everybody together."""


class LimitCounters(Protocol):
    """Counts under keys, and allowances that come back at a rate."""

    def acquire(self, key: str, limit: int) -> bool:
        """Count one more under a key; False when there are ``most`` already. 0 means any number."""

    def release(self, key: str) -> None:
        """Count one less."""

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend of a key's allowance.

        Args:
            key: whose.
            rate: what comes back within a second.
            cost: what is spent.
            now: seconds.
            allow_debt: spend more tokens than there are.

        Returns:
            False when it is not there.
        """

    def prune(self, rate: float, now: float) -> None:
        """Forget keys that owe nothing; called now and then."""


class LocalLimitCounters:
    """What one relay counts for itself alone."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._all: TokenBucket | None = None
        self._allowances: OrderedDict[str, TokenBucket] = OrderedDict()  # the longest unheard of first

    def __repr__(self) -> str:
        return f"LocalLimitCounters({len(self._counts)} counted, {len(self._allowances)} allowances)"

    @property
    def counted(self) -> int:
        """All that is counted, under any key; 0 when everybody has left."""
        return self._counts.total()

    @property
    def remembered(self) -> list[str]:
        """Keys whose allowance is kept, the longest unheard of first."""
        return list(self._allowances)

    def acquire(self, key: str, limit: int) -> bool:
        """Count one more."""
        if limit and self._counts[key] >= limit:
            return False
        self._counts[key] += 1
        return True

    def release(self, key: str) -> None:
        """Count one less."""
        if self._counts[key] > 1:
            self._counts[key] -= 1
        else:
            del self._counts[key]

    def spend(self, key: str, rate: float, cost: float, now: float, *, allow_debt: bool = False) -> bool:
        """Spend of a key's allowance."""
        return self._allowance(key, rate, now).allow(now, cost, allow_debt=allow_debt)

    def prune(self, rate: float, now: float) -> None:
        """Forget those that owe nothing."""
        for _ in range(min(PRUNE_BATCH, len(self._allowances))):
            key, one = next(iter(self._allowances.items()))
            one.refill(now)
            if one.tokens < one.burst:
                break  # those behind it wait no longer than it takes to fill up
            del self._allowances[key]

    def _allowance(self, key: str, rate: float, now: float) -> TokenBucket:
        if key == ALL:  # has a rate of its own, and is never forgotten
            if self._all is None:
                self._all = TokenBucket(rate, rate * BURST_SECONDS, now)
            return self._all
        one = self._allowances.get(key)
        if one is None:
            if len(self._allowances) >= MAX_ADDRESSES:
                self._allowances.popitem(last=False)
            one = self._allowances[key] = TokenBucket(rate, rate * BURST_SECONDS, now)
        else:
            self._allowances.move_to_end(key)
        return one
