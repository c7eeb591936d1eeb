"""Limits of how often something may happen: a rate with a burst, or a number within a time.

Time is an argument, in seconds of any one clock.
"""

from collections import deque
from typing import Final

ROUNDING: Final = 1e-9
"""What adding up small refills may lose of a whole token."""


class TokenBucket:
    """Tokens that come back at a rate, up to a burst.

    Args:
        rate: tokens per second.
        burst: most tokens that it holds; it starts full.
        now: seconds. A clock that is set back refills nothing until it has caught up.

    Attributes:
        tokens: what was there at ``at``; below 0 when some are owed.
        at: when that was.
    """

    __slots__ = ("at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self.at = now

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.tokens:.1f} of {self.burst:g}, {self.rate:g}/s)"

    def refill(self, now: float) -> None:
        """Add what the time since the last call brought."""
        if now > self.at:
            self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
            self.at = now

    def allow(self, now: float, cost: float = 1.0, *, owing: bool = False) -> bool:
        """Spend tokens; return False, and spend nothing, when they are not there.

        Args:
            now: seconds.
            cost: tokens.
            owing: spend what is not there as well; no more is owed than a burst, which ends before long.
        """
        self.refill(now)
        if self.tokens + ROUNDING < cost and not owing:
            return False
        self.tokens = max(self.tokens - cost, -self.burst)
        return True


class SlidingWindow:
    """A number of times that something may happen within any span of so many seconds.

    Args:
        seconds: length of the span.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()

    def allow(self, most: int, now: float) -> bool:
        """Count one more time, unless the span that ends now has had its ``most``."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        if len(self._times) >= most:
            return False
        self._times.append(now)
        return True
