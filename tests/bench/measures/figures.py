"""Figures with their targets: what was measured, and whether it reaches the target."""

from dataclasses import dataclass

from tests.bench.attackers import CLIENTS, SOURCES, Attack
from tests.bench.conditions import Conditions
from tests.bench.detection import Detection
from tests.bench.gateway_history import GatewayHistory
from tests.bench.many_files import ManyFiles
from tests.bench.measures.plan import Ingest, Memory, Reconnect, Replay, Results
from tests.bench.measures.stream_figures import versus_websocket
from tests.bench.measures.targets import NATS, OURS, PLAIN
from tests.bench.monitoring import Monitoring
from tests.bench.run import Row
from tests.bench.sdk import Sdk
from tests.bench.shipping import OTHER_FORMATS, TARGETS, Shipping
from tests.bench.starting import Starting
from tests.bench.tokens import TokenCost
from tests.bench.unread import Unread


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure and its target.

    Attributes:
        name: what the figure measures.
        target: target, in words.
        measured: measured value, in words.
        ok: whether the target is reached; None if it was not measured.
    """

    name: str
    target: str
    measured: str
    ok: bool | None

    @property
    def verdict(self) -> str:
        """``ok``, ``short``, or ``-`` if it was not measured."""
        return "-" if self.ok is None else "ok" if self.ok else "short"


def ratio(row: Row, ours: Row | None) -> float | None:
    """Return a row's deliveries per core-second as a share of ours, or None without ours."""
    return row.per_core / ours.per_core if ours and ours.per_core else None


def row_of(rows: list[Row], target: str) -> Row | None:
    """Return the row of a target, or None if it was not run."""
    return next((row for row in rows if row.target == target), None)


def figures(results: Results) -> list[Figure]:
    """Return all figures, including those that were not measured."""
    ours = row_of(results.max_load, OURS)
    plain = row_of(results.max_load, PLAIN)
    idle, memory = results.idle, results.memory
    rate = latency = median = tail = size = None
    if ours:
        rate = (f"{ours.per_core:,.0f}", ours.per_core >= 2e6)
        latency = (
            f"{ours.p99:.1f} ms, {ours.fraction:.2%} delivered",
            ours.p99 < 100 and ours.fraction >= 0.99,
        )
    if idle:
        median = (f"{idle.p50:.2f} ms", idle.p50 <= 1)
        tail = (f"{idle.p99:.2f} ms", idle.p99 <= 3)
    if memory:
        size = (f"{memory.each / 1024:.1f} KB", memory.each <= 6 * 1024)
    return [
        _figure("fan-out at maximum load, deliveries per core-second", ">= 2,000,000", rate),
        _figure("fan-out at maximum load, p99", "< 100 ms, all delivered", latency),
        _figure("compared to only sending the same frames", ">= 0.9", _versus_plain(ours, plain)),
        *_versus_nats(row_of(results.same, OURS), row_of(results.same, NATS)),
        _figure("idle, p50", "<= 1 ms", median),
        _figure("idle, p99", "<= 3 ms", tail),
        _figure("memory per idle connection", "<= 6 KB", size),
        _ingest(results.ingest, msg_ids=False, minimum=40_000),
        _ingest(results.ingest, msg_ids=True, minimum=25_000),
        *_stalled(results.stalled, results.stalled_clients),
        _figure(
            "one filter per client, CPU relative to one shared filter", "<= 2 x", _filters(results.filters)
        ),
        *_reconnect(results.reconnect),
        *_replay(results.replay),
        *_deflate(results.deflate, results.deflate_memory),
        *_monitoring(results.monitoring),
        *_detection(results.detection),
        *_history(results.history),
        *_shipping(results.shipping),
        *_sdk(results.sdk),
        _tokens(results.tokens),
        *(figure for sources in SOURCES for figure in _attackers(sources, results.attackers)),
        _starting(results.starting),
        *_unread(results.unread),
        _figure(
            "HTTP streams, deliveries per core-second",
            ">= 0.9 x WebSocket",
            versus_websocket(results.streams),
        ),
        _conditions(results.conditions),
        *_many_files(results.files),
        *_syslog(results.shipping),
    ]


def _figure(name: str, target: str, found: tuple[str, bool] | None) -> Figure:
    return Figure(name, target, *found) if found else Figure(name, target, "not measured", None)


def _versus_plain(ours: Row | None, plain: Row | None) -> tuple[str, bool] | None:
    if ours is None or plain is None or not plain.per_core:
        return None
    share = ours.per_core / plain.per_core
    return f"{share:.2f}", share >= 0.9


def _versus_nats(ours: Row | None, nats: Row | None) -> list[Figure]:
    latency = cpu = None
    if ours and nats and nats.cores:
        latency = (
            f"{ours.p99:.1f} ms vs {nats.p99:.1f} ms: {ours.p99 / nats.p99:.2f} x",
            ours.p99 <= 1.25 * nats.p99,
        )
        cpu = (
            f"{ours.cores:.2f} vs {nats.cores:.2f} cores: {ours.cores / nats.cores:.2f} x",
            ours.cores <= 0.5 * nats.cores,
        )
    return [
        _figure("same load, p99 relative to nats-server's WebSocket", "<= 1.25 x", latency),
        _figure("same load, CPU relative to nats-server's WebSocket", "<= 0.5 x", cpu),
    ]


def _ingest(rows: list[Ingest], *, msg_ids: bool, minimum: int) -> Figure:
    name = f"ingest, validated, {'with' if msg_ids else 'without'} Nats-Msg-Id, events per core-second"
    rates = {row.target: row.per_core for row in rows if row.msg_ids == msg_ids}
    if OURS not in rates:
        return _figure(name, f">= {minimum:,}", None)
    peers = "".join(f" ({target}: {rate:,.0f})" for target, rate in rates.items() if target != OURS)
    return Figure(name, f">= {minimum:,}", f"{rates[OURS]:,.0f}{peers}", rates[OURS] >= minimum)


def _stalled(rows: list[Row], count: int) -> list[Figure]:
    tail = size = None
    if len(rows) == 2 and count:
        before, after = rows
        times = after.p99 / before.p99
        tail = (f"{after.p99:.1f} ms vs {before.p99:.1f} ms: {times:.2f} x", times <= 1.2)
        each = (after.rss_mb - before.rss_mb) * 1e6 / count / 1024
        size = (f"{each:.1f} KiB", each <= 64)
    return [
        _figure("one client in ten stops reading, p99 of the others", "<= 1.2 x", tail),
        _figure("memory per client that stops reading", "<= 64 KiB", size),
    ]


def _cost(row: Row) -> float:
    """Return the microseconds of CPU per delivery."""
    return 1e6 / row.per_core if row.per_core else 0.0


def _filters(rows: list[Row]) -> tuple[str, bool] | None:
    if len(rows) != 2 or not _cost(rows[0]):
        return None
    shared, own = map(_cost, rows)
    return f"{own:.2f} vs {shared:.2f} us per delivery: {own / shared:.2f} x", own <= 2 * shared


def _reconnect(found: Reconnect | None) -> list[Figure]:
    live = complete = None
    clients = "10,000 clients"
    if found:
        clients = f"{found.clients:,} clients"
        lag = "too late" if found.live is None else f"{found.live:.1f} s"
        served = (
            "not all connected" if found.connected is None else f"connected after {found.connected:.1f} s"
        )
        live = (f"{lag} ({served})", found.live is not None and found.live <= 12)
        complete = (
            f"{found.lost} lost, {found.repeated} repeated, {found.gaps} gaps, {found.behind} behind"
            f" of {found.events:,}",
            found.exactly_once,
        )
    return [
        _figure(f"{clients} reconnect, all live", "within 12 s", live),
        _figure(f"{clients} reconnect, events lost or repeated", "none", complete),
    ]


def _replay(rows: list[Replay]) -> list[Figure]:
    rate = complete = None
    ours = next((row for row in rows if row.target == OURS), None)
    if ours:
        peers = "".join(f" ({row.target}: {row.rate:,.0f})" for row in rows if row is not ours)
        rate = (f"{ours.rate:,.0f} on {ours.cores:.2f} cores{peers}", ours.rate >= 30_000)
        complete = (
            f"{ours.lost} lost, {ours.repeated} repeated of {ours.events:,}",
            not (ours.lost or ours.repeated),
        )
    return [
        _figure("replay of old events from the stream, events per second", ">= 30,000", rate),
        _figure("replay of old events from the stream, lost or repeated", "none", complete),
    ]


def _deflate(rows: list[Row], memory: list[Memory]) -> list[Figure]:
    fewer = cpu = size = None
    if len(rows) == 2 and all(row.deliveries and row.cores and row.mb for row in rows):
        plain, packed = (row.mb * 1e6 / row.deliveries for row in rows)
        fewer = (
            f"{packed:.0f} vs {plain:.0f} bytes per delivery: {plain / packed:.1f} x",
            plain >= 6 * packed,
        )
        before, after = map(_cost, rows)
        cpu = (
            f"{after:.2f} vs {before:.2f} us per delivery: {after / before:.2f} x",
            after <= 1.3 * before,
        )
    if len(memory) == 2:
        more = (memory[1].each - memory[0].each) / 1024
        size = (f"{more:+.2f} KB ({memory[1].each / 1024:.1f} KB)", more <= 1)
    return [
        _figure("deflate, bytes", ">= 6 x fewer", fewer),
        _figure("deflate, CPU", "<= 1.3 x", cpu),
        _figure("deflate, memory per idle connection", "<= 1 KB more", size),
    ]


def _monitoring(found: Monitoring | None) -> list[Figure]:
    cpu = size = lag = spread = None
    name = "gateways every 5 s"
    if found is not None:
        name = f"{found.gateways:,} {name}"
        cpu = (f"{found.cores:.2f}, {found.probes / found.seconds:,.0f} probes/s", found.cores <= 0.15)
        size = (f"{found.rss / 1e6:.0f} MB", found.rss <= 120e6)
        lag = (f"{1 - found.late:.2%} within 250 ms, from the start on", found.late <= 0.001)
        spread = (f"{found.burst_ratio:.2f} x", found.burst_ratio <= 1.5)
    return [
        _figure(f"{name}, cores", "<= 0.15", cpu),
        _figure(f"{name}, memory", "<= 120 MB", size),
        _figure(f"{name}, probes within 250 ms of their time", "all", lag),
        _figure(f"{name}, busiest half second relative to the average", "<= 1.5 x", spread),
    ]


def _detection(found: Detection | None) -> list[Figure]:
    delay = right = None
    if found is not None:
        median, tail = found.percentile(50), found.percentile(95)
        delay = (f"{tail:.2f} s, p50 {median:.2f} s, of {len(found.delays)} failures", tail <= 2)
        right = (f"{found.missed} missed, {found.false} false", not (found.missed or found.false))
    return [
        _figure("from a gateway's failure to a client, every 1 s, 2 failures, p95", "<= 2 s", delay),
        _figure("failures of gateways that are missed, or false", "0", right),
    ]


def _history(found: GatewayHistory | None) -> list[Figure]:
    cpu = delay = page = None
    name = "history of gateways"
    if found is not None:
        name = f"{found.transitions:,} transitions of {found.gateways:,} gateways"
        cpu = (f"{found.cpu:.2f} s of CPU, {found.seconds:.1f} s", found.cpu <= 3)
        delay = (f"{found.slowest:.0f} ms, p50 {found.typical:.1f} ms", found.slowest <= 100)
        page = (f"{found.page:.0f} ms, {found.page_cpu:.0f} ms of CPU", found.page <= 300)
    return [
        _figure(f"{name}, loading", "<= 3 s of CPU", cpu),
        _figure(f"{name}, slowest live event meanwhile", "<= 100 ms", delay),
        _figure(f"{name}, availability over 90 days", "<= 300 ms", page),
    ]


def _shipping(found: Shipping | None) -> list[Figure]:
    rate = exact = outage = idle = slowest = None
    parsed: dict[str, tuple[str, bool] | None] = dict.fromkeys(TARGETS)
    if found is not None:
        rate = (f"{found.per_core:,.0f}, {found.lines / found.seconds:,.0f}/s", found.per_core >= 25_000)
        exact = (f"{found.wrong} of {found.lines:,}", found.wrong == 0)
        outage = (f"{found.outage_rss / 1e6:.0f} MB", found.outage_rss <= 100e6)
        idle = (f"{found.idle_cores:.2%}", found.idle_cores <= 0.02)
        parsed = {kind: (f"{lines:,.0f}", lines >= TARGETS[kind]) for kind, lines in found.parsed.items()}
        slowest = parsed[min(OTHER_FORMATS, key=found.parsed.__getitem__)]
    return [
        _figure("shipping, lines per core-second, 200 B, end to end", ">= 25,000", rate),
        _figure("shipping, lines lost, repeated or out of order", "0", exact),
        _figure("read, parse and redact, plain lines per core-second", ">= 200,000", parsed["plain"]),
        _figure("the same, JSON", ">= 150,000", parsed["json"]),
        _figure("the same, logfmt", ">= 120,000", parsed["logfmt"]),
        _figure("the same, market depth", ">= 150,000", parsed["depth"]),
        _figure("the same, slowest of containers, nginx, syslog, nested JSON", ">= 100,000", slowest),
        _figure("shipper, memory while NATS is unreachable, 10 GB unread", "<= 100 MB", outage),
        _figure("shipper, 500 idle files, share of a core", "<= 2 %", idle),
    ]


def _syslog(found: Shipping | None) -> list[Figure]:
    rate = exact = None
    if found is not None:
        rate = (f"{found.syslog_rate:,.0f} with {found.syslog_cores:.2f} cores", found.syslog_rate >= 30_000)
        exact = (f"{found.syslog_wrong} of {found.lines:,}", found.syslog_wrong == 0)
    return [
        _figure("syslog over TCP, lines per second", ">= 30,000", rate),
        _figure("the same, lines lost, repeated or out of order", "0", exact),
    ]


def _many_files(rows: list[ManyFiles]) -> list[Figure]:
    few = cost = exact = restart = idle = None
    if rows:
        least, most = rows[0], rows[-1]
        few = (f"{least.files:,} files: {least.cpu_us:.1f} us", least.cpu_us <= 22)
        cost = (f"{most.files:,} files: {most.cpu_us:.1f} us", most.cpu_us <= 30)
        exact = (f"{sum(row.wrong for row in rows)}", not any(row.wrong for row in rows))
        restart = (f"{most.files:,} files: {most.restart:.1f} s", most.restart <= 5)
        idle = (f"{most.files:,} files: {most.idle_cores:.2%}", most.idle_cores <= 0.03)
    return [
        _figure("shipping ten lines at a time from each of 100 files, CPU per line", "<= 22 us", few),
        _figure("the same, 10,000 files", "<= 30 us", cost),
        _figure("the same, lines lost, repeated or out of order", "0", exact),
        _figure("shipper with 10,000 files, restart to first new line", "<= 5 s", restart),
        _figure("shipper, 10,000 idle files, share of a core", "<= 3 %", idle),
    ]


def _sdk(found: Sdk | None) -> list[Figure]:
    rate = cost = None
    if found is not None:
        rate = (f"{found.rate:,.0f} with {found.cores:.2f} cores", found.rate >= 20_000)
        cost = (f"{found.emit_us:.0f} us, p99 {found.emit_p99_us:.0f} us", found.emit_us < 50)
    return [
        _figure("publisher, acknowledged events/s", ">= 20,000", rate),
        _figure("a logging call through the handler", "< 50 us", cost),
    ]


def _tokens(rows: list[TokenCost]) -> Figure:
    found = None
    if rows:
        each = ", ".join(f"{row.algorithm} {row.fresh:.0f} ({row.cached:.0f} cached)" for row in rows)
        found = (f"{each} us", all(max(row.fresh, row.cached) <= 200 for row in rows))
    return _figure("verifying a token, every algorithm", "<= 200 us", found)


def _starting(found: Starting | None) -> Figure:
    seconds = None
    if found is not None:
        seconds = (
            f"{found.median_seconds:.2f} s, at most {max(found.seconds):.2f} s",
            found.median_seconds <= 2,
        )
    return _figure("from start to ready, NATS up", "<= 2 s", seconds)


def _attackers(sources: int, rows: list[Attack]) -> list[Figure]:
    rate = tail = complete = size = None
    name = f"attackers from {sources} addresses" if sources > 1 else "attackers from one address"
    row = next((row for row in rows if row.sources == sources), None)
    if row is not None:
        rate = (
            f"{row.rate:,.0f}, {row.admitted} admitted",
            row.rate >= 0.95 * row.requested_rate and not row.admitted,
        )
        complete = (f"{row.closed} closed, {row.lost} events lost", not (row.closed or row.lost))
        tail = (
            f"{row.attack_p99:.1f} ms vs {row.baseline_p99:.1f} ms, {row.attack_cores:.2f} vs"
            f" {row.baseline_cores:.2f} cores",
            row.attack_p99 <= row.p99_limit_ms,
        )
        size = (f"{row.growth / 1e6:+.1f} MB", row.growth <= 20e6)
    return [
        _figure(f"{name}, per second", ">= 95 % of 2,000, none admitted", rate),
        _figure(f"{name}, {CLIENTS} honest clients", "none closed, no event lost", complete),
        _figure(f"{name}, p99 of honest clients", "<= 3 x or 25 ms", tail),
        _figure(f"{name}, memory", "<= 20 MB", size),
    ]


def _conditions(found: Conditions | None) -> Figure:
    ratio = None
    if found is not None:
        ratio = (
            f"{found.cores:.3f} vs {found.cores_without:.3f} cores: {found.ratio:.2f} x",
            found.ratio <= 2 and found.delivered >= 0.99 * found.delivered_without,
        )
    return _figure("one condition per client, CPU relative to as many filters", "<= 2 x", ratio)


def _unread(found: Unread | None) -> list[Figure]:
    size = tail = None
    if found is not None:
        size = (f"{found.growth / 2**20:+.1f} MiB for {found.clients}", found.growth <= 200 * 2**20)
        tail = (
            f"{found.p99:.1f} ms vs {found.p99_before:.1f} ms, {found.closed} closed",
            found.p99 <= 1.2 * found.p99_before and not found.closed,
        )
    return [
        _figure("clients that never read, memory of 200 with 58,000 states", "<= 200 MiB", size),
        _figure("clients that never read, p99 of the others", "<= 1.2 x, none closed", tail),
    ]
