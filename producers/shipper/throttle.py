"""Which events go out: those of a sufficient level, and no more of a level than its rate.

Invariants:

1. What a rate holds back is told: a storm ends in one event with the number of those that were left out.
2. That number is in the checkpoint until it is told, so a restart keeps it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import orjson
from tickertape.contracts import subjects
from tickertape.contracts.events import SystemLog, format_time
from tickertape.producers.shipper.parsing.parser import Parsed
from tickertape.producers.shipper.sinks.sink import Item

from tickertape.rate_limit import TokenBucket

CALM: Final = 1.0
"""Seconds without anything held back after which a storm is over."""

LONGEST: Final = 60.0
"""Seconds after which a storm that goes on is told, too."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What is let through.

    Attributes:
        least: level for all sources.
        least_of: level for single sources.
        rates: events per second of a level; a level that is not here has no limit.
    """

    least: str = "DEBUG"
    least_of: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


class Throttle:
    """Lets the events of one file name through.

    Args:
        shape: what is let through.
        path: of the file, for what is told.

    Attributes:
        owed: events of each level that were held back and are not told yet.
        below: events below the least level.
        suppressed: events that were held back in all.
    """

    def __init__(self, shape: Shape, path: str, source: str) -> None:
        self.owed: Counter[str] = Counter()
        self.below = 0
        self.suppressed = 0
        self._shape = shape
        self._path = path
        self._source = source
        self._least = subjects.LEVELS.index(shape.least)
        self._least_of = {name: subjects.LEVELS.index(level) for name, level in shape.least_of.items()}
        self._everything = not self._least and not self._least_of and not shape.rates
        self._rank = {level: rank for rank, level in enumerate(subjects.LEVELS)}
        self._buckets: dict[str, TokenBucket] = {}
        self._held_at = 0.0
        self._storm_at = 0.0

    def owes(self, suppressed: Counter[str]) -> None:
        """Take over what a checkpoint says is not told yet."""
        self.owed = Counter(suppressed)

    def admits(self, event: Parsed, now: float) -> bool:
        """Tell whether an event goes out, and count it if not."""
        if self._everything:
            return True
        level = event.level
        least = self._least_of.get(event.source, self._least) if self._least_of else self._least
        if self._rank[level] < least:
            self.below += 1
            return False
        rate = self._shape.rates.get(level)
        if rate is None:
            return True
        bucket = self._buckets.get(level)
        if bucket is None:
            # One second's events, or one, if they are rarer.
            bucket = self._buckets[level] = TokenBucket(rate, max(1.0, rate), now)
        bucket.updated_at = min(bucket.updated_at, now)  # the system's clock may be set back by hours
        if bucket.allow(now):
            return True
        if not self.owed:
            self._storm_at = now
        self.owed[level] += 1
        self.suppressed += 1
        self._held_at = now
        return False

    def due(self, now: float) -> bool:
        """Tell whether a storm is to be told."""
        over = now - self._held_at >= CALM or now - self._storm_at >= LONGEST
        return bool(self.owed) and over

    def settle(self, now: float, *, finish: bool) -> list[Item]:
        """Return the events that tell what was held back, if that is due."""
        if not self.owed or not (finish or self.due(now)):
            return []
        told, self.owed = self.owed, Counter()
        self._storm_at = now
        return [self._event(level, number, now) for level, number in sorted(told.items())]

    def _event(self, level: str, number: int, now: float) -> Item:
        body = {
            "event_type": "system_log",
            "timestamp": format_time(now),
            "level": level,
            "message": f"suppressed {number} events of level {level}: more than"
            f" {self._shape.rates.get(level, 0):g} per second",
            "source": self._source,
            "metadata": {"suppressed": number, "path": self._path},
        }
        return Item(
            SystemLog.subject_of(level=level, source=self._source),
            orjson.dumps(body),
            f"{now:.6f}-{level}-{number}",
        )
