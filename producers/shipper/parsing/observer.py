"""Observer of a parser, from which a dry run learns how each event was read.

A parser without an observer runs none of this code.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer
from tickertape.producers.shipper.parsing.formats.otlp import Records
from tickertape.producers.shipper.parsing.own_formats.reader import OwnFormatReader
from tickertape.producers.shipper.parsing.time_formats import TimeFormat
from tickertape.producers.shipper.parsing.timestamps import TimestampParser


@dataclass(frozen=True, slots=True)
class TimeParts:
    """Parts that the text of a time has; the shipper assumes the others.

    Attributes:
        zone: it names its time zone, or a format of the user does.
        date: it has a date.
        year: it has a year.
    """

    zone: bool = True
    date: bool = True
    year: bool = True


COMPLETE = TimeParts()


@dataclass(frozen=True, slots=True)
class Reading:
    """Reading of one event.

    Attributes:
        format: name of the format that its text has.
        lines: number of its lines.
        has_level: the text contains the level.
        time: parts of the time in the text; None if it contains none.
    """

    format: str
    lines: int
    has_level: bool
    time: TimeParts | None


class EventReader(Protocol):
    """Reader of the texts of events; see ``FormatDetector``."""

    read: Callable[..., Fields]

    @property
    def may_be_json(self) -> bool:
        """Whether a line that looks like a JSON object is read as JSON."""


class ParseObserver:
    """Observer of the parser of one file.

    Attributes:
        readings: reading of each event since ``take`` was last called, in their order.
    """

    def __init__(self) -> None:
        self.readings: list[Reading] = []
        self._format = ""
        self._time = COMPLETE

    def take(self) -> list[Reading]:
        """Remove and return the readings."""
        readings, self.readings = self.readings, []
        return readings

    def make_timestamps(self, zone: ZoneInfo | None) -> TimestampParser:
        """Return a parser of timestamps that tells this observer of the parts that they have."""
        return _ObservedTimestamps(zone, self.record_time)

    def record_time(self, parts: TimeParts) -> None:
        """Record the parts of the time that was converted last."""
        self._time = parts

    def watch(self, formats: EventReader, readers: Mapping[str, Any]) -> EventReader:
        """Attach to the readers of events.

        Args:
            formats: reader of the texts of events.
            readers: the readers that it chooses from, by the names of their formats.

        Returns:
            A reader with the same results.
        """
        for name, reader in readers.items():
            # Not a proxy, because the detection of formats depends on the classes of readers.
            vars(reader)["read"] = self._recording(name, reader, reader.read)
        return _ObservedFormats(formats, self._read)

    def _recording(
        self, name: str, reader: object, read: Callable[..., Fields | None]
    ) -> Callable[..., Fields | None]:
        time, has_zone = None, False
        if isinstance(reader, OwnFormatReader):
            time, has_zone = reader.time, reader.has_zone

        def read_and_record(text: str, sanitize: Sanitizer | None = None) -> Fields | None:
            fields = read(text, sanitize)
            if fields is not None:
                self._format = name
                if time is not None and time.has_zone is not None:
                    self._time = TimeParts(time.has_zone, bool(time.has_date), bool(time.has_year))
                if has_zone:
                    self._time = replace(self._time, zone=True)
            return fields

        return read_and_record

    def _read(self, formats: EventReader, text: str, sanitize: Sanitizer | None) -> Fields:
        self._time = COMPLETE
        fields = formats.read(text, sanitize) if sanitize is not None else formats.read(text)
        lines = text.count("\n") + 1
        if isinstance(fields[4], Records):
            # Their times are UNIX times.
            for level, _, _, timestamp, _ in fields[4].fields:
                time = COMPLETE if timestamp is not None else None
                self.readings.append(Reading(self._format, lines, level is not None, time))
        else:
            time = self._time if fields[3] is not None else None
            self.readings.append(Reading(self._format, lines, fields[0] is not None, time))
        return fields


class _ObservedFormats:
    def __init__(
        self, formats: EventReader, read: Callable[[EventReader, str, Sanitizer | None], Fields]
    ) -> None:
        self._formats = formats
        self._read = read
        self.read: Callable[..., Fields] = self._read_text

    @property
    def may_be_json(self) -> bool:
        return self._formats.may_be_json

    def _read_text(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        return self._read(self._formats, text, sanitize)


class _ObservedTimestamps(TimestampParser):
    def __init__(self, zone: ZoneInfo | None, record: Callable[[TimeParts], None]) -> None:
        super().__init__(zone)
        self._record = record

    def from_parts(
        self, time_format: TimeFormat, before: str, second: str, fraction: str | None, after: str | None
    ) -> str | None:
        time = super().from_parts(time_format, before, second, fraction, after)
        if time is not None:
            fields = time_format.fields(before, after or "")
            dated = not {"d", "j", "n"}.isdisjoint(fields)
            yeared = not {"Y", "y", "n"}.isdisjoint(fields)
            self._record(TimeParts("z" in fields, dated, yeared))
        return time
