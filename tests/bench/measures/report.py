"""Output of the results: tables for users, JSON for programs."""

import math
import os
import platform
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.measures.figures import figures, ratio, row_of
from tests.bench.measures.plan import Plan, Results
from tests.bench.measures.targets import OURS
from tests.bench.run import Row

COLUMNS = (
    "target", "clients", "events/s in", "deliveries/s", "cores", "per core-second",
    "p50 ms", "p99 ms", "max ms", "MB/s", "RSS MB", "ratio to ours",
)  # fmt: skip
_WIDTH = 150


def cells(row: Row, ours: Row | None) -> list[str]:
    """Return the cells of a row in the order of ``COLUMNS``."""
    share = ratio(row, ours)
    return [
        row.target,
        f"{row.clients:,}",
        f"{row.rate:,.0f}",
        f"{row.deliveries:,.0f}",
        f"{row.cores:.2f}",
        f"{row.per_core:,.0f}",
        _milliseconds(row.p50),
        _milliseconds(row.p99),
        _milliseconds(row.max),
        f"{row.mb:,.1f}",
        f"{row.rss_mb:,.0f}",
        "-" if share is None else f"{share:.3f}",
    ]


def _milliseconds(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def notes(rows: list[Row]) -> list[str]:
    """Return the notes of all rows, each prefixed with its row's name."""
    return [f"{row.target}, {row.clients:,} clients: {note}" for row in rows for note in row.notes]


def table(title: str, rows: list[Row]) -> Table:
    """Return the table of one scenario."""
    result = Table(title=title, title_justify="left", title_style="bold")
    for column in COLUMNS:
        result.add_column(column, justify="left" if column == "target" else "right", no_wrap=True)
    ours = row_of(rows, OURS)
    for row in rows:
        result.add_row(*cells(row, ours), style="bold" if row is ours else "")
    return result


def show(console: Console, plan: Plan, results: Results, *, quick: bool) -> None:
    """Print the tables, the notes and the figures."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    for title, rows in (
        (f"Same load for every target, {plan.seconds:g} s, events of 300 bytes", results.same),
        (f"Each target at its maximum load ({OURS}: {plan.max_clients:,} clients)", results.max_load),
        ("Almost idle", [results.idle] if results.idle else []),
        ("Clients that stop reading", results.stalled),
        ("One filter per client", results.filters),
        ("permessage-deflate", results.deflate),
        ("HTTP streams", results.streams),
        ("Cost by number of clients", results.growth),
    ):
        if rows:
            console.print(table(title, rows))
            for note in notes(rows):
                console.print(f"  ! {note}", markup=False)
    for attack in results.attackers:
        console.print(f"{attack.attempted:,} attackers from {attack.sources} source addresses, by outcome:")
        for end, count in attack.ends.items():
            console.print(f"  {end:<20} {count:>7,}", markup=False)
    block = Table(title="Figures", title_justify="left", title_style="bold")
    for column in ("figure", "target", "measured", ""):
        block.add_column(column)
    colours = {"ok": "green", "short": "red"}
    for figure in figures(results):
        verdict = f"[{colours[figure.verdict]}]{figure.verdict}[/]" if figure.verdict in colours else "-"
        block.add_row(figure.name, figure.target, figure.measured, verdict)
    console.print(block)
    if quick:
        console.print("A quick run only shows that everything works; it is too short for reliable figures.")


def as_json(plan: Plan, results: Results, *, quick: bool) -> dict[str, Any]:
    """Return all results for JSON; unknown values are None."""
    return {
        "machine": {
            "cores": os.cpu_count(),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "quick": quick,
        "plan": asdict(plan),
        "same": _rows(results.same),
        "max": _rows(results.max_load),
        "idle": _rows([results.idle])[0] if results.idle else None,
        "memory": {**asdict(results.memory), "each": results.memory.each} if results.memory else None,
        "ingest": [{**asdict(row), "per_core": row.per_core} for row in results.ingest],
        "stalled": _rows(results.stalled),
        "stalled_clients": results.stalled_clients,
        "filters": _rows(results.filters),
        "reconnect": asdict(results.reconnect) if results.reconnect else None,
        "replay": [{**asdict(row), "rate": row.rate, "cores": row.cores} for row in results.replay],
        "deflate": _rows(results.deflate),
        "deflate_memory": [{**asdict(memory), "each": memory.each} for memory in results.deflate_memory],
        "streams": _rows(results.streams),
        "growth": _rows(results.growth),
        "monitor": asdict(results.monitoring) if results.monitoring else None,
        "detection": asdict(results.detection) if results.detection else None,
        "history": asdict(results.history) if results.history else None,
        "ship": (
            {**asdict(results.shipping), "per_core": results.shipping.per_core} if results.shipping else None
        ),
        "files": [asdict(row) for row in results.files],
        "sdk": asdict(results.sdk) if results.sdk else None,
        "tokens": [asdict(row) for row in results.tokens],
        "attackers": [
            {
                **asdict(row),
                "rate": row.rate,
                "admitted": row.admitted,
                "cpu_us": row.cpu_us,
                "growth": row.growth,
            }
            for row in results.attackers
        ],
        "unread": asdict(results.unread) if results.unread else None,
        "conditions": (
            {**asdict(results.conditions), "ratio": results.conditions.ratio} if results.conditions else None
        ),
        "start": asdict(results.starting) if results.starting else None,
        "figures": [asdict(figure) for figure in figures(results)],
    }


def _rows(rows: list[Row]) -> list[dict[str, Any]]:
    ours = row_of(rows, OURS)
    return [
        {
            **{key: None if _unknown(value) else value for key, value in asdict(row).items()},
            "per_core": row.per_core,
            "ratio": ratio(row, ours),
        }
        for row in rows
    ]


def _unknown(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
