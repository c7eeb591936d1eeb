"""Throttling: events below a minimum level are dropped, and each level has a rate limit.

Invariants:

1. Suppressed events are reported: a log storm ends with one event per level that holds their number.
2. That number is in the checkpoint until it is reported, so it survives a restart.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import orjson
from tickertape.contracts import subjects
from tickertape.contracts.events import SystemLog, format_time
from tickertape.producers.shipper.parsing.parser import ParsedEvent
from tickertape.producers.shipper.sinks.sink import OutgoingEvent

from tickertape.rate_limit import TokenBucket
from tickertape.text import escape_surrogates

STORM_QUIET: Final = 1.0
"""Seconds without a suppressed event after which a log storm is over."""

REPORT_INTERVAL: Final = 60.0
"""Seconds between two reports during a log storm that does not end."""


@dataclass(frozen=True, slots=True)
class ThrottleSettings:
    """Levels and rates of the events that are shipped.

    Attributes:
        min_level: minimum level of all sources.
        min_level_by_source: minimum level of individual sources.
        rates: maximum events per second by level; other levels have no limit.
    """

    min_level: str = "DEBUG"
    min_level_by_source: dict[str, str] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)


class Throttle:
    """Level filter and rate limits of one file stream.

    Args:
        settings: levels and rates.
        path: path of the file stream, for reports.
        source: source of reports.

    Attributes:
        unreported: suppressed events by level that are not reported yet.
        below_level: events below the minimum level.
        suppressed: events above a rate limit, in total.
    """

    def __init__(self, settings: ThrottleSettings, path: str, source: str) -> None:
        self.unreported: Counter[str] = Counter()
        self.below_level = 0
        self.suppressed = 0
        self._settings = settings
        self._path = path
        self._source = source
        self._min_rank = subjects.LEVELS.index(settings.min_level)
        self._min_rank_by_source = {
            name: subjects.LEVELS.index(level) for name, level in settings.min_level_by_source.items()
        }
        self._admits_all = not self._min_rank and not self._min_rank_by_source and not settings.rates
        self._rank = {level: rank for rank, level in enumerate(subjects.LEVELS)}
        self._buckets: dict[str, TokenBucket] = {}
        self._suppressed_at = 0.0
        self._storm_since = 0.0

    def restore_unreported(self, suppressed: Counter[str]) -> None:
        """Restore the unreported events from a checkpoint."""
        self.unreported = Counter(suppressed)

    def admit(self, event: ParsedEvent, now: float) -> bool:
        """Return whether an event is shipped; count it if not."""
        if self._admits_all:
            return True
        level = event.level
        min_rank = (
            self._min_rank_by_source.get(event.source, self._min_rank)
            if self._min_rank_by_source
            else self._min_rank
        )
        if self._rank[level] < min_rank:
            self.below_level += 1
            return False
        rate = self._settings.rates.get(level)
        if rate is None:
            return True
        bucket = self._buckets.get(level)
        if bucket is None:
            # One second's worth of events, and at least one.
            bucket = self._buckets[level] = TokenBucket(rate, max(1.0, rate), now)
        if bucket.allow(now):
            return True
        # The first suppressed event since the last report starts the interval.
        if not self.unreported:
            self._storm_since = now
        self.unreported[level] += 1
        self.suppressed += 1
        self._suppressed_at = now
        return False

    def shift_clock(self, step: float) -> None:
        """Shift all times because the system clock was set by ``step`` seconds."""
        self._suppressed_at += step
        self._storm_since += step
        for bucket in self._buckets.values():
            bucket.updated_at += step

    def report_due(self, now: float) -> bool:
        """Return whether a report of suppressed events is due."""
        due = now - self._suppressed_at >= STORM_QUIET or now - self._storm_since >= REPORT_INTERVAL
        return bool(self.unreported) and due

    def report_suppressed(self, now: float, *, finish: bool) -> list[OutgoingEvent]:
        """Return one event per level that reports the suppressed ones, if a report is due."""
        if not self.unreported or not (finish or self.report_due(now)):
            return []
        reported, self.unreported = self.unreported, Counter()
        self._storm_since = now
        return [self._build_report(level, count, now) for level, count in sorted(reported.items())]

    def _build_report(self, level: str, count: int, now: float) -> OutgoingEvent:
        body = {
            "event_type": "system_log",
            "timestamp": format_time(now),
            "level": level,
            "message": f"suppressed {count} events of level {level}: more than"
            f" {self._settings.rates.get(level, 0):g} per second",
            "source": self._source,
            "metadata": {"suppressed": count, "path": escape_surrogates(self._path)},
        }
        return OutgoingEvent(
            SystemLog.subject_of(level=level, source=self._source),
            orjson.dumps(body),
            # A report is no line of the file, so its id cannot be an offset.
            f"{now:.6f}-{level}-{count}",
        )
