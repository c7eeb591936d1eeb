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

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "error": "bold red"}
_MARKS: Final[dict[State, str]] = {"ok": "✓", "warn": "•", "error": "✗"}
_PLAIN_MARKS: Final[dict[State, str]] = {"ok": " ", "warn": "-", "error": "!"}
"""For terminals that have no such characters."""

_WIDEST: Final = 110
"""Columns; longer lines are hard to read, however wide the window is."""


def passed(sections: Sections) -> bool:
    """Tell whether no finding is an error."""
    return not any(one.state == "error" for findings in sections.values() for one in findings)


def as_json(sections: Sections) -> str:
    """``{"ok", "checks": [{"name", "state", "text", "hint"}]}`` on one line."""
    checks = [
        {"name": one.name, "state": one.state, "text": one.text, "hint": one.hint}
        for findings in sections.values()
        for one in findings
    ]
    return orjson.dumps({"ok": passed(sections), "checks": checks}).decode()


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
    table.add_column(width=7, no_wrap=True, justify="left")
    table.add_column(ratio=1, overflow="fold")
    for one in findings:
        table.add_row(Text(f"{marks[one.state]} {one.state}", style=_COLOURS[one.state]), Text(one.text))
        if one.hint:
            # The hint of a warning is dimmer than that of an error.
            hint = Table.grid(padding=(0, 1))
            hint.add_column(no_wrap=True)
            hint.add_column(ratio=1, overflow="fold")
            style = "bold" if one.state == "error" else "dim"
            hint.add_row(Text(arrow, style=style), Text(one.hint, style=style))
            table.add_row("", hint)
    return table


def _sum(findings: Sequence[Finding]) -> Text:
    counts = {state: sum(one.state == state for one in findings) for state in _COLOURS}
    if counts["error"]:
        line = Text(
            f"{counts['error']} {'error' if counts['error'] == 1 else 'errors'}", style=_COLOURS["error"]
        )
    else:
        line = Text("No errors", style=_COLOURS["ok"])
    return line.append(
        f", {counts['warn']} {'warning' if counts['warn'] == 1 else 'warnings'}, {counts['ok']} ok",
        style="not bold default",
    )
