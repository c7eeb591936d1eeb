"""How fast a cursor may move: the token bucket of a feed, and the flush that tunes itself."""

from typing import Final

from tickertape.rate_limit import ROUNDING
from tickertape.rate_limit import TokenBucket as PlainBucket

MAX_DELAY: Final = 0.25
"""Seconds that an event waits at most for the next flush; it comes to that when a flush takes 65 ms."""

GAP_HOLD: Final = 0.1
"""Seconds that a gap is held back at most, to be told merged with what follows."""

FLUSH_SHARE: Final = 0.35
"""Most of the time that may go into short flushes before they are spread: bigger batches, fewer sends."""

MIN_FLUSH_SHARE: Final = 0.26
"""The same for long flushes. The larger the audience, the more a larger batch saves, and the better it
compresses; to a small one promptness is worth more. With less, a burst could make flushes so long, and so
rare, that what gathers in between keeps them long."""

SHORT_FLUSH: Final = 0.005
"""Seconds up to which a flush is short."""

LONG_FLUSH: Final = 0.015
"""Seconds beyond that which would halve the share, were there no least one."""

_UNUSUAL: Final = 1.5
"""Times the usual length of a flush up to which one counts in full."""

RESERVES: Final = (0.50, 0.25, 0.10, 0.0, 0.0)
"""Share of the burst that DEBUG, INFO, WARN, ERROR and CRITICAL leave for those above them."""

_LEAST_BURST: Final = 2.0
"""With less, the reserves would hold back DEBUG and INFO for ever."""


class TokenBucket(PlainBucket):
    """Log events per second, with a last part of the burst kept for higher levels.

    Args:
        rate: tokens per second.
        now: UNIX seconds; the bucket starts full.
    """

    __slots__ = ("_levels",)

    def __init__(self, rate: float, now: float) -> None:
        super().__init__(rate, max(rate, _LEAST_BURST), now)
        self._levels = tuple(1.0 + reserve * self.burst - ROUNDING for reserve in RESERVES)

    @property
    def available(self) -> int:
        """Whole tokens that are there, at the last ``refill``."""
        return int(self.tokens + ROUNDING)

    def spend(self, tokens: int) -> None:
        """Take tokens that are ``available``, whatever they are for."""
        self.tokens -= tokens

    def take(self, rank: int) -> bool:
        """Take one token for an event of a level's rank, unless that would touch the reserve above it."""
        if self.tokens < self._levels[rank]:
            return False
        self.tokens -= 1.0
        return True


class FlushPacer:
    """When the next flush may begin.

    Flushes at once when idle. After a flush that took ``d`` seconds the next one waits until flushing takes
    no more than ``share`` of the time, less when it took long, and never longer than ``max_delay``. One that
    took much longer than they usually do counts for less: a hiccup is no load, several in a row are.
    """

    __slots__ = ("_earliest", "_usual", "max_delay", "share")

    def __init__(self, share: float = FLUSH_SHARE, max_delay: float = MAX_DELAY) -> None:
        self.share = share
        self.max_delay = max_delay
        self._earliest = 0.0
        self._usual: float | None = None

    def __repr__(self) -> str:
        return f"FlushPacer(not before {self._earliest:.3f})"

    def earliest(self) -> float:
        """Time of the next flush, if there is anything to flush; UNIX seconds, may be past."""
        return self._earliest

    def flushed(self, started: float, took: float) -> None:
        """Say when a flush began, and how many seconds of the processor it took, with its writes."""
        usual = took if self._usual is None else self._usual
        self._usual = usual + (took - usual) / 4
        cost = min(took, _UNUSUAL * usual)
        longer = max(0.0, cost - SHORT_FLUSH)
        share = max(self.share / (1 + longer / LONG_FLUSH), min(self.share, MIN_FLUSH_SHARE))
        self._earliest = started + max(took, min(cost / share, self.max_delay))
