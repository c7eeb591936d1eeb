"""Times of a user's format: by the directives of ``strftime``, as UNIX time, or in any built-in form.

Invariants:

1. A text is converted only if it is the time completely, except for the built-in forms; all others are None.
2. Every expression matches a bounded number of characters, so that no text takes long.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from tickertape.producers.shipper.parsing.moments import MomentResolver
from tickertape.producers.shipper.parsing.time_formats import ISO
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

UNITS: Final = {"epoch": 0, "epoch_ms": 3, "epoch_us": 6, "epoch_ns": 9}
"""Names of UNIX time, and the digits of a fraction that an integer of this unit ends with."""

NAMES: Final = ("auto", "iso", *UNITS)
"""Names of forms of times; everything else is a format with directives."""

_WEEKDAY: Final = r"(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6})"
_DIRECTIVES: Final = {
    "Y": r"[12]\d{3}",
    "y": r"\d\d",
    "m": r"1[0-2]|0[1-9]|[1-9]",
    "b": r"[A-Za-z]{3}[a-z]{0,6}",
    "d": r"3[01]|[12]\d|[0 ][1-9]|[1-9]",
    "j": r"[0-3]\d\d",
    "H": r"2[0-3]|[01 ]\d|\d",
    "M": r"[0-5]\d",
    "S": r"[0-5]\d",
    "f": r"\d{1,9}",
    "p": r"[AaPp]\.?[Mm]\.?",
    "z": r"[Zz]|(?:UTC|GMT)?[+-]\d\d(?::?\d\d)?|[A-Z]{1,5}",
}
"""Expressions for the directives, under the names that ``MomentResolver`` knows."""

_SAME: Final = {"B": "b", "h": "b", "e": "d", "I": "H", "Z": "z", "L": "f", "N": "f", "A": "a"}
"""Directives with the meaning of another one; all are written in the same ways."""

_COMPOUND: Final = {"T": "%H:%M:%S", "R": "%H:%M", "F": "%Y-%m-%d", "D": "%m/%d/%y"}

DIRECTIVES: Final = tuple(sorted({*_DIRECTIVES, *_SAME, *_COMPOUND, "a"} - {"L", "N", "h"}))
"""Directives that messages list."""

_CACHED_MINUTES: Final = 2048
"""Resolved minutes that are kept; the cache is cleared when it is full."""

_EPOCH: Final = re.compile(r"(\d{1,19})(?:[.,](\d{1,9})\d{0,9})?", re.ASCII)
_LAST_SECOND: Final = 253_402_300_800
"""UNIX seconds of the year 10000, from which on no time has a form."""


class OwnTime(Protocol):
    """Converter of the text of a time.

    Attributes:
        has_zone: whether a time that it converts names its time zone; None if only the text tells.
        has_date: whether it has a date.
        has_year: whether it has a year.
    """

    has_zone: bool | None
    has_date: bool | None
    has_year: bool | None

    def parse(self, text: str) -> str | None:
        """Return the time in RFC 3339 in UTC, or None if the text is not one."""

    def set_reference_time(self, now: float) -> None:
        """Set the time, in UNIX seconds, near which times without a year or date are."""


class TimePattern:
    """Format of a time with the directives of ``strftime``.

    Args:
        text: the format.

    Attributes:
        has_zone: it has ``%z`` or ``%Z``.
        has_date: it has a day.
        has_year: it has a year.

    Raises:
        ValueError: a directive is unknown, or the directives denote no time.
    """

    def __init__(self, text: str) -> None:
        if "%I" in text and "%p" not in text:
            raise ValueError("has %I without %p; use %H for hours up to 23")
        pieces = _split(text)
        names = [name for name, literal in pieces if not literal]
        _check(names)
        self.has_zone = "z" in names
        self.has_date = not {"d", "j"}.isdisjoint(names)
        self.has_year = not {"Y", "y"}.isdisjoint(names)
        self.regex = re.compile(_expression(pieces, names), re.ASCII)


class PatternTime:
    """Converter of times in the format of a ``TimePattern``.

    Args:
        pattern: the format.
        zone: time zone of times that do not name one; None means the zone of this host.
    """

    def __init__(self, pattern: TimePattern, zone: ZoneInfo | None) -> None:
        self.has_zone: bool | None = pattern.has_zone
        self.has_date: bool | None = pattern.has_date
        self.has_year: bool | None = pattern.has_year
        self._match = pattern.regex.fullmatch
        self._moments = MomentResolver(zone)
        self._minutes: dict[tuple[str, str], str] = {}
        self._hour = 0

    def set_reference_time(self, now: float) -> None:
        """Set the time near which times without a year or date are; see ``OwnTime``."""
        self._moments.reference = now
        hour = int(now // 3600)
        if hour != self._hour:
            self._hour = hour
            self._minutes.clear()

    def parse(self, text: str) -> str | None:
        """Convert a time; see ``OwnTime``."""
        match = self._match(text)
        if match is None:
            return None
        before, second, fraction, after = match.group("before", "S", "f", "after")
        resolved = self._minutes.get((before, after))
        if resolved is None:
            fields = {name: value for name, value in match.groupdict().items() if value and len(name) == 1}
            resolved = self._moments.resolve(fields, in_header=False)
            if len(self._minutes) >= _CACHED_MINUTES:
                self._minutes.clear()
            self._minutes[before, after] = resolved
        if not resolved:
            return None
        return f"{resolved}{second or '00'}.{fraction or '0':0<3}Z"


class EpochTime:
    """Converter of UNIX time in one unit.

    Args:
        name: one of ``UNITS``.
    """

    has_zone: bool | None = True
    has_date: bool | None = True
    has_year: bool | None = True

    def __init__(self, name: str) -> None:
        self._places = UNITS[name]
        self._minutes: dict[int, str] = {}

    def set_reference_time(self, now: float) -> None:
        """Do nothing: every time is complete."""

    def parse(self, text: str) -> str | None:
        """Convert a time; see ``OwnTime``."""
        match = _EPOCH.fullmatch(text)
        if match is None:
            return None
        places = self._places
        digits = match[1].zfill(places + 1)
        seconds = int(digits[: len(digits) - places])
        if seconds >= _LAST_SECOND:
            return None
        fraction = ((digits[-places:] if places else "") + (match[2] or ""))[:9]
        resolved = self._minutes.get(seconds // 60)
        if resolved is None:
            if len(self._minutes) >= _CACHED_MINUTES:
                self._minutes.clear()
            resolved = f"{datetime.fromtimestamp(seconds // 60 * 60, UTC).isoformat()[:16]}:"
            self._minutes[seconds // 60] = resolved
        return f"{resolved}{seconds % 60:02}.{fraction:0<3}Z"


class BuiltInTime:
    """Converter of times in any form that the shipper reads without a format.

    Args:
        timestamps: parser of these forms.
        iso: convert times of ISO 8601 only.
    """

    has_zone: bool | None = None
    has_date: bool | None = None
    has_year: bool | None = None

    def __init__(self, timestamps: TimestampParser, *, iso: bool) -> None:
        self._iso = iso
        self._timestamps = timestamps

    def set_reference_time(self, now: float) -> None:
        """Set the time near which times without a year or date are; see ``OwnTime``."""
        self._timestamps.set_reference_time(now)

    def parse(self, text: str) -> str | None:
        """Convert a time; see ``OwnTime``."""
        if self._iso:
            match = ISO.regex.fullmatch(text)
            return self._timestamps.from_match(ISO, match) if match is not None else None
        found = self._timestamps.find(text)
        return self._timestamps.parse_text(text) if found is None else found[2]


def make_time(
    pattern: TimePattern | str,
    zone: ZoneInfo | None,
    make_timestamps: Callable[[ZoneInfo | None], TimestampParser] = TimestampParser,
) -> OwnTime:
    """Return a converter.

    Args:
        pattern: a format, or one of ``NAMES``.
        zone: time zone of times that do not name one; None means the zone of this host.
        make_timestamps: factory of the parser of built-in forms.
    """
    if isinstance(pattern, TimePattern):
        return PatternTime(pattern, zone)
    return (
        EpochTime(pattern) if pattern in UNITS else BuiltInTime(make_timestamps(zone), iso=pattern == "iso")
    )


def _split(text: str) -> list[tuple[str, bool]]:
    """Return the directives and the texts between them, each with whether it is a text.

    Raises:
        ValueError: a directive is unknown.
    """
    for name, form in _COMPOUND.items():
        # Not within ``%%T``, which is a percent sign and a letter.
        text = re.sub(rf"(?<!%)((?:%%)*)%{name}", rf"\g<1>{form}", text)
    pieces: list[tuple[str, bool]] = []
    position = 0
    for match in re.finditer(r"%(.?)", text, re.DOTALL):
        if match.start() > position:
            pieces.append((text[position : match.start()], True))
        position = match.end()
        name = _SAME.get(match[1], match[1])
        if name == "%":
            pieces.append(("%", True))
        elif name in _DIRECTIVES or name == "a":
            pieces.append((name, False))
        elif name == "s":
            raise ValueError('%s is not known; for UNIX time write time = "epoch"')
        else:
            shown = f"%{name}" if name else "% at the end"
            known = " ".join(f"%{each}" for each in DIRECTIVES)
            raise ValueError(f"{shown} is not known; use one of {known} and %%")
    if position < len(text):
        pieces.append((text[position:], True))
    return pieces


def _check(names: list[str]) -> None:
    """Check that directives denote a time.

    Raises:
        ValueError: they do not.
    """
    if not names:
        raise ValueError(f"has no directive such as %Y; use {', '.join(NAMES)}, or directives of strftime")
    twice = next((name for name in names if names.count(name) > 1 and name != "a"), None)
    if twice is not None:
        raise ValueError(f"has %{twice} or a directive of the same meaning twice; remove one")
    if not {"H", "M"} <= set(names):
        raise ValueError("has no hour and minute; add %H and %M")
    _check_date(set(names))


def _check_date(names: set[str]) -> None:
    has_month, has_year = bool(names & {"m", "b"}), bool(names & {"Y", "y"})
    if "j" in names and (has_month or "d" in names or "Y" not in names):
        raise ValueError("has %j; combine it with %Y only")
    if "j" not in names and ("d" in names) != has_month:
        raise ValueError("has a day or a month only; add %d, and %m or %b")
    if {"m", "b"} <= names or {"Y", "y"} <= names:
        raise ValueError("has two directives for the year or the month; remove one")
    if has_year and not names & {"d", "j"}:
        raise ValueError("has a year without a day; add %m and %d")


def _expression(pieces: list[tuple[str, bool]], names: list[str]) -> str:
    """Return the expression, with a group for each directive and for what is before and after the seconds.

    Raises:
        ValueError: the fraction does not follow the seconds.
    """
    index = pieces.index(("S", False)) if "S" in names else len(pieces)
    before = "".join(_piece(name, is_text) for name, is_text in pieces[:index])
    rest = pieces[index + 1 :]
    fraction = "(?P<f>)"
    if "f" in names:
        texts = []
        while rest and rest[0][1]:
            texts.append(re.escape(rest.pop(0)[0]))
        if not rest or rest.pop(0) != ("f", False):
            raise ValueError("has %f that does not follow %S; write it directly after the seconds")
        # Many loggers leave a fraction of zero out.
        fraction = f"(?:{''.join(texts)}(?P<f>{_DIRECTIVES['f']}))?"
    second = f"(?P<S>{_DIRECTIVES['S']})" if "S" in names else "(?P<S>)"
    after = "".join(_piece(name, is_text) for name, is_text in rest)
    return f"(?P<before>{before}){second}{fraction}(?P<after>{after})"


def _piece(name: str, is_text: bool) -> str:
    if is_text:
        # One space of the format stands for the several ones that align columns.
        return re.sub(r"(?:\\ )+", " {1,8}", re.escape(name))
    return _WEEKDAY if name == "a" else f"(?P<{name}>{_DIRECTIVES[name]})"
