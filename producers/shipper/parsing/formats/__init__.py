"""Formats of logs: each reads the text of one event, and the right one is found from a file's lines.

Invariants:

1. A reader returns None exactly when the text is not of its form; ``plain`` reads every text.
2. Which format a file has depends on its events in their order, never on how they were split into blocks.
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
"""Events that a format is found from."""

MAX_MISSES: Final = 20
"""Events in a row that do not fit, after which a format is looked for again."""

RECHECK_INTERVAL: Final = 1000
"""Events of no known format after which one is looked for again: every text would fit that."""

Reader = JsonReader | LogfmtReader | PythonReader | LoguruReader | GlogReader | SyslogReader | PlainReader


class FormatDetector:
    """Reads the events of one file.

    Args:
        name: one of ``FORMATS``.
        names: fields to look for in JSON lines and logfmt.
        times: reads times.

    Raises:
        ValueError: there is no such format.
    """

    def __init__(self, name: str, names: FieldNames, timestamps: TimestampParser) -> None:
        if name not in FORMATS:
            raise ValueError(f"{name!r} is no format; one of {', '.join(FORMATS)}")
        mapping = FieldMapping(names, timestamps)
        self._auto = name == "auto"
        self._plain = PlainReader(timestamps)
        self._json = JsonReader(mapping)
        # The order in which they are asked: the more a format demands, the earlier.
        self._readers: dict[str, Reader] = {
            "json": self._json,
            "syslog": SyslogReader(timestamps),
            "loguru": LoguruReader(timestamps),
            "glog": GlogReader(timestamps),
            "python": PythonReader(timestamps, strict=self._auto),
            "logfmt": LogfmtReader(mapping),
            "plain": self._plain,
        }
        self._reader: Reader | None = None if self._auto else self._readers[name]
        self._votes: Counter[str] = Counter()
        self._misses = 0
        self.read: Callable[..., Fields] = self._vote if self._auto else self._set
        """Reads the text of an event: ``read(text, care)``; care is taken where it is given."""

    @property
    def may_be_json(self) -> bool:
        """True when a line that looks like a JSON object is read as one."""
        return self._auto or self._reader is self._json

    def _set(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        reader = self._reader
        assert reader is not None
        if sanitize is None:
            return reader.read(text) or self._plain.read(text)
        sanitized = _SanitizedText(text, sanitize)
        return sanitized.ask(reader) or sanitized.ask_plain(self._plain)

    def _found(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        reader = self._reader
        assert reader is not None
        sanitized = _SanitizedText(text, sanitize) if sanitize is not None else None
        if reader is not self._plain:
            fields = reader.read(text) if sanitized is None else sanitized.ask(reader)
            if fields is not None:
                self._misses = 0
                return fields
        self._misses += 1
        if self._misses >= (RECHECK_INTERVAL if reader is self._plain else MAX_MISSES):
            self._reader, self._misses = None, 0
            self._votes.clear()
            self.read = self._vote
        if text[:1] == "{" and reader is not self._json:
            fields = self._json.read(text) if sanitized is None else sanitized.ask(self._json)
            if fields is not None:
                return fields
        return self._plain.read(text) if sanitized is None else sanitized.ask_plain(self._plain)

    def _vote(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        sanitized = _SanitizedText(text, sanitize) if sanitize is not None else None
        fields: Fields | None = None
        for name, reader in self._readers.items():
            fields = reader.read(text) if sanitized is None else sanitized.ask(reader)
            if fields is not None:
                self._votes[name] += 1
                break
        if self._votes.total() >= MIN_VOTES:
            # Lines of a format stand among plain ones, never the other way about.
            known = [(count, name) for name, count in self._votes.items() if name != "plain" and count > 1]
            self._reader = self._readers[max(known)[1] if known else "plain"]
            self.read = self._found
        assert fields is not None
        return fields


class _SanitizedText:
    """A text that needs care, which is taken once, however many readers are asked."""

    def __init__(self, text: str, sanitize: Sanitizer) -> None:
        self._text = text
        self._care = sanitize
        self._safe: str | None = None

    def ask(self, reader: Reader) -> Fields | None:
        if isinstance(reader, JsonReader):
            return reader.read(self._text, self._care)
        if isinstance(reader, LoguruReader):
            # A module may have the name of a secret, and what stands behind its colon is none.
            fields = reader.read(self._text)
            if fields is None:
                return None
            level, message, source, timestamp, metadata = fields
            return level, self._care(message), source and self._care(source), timestamp, self._care(metadata)
        # A name before a colon may be that of a secret, so the text is seen to before it is taken apart;
        # what is read out of quotes is seen to again.
        if self._safe is None:
            self._safe = self._care(self._text)
        if isinstance(reader, LogfmtReader):
            return reader.read(self._safe, self._care)
        fields = reader.read(self._safe)
        if fields is not None and fields[4]:
            return *fields[:4], self._care(fields[4])
        return fields

    def ask_plain(self, plain: PlainReader) -> Fields:
        fields = self.ask(plain)
        assert fields is not None
        return fields
