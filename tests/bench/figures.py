"""The figures of DESIGN.md, "Measures": what was to be reached, what was measured, whether that is enough."""

from dataclasses import dataclass

from tests.bench.run import Row
from tests.bench.scenarios import Intake, Results
from tests.bench.targets import NATS, OURS, PLAIN


@dataclass(frozen=True, slots=True)
class Figure:
    """One target and what was measured.

    Attributes:
        name: what is looked at.
        target: in words.
        measured: in words.
        ok: None when it was not measured.
    """

    name: str
    target: str
    measured: str
    ok: bool | None

    @property
    def verdict(self) -> str:
        """``ok``, ``short``, or ``-`` when it was not measured."""
        return "-" if self.ok is None else "ok" if self.ok else "short"


def ratio(row: Row, ours: Row | None) -> float | None:
    """Deliveries per core-second of a row, as a share of ours; None without ours."""
    return row.per_core / ours.per_core if ours and ours.per_core else None


def row_of(rows: list[Row], who: str) -> Row | None:
    """The row of a target, if it was run."""
    return next((row for row in rows if row.who == who), None)


def figures(results: Results) -> list[Figure]:
    """Every figure that ``tickertape bench`` has to show, also those that were not measured."""
    ours = row_of(results.most, OURS)
    plain = row_of(results.most, PLAIN)
    idle, memory = results.idle, results.memory
    rate = latency = middle = tail = size = None
    if ours:
        rate = (f"{ours.per_core:,.0f}", ours.per_core >= 2e6)
        latency = (
            f"{ours.p99:.1f} ms, {ours.fraction:.2%} delivered",
            ours.p99 < 100 and ours.fraction >= 0.99,
        )
    if idle:
        middle = (f"{idle.p50:.2f} ms", idle.p50 <= 1)
        tail = (f"{idle.p99:.2f} ms", idle.p99 <= 3)
    if memory:
        size = (f"{memory.each / 1024:.1f} KB", memory.each <= 6 * 1024)
    return [
        _figure("fan-out at the most clients, deliveries per core-second", ">= 2,000,000", rate),
        _figure("fan-out at the most clients, p99", "< 100 ms, all delivered", latency),
        _figure("against bare sending of the same frames", ">= 0.9", _against(ours, plain)),
        *_beside_nats(row_of(results.same, OURS), row_of(results.same, NATS)),
        _figure("idle, p50", "<= 1 ms", middle),
        _figure("idle, p99", "<= 3 ms", tail),
        _figure("memory for each idle connection", "<= 6 KB", size),
        _taken_in(results.intake, msg_ids=False, least=40_000),
        _taken_in(results.intake, msg_ids=True, least=25_000),
    ]


def _figure(name: str, target: str, found: tuple[str, bool] | None) -> Figure:
    return Figure(name, target, *found) if found else Figure(name, target, "not measured", None)


def _against(ours: Row | None, plain: Row | None) -> tuple[str, bool] | None:
    if ours is None or plain is None or not plain.per_core:
        return None
    share = ours.per_core / plain.per_core
    return f"{share:.2f}", share >= 0.9


def _beside_nats(ours: Row | None, nats: Row | None) -> list[Figure]:
    latency = cpu = None
    if ours and nats and nats.cores:
        latency = (
            f"{ours.p99:.1f} ms against {nats.p99:.1f} ms: {ours.p99 / nats.p99:.2f} x",
            ours.p99 <= 1.25 * nats.p99,
        )
        cpu = (
            f"{ours.cores:.2f} against {nats.cores:.2f} cores: {ours.cores / nats.cores:.2f} x",
            ours.cores <= 0.5 * nats.cores,
        )
    return [
        _figure("the same load, p99 beside nats-server's WebSocket", "<= 1.25 x", latency),
        _figure("the same load, CPU beside nats-server's WebSocket", "<= 0.5 x", cpu),
    ]


def _taken_in(rows: list[Intake], *, msg_ids: bool, least: int) -> Figure:
    name = f"intake, validated, {'with' if msg_ids else 'without'} Nats-Msg-Id, events per core-second"
    rates = {row.who: row.per_core for row in rows if row.msg_ids == msg_ids}
    if OURS not in rates:
        return _figure(name, f">= {least:,}", None)
    beside = "".join(f" ({who}: {rate:,.0f})" for who, rate in rates.items() if who != OURS)
    return Figure(name, f">= {least:,}", f"{rates[OURS]:,.0f}{beside}", rates[OURS] >= least)
