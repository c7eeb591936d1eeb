"""How findings are shown: a line each for pipes, one JSON object for programs, a page for people."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tickertape.cli.check.finding import Finding, State

Sections = Mapping[str, Sequence[Finding]]
"""Findings under the heading that people see."""

_COLOURS: Final[dict[State, str]] = {"ok": "green", "note": "yellow", "mend": "bold red"}
_MARKS: Final[dict[State, str]] = {"ok": "✓", "note": "•", "mend": "✗"}
_PLAIN_MARKS: Final[dict[State, str]] = {"ok": " ", "note": "-", "mend": "!"}
"""For terminals that have no such characters."""

_WIDEST: Final = 110
"""Columns; longer lines are hard to read, however wide the window is."""


def mended(sections: Sections) -> bool:
    """True when nothing is left to mend."""
    return not any(one.state == "mend" for findings in sections.values() for one in findings)


def as_json(sections: Sections) -> str:
    """``{"ok", "checks": [{"name", "state", "text", "do"}]}`` on one line."""
    checks = [
        {"name": one.name, "state": one.state, "text": one.text, "do": one.do}
        for findings in sections.values()
        for one in findings
    ]
    return orjson.dumps({"ok": mended(sections), "checks": checks}).decode()


def show(sections: Sections, console: Console | None = None) -> None:
    """Print for whoever is there: a page on a terminal, else a line for each finding.

    Args:
        sections: all findings.
        console: standard output without it.
    """
    console = console or Console()
    if not console.is_terminal:
        for findings in sections.values():
            for one in findings:
                print(one, file=console.file)
        return
    marks = _MARKS if console.encoding.lower().startswith("utf") else _PLAIN_MARKS
    console = Console(file=console.file, width=min(console.width, _WIDEST), force_terminal=True)
    for heading, findings in sections.items():
        if findings:
            console.print(Text(heading, style="bold"))
            console.print(_table(findings, marks, "→" if marks is _MARKS else "->"))
            console.print()
    console.print(_sum([one for findings in sections.values() for one in findings]))


def _table(findings: Sequence[Finding], marks: Mapping[State, str], arrow: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=6, no_wrap=True, justify="left")
    table.add_column(ratio=1, overflow="fold")
    for one in findings:
        table.add_row(Text(f"{marks[one.state]} {one.state}", style=_COLOURS[one.state]), Text(one.text))
        if one.do:
            # Where there is nothing to mend, what may be done stands back.
            do = Table.grid(padding=(0, 1))
            do.add_column(no_wrap=True)
            do.add_column(ratio=1, overflow="fold")
            style = "bold" if one.state == "mend" else "dim"
            do.add_row(Text(arrow, style=style), Text(one.do, style=style))
            table.add_row("", do)
    return table


def _sum(findings: Sequence[Finding]) -> Text:
    counts = {state: sum(one.state == state for one in findings) for state in _COLOURS}
    if counts["mend"]:
        line = Text(f"{counts['mend']} to mend", style=_COLOURS["mend"])
    else:
        line = Text("Nothing to mend", style=_COLOURS["ok"])
    return line.append(f", {counts['note']} to note, {counts['ok']} ok", style="not bold default")
