"""Conversion of timestamps as loggers write them to RFC 3339 in UTC, with milliseconds or better.

Invariants:

1. Every result is a time that ``contracts.events.parse_time`` accepts, ending in ``Z``, or None.
2. Date, hour and time zone are resolved once per minute: lines of the same minute share the result.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from zoneinfo import ZoneInfo

TIMESTAMP_PATTERN: Final = (
    r"(\d{4}[-/.]?\d\d[-/.]?\d\d[Tt _-]\d\d:\d\d)(:[0-5]\d)(?:[.,](\d{1,9})\d*)?"
    r"(?: ?([Zz]|UTC|GMT|[+-]\d\d:?\d\d)(?![A-Za-z0-9]))?(?!\d)"
)
"""Regular expression for a timestamp, with the groups minute, second, fraction and zone; ASCII only."""

_TIMESTAMP = re.compile(TIMESTAMP_PATTERN, re.ASCII)
_MINUTE = re.compile(r"(\d{4})\D?(\d\d)\D?(\d\d)\D(\d\d):(\d\d)", re.ASCII)
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)
_CACHED_MINUTES: Final = 2048
"""Resolved minutes that are kept; the cache is cleared when it is full."""

_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}


class TimestampParser:
    """Parser of timestamps in many formats.

    Args:
        zone: time zone of timestamps that do not name one; None means the zone of this host.
    """

    def __init__(self, zone: ZoneInfo | None = None) -> None:
        self._now = 0.0
        self._zone = zone
        self._minutes: dict[Any, str] = {}

    def set_reference_time(self, now: float) -> None:
        """Set the time, in UNIX seconds, to which timestamps without a year are closest."""
        self._now = now

    def from_groups(self, minute: str, second: str, fraction: str | None, zone: str | None) -> str | None:
        """Convert the groups of a ``TIMESTAMP_PATTERN`` match.

        Args:
            minute: date, hour and minute.
            second: seconds with the colon before them.
            fraction: digits, or None.
            zone: time zone as written; None if the timestamp does not name one.

        Returns:
            The time, or None if it does not exist.
        """
        resolved = self._minutes.get((minute, zone))
        if resolved is None:
            resolved = self._cache((minute, zone), self._resolve(minute, zone))
        if not resolved:
            return None
        if fraction is None:
            return f"{resolved}{second}.000Z"
        if len(fraction) < 3:
            fraction = f"{fraction:0<3}"
        return f"{resolved}{second}.{fraction}Z"

    def parse_text(self, text: str) -> str | None:
        """Convert the timestamp at the start of a text, or UNIX time in digits; return None for others."""
        match = _TIMESTAMP.match(text)
        if match is not None:
            return self.from_groups(*match.groups())
        if _NUMBER.fullmatch(text):
            return self.parse_number(float(text) if "." in text else int(text))
        return None

    def parse_value(self, value: object) -> str | None:
        """Convert a JSON value; return None if it is not a timestamp."""
        if isinstance(value, str):
            return self.parse_text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.parse_number(value)
        return None

    def parse_number(self, number: float) -> str | None:
        """Convert UNIX seconds, milliseconds, microseconds or nanoseconds; return None for others."""
        # The units differ by a factor of 1 000, and no log is older than 1973, so the ranges do not overlap.
        for digits, unit in ((9, 1), (6, 10**3), (3, 10**6), (0, 10**9)):
            if 10**8 <= number / unit < 10**10:
                if isinstance(number, int):
                    nanoseconds = number * 10**digits
                else:
                    # A double has a precision of microseconds at best.
                    nanoseconds = round(number / unit * 10**6) * 1000
                return self._format_nanoseconds(nanoseconds)
        return None

    def from_yearless_groups(
        self, month: str, day: str, minute: str, second: str, fraction: str | None
    ) -> str | None:
        """Convert a timestamp without a year, in the year that brings it closest to the reference time.

        Args:
            month: name or number.
            day: number.
            minute: ``hh:mm``.
            second: seconds with the colon before them.
            fraction: digits, or None.

        Returns:
            The time, or None if it does not exist.
        """
        key = (month, day, minute, int(self._now // 86_400))
        resolved = self._minutes.get(key)
        if resolved is None:
            resolved = self._cache(key, self._resolve_nearest(month, day, minute))
        if not resolved:
            return None
        return f"{resolved}{second}.{fraction or '':0<3}Z"

    def _cache(self, key: Any, resolved: str) -> str:
        if len(self._minutes) >= _CACHED_MINUTES:
            self._minutes.clear()
        self._minutes[key] = resolved
        return resolved

    def _format_nanoseconds(self, nanoseconds: int) -> str:
        seconds, rest = divmod(nanoseconds, 10**9)
        key = seconds // 60
        resolved = self._minutes.get(key)
        if resolved is None:
            resolved = self._cache(key, datetime.fromtimestamp(key * 60, UTC).isoformat()[:16])
        if rest % 10**6 == 0:
            return f"{resolved}:{seconds % 60:02d}.{rest // 10**6:03d}Z"
        if rest % 1000 == 0:
            return f"{resolved}:{seconds % 60:02d}.{rest // 1000:06d}Z"
        return f"{resolved}:{seconds % 60:02d}.{rest:09d}Z"

    def _resolve_nearest(self, month: str, day: str, minute: str) -> str:
        number = _MONTHS.get(month.title()) or (int(month) if month.isdigit() else 0)
        this_year = datetime.fromtimestamp(self._now, UTC).year
        best, distance = "", float("inf")
        # Around New Year a line can belong to the other year, also to the next one if its clock is ahead.
        for year in (this_year - 1, this_year, this_year + 1):
            text = self._resolve(f"{year:04d}-{number:02d}-{int(day):02d} {minute}", None)
            if text:
                difference = abs(datetime.fromisoformat(f"{text}:00+00:00").timestamp() - self._now)
                if difference < distance:
                    best, distance = text, difference
        return best

    def _resolve(self, minute: str, zone: str | None) -> str:
        """Return the minute in UTC, without seconds; empty if it does not exist."""
        match = _MINUTE.fullmatch(minute)
        if match is None:
            return ""
        try:
            moment = datetime(*map(int, match.groups()))  # type: ignore[arg-type]
            if zone is None:
                if self._zone is not None:
                    moment = moment.replace(tzinfo=self._zone)
            else:
                moment = moment.replace(tzinfo=_offset(zone))
            # A naive datetime is interpreted in the zone of this host.
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            return ""
        # Local mean times before time zones had offsets with seconds; no log is that old.
        return "" if moment.second else moment.isoformat()[:16]


def _offset(zone: str) -> timezone:
    if zone[0] not in "+-":
        return UTC
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{zone} is not a UTC offset")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if zone[0] == "-" else offset)
