"""Lines of logs become events, whatever their bytes are: the way from a file's lines to what is published.

Invariants:

1. Every event is legal, at worst with the text of its lines as its message, shortened to fit.
2. No control character and no terminal escape reaches an event, in its message, its source or its metadata.
3. No secret that ``redact`` knows reaches an event or its subject.
4. Every line that is not blank is in exactly one event, in order, however the lines are split into blocks.

A block of lines is searched once for what needs care, as bytes; only the lines found there are looked at
one by one, which is what makes the others cheap.
"""

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
from tickertape.contracts import strict_json as json_text
from tickertape.contracts.events import MAX_EVENT_BYTES, MAX_EVENT_DEPTH, SystemLog, format_time
from tickertape.producers.shipper import sanitize as cleaning
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
"""Bytes of a line that travel; the rest is cut, and ``metadata.truncated`` says so. Quoting can double it,
and bytes that are no UTF-8 treble it: either way an event stays within its 256 KiB."""

_SHORT_MESSAGE: Final = 32 * 1024
"""Characters of a message that fit into an event, whatever they are."""

_SUSPECT: Final = secret_patterns.compile_bytes(cleaning.SUSPECT + b"|" + secret_patterns.SUSPECT)


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """How the lines of files are read.

    Attributes:
        format: one of ``FORMATS``.
        fields: keys to look for in JSON lines and logfmt.
        zone: of times that name none; None means this host's.
        multiline: "auto", "off", or an expression for the first line of an event.
        redact: more secrets, as their kind and an expression for them.
    """

    format: str = "auto"
    fields: FieldNames = DEFAULT_FIELDS
    zone: ZoneInfo | None = None
    multiline: str = "auto"
    redact: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class ParserCounts:
    """What the parsers of a process have seen.

    Attributes:
        lines: lines.
        invalid: lines with bytes that are no text.
        cut: lines longer than the limit.
        redacted: secrets by their kind.
    """

    lines: int = 0
    invalid: int = 0
    truncated: int = 0
    redacted: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class ParsedEvent:
    """One event, ready to be published.

    Attributes:
        timestamp: RFC 3339 in UTC.
        end: offset in the file after its last line.
    """

    level: str
    message: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = field(default_factory=dict)
    end: int = 0

    @property
    def subject(self) -> str:
        """Where it goes, without the deployment's prefix."""
        return _subject(self.level, self.source)

    def encode(self) -> bytes:
        """Write it as the payload of a message; what does not fit into an event is left out."""
        metadata = self.metadata
        try:
            payload = self._body(self.message, metadata)
        except orjson.JSONEncodeError:
            return self._short()
        if len(payload) > MAX_EVENT_BYTES:
            return self._short()
        if metadata and json_text.is_deeper(payload, MAX_EVENT_DEPTH):
            return self._short()
        return payload

    def _body(self, message: str, metadata: dict[str, Any]) -> bytes:
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

    def _short(self) -> bytes:
        return self._body(self.message[:_SHORT_MESSAGE], {"truncated": True})


@lru_cache(maxsize=4096)
def _subject(level: str, source: str) -> str:
    return SystemLog.subject_of(level=level, source=source)


class Parser:
    """Lines of one file become events.

    Args:
        settings: how they are read.
        source: of lines that name none.
        counts: may be shared by parsers.

    Raises:
        ValueError: a setting is not legal.
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
        """Take complete lines, in order; return the events that are complete.

        Args:
            lines: without their line breaks.
            ends: offsets in the file after each line and its break.
            now: UNIX seconds, for lines that say no time.
            cut: indexes of lines that were cut at the limit.
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
        flags = dict.fromkeys(truncated, TRUNCATED)
        counts.truncated += len(truncated)
        texts, block = self._texts(lines, truncated)
        self._flag(texts, block, flags)
        return self._events(self._joiner.feed(texts, sizes, ends, flags), now)

    def flush(self, now: float) -> list[ParsedEvent]:
        """Return the event that waits for more lines, if there is one: its rest did not come in time."""
        return self._events(self._joiner.flush(), now)

    @property
    def has_partial(self) -> bool:
        """True while an event waits for more lines."""
        return self._joiner.has_partial

    def reset(self) -> None:
        """Forget what waits; its lines will come again."""
        self._joiner.reset()

    def _texts(self, lines: list[bytes], truncated: frozenset[int]) -> tuple[list[str], bytes]:
        """The lines as text, and all of them in UTF-8 with a line break between each two."""
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
            texts.append(text.replace("\n", " "))
        return texts, "\n".join(texts).encode()

    def _flag(self, texts: list[str], block: bytes, flags: dict[int, int]) -> None:
        """Mark the lines that need care, and clean them."""
        if self._redactor.checks_all_lines:
            for index, text in enumerate(texts):
                flags[index] = flags.get(index, 0) | NEEDS_SANITIZING
                texts[index] = clean(text)
            return
        found = _SUSPECT.search(block)
        if found is None:
            return
        starts = list(accumulate((len(line) + 1 for line in block.split(b"\n")), initial=0))
        while found is not None:
            # What is found may begin with the line break before it.
            index = bisect_right(starts, found.end() - 1) - 1
            flags[index] = flags.get(index, 0) | NEEDS_SANITIZING
            texts[index] = clean(texts[index])
            if starts[index + 1] >= len(block):
                break
            found = _SUSPECT.search(block, starts[index + 1])

    def _events(self, joined: list[JoinedEvent], now: float) -> list[ParsedEvent]:
        events = []
        self._timestamps.set_reference_time(now)
        formats = self._formats
        own = self._source
        now_text = format_time(now)
        for text, end, flag_bits in joined:
            if flag_bits & NEEDS_SANITIZING:
                if flag_bits & IN_KEY:
                    text = secret_patterns.KEY_BEGIN + text
                fields = formats.read(text.strip(), self._redactor.redact_value)
            else:
                fields = formats.read(text.strip())
            level, message, source, timestamp, metadata = fields
            if source is not None and flag_bits & NEEDS_SANITIZING:
                source = legal_source(source)
            if flag_bits & TRUNCATED:
                metadata["truncated"] = True
            events.append(
                ParsedEvent(
                    level or DEFAULT_LEVEL, message, source or own, timestamp or now_text, metadata, end
                )
            )
        return events


def parse(
    line: bytes, *, source: str, now: float, fields: FieldNames = DEFAULT_FIELDS, truncated: bool = False
) -> ParsedEvent:
    """Read one line, without its line break, as an event of its own.

    Args:
        line: any bytes.
        source: for a line that names none.
        now: UNIX seconds, for a line that says no time.
        fields: keys to look for in a JSON line.
        cut: the line was longer than its limit.
    """
    parser = Parser(ParseSettings(fields=fields, multiline="off"), source, ParserCounts())
    for event in parser.feed([line], [len(line) + 1], now, frozenset({0} if truncated else ())):
        return event
    return ParsedEvent(DEFAULT_LEVEL, "", source, format_time(now), {"truncated": True} if truncated else {})
