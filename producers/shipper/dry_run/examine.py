"""Examination of a file: what the shipper would read in it, without shipping anything.

Invariant: the events are those that the shipper would build from the same bytes, by the same parser.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tickertape.contracts.events import format_time
from tickertape.producers.shipper.encodings.names import UTF_8
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.observer import ParseObserver, Reading
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts

MAX_SAMPLE: Final = 2000
"""Characters of the message of a sample."""


@dataclass(slots=True)
class Sample:
    """Event that is shown.

    Attributes:
        event: the event, with a shortened message.
        lines: number of its lines.
        has_time: its text contains a time; else its time is that of the examination.
    """

    event: ParsedEvent
    lines: int
    has_time: bool


@dataclass(slots=True)
class FileReport:
    """Report on one file.

    Attributes:
        path: path of the file, or ``-`` for standard input.
        source: source of events whose text names none.
        size: size in bytes.
        examined: bytes that were read.
        problem: why it was not read; empty if it was.
        is_failure: the problem ends the dry run with the exit code of a failure.
        encoding: name of its encoding.
        counts: lines and redacted secrets.
        events: number of events.
        formats: events by format.
        levels: events by level, including the assumed ones.
        assumed_levels: events whose text contains no level.
        shipped: events that would be shipped: not below the minimum level.
        timed: events with a time of their own.
        without_zone: events whose time does not name a time zone.
        without_year: events whose time has a date and no year.
        without_date: events whose time has no date.
        unknown_zones: events whose time is not used, by the ambiguous name of its time zone.
        first: earliest time, or an empty text.
        last: latest time, or an empty text.
        joined: events of several lines.
        joined_lines: lines of these.
        samples: events to show.
    """

    path: str
    source: str = ""
    size: int = 0
    examined: int = 0
    problem: str = ""
    is_failure: bool = True
    encoding: str = UTF_8
    counts: ParserCounts = field(default_factory=ParserCounts)
    events: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    assumed_levels: int = 0
    shipped: int = 0
    timed: int = 0
    without_zone: int = 0
    without_year: int = 0
    without_date: int = 0
    unknown_zones: Counter[str] = field(default_factory=Counter)
    first: str = ""
    last: str = ""
    joined: int = 0
    joined_lines: int = 0
    samples: list[Sample] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether the file was read to its end."""
        return self.examined >= self.size


class Examination:
    """Examination of one file.

    Args:
        path: path of the file for the report.
        source: source of events whose text names none.
        make_parser: factory of its parser, from its counters and its observer.
        is_shipped: returns whether an event would be shipped.
        now: UNIX seconds, as the time of events without one.

    Attributes:
        report: the report, complete when ``read`` has ended.
    """

    def __init__(
        self,
        path: str,
        source: str,
        make_parser: Callable[[ParserCounts, ParseObserver], Parser],
        is_shipped: Callable[[ParsedEvent], bool],
        now: float,
    ) -> None:
        self.report = FileReport(path, source)
        self._observer = ParseObserver()
        self._parser = make_parser(self.report.counts, self._observer)
        self._is_shipped = is_shipped
        self._now = now
        self._now_text = format_time(now)
        # The first event of each level and of each other kind, with its number.
        self._samples: dict[str, tuple[int, Sample]] = {}

    def read(self, fd: int, limit: int | None) -> Iterator[None]:
        """Read a file, and pause after each part.

        Args:
            fd: descriptor of the file; closed at the end.
            limit: bytes after which to stop at the end of a line; None reads all that the file contains now.

        Raises:
            OSError: the file cannot be read.
        """
        report = self.report
        report.size = os.fstat(fd).st_size
        end = report.size if limit is None else min(limit, report.size)
        file = TailedFile(report.path, fd, self._parser, self._now)
        try:
            while file.read_offset < end and not file.at_eof and not file.truncated:
                self._add(file.read(self._now))
                yield
            # Beyond the limit, the last line is incomplete.
            self._add(
                file.finish(self._now) if file.read_offset >= report.size else self._parser.flush(self._now)
            )
            report.examined, report.encoding = file.read_offset, self._parser.decoder.encoding
        finally:
            file.close()
        # One event can be the first of several kinds.
        report.samples = [sample for _, sample in sorted(dict(self._samples.values()).items())]

    def _add(self, events: list[ParsedEvent]) -> None:
        for event, reading in zip(events, self._observer.take(), strict=True):
            self._count(event, reading)

    def _count(self, event: ParsedEvent, reading: Reading) -> None:
        report = self.report
        report.events += 1
        report.formats[reading.format] += 1
        report.levels[event.level] += 1
        report.assumed_levels += not reading.has_level
        report.shipped += self._is_shipped(event)
        # The runtime of a container, or a FIX message, may have the time that the text lacks.
        has_time = reading.time is not None or event.timestamp != self._now_text
        if has_time:
            report.timed += 1
            time = event.timestamp[:-1]
            report.first = min(report.first or time, time)
            report.last = max(report.last, time)
        elif "unknown_zone" in event.metadata:
            report.unknown_zones[str(event.metadata["unknown_zone"])] += 1
        if reading.time is not None:
            report.without_zone += not reading.time.zone
            report.without_date += not reading.time.date
            report.without_year += reading.time.date and not reading.time.year
        if reading.lines > 1:
            report.joined += 1
            report.joined_lines += reading.lines
        self._keep_sample(event, reading, has_time=has_time)

    def _keep_sample(self, event: ParsedEvent, reading: Reading, *, has_time: bool) -> None:
        kinds = [event.level]
        if reading.lines > 1:
            kinds.append("joined")
        if "[redacted:" in event.message:
            kinds.append("redacted")
        if not has_time:
            kinds.append("untimed")
        new = [kind for kind in kinds if kind not in self._samples]
        if not new:
            return
        message = event.message[:MAX_SAMPLE]
        shown = ParsedEvent(event.level, message, event.source, event.timestamp, event.metadata)
        sample = (self.report.events, Sample(shown, reading.lines, has_time))
        self._samples.update(dict.fromkeys(new, sample))
