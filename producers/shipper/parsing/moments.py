"""Resolution of the parts of a timestamp to a minute in UTC.

Invariant: a timestamp without a year, date or hour is the last such time that is at most a day, and without a
date or hour at most 5 minutes, after the reference time.
"""

import re
from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final
from zoneinfo import ZoneInfo

from tickertape.producers.shipper.parsing.time_formats import MONTHS, OFFSETS

_MINUTES = re.compile(r"[+-]\d{3}", re.ASCII)
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?(\d\d))?", re.ASCII)
_MAX_AGE: Final = 12
"""Years before the reference time in which a date whose first number may be a year can be."""

_FUTURE_DAY: Final = timedelta(days=1)
_FUTURE_MINUTES: Final = timedelta(minutes=5)


_CONTEXT: Final = re.compile(r"(?:[DM-](?:\d{4}-\d\d-\d\dT\d\d:\d\d)?)?", re.ASCII)
_MAX_CONTEXTS: Final = 8192
"""Contexts of one file that are remembered; more lines than that never wait for an acknowledgement."""


def check_context(context: str) -> None:
    """Check a context that comes from a checkpoint.

    Raises:
        ValueError: it is not one that a resolver has.
    """
    if _CONTEXT.fullmatch(context) is None:
        raise ValueError("the dates in a file position are no context of dates")
    MomentResolver(None).restore(context)


class Contexts:
    """Contexts of the dates in one file, by the offset after the event that changed them."""

    def __init__(self) -> None:
        self.restart("")

    def restart(self, context: str) -> None:
        """Forget all contexts but the one with which reading continues."""
        self._ends, self._contexts = [0], [context]

    def record(self, end: int, context: str) -> None:
        """Record the context after an event."""
        if len(self._ends) >= _MAX_CONTEXTS:
            del self._ends[: _MAX_CONTEXTS // 2], self._contexts[: _MAX_CONTEXTS // 2]
        self._ends.append(end)
        self._contexts.append(context)

    def at(self, offset: int) -> str:
        """Return the context after the last event that ends at or before an offset."""
        return self._contexts[max(0, bisect_right(self._ends, offset) - 1)]


class MomentResolver:
    """Resolver for the timestamps of one file.

    Args:
        zone: time zone of timestamps that do not name one; None means the zone of this host.

    Attributes:
        reference: time in UNIX seconds near which timestamps without a year or date are.
        unknown_zone: time zone whose name is ambiguous, if the last timestamp has one.
        changed: the context has changed since the owner last cleared this.
    """

    def __init__(self, zone: ZoneInfo | None) -> None:
        self.reference = 0.0
        self.unknown_zone: str | None = None
        self.changed = False
        self._zone = zone
        # Once a date of the file can be read in one way only, its other dates are read in that way.
        self._day_first: bool | None = None
        # Date of a header such as '#Date: 2025-06-24 10:30:45', to which times without a date belong.
        self._dated: datetime | None = None

    @property
    def is_dated(self) -> bool:
        """Whether times without a date belong to the date of a header, or follow one that does."""
        return self._dated is not None

    @property
    def context(self) -> str:
        """What earlier lines say about the dates of later ones, for a checkpoint; may be empty."""
        order = {True: "D", False: "M", None: "-"}[self._day_first]
        dated = f"{self._dated.isoformat()[:16]}" if self._dated is not None else ""
        return "" if order + dated == "-" else order + dated

    def restore(self, context: str) -> None:
        """Continue with the context of another resolver for the same file."""
        self._day_first = {"D": True, "M": False}.get(context[:1])
        self._dated = datetime.fromisoformat(f"{context[1:]}+00:00") if len(context) > 1 else None
        self.changed = False

    def resolve(self, fields: dict[str, str], *, in_header: bool) -> str:
        """Return the minute in UTC with a colon; empty if there is no such time, or if it is ambiguous.

        Args:
            fields: directives of a time format with their texts.
            in_header: the line is a header, whose date is that of the times after it.
        """
        try:
            hour = int(fields["H"]) if "H" in fields else None
            if "p" in fields and hour is not None:
                if not 1 <= hour <= 12:
                    return ""
                hour = hour % 12 + (12 if fields["p"][0] in "Pp" else 0)
            moments = []
            for year, month, day, step_back in self._dates(fields, hour):
                try:
                    moment = datetime(year, month, day, step_back if hour is None else hour, int(fields["M"]))
                    moments.append(self._localize(moment, fields.get("z")))
                except ValueError:
                    continue  # such as 29 February of another year
            moment = self._select(fields, moments)
        # Other expressions may match more than the format, whose fields are missing then.
        except (KeyError, ValueError, OverflowError, OSError):
            return ""
        if in_header or (self._dated is not None and "d" not in fields):
            self._dated, self.changed = moment, True
        # Local mean times before time zones had offsets with seconds; no log is that old.
        return "" if moment.second else f"{moment.isoformat()[:16]}:"

    def _dates(self, fields: dict[str, str], hour: int | None) -> list[tuple[int, int, int, int]]:
        """Return the dates, with an hour for times without one, that a timestamp may mean; latest first."""
        if "n" in fields:
            return [(*date, 0) for date in self._numeric_dates(fields)]
        if "j" in fields:
            date = datetime(int(fields["Y"]), 1, 1) + timedelta(days=int(fields["j"]) - 1)
            return [(date.year, date.month, date.day, 0)]
        local = datetime.fromtimestamp(self.reference, self._zone) if "d" not in fields else None
        if local is not None:
            if self._dated is not None:
                local = self._dated.astimezone(self._zone)
            unit = timedelta(hours=1) if hour is None else timedelta(days=1)
            moments = [local + unit * steps for steps in (1, 0, -1)]
            return [(moment.year, moment.month, moment.day, moment.hour) for moment in moments]
        month = MONTHS.get(fields["b"][:3].lower(), 0) if "b" in fields else int(fields["m"])
        day = int(fields["d"])
        if "Y" in fields:
            return [(int(fields["Y"]), month, day, 0)]
        if "y" in fields:
            return [(2000 + int(fields["y"]), month, day, 0)]
        this_year = datetime.fromtimestamp(self.reference, UTC).year
        return [(year, month, day, 0) for year in range(this_year + 1, max(this_year - 9, 1), -1)]

    def _numeric_dates(self, fields: dict[str, str]) -> list[tuple[int, int, int]]:
        """Return the dates that three numbers with the year last may mean.

        In the order of these rules: dashes around a year with two digits may mean that the year is first; a
        number above 12, in this line or an earlier one of the file, decides; dots mean that the day is first;
        a.m. and p.m. mean that the month is first; a reading that is not in the future and at most a day old.
        Otherwise all of them are returned.
        """
        first, second, year = (int(number) for number in re.split(r"\D", fields["n"]))
        if year < 32 and "-" in fields["n"] and second <= 12 and self._day_first is None:
            age = datetime.fromtimestamp(self.reference, UTC).year - (2000 + first)
            if -1 <= age <= _MAX_AGE:  # in '25-06-24' the year may be first
                return [
                    (2000 + year, second, first),
                    (2000 + year, first, second),
                    (2000 + first, second, year),
                ]
        year += 2000 if year < 100 else 0
        if first > 12 or second > 12:
            self.changed = self.changed or self._day_first != (first > 12)
            self._day_first = first > 12
        day_first = self._day_first
        if day_first is None:
            day_first = True if "." in fields["n"] else (False if "p" in fields else None)
        dates = [(year, second, first), (year, first, second)]
        return dates if day_first is None else [dates[0] if day_first else dates[1]]

    def _select(self, fields: dict[str, str], moments: list[datetime]) -> datetime:
        """Select one of the moments.

        Raises:
            ValueError: there is none, or more than one is possible.
        """
        if len(moments) == 1 and not {"d", "j", "n"}.isdisjoint(fields):
            return moments[0]
        reference = datetime.fromtimestamp(self.reference, UTC)
        if "n" in fields:
            if len(set(moments)) > 1:
                moments = [moment for moment in moments if abs(moment - reference) <= _FUTURE_DAY]
            if len(set(moments)) != 1:
                raise ValueError("the date is ambiguous")
            return moments[0]
        if "d" not in fields and self._dated is not None:
            # Lines are in order, but for clocks and threads that differ a little.
            return min(moment for moment in moments if moment > self._dated - timedelta(hours=1))
        limit = reference + (_FUTURE_DAY if "d" in fields else _FUTURE_MINUTES)
        # The first that is not later: the latest are first.
        for moment in moments:
            if moment <= limit:
                return moment
        raise ValueError("there is no such time")

    def _localize(self, moment: datetime, zone: str | None) -> datetime:
        """Return a local time as one in UTC.

        Raises:
            ValueError: the name of the time zone is ambiguous.
        """
        if zone is not None:
            return moment.replace(tzinfo=self._offset(moment, zone)).astimezone(UTC)
        if self._zone is not None:
            moment = moment.replace(tzinfo=self._zone)
        # A naive datetime is interpreted in the zone of this host.
        return moment.astimezone(UTC)

    def _offset(self, moment: datetime, zone: str) -> tzinfo:
        if "/" in zone:
            return ZoneInfo(zone)
        zone = zone.strip(" \t|_[]()")
        offset = OFFSETS.get(zone.upper())
        if offset is not None:
            return timezone(timedelta(hours=offset))
        if _MINUTES.fullmatch(zone) is not None:
            return timezone(timedelta(minutes=int(zone)))
        match = _OFFSET.fullmatch(zone)
        if match is not None:
            hours, minutes = int(match[2]), int(match[3] or 0)
            if hours > 23 or minutes > 59:
                raise ValueError(f"{zone} is not a UTC offset")
            delta = timedelta(hours=hours, minutes=minutes)
            return timezone(-delta if match[1] == "-" else delta)
        # An abbreviation that several zones share means this file's zone, if that has it.
        local = moment.replace(tzinfo=self._zone) if self._zone is not None else moment.astimezone()
        delta_or_none = local.utcoffset()
        if local.tzname() != zone or delta_or_none is None:
            self.unknown_zone = zone
            raise ValueError(f"time zone {zone} is ambiguous")
        return timezone(delta_or_none)
