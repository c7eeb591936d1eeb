"""Scenarios and their order.

same    the same load for every target: our relay, nats-server's WebSocket, the naive relay, plain sending.
max     our relay with a thousand clients, each peer with as many clients as it sustains.
idle    latency of our relay under almost no load.
memory  memory of our relay per idle connection.
ingest  events that our relay ingests from JetStream on one core, compared to plain nats-py.

The scenarios of ``variants``, ``reconnects``, ``monitoring``, ``detection``, ``gateway_history``,
``shipping``, ``many_files``, ``sdk``, ``tokens``, ``attackers``, ``unread``, ``conditions`` and
``starting`` follow.
"""

import math
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.bench import (
    attackers,
    conditions,
    detection,
    gateway_history,
    many_files,
    monitoring,
    reconnects,
    sdk,
    shipping,
    starting,
    tokens,
    unread,
)
from tests.bench.load.children import BenchError, Child, module
from tests.bench.measures import targets, variants
from tests.bench.measures.plan import Ingest, Memory, Plan, Results
from tests.bench.measures.search import max_sustained
from tests.bench.measures.targets import NAIVE, NATS, OURS, PLAIN, Target, metric
from tests.bench.run import Load, Row, measure

_SEARCHES: Final = {NATS: (targets.nats_websocket, 200), NAIVE: (targets.naive, 50)}
"""How each searched peer is started, and its number of clients in the first attempt."""

_SEARCH_SECONDS: Final = 3.0
_STEPS_DOWN: Final = 3
_BACKLOG_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.25


def run(plan: Plan, progress: Callable[[str], None]) -> Results:
    """Run a plan and return its results.

    Args:
        plan: scenarios, targets and sizes.
        progress: called with each line of progress.
    """
    results = Results()
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        recording = Path(folder, "frames")
        if "same" in plan.only:
            _same(plan, progress, results.same, recording)
        if "max" in plan.only:
            _max_load(plan, progress, results.max_load, recording)
    if OURS in plan.targets:
        if "idle" in plan.only:
            results.idle = _run_load(progress, "idle", targets.ours(), Load(10, 100, plan.seconds))
        if "memory" in plan.only:
            results.memory = _memory(plan, progress)
    if "ingest" in plan.only:
        _ingest(plan, progress, results.ingest)
    if OURS in plan.targets:
        if "stalled" in plan.only:
            results.stalled_clients = variants.stalled(plan, progress, results.stalled)
        if "filters" in plan.only:
            variants.filters(plan, progress, results.filters)
        if "reconnect" in plan.only:
            results.reconnect = reconnects.reconnect(plan, progress)
    if "replay" in plan.only:
        reconnects.replay(plan, progress, results.replay)
    if OURS in plan.targets:
        if "deflate" in plan.only:
            variants.deflate(plan, progress, results.deflate, results.deflate_memory)
        if "streams" in plan.only:
            variants.streams(plan, progress, results.streams)
        if "growth" in plan.only:
            variants.growth(plan, progress, results.growth)
        if "monitor" in plan.only:
            results.monitoring = monitoring.monitor(plan.gateways, 2 * plan.seconds, progress)
        if "detection" in plan.only:
            results.detection = detection.detection(plan.failing_seconds, progress)
        if "history" in plan.only:
            results.history = gateway_history.history(plan.gateways, plan.transitions, progress)
        if "ship" in plan.only:
            results.shipping = shipping.ship(plan.lines, progress)
        if "files" in plan.only:
            results.files = [many_files.many_files(n, plan.spread_lines, progress) for n in plan.files]
        if "sdk" in plan.only:
            results.sdk = sdk.sdk(plan.seconds, progress)
        if "tokens" in plan.only:
            tokens.tokens(progress, results.tokens)
        if "attackers" in plan.only:
            attackers.attackers(
                plan.attack_rate, plan.attack_seconds, plan.seconds, progress, results.attackers
            )
        if "unread" in plan.only:
            results.unread = unread.unread(plan.states, plan.unread, 2 * plan.seconds, progress)
        if "conditions" in plan.only:
            results.conditions = conditions.conditions(plan.max_clients, plan.seconds, progress)
        if "start" in plan.only:
            results.starting = starting.start(plan.stored, plan.starts, progress)
    return results


def _run_load(
    progress: Callable[[str], None],
    scenario: str,
    start: AbstractContextManager[Target],
    load: Load,
    record: Path | None = None,
) -> Row:
    """Start a target, measure it, and report progress."""
    with start as target:
        what = f"{scenario}: {target.name}, {load.clients} clients x {load.rate:,.0f} events/s"
        progress(f"{what}, {load.seconds:g} s ...")
        row = measure(target, load, record)
    latency = "" if math.isnan(row.p99) else f", p99 {row.p99:.1f} ms"
    progress(f"{what}: {row.deliveries:,.0f} deliveries/s on {row.cores:.2f} cores{latency}")
    return row


def _plain(
    plan: Plan, progress: Callable[[str], None], scenario: str, rows: list[Row], recording: Path, load: Load
) -> None:
    """Measure plain sending of the frames that our relay has just sent, if requested and recorded."""
    if PLAIN not in plan.targets:
        return
    if OURS not in plan.targets:
        progress(f"{scenario}: {PLAIN} skipped: it resends what {OURS} sent, which was not run")
        return
    target = targets.plain(recording, int(load.seconds * 1e9), load.clients)
    rows.append(_run_load(progress, scenario, target, load))


def _same(plan: Plan, progress: Callable[[str], None], rows: list[Row], recording: Path) -> None:
    load = Load(plan.clients, plan.rate, plan.seconds)
    if OURS in plan.targets:
        rows.append(_run_load(progress, "same", targets.ours(), load, recording))
    if NATS in plan.targets:
        rows.append(_run_load(progress, "same", targets.nats_websocket(), load))
    if NAIVE in plan.targets:
        rows.append(_run_load(progress, "same", targets.naive(), load))
    _plain(plan, progress, "same", rows, recording, load)


def _max_load(plan: Plan, progress: Callable[[str], None], rows: list[Row], recording: Path) -> None:
    load = Load(plan.max_clients, plan.rate, plan.seconds)
    if OURS in plan.targets:
        rows.append(_run_load(progress, "max", targets.ours(), load, recording))
    for peer, (start, first) in _SEARCHES.items():
        if peer not in plan.targets:
            continue

        def attempt(
            clients: int, start: Callable[[], AbstractContextManager[Target]] = start
        ) -> tuple[bool, Row]:
            seconds = min(_SEARCH_SECONDS, plan.seconds)
            row = _run_load(progress, "max (search)", start(), Load(clients, plan.rate, seconds))
            return row.sustained, row

        found = max_sustained(attempt, first, attempts=plan.attempts)
        if found is None:
            progress(f"max: {peer} did not sustain any number of clients tried")
            continue
        clients, row = found
        if plan.seconds > _SEARCH_SECONDS:
            row = _run_load(progress, "max", start(), Load(clients, plan.rate, plan.seconds))
            for _ in range(_STEPS_DOWN):
                if row.sustained:
                    break
                # A load that is sustained for three seconds may not be for ten.
                clients = max(1, clients * 3 // 4)
                row = _run_load(progress, "max", start(), Load(clients, plan.rate, plan.seconds))
        rows.append(row)
    _plain(plan, progress, "max", rows, recording, load)


def _memory(plan: Plan, progress: Callable[[str], None]) -> Memory:
    progress(f"memory: {OURS}, {plan.connections:,} idle connections ...")
    result = variants.idle_memory(plan.connections)
    progress(
        f"memory: {OURS}, {result.each / 1024:.1f} KB per idle connection ({plan.connections:,} connections)"
    )
    return result


def _ingest(plan: Plan, progress: Callable[[str], None], rows: list[Ingest]) -> None:
    if OURS in plan.targets:
        with targets.ours() as target:
            name = "tickertape_events_received_total"
            for msg_ids in (False, True):
                progress(f"ingest: {OURS}, {plan.backlog:,} events{_headers(msg_ids)} ...")
                rows.append(
                    _drain(
                        OURS,
                        target.process,
                        target.nats_port,
                        plan,
                        msg_ids,
                        lambda: int(metric(target, name)),
                    )
                )
                _report_ingest(progress, rows[-1])
    with (
        targets.nats_server(jetstream=True) as (_, port),
        module("nats-py", "peers", peer="consume", nats_port=port) as child,
    ):
        child.receive(30)

        def count() -> int:
            child.send(count=True)
            return int(child.receive(30)["received"])

        for msg_ids in (False, True):
            progress(f"ingest: plain nats-py, {plan.backlog:,} events{_headers(msg_ids)} ...")
            rows.append(_drain("plain nats-py", child, port, plan, msg_ids, count))
            _report_ingest(progress, rows[-1])


def _drain(
    peer: str, process: Child, nats_port: int, plan: Plan, msg_ids: bool, count: Callable[[], int]
) -> Ingest:
    """Build up a backlog while the consumer is stopped, then measure its CPU until it has all events."""
    expected = count() + plan.backlog
    spec = {"mode": "backlog", "nats_port": nats_port, "count": plan.backlog, "size": 300, "msg_ids": msg_ids}
    with module("the publisher", "publisher", **spec) as publisher:
        publisher.receive(30)
        process.signal(signal.SIGSTOP)
        try:
            publisher.send(go=True)
            publisher.receive(_BACKLOG_SECONDS)
            cpu, began = process.cpu, time.monotonic()
        finally:
            process.signal(signal.SIGCONT)
    while (reached := count()) < expected:
        process.check()
        if time.monotonic() - began > _BACKLOG_SECONDS:
            raise BenchError(
                f"{peer} ingested only {plan.backlog - expected + reached:,} of {plan.backlog:,} events"
            )
        time.sleep(_POLL_SECONDS)
    return Ingest(peer, msg_ids, plan.backlog, process.cpu - cpu, time.monotonic() - began)


def _headers(msg_ids: bool) -> str:
    return " with Nats-Msg-Id" if msg_ids else ""


def _report_ingest(progress: Callable[[str], None], row: Ingest) -> None:
    progress(f"ingest: {row.target}{_headers(row.msg_ids)}: {row.per_core:,.0f} events per core-second")
