"""The figures that were to be reached: what was measured, and whether it is enough."""

from dataclasses import dataclass

from tests.bench.measures.plan import Comeback, Intake, Memory, Replay, Results
from tests.bench.measures.targets import NATS, OURS, PLAIN
from tests.bench.monitoring import Monitoring
from tests.bench.run import Row
from tests.bench.sdk import Sdk
from tests.bench.shipping import Shipping
from tests.bench.starting import Starting
from tests.bench.strangers import CLIENTS, SOURCES, Siege
from tests.bench.tokens import TokenCost


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
    """Every figure that the bench has to show, also those that were not measured."""
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
        *_stalled(results.stalled, results.stalled_clients),
        _figure("a filter for each client, CPU beside one for all", "<= 2 x", _filters(results.filters)),
        *_comeback(results.comeback),
        *_replay(results.replay),
        *_deflate(results.deflate, results.deflate_memory),
        *_monitoring(results.monitoring),
        *_shipping(results.shipping),
        *_sdk(results.sdk),
        _tokens(results.tokens),
        *(figure for sources in SOURCES for figure in _strangers(sources, results.strangers)),
        _starting(results.starting),
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


def _stalled(rows: list[Row], count: int) -> list[Figure]:
    tail = size = None
    if len(rows) == 2 and count:
        before, after = rows
        times = after.p99 / before.p99
        tail = (f"{after.p99:.1f} ms against {before.p99:.1f} ms: {times:.2f} x", times <= 1.2)
        each = (after.rss_mb - before.rss_mb) * 1e6 / count / 1024
        size = (f"{each:.1f} KiB", each <= 64)
    return [
        _figure("one client in ten never reads, p99 of the others", "<= 1.2 x", tail),
        _figure("memory for each client that never reads", "<= 64 KiB", size),
    ]


def _cost(row: Row) -> float:
    """Microseconds of CPU for a delivery."""
    return 1e6 / row.per_core if row.per_core else 0.0


def _filters(rows: list[Row]) -> tuple[str, bool] | None:
    if len(rows) != 2 or not _cost(rows[0]):
        return None
    shared, own = map(_cost, rows)
    return f"{own:.2f} against {shared:.2f} us a delivery: {own / shared:.2f} x", own <= 2 * shared


def _comeback(found: Comeback | None) -> list[Figure]:
    soon = whole = None
    clients = "10,000 clients"
    if found:
        clients = f"{found.clients:,} clients"
        late = "not in time" if found.live is None else f"{found.live:.1f} s"
        served = (
            "not all connected" if found.connected is None else f"connected after {found.connected:.1f} s"
        )
        soon = (f"{late} ({served})", found.live is not None and found.live <= 12)
        whole = (
            f"{found.lost} lost, {found.repeated} repeated, {found.gaps} gaps, {found.behind} behind"
            f" of {found.events:,}",
            found.whole,
        )
    return [
        _figure(f"{clients} come back, all live", "within 12 s", soon),
        _figure(f"{clients} come back, events lost or repeated", "none", whole),
    ]


def _replay(rows: list[Replay]) -> list[Figure]:
    rate = whole = None
    ours = next((row for row in rows if row.who == OURS), None)
    if ours:
        beside = "".join(f" ({row.who}: {row.rate:,.0f})" for row in rows if row is not ours)
        rate = (f"{ours.rate:,.0f} on {ours.cores:.2f} cores{beside}", ours.rate >= 30_000)
        whole = (
            f"{ours.lost} lost, {ours.repeated} repeated of {ours.events:,}",
            not (ours.lost or ours.repeated),
        )
    return [
        _figure("resume of old events from the stream, events per second", ">= 30,000", rate),
        _figure("resume of old events from the stream, lost or repeated", "none", whole),
    ]


def _deflate(rows: list[Row], memory: list[Memory]) -> list[Figure]:
    fewer = cpu = size = None
    if len(rows) == 2 and all(row.deliveries and row.cores and row.mb for row in rows):
        plain, packed = (row.mb * 1e6 / row.deliveries for row in rows)
        fewer = (
            f"{packed:.0f} against {plain:.0f} bytes a delivery: {plain / packed:.1f} x",
            plain >= 6 * packed,
        )
        before, after = map(_cost, rows)
        cpu = (
            f"{after:.2f} against {before:.2f} us a delivery: {after / before:.2f} x",
            after <= 1.3 * before,
        )
    if len(memory) == 2:
        more = (memory[1].each - memory[0].each) / 1024
        size = (f"{more:+.2f} KB ({memory[1].each / 1024:.1f} KB)", more <= 1)
    return [
        _figure("deflate, bytes", ">= 6 x fewer", fewer),
        _figure("deflate, CPU", "<= 1.3 x", cpu),
        _figure("deflate, memory for each idle connection", "<= 1 KB more", size),
    ]


def _monitoring(found: Monitoring | None) -> list[Figure]:
    cpu = size = late = even = death = None
    name = "gateways every 5 s"
    if found is not None:
        name = f"{found.gateways:,} {name}"
        cpu = (f"{found.cores:.2f}, {found.looks / found.seconds:,.0f} looks/s", found.cores <= 0.25)
        size = (f"{found.rss / 1e6:.0f} MB", found.rss <= 120e6)
        late = (f"{1 - found.late:.2%} within 250 ms", found.late <= 0.01)
        even = (f"{found.uneven:.2f} x", found.uneven <= 1.5)
        slowest = max(found.deaths)
        death = (f"{slowest:.2f} s, the slowest of {len(found.deaths)}", slowest <= 2.5)
    return [
        _figure(f"{name}, cores", "<= 0.25", cpu),
        _figure(f"{name}, memory", "<= 120 MB", size),
        _figure(f"{name}, p99 of lateness", "<= 250 ms", late),
        _figure(f"{name}, the busiest half second beside the average", "<= 1.5 x", even),
        _figure("from a gateway's death to a client, every 1 s, 2 failures", "<= 2.5 s", death),
    ]


def _shipping(found: Shipping | None) -> list[Figure]:
    rate = exact = away = idle = None
    parsed: dict[str, tuple[str, bool] | None] = {"plain": None, "json": None, "logfmt": None}
    if found is not None:
        rate = (f"{found.per_core:,.0f}, {found.lines / found.seconds:,.0f}/s", found.per_core >= 25_000)
        exact = (f"{found.wrong} of {found.lines:,}", found.wrong == 0)
        away = (f"{found.away_rss / 1e6:.0f} MB", found.away_rss <= 100e6)
        idle = (f"{found.idle_cores:.2%}", found.idle_cores <= 0.02)
        for kind, one in found.parsed.items():
            parsed[kind] = (f"{one:,.0f}", one >= (100_000 if kind == "plain" else 50_000))
    return [
        _figure("shipping, lines per core-second, 200 B, end to end", ">= 25,000", rate),
        _figure("shipping, lines lost, repeated or out of order", "0", exact),
        _figure("reading, parsing, redacting, plain lines per core-second", ">= 100,000", parsed["plain"]),
        _figure("the same, JSON", ">= 50,000", parsed["json"]),
        _figure("the same, logfmt", ">= 50,000", parsed["logfmt"]),
        _figure("shipper, memory while NATS is away, 10 GB unread", "<= 100 MB", away),
        _figure("shipper, 500 idle files, share of a core", "<= 2 %", idle),
    ]


def _sdk(found: Sdk | None) -> list[Figure]:
    rate = cost = None
    if found is not None:
        rate = (f"{found.rate:,.0f} with {found.cores:.2f} cores", found.rate >= 20_000)
        cost = (f"{found.emit_us:.0f} us, 1 in 100 {found.emit_p99_us:.0f} us", found.emit_us < 50)
    return [
        _figure("publisher, acknowledged events/s", ">= 20,000", rate),
        _figure("a log line through the handler", "< 50 us", cost),
    ]


def _tokens(rows: list[TokenCost]) -> Figure:
    found = None
    if rows:
        each = ", ".join(f"{row.algorithm} {row.fresh:.0f} ({row.known:.0f} known)" for row in rows)
        found = (f"{each} us", all(max(row.fresh, row.known) <= 200 for row in rows))
    return _figure("verifying a token, each algorithm", "<= 200 us", found)


def _starting(found: Starting | None) -> Figure:
    taken = None
    if found is not None:
        taken = (f"{found.middle:.2f} s, at most {max(found.seconds):.2f} s", found.middle <= 2)
    return _figure("from the start to ready, NATS up", "<= 2 s", taken)


def _strangers(sources: int, rows: list[Siege]) -> list[Figure]:
    came = tail = whole = size = None
    name = f"strangers from {sources} addresses" if sources > 1 else "strangers from one address"
    row = next((row for row in rows if row.sources == sources), None)
    if row is not None:
        came = (f"{row.rate:,.0f}, {row.let_in} let in", row.rate >= 0.95 * row.wanted and not row.let_in)
        whole = (f"{row.closed} closed, {row.lost} events lost", not (row.closed or row.lost))
        tail = (
            f"{row.beside_p99:.1f} ms against {row.quiet_p99:.1f} ms, {row.beside_cores:.2f} against"
            f" {row.quiet_cores:.2f} cores",
            row.beside_p99 <= row.bound_ms,
        )
        size = (f"{row.growth / 1e6:+.1f} MB", row.growth <= 20e6)
    return [
        _figure(f"{name}, a second", ">= 95 % of 2,000, none let in", came),
        _figure(f"{name}, {CLIENTS} honest clients beside them", "none closed, nothing lost", whole),
        _figure(f"{name}, p99 of the honest", "<= 3 x or 25 ms", tail),
        _figure(f"{name}, memory", "<= 20 MB", size),
    ]
