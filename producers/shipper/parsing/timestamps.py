"""Times as loggers write them become RFC 3339 in UTC, with milliseconds or better.

Invariants:

1. Every answer is a time that ``contracts.events.parse_time`` reads, ending in ``Z``; else it is None.
2. The date and hour of a time are worked out once a minute of it: lines of one minute share them.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final
from zoneinfo import ZoneInfo

STAMP: Final = (
    r"(\d{4}[-/.]?\d\d[-/.]?\d\d[Tt _-]\d\d:\d\d)(:[0-5]\d)(?:[.,](\d{1,9})\d*)?"
    r"(?: ?([Zz]|UTC|GMT|[+-]\d\d:?\d\d)(?![A-Za-z0-9]))?(?!\d)"
)
"""Expression with the groups minute, second, fraction and zone; ASCII only."""

_STAMP = re.compile(STAMP, re.ASCII)
_MINUTE = re.compile(r"(\d{4})\D?(\d\d)\D?(\d\d)\D(\d\d):(\d\d)", re.ASCII)
_NUMBER = re.compile(r"\d{9,19}(?:\.\d{1,9})?", re.ASCII)
_CACHED_MINUTES: Final = 2048
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}


class TimestampParser:
    """Reads times.

    Args:
        zone: of times that name none; None means this host's.
    """

    def __init__(self, zone: ZoneInfo | None = None) -> None:
        self._now = 0.0
        self._zone = zone
        self._minutes: dict[Any, str] = {}

    def set_reference_time(self, now: float) -> None:
        """Read times without a year as those next to a moment in UNIX seconds."""
        self._now = now

    def join(self, minute: str, second: str, fraction: str | None, zone: str | None) -> str | None:
        """Write a time from the groups of ``STAMP``.

        Args:
            minute: date, hour and minute.
            second: with its colon.
            fraction: digits, or None.
            zone: as it stands there; None for a time that names none.

        Returns:
            The time; None when there is no such moment.
        """
        known = self._minutes.get((minute, zone))
        if known is None:
            known = self._keep((minute, zone), self._resolve(minute, zone))
        if not known:
            return None
        if fraction is None:
            return f"{known}{second}.000Z"
        if len(fraction) < 3:
            fraction = f"{fraction:0<3}"
        return f"{known}{second}.{fraction}Z"

    def parse_text(self, text: str) -> str | None:
        """Time that a text begins with, or UNIX time in digits; None when it is neither."""
        found = _STAMP.match(text)
        if found is not None:
            return self.join(*found.groups())
        if _NUMBER.fullmatch(text):
            return self.parse_number(float(text) if "." in text else int(text))
        return None

    def parse_value(self, value: object) -> str | None:
        """Time that a JSON value means; None when it means none."""
        if isinstance(value, str):
            return self.parse_text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.parse_number(value)
        return None

    def parse_number(self, number: float) -> str | None:
        """Time from UNIX seconds, milliseconds, microseconds or nanoseconds."""
        # Each is 1 000 times the one before, and logs are from after 1973.
        for digits, unit in ((9, 1), (6, 10**3), (3, 10**6), (0, 10**9)):
            if 10**8 <= number / unit < 10**10:
                if isinstance(number, int):
                    nanoseconds = number * 10**digits
                else:
                    # A double tells microseconds apart, no more.
                    nanoseconds = round(number / unit * 10**6) * 1000
                return self._of_nanoseconds(nanoseconds)
        return None

    def from_yearless_groups(
        self, month: str, day: str, minute: str, second: str, fraction: str | None
    ) -> str | None:
        """Write a time that says no year: that of all its years that is nearest to now.

        Args:
            month: name or number.
            day: number.
            minute: ``hh:mm``.
            second: with its colon.
            fraction: digits, or None.
        """
        key = (month, day, minute, int(self._now // 86_400))
        known = self._minutes.get(key)
        if known is None:
            known = self._keep(key, self._nearest(month, day, minute))
        if not known:
            return None
        return f"{known}{second}.{fraction or '':0<3}Z"

    def _keep(self, key: Any, known: str) -> str:
        if len(self._minutes) >= _CACHED_MINUTES:
            self._minutes.clear()
        self._minutes[key] = known
        return known

    def _of_nanoseconds(self, nanoseconds: int) -> str:
        seconds, rest = divmod(nanoseconds, 10**9)
        key = seconds // 60
        known = self._minutes.get(key)
        if known is None:
            known = self._keep(key, datetime.fromtimestamp(key * 60, UTC).isoformat()[:16])
        if rest % 10**6 == 0:
            return f"{known}:{seconds % 60:02d}.{rest // 10**6:03d}Z"
        if rest % 1000 == 0:
            return f"{known}:{seconds % 60:02d}.{rest // 1000:06d}Z"
        return f"{known}:{seconds % 60:02d}.{rest:09d}Z"

    def _nearest(self, month: str, day: str, minute: str) -> str:
        number = _MONTHS.get(month.title()) or (int(month) if month.isdigit() else 0)
        this_year = datetime.fromtimestamp(self._now, UTC).year
        best, distance = "", float("inf")
        for year in (this_year - 1, this_year, this_year + 1):
            text = self._resolve(f"{year:04d}-{number:02d}-{int(day):02d} {minute}", None)
            if text:
                away = abs(datetime.fromisoformat(f"{text}:00+00:00").timestamp() - self._now)
                if away < distance:
                    best, distance = text, away
        return best

    def _resolve(self, minute: str, zone: str | None) -> str:
        """The minute in UTC, without seconds; empty when there is no such moment."""
        found = _MINUTE.fullmatch(minute)
        if found is None:
            return ""
        try:
            moment = datetime(*map(int, found.groups()))  # type: ignore[arg-type]
            if zone is None:
                if self._zone is not None:
                    moment = moment.replace(tzinfo=self._zone)
            else:
                moment = moment.replace(tzinfo=_offset(zone))
            # A datetime without a zone is taken for this host's local time.
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError, OSError):
            return ""
        # Before time zones, places were ahead of each other by odd seconds; no log is that old.
        return "" if moment.second else moment.isoformat()[:16]


def _offset(zone: str) -> timezone:
    if zone[0] not in "+-":
        return UTC
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{zone} is no offset")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if zone[0] == "-" else offset)
