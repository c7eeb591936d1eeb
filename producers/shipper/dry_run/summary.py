"""Summary of a dry run: a table of all files, their totals, and what may need attention."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text
from tickertape.producers.shipper.dry_run.examine import FileReport
from tickertape.producers.shipper.dry_run.layout import (
    NOTE,
    level_parts,
    number_of,
    print_row,
    print_wrapped,
    share,
)

from tickertape.process.terminal import Terminal
from tickertape.text import printable

MIN_WIDTHS: Final = {"lines": 100, "format": 72, "joined": 72, "redacted": 60}
"""Columns of a terminal from which the table has these columns; the others are always shown."""

MIN_NAME: Final = 12
"""Minimum columns of the name of a file."""

_LABEL: Final = 10


def print_summary(console: Terminal, files: Sequence[FileReport], width: int, *, zone: bool) -> None:
    """Print the summary of at least one file.

    Args:
        console: terminal to print to.
        files: reports; of one with a problem, only its name is shown.
        width: columns of the table.
        zone: whether a time zone was set for times that do not name one.
    """
    read = [file for file in files if not file.problem]
    if len(files) > 1:
        console.print(_table(files, read, width), width=width)
        levels: Counter[str] = sum((file.levels for file in read), Counter())
        redacted: Counter[str] = sum((file.counts.redacted for file in read), Counter())
        console.print()
        if levels:
            parts = level_parts(console, levels)
            print_row(console, f"{'levels':<{_LABEL}}", parts, width, separator="  ")
        if redacted:
            ranked = redacted.most_common()
            kinds = [Text.assemble((kind, "magenta"), f" {number:,}") for kind, number in ranked]
            print_row(console, f"{'redacted':<{_LABEL}}", kinds, width)
        console.print()
    for note in _notes(files, read, zone=zone):
        print_wrapped(console, Text("! ", f"bold {NOTE}"), note, width)


def _table(files: Sequence[FileReport], read: Sequence[FileReport], width: int) -> Table:
    events = sum(file.events for file in read)
    total = (
        number_of(len(files), "file"),
        "",
        f"{sum(file.counts.lines for file in read):,}",
        f"{events:,}",
        f"{share(sum(file.timed for file in read), events)} ",
        share(events - sum(file.assumed_levels for file in read), events),
        f"{sum(file.joined for file in read):,}",
        f"{sum(file.counts.redacted.total() for file in read):,}",
    )
    heads = ("file", "format", "lines", "events", "times ", "levels", "joined", "redacted")
    columns = [index for index, head in enumerate(heads) if width >= MIN_WIDTHS.get(head, 0)]
    table = Table(
        box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True, show_footer=True,
        show_edge=False, header_style="dim", border_style="dim", expand=True,
    )  # fmt: skip
    for index in columns:
        table.add_column(
            heads[index],
            Text(total[index], "bold"),
            justify="left" if index < 2 else "right",
            no_wrap=True,
            overflow="ellipsis",
            min_width=MIN_NAME if not index else None,
            ratio=1 if not index else None,
        )
    folder = _common_folder(files)
    for file in files:
        cells = list(_cells(file, folder))
        table.add_row(*(cells[index] for index in columns))
    return table


def _cells(file: FileReport, folder: str) -> Iterator[Text]:
    if file.problem:
        yield Text(_name(file, folder), "red")
        yield Text("not read", "red")
        yield from [Text()] * 6
        return
    yield Text(_name(file, folder))
    ranked = file.formats.most_common(2)
    others = "+" if len(ranked) > 1 else ""
    yield Text(f"{ranked[0][0]}{others}", "cyan") if ranked else Text("-", "dim")
    yield Text(f"{file.counts.lines:,}")
    yield Text(f"{file.events:,}", "" if file.events else "dim")
    is_assumed = bool(file.without_zone or file.without_year or file.without_date)
    times = _share(file.timed, file.events, "red")
    # The mark or a space, so that the numbers are aligned.
    yield times.append("~" if is_assumed else " ", NOTE)
    yield _share(file.events - file.assumed_levels, file.events, "")
    yield _count(file.joined, "cyan")
    yield _count(file.counts.redacted.total(), "bold magenta")


def _share(part: int, whole: int, style_of_none: str) -> Text:
    style = "green" if part == whole else NOTE if part else style_of_none
    return Text.assemble((share(part, whole), style if whole else "dim"))


def _count(number: int, style: str) -> Text:
    return Text(f"{number:,}", style) if number else Text("-", "dim")


def _notes(files: Sequence[FileReport], read: Sequence[FileReport], *, zone: bool) -> Iterator[str]:
    def which(found: Iterable[object]) -> str:
        return number_of(sum(map(bool, found)), "file")

    if len(files) > len(read):
        yield f"{which(file.problem for file in files)} not read"
    if any(file.events and not file.timed for file in read):
        untimed = which(file.events and not file.timed for file in read)
        yield f"{untimed} without times: events have the time at which they are read; see --format-file"
    if any(file.without_zone for file in read) and not zone:
        yield f"{which(file.without_zone for file in read)} (~) with times that name no zone: check --zone"
    if any(file.without_year or file.without_date for file in read):
        undated = which(file.without_year or file.without_date for file in read)
        yield f"{undated} (~) with times without a year or date: they are taken from the last write"
    if any(file.unknown_zones for file in read):
        yield f"{which(file.unknown_zones for file in read)} with an ambiguous time zone: set --zone"


def _common_folder(files: Sequence[FileReport]) -> str:
    folders = [os.path.dirname(file.path) for file in files if file.path != "-"]
    return os.path.commonpath(folders) if folders else "/"


def _name(file: FileReport, folder: str) -> str:
    return "standard input" if file.path == "-" else printable(os.path.relpath(file.path, folder))
