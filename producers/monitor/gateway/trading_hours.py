"""Trading sessions of an exchange: spans of the day in its time zone, holidays and half days.

Pure: the time is an argument, UNIX seconds.

Invariants:

1. A span belongs to the day on which it begins; if its end is not after its beginning, it ends the next day.
2. Whether a span takes place depends on its day alone: the day is a trading day and not a holiday. A night
   span also needs ``night_before_holiday``, or a next trading day that is not a holiday.
3. A half day has its own spans, which take place whatever the day of the week, and no others.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import Final
from zoneinfo import ZoneInfo

WEEK: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NIGHT_START: Final = time(18, 0)
"""Earliest beginning of a night span."""

MAX_HOLIDAY_DAYS: Final = 400
"""Days in one range of holidays; it bounds the search for the next change."""

_SEARCH_DAYS: Final = MAX_HOLIDAY_DAYS + 14
_WEEK_DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Span:
    """Span between two times of day; ``end`` is on the next day if it is not after ``begin``."""

    begin: time
    end: time


@dataclass(frozen=True, slots=True)
class Sessions:
    """Trading calendar of one exchange.

    Attributes:
        zone: time zone of all times and days.
        days: trading days of the week; 0 is Monday.
        spans: trading spans of each trading day.
        holidays: days on which no span begins.
        night_before_holiday: whether night spans take place on the last trading day before a holiday.
        half_days: days with other spans, and these spans.
    """

    zone: ZoneInfo
    days: frozenset[int]
    spans: tuple[Span, ...]
    holidays: frozenset[date] = frozenset()
    night_before_holiday: bool = True
    half_days: Mapping[date, tuple[Span, ...]] = field(default_factory=dict)

    def is_open(self, now: float) -> bool:
        """Return whether the exchange is open; a span includes its beginning and excludes its end."""
        today = datetime.fromtimestamp(now, self.zone).date()
        # A span that began yesterday may run past midnight.
        return any(
            begin <= now < end
            for day in (today - timedelta(days=1), today)
            for begin, end in self._spans_of(day)
        )

    def next_change(self, now: float) -> float:
        """Return the time at which the exchange opens or closes next; infinity if not within the calendar."""
        today = datetime.fromtimestamp(now, self.zone).date()
        for ahead in range(-1, _SEARCH_DAYS):
            day = today + timedelta(days=ahead)
            if changes := list(self._changes_after(now, day)):
                # Spans are in any order, and the last one may end after the next day has begun.
                return min(*changes, *self._changes_after(now, day + timedelta(days=1)), float("inf"))
        return float("inf")

    def _changes_after(self, now: float, day: date) -> Iterator[float]:
        """Yield the times at which a span of a day begins or ends, and the exchange is not as it is now."""
        is_open = self.is_open(now)
        for boundaries in self._spans_of(day):
            for boundary in boundaries:
                # Where one span ends and the next begins, nothing changes.
                if boundary > now and self.is_open(boundary) != is_open:
                    yield boundary

    def _spans_of(self, day: date) -> Iterator[tuple[float, float]]:
        for span in self.half_days.get(day) or self._usual_spans(day):
            end_day = day if span.end > span.begin else day + timedelta(days=1)
            # Each time is combined with its own day, as daylight saving time can begin or end in between.
            begin = datetime.combine(day, span.begin, self.zone).timestamp()
            yield begin, datetime.combine(end_day, span.end, self.zone).timestamp()

    def _usual_spans(self, day: date) -> Iterator[Span]:
        if day.weekday() not in self.days or day in self.holidays:
            return
        for span in self.spans:
            if self.night_before_holiday or span.begin < NIGHT_START or not self._is_holiday_eve(day):
                yield span

    def _is_holiday_eve(self, day: date) -> bool:
        for ahead in range(1, _WEEK_DAYS + 1):
            following = day + timedelta(days=ahead)
            if following.weekday() in self.days:
                return following in self.holidays
        return False


def parse_span(text: object) -> Span:
    """Parse ``HH:MM-HH:MM``.

    Raises:
        ValueError: the value is not a span.
    """
    if not isinstance(text, str):
        raise ValueError('is not a list of spans; use text such as ["09:00-11:30", "21:00-02:30"]')
    begin, _, end = text.partition("-")
    try:
        span = Span(_parse_time(begin), _parse_time(end))
    except ValueError:
        raise ValueError(f"{text!r} is not a span; use the form 09:00-11:30 or 21:00-02:30") from None
    return span


def parse_holidays(value: object) -> list[date]:
    """Parse one day, ``2026-10-01``, or a range of days, ``2026-10-01..2026-10-07``.

    Raises:
        ValueError: the text is neither, or the range is empty or too long.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("has an item that is not a date; use the form 2026-10-01 or 2026-10-01..2026-10-07")
    text = str(value)
    first, dots, last = text.partition("..")
    try:
        begin = date.fromisoformat(first.strip())
        end = date.fromisoformat(last.strip()) if dots else begin
    except ValueError:
        raise ValueError(
            f"{text!r} is not a date; use the form 2026-10-01 or 2026-10-01..2026-10-07"
        ) from None
    count = (end - begin).days + 1
    if not 1 <= count <= MAX_HOLIDAY_DAYS:
        raise ValueError(f"{text!r} is {count} days; a range has 1 to {MAX_HOLIDAY_DAYS}")
    return [begin + timedelta(days=number) for number in range(count)]


def find_overlap(spans: tuple[Span, ...]) -> tuple[Span, Span] | None:
    """Return two spans that overlap, or None; a night span may overlap the first span of the next day."""
    ordered = sorted(spans, key=lambda span: span.begin)
    for before, after in pairwise(ordered):
        if before.end <= before.begin or before.end > after.begin:
            return before, after
    if ordered and ordered[-1].end <= ordered[-1].begin and ordered[-1].end > ordered[0].begin:
        return ordered[-1], ordered[0]
    return None


def _parse_time(text: str) -> time:
    hours, _, minutes = text.strip().partition(":")
    if not (len(hours) == len(minutes) == 2 and (hours + minutes).isascii() and (hours + minutes).isdigit()):
        raise ValueError(text)
    return time(int(hours), int(minutes))
