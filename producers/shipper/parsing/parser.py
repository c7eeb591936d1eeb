"""Parser that turns the lines of a log file, whatever their bytes are, into events that can be published.

Invariants:

1. Every event is valid, at worst with the text of its lines as its message, shortened to fit.
2. No control character and no terminal escape sequence reaches the message, source or metadata of an event.
3. No secret that the redactor recognizes reaches an event or its subject.
4. Every line that is not blank is in exactly one event, in order, however the lines are split into blocks.

A block of lines is searched once, as bytes, for anything that needs sanitizing; only the lines with a match
are processed individually, which makes all other lines cheap.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final
from zoneinfo import ZoneInfo

from tickertape.contracts.events import format_time
from tickertape.producers.shipper import sanitize as sanitizing
from tickertape.producers.shipper.encodings.text_decoder import TextDecoder
from tickertape.producers.shipper.parsing import fix_messages
from tickertape.producers.shipper.parsing.container_formats import MARKERS, ContainerLine
from tickertape.producers.shipper.parsing.container_lines import JoinedLines, StreamJoiner
from tickertape.producers.shipper.parsing.container_paths import ContainerNames
from tickertape.producers.shipper.parsing.counts import ParserCounts
from tickertape.producers.shipper.parsing.formats import FORMATS, FormatDetector
from tickertape.producers.shipper.parsing.formats.fields import (
    DEFAULT_FIELDS,
    FieldNames,
    Fields,
    legal_source,
)
from tickertape.producers.shipper.parsing.formats.otlp import Records
from tickertape.producers.shipper.parsing.levels import DEFAULT_LEVEL, level_of
from tickertape.producers.shipper.parsing.moments import Contexts
from tickertape.producers.shipper.parsing.multiline import (
    IN_KEY,
    MAX_BYTES,
    NEEDS_SANITIZING,
    REPLACED,
    TRUNCATED,
    JoinedEvent,
    MultilineJoiner,
)
from tickertape.producers.shipper.parsing.observer import EventReader, ParseObserver
from tickertape.producers.shipper.parsing.own_formats.own_format import OwnFormat
from tickertape.producers.shipper.parsing.own_formats.reader import OwnFormats, start_pattern
from tickertape.producers.shipper.parsing.parsed_event import ParsedEvent, build_group
from tickertape.producers.shipper.parsing.timestamps import TimestampParser
from tickertape.producers.shipper.redaction import rules
from tickertape.producers.shipper.redaction.expressions import compile_bytes
from tickertape.producers.shipper.redaction.private_keys import KEY_BEGIN, PrefixedKeyLines
from tickertape.producers.shipper.redaction.redactor import Redactor
from tickertape.producers.shipper.sanitize import clean

__all__ = [
    "DEFAULT_FIELDS", "FORMATS", "MAX_LINE_BYTES", "FieldNames", "ParseSettings", "ParsedEvent",
    "Parser", "ParserCounts", "clean", "level_of",
]  # fmt: skip

MAX_LINE_BYTES: Final = MAX_BYTES
"""Bytes of a line that are shipped; ``metadata.truncated`` marks longer lines. Quoting can double the size,
and replacing invalid UTF-8 can triple it: either way an event stays within 256 KiB."""

_NEVER: Final = float("inf")
_EARLIEST: Final = 10**9
"""UNIX seconds in 2001, before which no file was written."""

_DAMAGE: Final = ((TRUNCATED, "truncated"), (REPLACED, "replaced_characters"))
_MARKERS: Final = frozenset(map(str.encode, MARKERS))
_SUSPECTS: Final = (sanitizing.SUSPECT, fix_messages.SUSPECT, rules.SUSPECT)
_SUSPECT: Final = compile_bytes(b"|".join(_SUSPECTS))
_SUSPECT_OR_MARKED: Final = compile_bytes(b"|".join((*_SUSPECTS, *map(re.escape, sorted(_MARKERS)))))


@dataclass(frozen=True, slots=True)
class ParseSettings:
    """Settings of a parser.

    Attributes:
        format: one of ``FORMATS``.
        fields: keys of JSON and logfmt lines.
        zone: time zone of timestamps that do not name one; None means the zone of this host.
        multiline: "auto", "off", or an RE2 expression for the first line of an event.
        redact: additional secrets, as pairs of kind and RE2 expression.
        access_levels: lines of access logs have a level by their status.
        own_formats: formats of the user for this file, which are tried first.
        encoding: canonical name of the encoding; "auto" detects that of each file.
        container: names of the container of the file, which are metadata of its events; None for others.
    """

    format: str = "auto"
    fields: FieldNames = DEFAULT_FIELDS
    zone: ZoneInfo | None = None
    multiline: str = "auto"
    redact: tuple[tuple[str, str], ...] = ()
    access_levels: bool = False
    own_formats: tuple[OwnFormat, ...] = ()
    encoding: str = "auto"
    container: ContainerNames | None = None


class Parser:
    """Parser for the lines of one file.

    Args:
        settings: format, fields and other options.
        source: source of lines that do not name one.
        counts: counters, which parsers may share.
        observer: learns how each event is read; None for none.
        on_encoding: called with the name of an encoding that is detected.

    Raises:
        ValueError: a setting is not valid.

    Attributes:
        decoder: decoder of the lines.
    """

    def __init__(
        self,
        settings: ParseSettings,
        source: str,
        counts: ParserCounts,
        observer: ParseObserver | None = None,
        on_encoding: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.decoder = TextDecoder(settings.encoding, on_encoding)
        self._source = source
        self._container = settings.container._asdict() if settings.container else {}
        self._written = _NEVER
        self._counts = counts
        make_timestamps = TimestampParser if observer is None else observer.make_timestamps
        self._timestamps = make_timestamps(settings.zone)
        self._contexts = Contexts()
        self._stream_times = TimestampParser(settings.zone)  # separate, for events not to depend on blocks
        self._redactor = Redactor(counts.redacted, settings.redact)
        self._keys = PrefixedKeyLines()
        detector = FormatDetector(
            settings.format, settings.fields, self._timestamps, access_levels=settings.access_levels
        )
        self._own = OwnFormats(settings.own_formats, settings.zone, self._redactor, detector, make_timestamps)
        self._formats: EventReader = self._own if settings.own_formats else detector
        if observer is not None:
            self._formats = observer.watch(self._formats, {**detector.readers, **self._own.readers})
        json = self._formats.may_be_json
        multiline = start_pattern(settings.own_formats, settings.multiline)
        self._streams = StreamJoiner(lambda: MultilineJoiner(multiline, json=json), self._redactor.clean)
        self._joiner = self._streams.plain

    def feed(
        self,
        lines: list[bytes],
        ends: list[int],
        now: float,
        truncated: frozenset[int] = frozenset(),
        *,
        written: float = _NEVER,
    ) -> list[ParsedEvent]:
        """Add complete lines, in order; return the events that they complete.

        Args:
            lines: lines without line breaks.
            ends: offset in the file after each line and its line break.
            now: UNIX seconds, for lines without a timestamp.
            truncated: indexes of lines that were truncated at the limit.
            written: UNIX seconds at which the file was written last, near which are timestamps without a
                year or date.
        """
        if written > _EARLIEST:  # not every archive keeps the time
            self._written = written
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
        texts, block, replaced = self.decoder.decode_lines(lines, ends, truncated)
        for index in replaced:
            line_flags[index] = line_flags.get(index, 0) | REPLACED
        counts.invalid += len(replaced)
        is_marked = self._flag_suspects(texts, block, line_flags)
        if self._keys.is_open or any("PRIVATE KEY" in texts[index] for index in line_flags):
            texts = [self._keys.redact(text) for text in texts]
        if is_marked or self._container or self._streams.is_waiting:
            return self._parse_streams(self._streams.feed(texts, ends, line_flags), now)
        return self._parse_events(self._joiner.feed(texts, sizes, ends, line_flags), now)

    def feed_streams(self, lines: list[ContainerLine], ends: list[int], now: float) -> list[ParsedEvent]:
        """Add lines of several streams, in order; return the events that they complete.

        Args:
            lines: lines as a runtime has received them; their texts are changed.
            ends: position after each line; it grows by the bytes of the line at least.
            now: UNIX seconds.
        """
        counts = self._counts
        counts.lines += len(lines)
        flags = dict.fromkeys(range(len(lines)), NEEDS_SANITIZING)
        for index, line in enumerate(lines):
            if len(line.text) > MAX_LINE_BYTES:
                line.text = line.text[:MAX_LINE_BYTES]
                flags[index] |= TRUNCATED
                counts.truncated += 1
            line.text = self._keys.redact(line.text)
        return self._parse_streams(self._streams.add(lines, ends, flags), now)

    def flush(self, now: float) -> list[ParsedEvent]:
        """Return the event that waits for continuation lines, if there is one: none arrived in time."""
        if self._container or self._streams.is_waiting:
            return self._parse_streams(self._streams.flush(), now)
        return self._parse_events(self._joiner.flush(), now)

    @property
    def has_partial(self) -> bool:
        """Whether an event waits for continuation lines."""
        return self._joiner.has_partial or self._streams.is_waiting

    def dates_at(self, offset: int) -> str:
        """Return what the lines up to an offset say about the dates of later ones, for a checkpoint."""
        return self._contexts.at(offset)

    def restart_dates(self, offset: int, context: str | None = None) -> None:
        """Continue after an offset, with what a checkpoint says about dates or this parser knew there."""
        context = self._contexts.at(offset) if context is None else context
        self._contexts.restart(context)
        self._timestamps.restore_context(context)

    def reset(self) -> None:
        """Discard the event that waits for continuation lines; its lines will be fed again."""
        self._streams.reset()
        self._keys.reset()

    def _flag_suspects(self, texts: list[str], block: bytes, line_flags: dict[int, int]) -> bool:
        """Flag and clean the lines that need sanitizing; return whether there may be lines of containers."""
        if self._redactor.checks_all_lines:
            for index, text in enumerate(texts):
                line_flags[index] = line_flags.get(index, 0) | NEEDS_SANITIZING
                texts[index] = self._redactor.clean(text)
            return any(marker in text for text in texts for marker in MARKERS)
        is_marked = False
        search = _SUSPECT_OR_MARKED.search
        match = search(block)
        if match is None:
            return False
        starts = list(accumulate((len(line) + 1 for line in block.split(b"\n")), initial=0))
        while match is not None:
            # A match may begin with the line break before its line.
            index = bisect_right(starts, match.end() - 1) - 1
            if not is_marked and match.group() in _MARKERS:
                # One is enough to know; it may hide a suspect part of its line.
                is_marked, search = True, _SUSPECT.search
                match = search(block, max(0, starts[index] - 1))
                continue
            line_flags[index] = line_flags.get(index, 0) | NEEDS_SANITIZING
            texts[index] = text = self._redactor.clean(texts[index])
            is_marked = is_marked or any(marker in text for marker in MARKERS)
            # One match is enough to flag a line, so the search resumes at the next one, including the line
            # break before it: a card number needs a character before it, or the start of the block.
            if starts[index + 1] >= len(block):
                break
            match = search(block, starts[index + 1] - 1)
        return is_marked

    def _parse_events(
        self, joined: list[JoinedEvent], now: float, *, now_text: str | None = None
    ) -> list[ParsedEvent]:
        events = []
        reference = min(now, self._written)
        self._timestamps.set_reference_time(reference)
        self._own.set_reference_time(reference)
        formats, moments = self._formats, self._timestamps.moments
        default_source = self._source
        now_text = now_text or format_time(now)
        for text, end, flags in joined:
            if flags & NEEDS_SANITIZING:
                if flags & IN_KEY:
                    text = KEY_BEGIN + text
                fields = self._check_fields(formats.read(text.strip(), self._redactor.redact_value))
            else:
                fields = formats.read(text.strip())
            if moments.changed:
                moments.changed = False
                self._contexts.record(end, moments.context)
            level, message, source, timestamp, metadata = fields
            if metadata.__class__ is Records:
                records = metadata.fields
                if flags & NEEDS_SANITIZING:
                    records = list(map(self._check_fields, records))
                events += build_group(records, default_source, now_text, end)
                continue
            if flags & (TRUNCATED | REPLACED):
                metadata |= {name: True for flag, name in _DAMAGE if flags & flag}
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

    def _check_fields(self, fields: Fields) -> Fields:
        """Check the source of a sanitized text, which may be illegal now, and read its FIX message."""
        level, message, source, timestamp, metadata = fields
        fix = fix_messages.read_messages(message)
        if fix is not None:
            metadata.setdefault("fix", fix)
            if timestamp is None:
                timestamp = self._timestamps.parse_value(f"{fix.get('sending_time')}Z")
        return level, message, source and legal_source(source), timestamp, metadata

    def _parse_streams(self, joined: list[JoinedLines], now: float) -> list[ParsedEvent]:
        """Parse the events of streams; their runtime wrote the fields that the line does not contain."""
        now_text = format_time(now)
        self._stream_times.set_reference_time(min(now, self._written))
        events = [(each.text, each.last, each.flags) for each in joined]
        parsed = self._parse_events(events, now, now_text=now_text)
        remaining = iter(joined)
        is_last = True
        for event in parsed:
            if is_last:
                line = (lines := next(remaining)).line
            is_last = event.may_end_batch  # of the records of one line
            event.may_end_batch = is_last and lines.may_end_batch
            if not event.may_end_batch:
                event.end = lines.first - (lines.last - event.end)
            if event.timestamp is now_text and line.time is not None:
                event.timestamp = self._stream_times.parse_text(line.time) or event.timestamp
            if line.source is not None and event.source == self._source:
                event.source = legal_source(line.source) or event.source
            if line.level is not None:
                event.level = line.level
            if (metadata := line.metadata) and lines.flags & NEEDS_SANITIZING:
                metadata = self._redactor.redact_value(metadata)
            if metadata or self._container:
                event.metadata = {**self._container, **metadata, **event.metadata}
        return parsed
