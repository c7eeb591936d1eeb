"""Rate limits: a token bucket, a sliding window, and a filter of repeated reports.

Time is an argument, in seconds of any one clock.
"""

from collections import deque
from typing import Final

ROUNDING: Final = 1e-9
"""Tokens that may be missing for a spend to succeed: adding up small refills loses a little to rounding."""


class TokenBucket:
    """Token bucket that refills at a constant rate, up to a burst.

    Args:
        rate: tokens per second.
        burst: maximum number of tokens; the bucket starts full.
        now: seconds. A clock that is set back refills nothing until it has caught up.

    Attributes:
        tokens: balance at ``updated_at``; negative while the bucket is in debt.
        updated_at: time of the last refill.
    """

    __slots__ = ("burst", "rate", "tokens", "updated_at")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.updated_at = now

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tokens:.1f} of {self.burst:g}, {self.rate:g}/s)"

    def refill(self, now: float) -> None:
        """Add the tokens that have accrued since the last refill."""
        if now > self.updated_at:
            self.tokens = min(self.burst, self.tokens + (now - self.updated_at) * self.rate)
            self.updated_at = now

    def allow(self, now: float, cost: float = 1.0, *, allow_debt: bool = False) -> bool:
        """Spend tokens and return True, or spend nothing and return False when there are too few.

        Args:
            now: seconds.
            cost: tokens to spend.
            allow_debt: spend even when there are too few tokens. The debt never exceeds one burst, so that it
                is paid off in bounded time.
        """
        self.refill(now)
        if self.tokens + ROUNDING < cost and not allow_debt:
            return False
        self.tokens = max(self.tokens - cost, -self.burst)
        return True


class SlidingWindow:
    """Limit on how often something may happen within any window of a fixed length.

    Args:
        seconds: length of the window.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allow(self, limit: int, now: float) -> bool:
        """Count one occurrence and return True, or return False when the window already holds ``limit``."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) >= limit:
            return False
        self._times.append(now)
        return True

    def shift(self, step: float) -> None:
        """Shift the counted occurrences because the clock was set by ``step`` seconds."""
        self._times = deque(time + step for time in self._times)


class RepeatFilter:
    """Filter that lets each of several recurring reports pass once in a while.

    Args:
        seconds: time after which a report may be repeated.
        max_keys: maximum number of reports that are remembered; beyond that the oldest is forgotten.
    """

    def __init__(self, seconds: float, max_keys: int = 1000) -> None:
        self._seconds = seconds
        self._max_keys = max_keys
        self._passed_at: dict[str, float] = {}

    def allow(self, key: str, now: float) -> bool:
        """Return whether a report passes, and record that it did."""
        passed_at = self._passed_at.get(key)
        if passed_at is not None and now - passed_at < self._seconds:
            return False
        self._passed_at.pop(key, None)
        self._passed_at[key] = now
        if len(self._passed_at) > self._max_keys:
            del self._passed_at[next(iter(self._passed_at))]
        return True
