"""Output of findings: one line each for pipes, a JSON object for programs, a table for terminals."""

from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from rich.table import Table
from rich.text import Text

from tickertape.cli.check.finding import Finding, State
from tickertape.process.terminal import Terminal
from tickertape.text import count, escape_surrogates, printable

Sections = Mapping[str, Sequence[Finding]]
"""Findings by heading of their section."""

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warn": "yellow", "error": "bold red"}
_MARKS: Final[dict[State, str]] = {"ok": "✓", "warn": "•", "error": "✗"}
_PLAIN_MARKS: Final[dict[State, str]] = {"ok": " ", "warn": "-", "error": "!"}
"""Marks for terminals whose encoding lacks the characters of ``_MARKS``."""

_MAX_WIDTH: Final = 110
"""Maximum columns of the output; longer lines are hard to read even on wide terminals."""


def passed(sections: Sections) -> bool:
    """Return whether no finding is an error."""
    return not any(finding.state == "error" for findings in sections.values() for finding in findings)


def to_json(sections: Sections) -> bytes:
    """Return the findings as ``{"ok", "checks": [{"name", "state", "text", "hint"}]}`` on one line."""
    checks = [
        {
            "name": finding.name,
            "state": finding.state,
            "text": escape_surrogates(finding.text),
            "hint": escape_surrogates(finding.hint),
        }
        for findings in sections.values()
        for finding in findings
    ]
    return orjson.dumps({"ok": passed(sections), "checks": checks})


def print_report(sections: Sections, console: Terminal | None = None) -> None:
    """Print the findings: as tables on a terminal, else one line each.

    Args:
        sections: findings by section.
        console: output; None uses standard output.
    """
    console = console or Terminal()
    if not console.is_terminal:
        for findings in sections.values():
            for finding in findings:
                console.print(printable(str(finding)), soft_wrap=True)
        return
    marks = _MARKS if console.encoding.lower().startswith("utf") else _PLAIN_MARKS
    console = Terminal(file=console.file, width=min(console.width, _MAX_WIDTH), force_terminal=True)
    for heading, findings in sections.items():
        if findings:
            console.print(Text(heading, style="bold"))
            console.print(_table(findings, marks, "→" if marks is _MARKS else "->"))
            console.print()
    console.print(_summary([finding for findings in sections.values() for finding in findings]))


def _table(findings: Sequence[Finding], marks: Mapping[State, str], arrow: str) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=7, no_wrap=True, justify="left")
    table.add_column(ratio=1, overflow="fold")
    for finding in findings:
        table.add_row(
            Text(f"{marks[finding.state]} {finding.state}", style=_COLOURS[finding.state]),
            Text(printable(finding.text)),
        )
        if finding.hint:
            # Hints of warnings are dimmed, so that hints of errors stand out.
            hint = Table.grid(padding=(0, 1))
            hint.add_column(no_wrap=True)
            hint.add_column(ratio=1, overflow="fold")
            style = "bold" if finding.state == "error" else "dim"
            hint.add_row(Text(arrow, style=style), Text(printable(finding.hint), style=style))
            table.add_row("", hint)
    return table


def _summary(findings: Sequence[Finding]) -> Text:
    counts = {state: sum(finding.state == state for finding in findings) for state in _COLOURS}
    if counts["error"]:
        line = Text(count(counts["error"], "error"), style=_COLOURS["error"])
    else:
        line = Text("No errors", style=_COLOURS["ok"])
    return line.append(f", {count(counts['warn'], 'warning')}, {counts['ok']} ok", style="not bold default")
