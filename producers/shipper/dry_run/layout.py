"""Layout of the report of a dry run: rows that wrap between their parts, bars, numbers and shares."""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.text import Text
from tickertape.contracts.subjects import LEVELS

from tickertape.process.terminal import LEVEL_STYLES, Terminal

MAX_WIDTH: Final = 120
"""Maximum columns of the report; longer lines are hard to read even on wide terminals."""

NOTE: Final = "yellow"
"""Style of what the shipper assumes, and of what may need attention."""

BAR: Final = 12
"""Columns of a bar."""

_BAR_STYLES: Final = {**LEVEL_STYLES, "DEBUG": "bright_black", "CRITICAL": "bright_magenta"}
_BLOCK: Final = "━"


def print_row(
    console: Terminal, label: str, parts: Sequence[Text], width: int, *, separator: str = " · "
) -> None:
    """Print a label and parts; those that do not fit in the line begin another one, below the first part.

    Args:
        console: terminal to print to.
        label: label with the space after it.
        parts: at least one part.
        width: columns of a line.
        separator: text between two parts.
    """
    if not can_encode(console, separator):
        separator = ", "
    line = Text.assemble((label, "dim"))
    is_empty = True
    for part in parts:
        if not is_empty and line.cell_len + len(separator) + part.cell_len > width:
            console.print(line, soft_wrap=True)
            line, is_empty = Text(" " * len(label)), True
        if not is_empty:
            line.append(separator, "dim")
        line.append_text(part)
        is_empty = False
    console.print(line, soft_wrap=True)


def print_wrapped(console: Terminal, mark: Text, text: str, width: int, style: str = "") -> None:
    """Print a sentence whose further lines begin below its first word."""
    for index, line in enumerate(Text(text, style).wrap(console, width - mark.cell_len)):
        line.rstrip()
        start = Text(" " * mark.cell_len) if index else mark
        console.print(Text.assemble(start, line), soft_wrap=True)


def level_parts(console: Terminal, levels: Mapping[str, int]) -> list[Text]:
    """Return a bar of the shares of the levels, if there are colours, and each level with its number.

    The worst level comes first, and each has at least a column of the bar.
    """
    found = [level for level in reversed(LEVELS) if levels.get(level)]
    parts = [Text.assemble((level, LEVEL_STYLES[level]), f" {levels[level]:,}") for level in found]
    has_colours = console.color_system is not None and not console.no_color
    if not found or not has_colours or not can_encode(console, _BLOCK):
        return parts
    total = sum(levels.values())
    columns = {level: max(1, round(BAR * levels[level] / total)) for level in found}
    # The largest share makes up for the others.
    columns[max(found, key=levels.__getitem__)] += BAR - sum(columns.values())
    bar = Text.assemble(*((_BLOCK * columns[level], _BAR_STYLES[level]) for level in found))
    return [bar, *parts]


def can_encode(console: Terminal, text: str) -> bool:
    """Return whether the encoding of a terminal has all characters of a text."""
    try:
        text.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def share(part: int, whole: int) -> str:
    """Return a share in percent, which is 0 or 100 only if that is exact."""
    if not whole:
        return "-"
    percent = round(100 * part / whole)
    if percent == 100 and part < whole:
        return ">99%"
    return "<1%" if not percent and part else f"{percent}%"


def number_of(value: int, noun: str) -> str:
    """Return a number with separators, and a noun with ``s`` unless the number is 1."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"


def format_bytes(size: float) -> str:
    """Return a number of bytes with a unit."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
