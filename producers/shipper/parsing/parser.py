"""Parser that turns the lines of a log file, whatever their bytes are, into events that can be published.

Invariants:

1. Every event is valid, at worst with the text of its lines as its message, shortened to fit.
2. No control character and no terminal escape sequence reaches the message, source or metadata of an event.
3. No secret that the redactor recognizes reaches an event or its subject.
4. Every line that is not blank is in exactly one event, in order, however the lines are split into blocks.

A block of lines is searched once, as bytes, for anything that needs sanitizing; only the lines with a match
are processed individually, which makes all other lines cheap.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
from tickertape.contracts import strict_json
from tickertape.contracts.events import MAX_EVENT_BYTES, MAX_EVENT_DEPTH, SystemLog, format_time
from tickertape.producers.shipper import sanitize as sanitizing
from tickertape.producers.shipper.parsing.formats import FORMATS, FormatDetector
from tickertape.producers.shipper.parsing.formats.fields import DEFAULT_FIELDS, FieldNames, legal_source
from tickertape.producers.shipper.parsing.levels import DEFAULT_LEVEL, level_of
from tickertape.producers.shipper.parsing.multiline import (
    IN_KEY,
    MAX_BYTES,
    NEEDS_SANITIZING,
    TRUNCATED,
    JoinedEvent,
    MultilineJoiner,
)
from tickertape.producers.shipper.parsing.timestamps import TimestampParser
from tickertape.producers.shipper.redaction import patterns as secret_patterns
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.sanitize import clean, decode

__all__ = [
    "DEFAULT_FIELDS", "FORMATS", "MAX_LINE_BYTES", "FieldNames", "ParseSettings", "ParsedEvent",
    "Parser", "ParserCounts", "clean", "level_of", "parse",
]  # fmt: skip

MAX_LINE_BYTES: Final = MAX_BYTES
"""Bytes of a line that are shipped; ``metadata.truncated`` marks longer lines. Quoting can double the size,
and replacing invalid UTF-8 can triple it: either way an event stays within 256 KiB."""

_SHORT_MESSAGE: Final = 32 * 1024
"""Characters of a message that fit into an event, however they are encoded."""

_SUSPECT: Final = secret_patterns.compile_bytes(sanitizing.SUSPECT + b"|" + secret_patterns.SUSPECT)


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """Settings of a parser.

    Attributes:
        format: one of ``FORMATS``.
        fields: keys of JSON and logfmt lines.
        zone: time zone of timestamps that do not name one; None means the zone of this host.
        multiline: "auto", "off", or an RE2 expression for the first line of an event.
        redact: additional secrets, as pairs of kind and RE2 expression.
    """

    format: str = "auto"
    fields: FieldNames = DEFAULT_FIELDS
    zone: ZoneInfo | None = None
    multiline: str = "auto"
    redact: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class ParserCounts:
    """Counters shared by the parsers of a process.

    Attributes:
        lines: lines that were read.
        invalid: lines that are not valid text.
        truncated: lines longer than the limit.
        redacted: redacted secrets by kind.
    """

    lines: int = 0
    invalid: int = 0
    truncated: int = 0
    redacted: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class ParsedEvent:
    """Event that is ready to be published.

    Attributes:
        timestamp: RFC 3339 in UTC.
        end: offset in the file after the last line of the event.
    """

    level: str
    message: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = field(default_factory=dict)
    end: int = 0

    @property
    def subject(self) -> str:
        """Subject of the event, without the deployment's prefix."""
        return _subject(self.level, self.source)

    def encode(self) -> bytes:
        """Encode the event as a message payload, shortened if it is too large or too deep."""
        metadata = self.metadata
        try:
            payload = self._encode_body(self.message, metadata)
        except orjson.JSONEncodeError:
            return self._encode_short()
        if len(payload) > MAX_EVENT_BYTES:
            return self._encode_short()
        if metadata and strict_json.is_deeper(payload, MAX_EVENT_DEPTH):
            return self._encode_short()
        return payload

    def _encode_body(self, message: str, metadata: dict[str, Any]) -> bytes:
        return orjson.dumps(
            {
                "event_type": "system_log",
                "timestamp": self.timestamp,
                "level": self.level,
                "message": message,
                "source": self.source,
                "metadata": metadata,
            }
        )

    def _encode_short(self) -> bytes:
        return self._encode_body(self.message[:_SHORT_MESSAGE], {"truncated": True})


@lru_cache(maxsize=4096)
def _subject(level: str, source: str) -> str:
    return SystemLog.subject_of(level=level, source=source)


class Parser:
    """Parser for the lines of one file.

    Args:
        settings: format, fields and other options.
        source: source of lines that do not name one.
        counts: counters, which parsers may share.

    Raises:
        ValueError: a setting is not valid.
    """

    def __init__(self, settings: ParseSettings, source: str, counts: ParserCounts) -> None:
        self._source = source
        self._counts = counts
        self._timestamps = TimestampParser(settings.zone)
        self._redactor = Redactor(counts.redacted, settings.redact)
        self._formats = FormatDetector(settings.format, settings.fields, self._timestamps)
        self._joiner = MultilineJoiner(settings.multiline, json=self._formats.may_be_json)

    def feed(
        self, lines: list[bytes], ends: list[int], now: float, truncated: frozenset[int] = frozenset()
    ) -> list[ParsedEvent]:
        """Add complete lines, in order; return the events that they complete.

        Args:
            lines: lines without line breaks.
            ends: offset in the file after each line and its line break.
            now: UNIX seconds, for lines without a timestamp.
            truncated: indexes of lines that were truncated at the limit.
        """
        if not lines:
            return []
        counts = self._counts
        counts.lines += len(lines)
        sizes = list(map(len, lines))
        if max(sizes) > MAX_LINE_BYTES:
            truncated |= {index for index, size in enumerate(sizes) if size > MAX_LINE_BYTES}
            lines = [line[:MAX_LINE_BYTES] for line in lines]
            sizes = list(map(len, lines))
        line_flags = dict.fromkeys(truncated, TRUNCATED)
        counts.truncated += len(truncated)
        texts, block = self._decode_lines(lines, truncated)
        self._flag_suspects(texts, block, line_flags)
        return self._parse_events(self._joiner.feed(texts, sizes, ends, line_flags), now)

    def flush(self, now: float) -> list[ParsedEvent]:
        """Return the event that waits for continuation lines, if there is one: none arrived in time."""
        return self._parse_events(self._joiner.flush(), now)

    @property
    def has_partial(self) -> bool:
        """Whether an event waits for continuation lines."""
        return self._joiner.has_partial

    def reset(self) -> None:
        """Discard the event that waits for continuation lines; its lines will be fed again."""
        self._joiner.reset()

    def _decode_lines(self, lines: list[bytes], truncated: frozenset[int]) -> tuple[list[str], bytes]:
        """Decode the lines; return the texts, and one UTF-8 block of them separated by line breaks."""
        # Decoding one block costs a fraction of decoding each line.
        block = b"\n".join(lines)
        if not truncated:
            try:
                texts = block.decode().split("\n")
            except UnicodeDecodeError:
                pass
            else:
                if len(texts) == len(lines):
                    return texts, block
        texts = []
        for index, line in enumerate(lines):
            text, valid = decode(line, truncated=index in truncated)
            if not valid:
                self._counts.invalid += 1
            # The block must have as many lines as there are texts, because matches are assigned to lines by
            # counting.
            texts.append(text.replace("\n", " "))
        return texts, "\n".join(texts).encode()

    def _flag_suspects(self, texts: list[str], block: bytes, line_flags: dict[int, int]) -> None:
        """Flag and clean the lines that need sanitizing."""
        if self._redactor.checks_all_lines:
            for index, text in enumerate(texts):
                line_flags[index] = line_flags.get(index, 0) | NEEDS_SANITIZING
                texts[index] = self._redactor.clean(text)
            return
        match = _SUSPECT.search(block)
        if match is None:
            return
        starts = list(accumulate((len(line) + 1 for line in block.split(b"\n")), initial=0))
        while match is not None:
            # A match may begin with the line break before its line.
            index = bisect_right(starts, match.end() - 1) - 1
            line_flags[index] = line_flags.get(index, 0) | NEEDS_SANITIZING
            texts[index] = self._redactor.clean(texts[index])
            # One match is enough to flag a line, so the search resumes at the next one, including the line
            # break before it: a card number needs a character before it, or the start of the block.
            if starts[index + 1] >= len(block):
                break
            match = _SUSPECT.search(block, starts[index + 1] - 1)

    def _parse_events(self, joined: list[JoinedEvent], now: float) -> list[ParsedEvent]:
        events = []
        self._timestamps.set_reference_time(now)
        formats = self._formats
        default_source = self._source
        now_text = format_time(now)
        for text, end, flags in joined:
            if flags & NEEDS_SANITIZING:
                if flags & IN_KEY:
                    text = secret_patterns.KEY_BEGIN + text
                fields = formats.read(text.strip(), self._redactor.redact_value)
            else:
                fields = formats.read(text.strip())
            level, message, source, timestamp, metadata = fields
            # Sanitizing may have made it unusable in a subject.
            if source is not None and flags & NEEDS_SANITIZING:
                source = legal_source(source)
            if flags & TRUNCATED:
                metadata["truncated"] = True
            events.append(
                ParsedEvent(
                    level or DEFAULT_LEVEL,
                    message,
                    source or default_source,
                    timestamp or now_text,
                    metadata,
                    end,
                )
            )
        return events


def parse(
    line: bytes, *, source: str, now: float, fields: FieldNames = DEFAULT_FIELDS, truncated: bool = False
) -> ParsedEvent:
    """Parse one line, without its line break, as a separate event.

    Args:
        line: any bytes.
        source: source of a line that does not name one.
        now: UNIX seconds, for a line without a timestamp.
        fields: keys of a JSON line.
        truncated: the line was longer than its limit.
    """
    parser = Parser(ParseSettings(fields=fields, multiline="off"), source, ParserCounts())
    for event in parser.feed([line], [len(line) + 1], now, frozenset({0} if truncated else ())):
        return event
    return ParsedEvent(DEFAULT_LEVEL, "", source, format_time(now), {"truncated": True} if truncated else {})
