"""Log formats: a reader for each, and the detection of a file's format from its events.

Invariants:

1. A reader returns None if and only if the text does not have its format; ``plain`` reads every text.
2. The format of a file depends on the order of its events, never on how they are split into blocks.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final

from tickertape.producers.shipper.parsing.formats.fields import FieldMapping, FieldNames, Fields, Sanitizer
from tickertape.producers.shipper.parsing.formats.structured import JsonReader, LogfmtReader
from tickertape.producers.shipper.parsing.formats.syslog import SyslogReader
from tickertape.producers.shipper.parsing.formats.text import (
    GlogReader,
    LoguruReader,
    PlainReader,
    PythonReader,
)
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

FORMATS: Final = ("auto", "json", "logfmt", "python", "loguru", "glog", "syslog", "plain")

MIN_VOTES: Final = 10
"""Events from which the format is determined."""

MAX_MISSES: Final = 20
"""Consecutive events of another format after which detection starts again."""

RECHECK_INTERVAL: Final = 1000
"""Plain events after which detection starts again, because plain never mismatches."""

Reader = JsonReader | LogfmtReader | PythonReader | LoguruReader | GlogReader | SyslogReader | PlainReader


class FormatDetector:
    """Reader of the events of one file that detects their format.

    Args:
        name: one of ``FORMATS``; "auto" detects the format.
        names: keys of JSON and logfmt lines.
        timestamps: parser of timestamps.
        access_levels: lines of access logs have a level by their status.

    Attributes:
        readers: readers by the names of their formats, in the order in which they are tried.

    Raises:
        ValueError: the format is unknown.
    """

    def __init__(
        self, name: str, names: FieldNames, timestamps: TimestampParser, *, access_levels: bool = False
    ) -> None:
        if name not in FORMATS:
            raise ValueError(f"{name!r} is not a format; use one of {', '.join(FORMATS)}")
        mapping = FieldMapping(names, timestamps)
        self._auto = name == "auto"
        self._plain = PlainReader(timestamps, access_levels=access_levels)
        self._json = JsonReader(mapping)
        # The stricter a format, the earlier.
        self.readers: dict[str, Reader] = {
            "json": self._json,
            "syslog": SyslogReader(timestamps, lenient=not self._auto),
            "loguru": LoguruReader(timestamps),
            "glog": GlogReader(timestamps),
            "python": PythonReader(timestamps, strict=self._auto),
            "logfmt": LogfmtReader(mapping),
            "plain": self._plain,
        }
        self._reader: Reader | None = None if self._auto else self.readers[name]
        self._votes: Counter[str] = Counter()
        self._misses = 0
        # Replaced when the state changes, which spares every event the question of what the state is.
        self.read: Callable[..., Fields] = self._read_undetected if self._auto else self._read_fixed
        """Read the text of an event: ``read(text, sanitize)``; without ``sanitize`` the text is trusted."""

    @property
    def may_be_json(self) -> bool:
        """Whether a line that looks like a JSON object is read as JSON."""
        return self._auto or self._reader is self._json

    def _read_fixed(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        reader = self._reader
        assert reader is not None
        if sanitize is None:
            return reader.read(text) or self._plain.read(text)
        sanitized = _SanitizedText(text, sanitize)
        return sanitized.read_with(reader) or sanitized.read_plain(self._plain)

    def _read_detected(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        reader = self._reader
        assert reader is not None
        sanitized = _SanitizedText(text, sanitize) if sanitize is not None else None
        if reader is not self._plain:
            fields = reader.read(text) if sanitized is None else sanitized.read_with(reader)
            if fields is not None:
                self._misses = 0
                return fields
        self._misses += 1
        if self._misses >= (RECHECK_INTERVAL if reader is self._plain else MAX_MISSES):
            self._reader, self._misses = None, 0
            self._votes.clear()
            self.read = self._read_undetected
        # JSON objects occur among lines of any format, and nothing else parses as one.
        if text[:1] == "{" and reader is not self._json:
            fields = self._json.read(text) if sanitized is None else sanitized.read_with(self._json)
            if fields is not None:
                return fields
        return self._plain.read(text) if sanitized is None else sanitized.read_plain(self._plain)

    def _read_plain(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        self._misses += 1
        if sanitize is not None or self._misses >= RECHECK_INTERVAL or text[:1] == "{":
            self._misses -= 1
            return self._read_detected(text, sanitize)
        return self._plain.read(text)

    def _read_undetected(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        sanitized = _SanitizedText(text, sanitize) if sanitize is not None else None
        fields: Fields | None = None
        for name, reader in self.readers.items():
            fields = reader.read(text) if sanitized is None else sanitized.read_with(reader)
            if fields is not None:
                self._votes[name] += 1
                break
        if self._votes.total() >= MIN_VOTES:
            # Plain lines occur among lines of any format, so they do not outvote it.
            candidates = [
                (count, name) for name, count in self._votes.items() if name != "plain" and count > 1
            ]
            self._reader = self.readers[max(candidates)[1] if candidates else "plain"]
            self.read = self._read_plain if self._reader is self._plain else self._read_detected
        assert fields is not None
        return fields


class _SanitizedText:
    """Untrusted text that is sanitized only once, however many readers are tried."""

    def __init__(self, text: str, sanitize: Sanitizer) -> None:
        self._text = text
        self._sanitize = sanitize
        self._safe: str | None = None

    def read_with(self, reader: Reader) -> Fields | None:
        if isinstance(reader, JsonReader):
            return reader.read(self._text, self._sanitize)
        if isinstance(reader, LoguruReader):
            # A module may be named like a secret, although the value after its colon is not one.
            fields = reader.read(self._text)
            if fields is None:
                return None
            level, message, source, timestamp, metadata = fields
            return (
                level,
                self._sanitize(message),
                source and self._sanitize(source),
                timestamp,
                self._sanitize(metadata),
            )
        # A name before a colon may denote a secret, so the text is sanitized before it is split into fields;
        # values that were in quotes are sanitized again without them.
        if self._safe is None:
            self._safe = self._sanitize(self._text)
        if isinstance(reader, LogfmtReader):
            return reader.read(self._safe, self._sanitize)
        fields = reader.read(self._safe)
        if fields is not None and fields[4]:
            return *fields[:4], self._sanitize(fields[4])
        return fields

    def read_plain(self, plain: PlainReader) -> Fields:
        fields = self.read_with(plain)
        assert fields is not None
        return fields
