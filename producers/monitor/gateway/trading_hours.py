"""When an exchange is open: spans of the day in its own zone, over midnight too, and days without any.

Pure: the time is an argument, UNIX seconds.

Invariants:

1. A span belongs to the day on which it begins; one that does not end after its beginning ends the day after.
2. A span is decided by its day alone: the day is one of the week's, no holiday, and for a night span not the
   last one before a holiday when the exchange then has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NIGHT_FROM: Final = time(18, 0)
"""A span that begins here or later is a night span."""

MAX_HOLIDAY_DAYS: Final = 400
_LOOK_AHEAD: Final = MAX_HOLIDAY_DAYS + 14
_WEEK_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Span:
    """From one time of the day to another; ``end`` is on the next day when it is not after ``begin``."""

    begin: time
    end: time


@dataclass(frozen=True, slots=True)
class Sessions:
    """The calendar of one exchange.

    Attributes:
        zone: of all times and days.
        days: of the week, 0 is Monday.
        spans: of each such day.
        holidays: days on which no span begins.
        night_before_holiday: whether night spans begin on the last of ``days`` before a holiday.
    """

    zone: ZoneInfo
    days: frozenset[int]
    spans: tuple[Span, ...]
    holidays: frozenset[date] = frozenset()
    night_before_holiday: bool = True

    def is_open(self, now: float) -> bool:
        """Tell whether a span is on at a moment; its beginning is in it, its end is not."""
        today = datetime.fromtimestamp(now, self.zone).date()
        return any(
            begin <= now < end
            for day in (today - timedelta(days=1), today)
            for begin, end in self._spans_of(day)
        )

    def next_change(self, now: float) -> float:
        """Moment at which it opens or closes next; infinity when it does not within the calendar."""
        today = datetime.fromtimestamp(now, self.zone).date()
        open_now = self.is_open(now)
        for ahead in range(-1, _LOOK_AHEAD):
            for moments in self._spans_of(today + timedelta(days=ahead)):
                for moment in moments:
                    if moment > now and self.is_open(moment) != open_now:
                        return moment
        return float("inf")

    def _spans_of(self, day: date) -> Iterator[tuple[float, float]]:
        if day.weekday() not in self.days or day in self.holidays:
            return
        for span in self.spans:
            if span.begin >= NIGHT_FROM and not self.night_before_holiday and self._is_eve(day):
                continue
            last = day if span.end > span.begin else day + timedelta(days=1)
            begin = datetime.combine(day, span.begin, self.zone).timestamp()
            yield begin, datetime.combine(last, span.end, self.zone).timestamp()

    def _is_eve(self, day: date) -> bool:
        for ahead in range(1, _WEEK_DAYS + 1):
            following = day + timedelta(days=ahead)
            if following.weekday() in self.days:
                return following in self.holidays
        return False


def parse_span(text: str) -> Span:
    """Read ``HH:MM-HH:MM``.

    Raises:
        ValueError: it is none.
    """
    begin, _, end = text.partition("-")
    try:
        span = Span(_time(begin), _time(end))
    except ValueError:
        raise ValueError(f"{text!r} is no span; write it as in 09:00-11:30 or 21:00-02:30") from None
    return span


def parse_holidays(text: str) -> list[date]:
    """Read one day, ``2026-10-01``, or several, ``2026-10-01..2026-10-07``.

    Raises:
        ValueError: it is neither, or the days are in no order or too many.
    """
    first, dots, last = text.partition("..")
    try:
        begin = date.fromisoformat(first.strip())
        end = date.fromisoformat(last.strip()) if dots else begin
    except ValueError:
        raise ValueError(f"{text!r} is no day; write it as in 2026-10-01 or 2026-10-01..2026-10-07") from None
    count = (end - begin).days + 1
    if not 1 <= count <= MAX_HOLIDAY_DAYS:
        raise ValueError(f"{text!r} is {count} days; 1 to {MAX_HOLIDAY_DAYS} can be")
    return [begin + timedelta(days=number) for number in range(count)]


def overlapping(spans: tuple[Span, ...]) -> tuple[Span, Span] | None:
    """Two spans of a day that overlap, or None; a night span may reach into the next day's first."""
    ordered = sorted(spans, key=lambda span: span.begin)
    for before, after in pairwise(ordered):
        if before.end <= before.begin or before.end > after.begin:
            return before, after
    if ordered and ordered[-1].end <= ordered[-1].begin and ordered[-1].end > ordered[0].begin:
        return ordered[-1], ordered[0]
    return None


def _time(text: str) -> time:
    hours, _, minutes = text.strip().partition(":")
    if not (len(hours) == len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()):
        raise ValueError(text)
    return time(int(hours), int(minutes))
