"""Reader of the formats of a user, which come before the built-in ones.

Invariants:

1. A line that has none of the formats is read as without them.
2. What a format reads is redacted like all text; a group whose name denotes a secret is redacted everywhere
   in its line.
3. No text of an event is lost: the lines after the first belong to the message, and without the group of the
   message it is the complete text.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final
from zoneinfo import ZoneInfo

from tickertape.producers.shipper.parsing.formats import FormatDetector
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.levels import WORDS, level_of
from tickertape.producers.shipper.parsing.own_formats.own_format import OwnFormat
from tickertape.producers.shipper.parsing.own_formats.times import make_time
from tickertape.producers.shipper.parsing.timestamps import TimestampParser
from tickertape.producers.shipper.redaction.redactor import Redactor

_FIELDS: Final = ("level", "message", "source")


class OwnFormatReader:
    """Reader of one format.

    Args:
        own_format: the format.
        zone: time zone of times that do not name one, unless the format has another; None means the zone of
            this host.
        redactor: redacts the groups whose names denote secrets.
        make_timestamps: factory of the parser of built-in forms of times.

    Attributes:
        name: name of the format.
        time: converter of its times.
        has_zone: it has a time zone of its own.
    """

    def __init__(
        self,
        own_format: OwnFormat,
        zone: ZoneInfo | None,
        redactor: Redactor,
        make_timestamps: Callable[[ZoneInfo | None], TimestampParser] = TimestampParser,
    ) -> None:
        self.name = own_format.name
        self.time = make_time(own_format.time, own_format.zone or zone, make_timestamps)
        self.has_zone = own_format.zone is not None
        self._match = own_format.regex.fullmatch
        groups = dict(own_format.groups)
        # 0 is the number of a group that is not in the expression.
        self._time_group = groups.pop("time", 0)
        self._level, self._message, self._source = (
            groups.pop(getattr(own_format, field), 0) for field in _FIELDS
        )
        self._others = sorted((number, name) for name, number in groups.items())
        self._secrets = [(own_format.groups[name], kind) for name, kind in own_format.secrets.items()]
        self._levels = own_format.levels
        self._redactor = redactor

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read the text of an event; return None if its first line does not have the format."""
        line, line_break, rest = text.partition("\n")
        data = line.rstrip().encode()
        match = self._match(data)
        if match is None:
            return None
        if sanitize is None and not self._secrets:
            return self._fields(text, data, match, line_break + rest)
        whole = self._redact_groups(data, match) + line_break + rest
        if sanitize is not None:
            # A name in one group can denote a secret in the next, so the line is sanitized before the split.
            whole = sanitize(whole)
        line, line_break, rest = whole.partition("\n")
        safe = line.encode()
        redacted = match if safe == data else self._match(safe)
        if redacted is None:
            return self._salvage(data, match, safe, rest and line_break + rest)
        fields = self._fields(whole, safe, redacted, line_break + rest)
        return fields if sanitize is None else (*fields[:4], sanitize(fields[4]))

    def _redact_groups(self, data: bytes, match: Any) -> str:
        """Return the line without the groups whose names denote secrets."""
        spans = [(*match.span(number), kind) for number, kind in self._secrets]
        parts = []
        position = 0
        for start, end, kind in sorted(spans, key=lambda span: (span[0], -span[1])):
            if position <= start < end:  # neither absent, nor within another one
                value = self._redactor.redact_value(data[start:end].decode("utf-8", "replace"), kind)
                parts += [data[position:start], value.encode()]
                position = end
        # A group can end within a character, with the expression for any byte.
        return b"".join((*parts, data[position:])).decode("utf-8", "replace")

    def _salvage(self, data: bytes, match: Any, safe: bytes, rest: str) -> Fields:
        """Return the fields of a line that has the format only with its secrets.

        Level and time contain no secret. Other groups are kept if they are before the first secret or after
        the last one, or if they are redacted on their own as within the line.
        """
        text = safe.decode()
        head = _common_length(data, safe)
        tail = _common_length(data[head:][::-1], safe[head:][::-1])

        def read(number: int, kind: str | None = None) -> str:
            start, end = match.span(number)
            value = _text(data, match, number)
            if end <= head or start >= len(data) - tail:
                return value
            redacted = str(self._redactor.redact_uncounted(value, kind))
            return redacted if redacted != value and redacted in text else ""

        kinds = dict(self._secrets)
        metadata = {
            name: value for number, name in self._others if (value := read(number, kinds.get(number)))
        }
        level, _ = self._read_level(_text(data, match, self._level)) if self._level else (None, None)
        message = read(self._message) if self._message else ""
        source = legal_source(read(self._source)) if self._source else None
        return level, (message or text) + rest, source, self._read_time(data, match), metadata

    def _fields(self, text: str, data: bytes, match: Any, rest: str) -> Fields:
        level, unknown = self._read_level(_text(data, match, self._level)) if self._level else (None, {})
        metadata = {name: value for number, name in self._others if (value := _text(data, match, number))}
        if unknown:
            metadata |= unknown
        message = (_text(data, match, self._message) + rest).strip() if self._message else ""
        source = legal_source(_text(data, match, self._source)) if self._source else None
        return level, message or text, source, self._read_time(data, match), metadata

    def _read_level(self, word: str) -> tuple[str | None, dict[str, Any]]:
        """Return the level of a word; metadata keep a word that is not known."""
        level = self._levels.get(word) or WORDS.get(word)
        if level is None and word:
            word = word.strip()
            level = self._levels.get(word) or level_of(word)
        return level, {} if level is not None or not word else {"level": word}

    def _read_time(self, data: bytes, match: Any) -> str | None:
        text = _text(data, match, self._time_group) if self._time_group else ""
        return self.time.parse(text.strip()) if text else None


class OwnFormats:
    """Reader of events that tries the formats of a user in their order, and then the built-in ones.

    Args:
        formats: formats of the user.
        zone: time zone of times that do not name one; see ``OwnFormatReader``.
        redactor: redacts the groups whose names denote secrets.
        detector: reader of all other events.
        make_timestamps: factory of the parser of built-in forms of times.

    Attributes:
        readers: readers by the names of the formats.
    """

    def __init__(
        self,
        formats: Iterable[OwnFormat],
        zone: ZoneInfo | None,
        redactor: Redactor,
        detector: FormatDetector,
        make_timestamps: Callable[[ZoneInfo | None], TimestampParser] = TimestampParser,
    ) -> None:
        self.readers = {each.name: OwnFormatReader(each, zone, redactor, make_timestamps) for each in formats}
        self._detector = detector
        self.read: Callable[..., Fields] = self._read
        """Read the text of an event; see ``FormatDetector``."""

    @property
    def may_be_json(self) -> bool:
        """Whether a line that looks like a JSON object is read as JSON."""
        return self._detector.may_be_json

    def set_reference_time(self, now: float) -> None:
        """Set the time, in UNIX seconds, near which times without a year or date are."""
        for reader in self.readers.values():
            reader.time.set_reference_time(now)

    def _read(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        for reader in self.readers.values():
            fields = reader.read(text, sanitize)
            if fields is not None:
                return fields
        return self._detector.read(text, sanitize)


def start_pattern(formats: Iterable[OwnFormat], multiline: str) -> str:
    """Return the setting of line joining for a file with formats.

    Args:
        formats: formats that apply to the file.
        multiline: "auto", "off", or an RE2 expression for the first line of an event, for files without them.
    """
    starts = [each.start for each in formats if each.start is not None]
    if starts and multiline not in ("auto", "off"):
        starts.append(multiline)
    return "|".join(f"(?:{start})" for start in starts) or multiline


def _common_length(first: bytes, second: bytes) -> int:
    """Return the number of bytes with which both begin."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


def _text(data: bytes, match: Any, number: int) -> str:
    """Return the text of a group; empty if it has matched nothing."""
    start, end = match.span(number)
    return data[start:end].decode("utf-8", "replace") if start >= 0 else ""
