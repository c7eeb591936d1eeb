"""Rate control: token buckets for log events, and the self-tuning interval between flushes."""

from typing import Final

from tickertape.rate_limit import ROUNDING
from tickertape.rate_limit import TokenBucket as PlainBucket

MAX_DELAY: Final = 0.25
"""Maximum seconds that an event waits for the next flush; reached when a flush takes 65 ms."""

GAP_HOLD: Final = 0.1
"""Maximum seconds that a gap is held back, so that it can be merged with the gaps that follow."""

FLUSH_SHARE: Final = 0.35
"""Maximum share of time spent in short flushes; beyond it flushes are spaced out to send fewer, larger
batches."""

MIN_FLUSH_SHARE: Final = 0.26
"""Minimum share, for long flushes. With many clients, larger batches save more and compress better; with few,
low latency matters more. With a smaller share, a burst could make flushes so long and rare that the events
pending in between keep them long."""

SHORT_FLUSH: Final = 0.005
"""Seconds up to which a flush counts as short."""

LONG_FLUSH: Final = 0.015
"""Seconds beyond ``SHORT_FLUSH`` that halve the share, down to ``MIN_FLUSH_SHARE``."""

_OUTLIER_FACTOR: Final = 1.5
"""Multiple of the usual duration up to which a flush counts in full; the excess of an outlier is ignored."""

RESERVES: Final = (0.50, 0.25, 0.10, 0.0, 0.0)
"""Share of the burst that DEBUG, INFO, WARN, ERROR and CRITICAL leave for higher levels."""

_MIN_BURST: Final = 2.0
"""Minimum burst in events; with a smaller one, the reserves would block DEBUG and INFO permanently."""


class TokenBucket(PlainBucket):
    """Token bucket for log events, with a part of the burst reserved for higher levels.

    Args:
        rate: tokens per second.
        now: UNIX seconds; the bucket starts full.
    """

    __slots__ = ("_levels",)

    def __init__(self, rate: float, now: float) -> None:
        super().__init__(rate, max(rate, _MIN_BURST), now)
        # Tokens that must be left for each rank; precomputed for ``take``, which runs for every event.
        self._levels = tuple(1.0 + reserve * self.burst - ROUNDING for reserve in RESERVES)

    @property
    def available(self) -> int:
        """Number of whole tokens at the last ``refill``."""
        return int(self.tokens + ROUNDING)

    def spend(self, tokens: int) -> None:
        """Take a number of tokens, at most ``available``, regardless of levels."""
        self.tokens -= tokens

    def take(self, rank: int) -> bool:
        """Take a token for an event of a level; return False if only the reserve of higher levels is left."""
        if self.tokens < self._levels[rank]:
            return False
        self.tokens -= 1.0
        return True


class FlushPacer:
    """Scheduler of flushes.

    When idle, it allows a flush immediately. After a flush, the next one waits until flushes take at most
    ``share`` of the time (less if they are long), but never longer than ``max_delay``. A flush that takes
    much longer than usual counts less: a single hiccup is not load, but several in a row are.
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
        """Return the earliest time of the next flush, UNIX seconds; may be in the past."""
        return self._earliest

    def record_flush(self, started_at: float, duration: float) -> None:
        """Record when a flush started, and how many seconds of CPU it took, including its writes."""
        # The usual duration before this flush, so that an outlier does not raise its own bound.
        usual = duration if self._usual is None else self._usual
        self._usual = usual + (duration - usual) / 4  # exponential moving average
        cost = min(duration, _OUTLIER_FACTOR * usual)
        excess = max(0.0, cost - SHORT_FLUSH)
        share = max(self.share / (1 + excess / LONG_FLUSH), min(self.share, MIN_FLUSH_SHARE))
        # Counted from the start of the flush: it takes ``share`` of the period ``cost / share``.
        self._earliest = started_at + max(duration, min(cost / share, self.max_delay))
