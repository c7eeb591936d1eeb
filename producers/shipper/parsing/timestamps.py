"""Conversion of timestamps as loggers write them to RFC 3339 in UTC, with milliseconds or better.

Invariants:

1. Every result is a time that ``contracts.events.parse_time`` accepts, ending in ``Z``, or None.
2. No time is guessed: what can be read in two ways and is not decided by the file is no time, and neither is
   one in a time zone whose name is ambiguous. Such an event has the time at which it was read.
3. Date, hour and time zone are resolved once per minute: lines of the same minute share the result.
"""

import re
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

from tickertape.producers.shipper.parsing.moments import MomentResolver
from tickertape.producers.shipper.parsing.time_formats import (
    ANY,
    CANDIDATE,
    HINT,
    ISO,
    PREFIX,
    PREFIX_OF_TIME,
    TIMESTAMP_PATTERN,
    TimeFormat,
    format_of,
)

__all__ = ["TIMESTAMP_PATTERN", "TimestampParser"]

SEARCH_CHARACTERS: Final = 160
"""Characters at the start of a line that are searched for a timestamp."""

_RESULT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d\.\d{3,9}Z", re.ASCII)
_SECONDS = re.compile(r"[0-5]\d\.\d{3,9}Z", re.ASCII)
_NUMBER = re.compile(r"(\d{9,19})(?:\.(\d{1,9})\d*)?", re.ASCII)
_CACHED_MINUTES: Final = 2048
"""Resolved minutes that are kept; the cache is cleared when it is full."""

_TAI64_BASE: Final = 2**62 + 10
"""Label of UNIX time 0 in TAI64N as daemontools writes it, which counts no leap seconds."""

_UNITS: Final = ((3, 10**3), (0, 1), (6, 10**6), (9, 10**9))
"""Digits after the seconds, and parts of a second, of the units of UNIX time."""

Found = tuple[int, int, str | None]
"""Start and end of a timestamp in a text, and its time; None if it is ambiguous or does not exist."""


class TimestampParser:
    """Parser of timestamps in many formats.

    Args:
        zone: time zone of timestamps that do not name one; None means the zone of this host.

    Attributes:
        last: format of the timestamp that was found last.
        moments: resolver of its minutes.
    """

    def __init__(self, zone: ZoneInfo | None = None) -> None:
        self.last = ISO
        self.moments = MomentResolver(zone)
        self._reference = 0.0
        self._hour = 0
        # By format and the text around the seconds; empty if there is no such time.
        self._minutes: dict[tuple[TimeFormat, str, str | None], str] = {}
        self._last_minute = ""  # of the last result that was parsed; it is in ``_minutes``
        # The last minute without a date, if a header dates it.
        self._dated_key: tuple[TimeFormat, str, str | None] = (ISO, "", None)
        self._epoch_minutes: dict[int, str] = {}
        self._in_header = False

    def set_reference_time(self, now: float) -> None:
        """Set the time, in UNIX seconds, near which timestamps without a year or date are."""
        self._reference = self.moments.reference = now
        hour = int(now // 3600)
        if hour != self._hour:
            self._hour = hour
            self._minutes.clear()
            self._last_minute = ""

    @property
    def unknown_zone(self) -> str | None:
        """Time zone of the text that was searched last, if its name is ambiguous."""
        return self.moments.unknown_zone

    def find(self, text: str) -> Found | None:
        """Find the timestamp of a line: the first one near its start that no ordinary words precede."""
        self.moments.unknown_zone = None
        self._in_header = text.startswith("#")
        stop = text.find("\n", 0, SEARCH_CHARACTERS)
        if stop < 0:
            stop = SEARCH_CHARACTERS
        if HINT.search(text, 0, stop) is None:
            return None
        for candidate in CANDIDATE.finditer(text, 0, stop):
            start = candidate.start()
            match = self.last.regex.match(text, start)
            if match is None:
                found = ANY.match(text, start)
                if found is None:
                    continue
                time_format = format_of(found)
                match = time_format.regex.match(text, start)
                assert match is not None
            else:
                time_format = self.last
            if start:
                prefix = PREFIX_OF_TIME if time_format.only_first else PREFIX
                if prefix.fullmatch(text, 0, start) is None:
                    return None
            time = self.from_match(time_format, match)
            # A number that is no time can precede one.
            if time is None and time_format.is_epoch:
                continue
            self.last = time_format
            return start, match.end(), time
        return None

    def from_header(
        self, time_format: TimeFormat, before: str, second: str, fraction: str | None, after: str | None
    ) -> str | None:
        """Convert the groups of the timestamp that ``find`` would find, which has the last format."""
        self.moments.unknown_zone = None
        self._in_header = False
        return self.from_parts(time_format, before, second, fraction, after)

    def is_known(self, time_format: TimeFormat, before: str, after: str) -> bool:
        """Return whether the minute of a timestamp of the last format is resolved."""
        return self.last is time_format and bool(self._minutes.get((time_format, before, after)))

    def from_match(self, time_format: TimeFormat, match: re.Match[str]) -> str | None:
        """Convert a match of a format; return None if there is no such time, or if it is ambiguous."""
        before, second, fraction, after = match.group(1, 2, 3, 4)
        if time_format.is_epoch:
            return self._from_label(before, second, fraction)
        if time_format.unpadded:
            second, fraction = second.zfill(2), fraction and fraction.zfill(3)
        return self.from_parts(time_format, before, second, fraction, after)

    def from_groups(self, before: str, second: str, fraction: str | None, after: str | None) -> str | None:
        """Convert the groups of a ``TIMESTAMP_PATTERN`` match; see ``from_match``."""
        return self.from_parts(ISO, before, second, fraction, after)

    def from_parts(
        self, time_format: TimeFormat, before: str, second: str, fraction: str | None, after: str | None
    ) -> str | None:
        """Convert the groups of a match; see ``from_match``."""
        resolved = self._minutes.get((time_format, before, after))
        if resolved is None or self._in_header:
            resolved = self.moments.resolve(
                time_format.fields(before, after or ""), in_header=self._in_header
            )
            # Another line can decide what is ambiguous now, and each line with an unknown zone is flagged.
            if resolved or not (time_format.is_numeric or self.moments.unknown_zone):
                if len(self._minutes) >= _CACHED_MINUTES or self._in_header:
                    self._forget_minutes()
                if time_format.only_first and self.moments.is_dated:
                    # The same time can follow on the next day.
                    self._minutes.pop(self._dated_key, None)
                    self._dated_key = (time_format, before, after)
                self._minutes[time_format, before, after] = resolved
        if not resolved:
            return None
        if not fraction:
            return f"{resolved}{second}.000Z"
        if len(fraction) < 3:
            fraction = f"{fraction:0<3}"
        return f"{resolved}{second}.{fraction}Z"

    def _forget_minutes(self) -> None:
        self._minutes.clear()
        self._last_minute = ""

    def restore_context(self, context: str) -> None:
        """Continue with the context of the dates at another place of the file."""
        self.moments.restore(context)
        self._forget_minutes()

    def parse_text(self, text: str) -> str | None:
        """Convert the timestamp at the start of a text, or UNIX time in digits; return None for others."""
        minute = text[:17]
        if minute == self._last_minute and _SECONDS.fullmatch(text, 17):
            return text
        if _RESULT.fullmatch(text) and self._minutes.get((ISO, minute, "Z")) == minute:
            self._last_minute = minute
            return text
        time_format = self.last
        match = time_format.regex.match(text)
        if match is not None and not time_format.is_special:
            return self.from_parts(time_format, *match.groups())
        number = _NUMBER.fullmatch(text)
        if number is not None:
            return self._from_digits(*number.groups())
        found = ANY.match(text)
        if found is None:
            return None
        time_format = format_of(found)
        match = time_format.regex.match(text)
        if match is None or time_format.only_first:
            return None
        self.last = time_format
        return self.from_match(time_format, match)

    def parse_value(self, value: object, text: str = "") -> str | None:
        """Convert a JSON value; return None if it is not a timestamp.

        Args:
            value: the value.
            text: the text that it was read from, for the digits that a double does not hold.
        """
        if isinstance(value, str):
            return self.parse_text(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self.parse_number(value, text)
        return None

    def parse_number(self, number: float, text: str = "") -> str | None:
        """Convert UNIX seconds, milliseconds, microseconds or nanoseconds; return None for others."""
        if not 10**8 <= number < 10**19:
            return None
        if isinstance(number, int):
            for places, unit in _UNITS:
                seconds, rest = divmod(number, unit)
                if 10**8 <= seconds < 10**10:
                    return self._format_epoch(seconds, f"{rest:0{places}d}")
            return None
        # The shortest digits that denote a double are those that were written, if not more than 17. The last
        # of more digits are rounded.
        digits, _, fraction = f"{number!r}".partition(".")
        if not digits.isdigit() or "e" in fraction:
            digits, fraction = str(int(number)), ""
        if (
            len(digits + fraction) > 15
            and (written := re.search(rf"{digits}\.{fraction[:-2]}(\d+)", text)) is not None
        ):
            fraction = fraction[:-2] + written[1]
        return self._from_digits(digits, fraction.rstrip("0") or None)

    def _from_digits(self, digits: str, fraction: str | None) -> str | None:
        # The units differ by a factor of 1 000, and no log is older than 1973, so the ranges do not overlap.
        number = int(digits)
        for places in (0, 3, 6, 9):
            if 10**8 <= number // 10**places < 10**10:
                seconds = number // 10**places
                rest = digits[len(digits) - places :] if places else ""
                return self._format_epoch(seconds, (rest + (fraction or ""))[:9])
        return None

    def _format_epoch(self, seconds: int, fraction: str) -> str:
        minute = seconds // 60
        resolved = self._epoch_minutes.get(minute)
        if resolved is None:
            if len(self._epoch_minutes) >= _CACHED_MINUTES:
                self._epoch_minutes.clear()
            resolved = f"{datetime.fromtimestamp(minute * 60, UTC).isoformat()[:16]}:"
            self._epoch_minutes[minute] = resolved
        # Digits that are zero because of the unit are not shown.
        while len(fraction) > 3 and fraction.endswith("000"):
            fraction = fraction[:-3]
        return f"{resolved}{seconds % 60:02d}.{fraction:0<3}Z"

    def _from_label(self, digits: str, rest: str, fraction: str | None) -> str | None:
        """Convert UNIX time in a line, or a TAI64N label."""
        if digits.startswith("@"):
            seconds = int(digits[1:], 16) - _TAI64_BASE
            nanoseconds = int(rest, 16)
            valid = 0 < seconds < 10**10 and nanoseconds < 10**9
            return self._format_epoch(seconds, f"{nanoseconds:09d}") if valid else None
        # Numbers of other kinds have these digits too, so the time must not be in the future.
        if int(digits + rest[:2]) > self._reference + 86_400 and self._reference:
            return None
        return self._from_digits(digits + rest, fraction)
