"""Report of a dry run: a block for each file, and a summary of all.

Invariant: text from files cannot control the terminal, and takes the columns that the layout expects.
"""

import re
import time
from collections.abc import Iterator
from typing import Any, Final, Literal

import orjson
from rich.text import Text
from tickertape.producers.shipper.dry_run.examine import FileReport, Sample
from tickertape.producers.shipper.dry_run.layout import (
    MAX_WIDTH,
    NOTE,
    can_encode,
    format_bytes,
    level_parts,
    number_of,
    print_row,
    print_wrapped,
)
from tickertape.producers.shipper.dry_run.summary import print_summary
from tickertape.producers.shipper.encodings.names import UTF_8

from tickertape.process.terminal import LEVEL_STYLES, Terminal
from tickertape.text import join_lines, printable

MAX_FORMATS: Final = 4
"""Formats of one file that are listed; the others are counted together."""

MAX_FIELDS: Final = 20
"""Fields of the metadata of a sample that may be shown."""

LABEL: Final = 10
"""Columns of a label, after the indentation and with the space after it."""

_REDACTED: Final = re.compile(r"\[redacted:[\w-]+\]")
_SPACE: Final = re.compile(r"\s+")


class Report:
    """Report that is printed file by file.

    Args:
        zone: time zone of times that do not name one; None means that of this host.
        is_limited: only the beginning of each file is read.
        console: terminal to print to; None uses standard output.
    """

    def __init__(self, zone: str | None, *, is_limited: bool, console: Terminal | None = None) -> None:
        self._console = console or Terminal()
        self._width = min(self._console.width, MAX_WIDTH)
        self._zone = zone
        self._is_limited = is_limited
        self._files: list[FileReport] = []
        self._compressed = 0

    @property
    def has_failed(self) -> bool:
        """Whether a file could not be read that the shipper would read."""
        return any(file.problem and file.is_failure for file in self._files)

    def skip_compressed(self, number: int) -> None:
        """Count compressed files, which are read only as parts of their logs."""
        self._compressed += number

    def add(self, file: FileReport) -> None:
        """Print the block of a file."""
        self._files.append(file)
        self._print(self._heading(file))
        if file.problem:
            self._print(Text(f"  {printable(file.problem)}", "red"))
        elif not file.events:
            self._print(Text("  empty" if not file.counts.lines else "  only blank lines", "dim"))
        else:
            for label, parts in self._rows(file):
                separator = "  " if label == "levels" else " · "
                print_row(self._console, f"  {label:<{LABEL}}", parts, self._width, separator=separator)
            self._print(Text())
            for sample in file.samples:
                self._print(self._sample(file, sample))
        self._print(Text())
        file.samples = []  # the summary needs only the numbers

    def finish(self) -> None:
        """Print the summary."""
        if self._files:
            print_summary(self._console, self._files, self._width, zone=self._zone is not None)
        sentences = []
        if self._compressed:
            files = number_of(self._compressed, "compressed file")
            sentences.append(f"{files} left out: compressed files are read only as parts of their logs.")
        partial = sum(not file.is_complete for file in self._files if not file.problem)
        if self._is_limited and partial:
            start = "the file" if len(self._files) == 1 else number_of(partial, "file")
            sentences.append(f"Only the start of {start} was read; --once reads everything.")
        sentences.append("Dry run: nothing was shipped, and no state was changed.")
        for sentence in sentences:
            print_wrapped(self._console, Text(), sentence, self._width, "dim")

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    def _heading(self, file: FileReport) -> Text:
        name = "standard input" if file.path == "-" else printable(file.path)
        size = "" if file.problem else _size(file)
        folder, slash, base = name.rpartition("/")
        heading = Text.assemble((f"{folder}{slash}", "dim"), (base, "bold"))
        space = self._width - heading.cell_len - len(size)
        return heading.append(" " * max(2, space)).append(size, "dim") if size else heading

    def _rows(self, file: FileReport) -> Iterator[tuple[str, list[Text]]]:
        yield "format", list(_formats(file))
        if file.encoding != UTF_8:
            yield "encoding", [Text(file.encoding, "cyan")]
        yield "events", list(_events(file))
        yield "times", list(self._times(file))
        yield "levels", [*level_parts(self._console, file.levels), *_assumed_levels(file)]
        if file.counts.redacted:
            ranked = file.counts.redacted.most_common()
            yield "redacted", [Text.assemble((kind, "magenta"), f" {number:,}") for kind, number in ranked]

    def _times(self, file: FileReport) -> Iterator[Text]:
        if file.timed:
            if file.timed < file.events:
                yield Text(f"{file.timed:,} of {file.events:,}", NOTE)
            yield Text(_range(file.first, file.last))
        else:
            yield Text("none: events have the time at which they are read", NOTE)
        zone = self._zone or f"{time.localtime().tm_zone}, of this host"
        for number, missing, assumed in (
            (file.without_zone, "zone", zone),
            (file.without_year, "year", "as of the last write"),
            (file.without_date, "date", "as of the last write"),
        ):
            if number:
                some = "" if number == file.events else f"{number:,} with "
                style = "" if missing == "zone" and self._zone is not None else NOTE
                yield Text(f"{some}no {missing}: {assumed}", style)
        for name, number in file.unknown_zones.most_common():
            yield Text(f"{number:,} not used: {printable(name)} is ambiguous", NOTE)

    def _sample(self, file: FileReport, sample: Sample) -> Text:
        event = sample.event
        shown = event.timestamp[:19].replace("T", " ") if sample.has_time else f"{'no time':<19}"
        level = (f"{event.level:<8}", LEVEL_STYLES[event.level])
        line = Text.assemble("  ", (shown, "dim"), "  ", level, "  ")
        if event.source != file.source:
            line.append(f"{printable(event.source)}: ", "bold")
        more = f" +{number_of(sample.lines - 1, 'line')}" if sample.lines > 1 else ""
        first = event.message.partition("\n")[0] if more else join_lines(event.message)
        line.append(printable(_SPACE.sub(" ", first)).strip())
        fields = " ".join(_fields(event.metadata))
        if fields and not more:
            line.append(f"  {fields}", "dim")
        line.highlight_regex(_REDACTED, "not dim bold magenta")
        overflow: Literal["ellipsis", "crop"] = "ellipsis" if can_encode(self._console, "…") else "crop"
        line.truncate(max(40, self._width - len(more)), overflow=overflow)
        return line.append(more, "cyan")


def _fields(metadata: dict[str, Any]) -> Iterator[str]:
    """Yield the fields of metadata in one line each."""
    for name, value in list(metadata.items())[:MAX_FIELDS]:
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        yield printable(f"{name}={_SPACE.sub(' ', text[:200])}")


def _formats(file: FileReport) -> Iterator[Text]:
    ranked = file.formats.most_common()
    if len(ranked) == 1:
        yield Text(ranked[0][0], "cyan")
        return
    for name, number in ranked[:MAX_FORMATS]:
        yield Text.assemble((name, "cyan"), f" {number:,}")
    if ranked[MAX_FORMATS:]:
        yield Text(f"others {sum(number for _, number in ranked[MAX_FORMATS:]):,}")


def _events(file: FileReport) -> Iterator[Text]:
    yield Text(f"{file.events:,} from {number_of(file.counts.lines, 'line')}")
    if file.joined:
        yield Text(f"{file.joined:,} joined from {number_of(file.joined_lines, 'line')}", "cyan")
    if file.shipped < file.events:
        yield Text(f"{file.events - file.shipped:,} below the minimum level", NOTE)
    if file.counts.truncated:
        yield Text(f"{number_of(file.counts.truncated, 'line')} truncated", NOTE)
    if file.counts.invalid:
        yield Text(f"{number_of(file.counts.invalid, 'line')} not valid text", NOTE)


def _assumed_levels(file: FileReport) -> Iterator[Text]:
    if file.assumed_levels:
        some = "no line with" if file.assumed_levels == file.events else f"{file.assumed_levels:,} without"
        yield Text(f"({some} a level)", NOTE)


def _range(first: str, last: str) -> str:
    start, end = first[:19].replace("T", " "), last[:19].replace("T", " ")
    if start == end:
        return f"{start} UTC"
    return f"{start} to {end[11:] if start[:10] == end[:10] else end} UTC"


def _size(file: FileReport) -> str:
    if file.is_complete:
        return format_bytes(file.size)
    if file.path == "-":
        return f"first {format_bytes(file.examined)}"
    return f"first {format_bytes(file.examined)} of {format_bytes(file.size)}"
