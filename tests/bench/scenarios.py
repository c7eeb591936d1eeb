"""The scenarios: what is run, in which order, against whom.

same    the same load for all: our relay, nats-server's WebSocket, the naive relay, bare sending.
most    ours at a thousand clients, each peer at the most clients that it sustains.
idle    latency of our relay with next to nothing to do.
memory  what an idle connection costs our relay.
intake  how many events our relay takes in from JetStream on one core, beside bare nats-py.

Those of ``variants``, ``returns``, ``monitoring``, ``shipping``, ``sdk``, ``tokens``, ``strangers`` and
``starting`` come after these.
"""

import math
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.bench import monitoring, returns, sdk, shipping, starting, strangers, tokens
from tests.bench.load.children import BenchError, Child, module
from tests.bench.measures import targets, variants
from tests.bench.measures.plan import Intake, Memory, Plan, Results
from tests.bench.measures.search import most_sustained
from tests.bench.measures.targets import NAIVE, NATS, OURS, PLAIN, Target, metric
from tests.bench.run import Load, Row, measure

_TRIES: Final = {NATS: (targets.nats_websocket, 200), NAIVE: (targets.naive, 50)}
"""How each searched peer is started, and the clients of its first try."""

_TRY_SECONDS: Final = 3.0
_STEPS_DOWN: Final = 3
_BACKLOG_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.25


def run(plan: Plan, say: Callable[[str], None]) -> Results:
    """Run a plan.

    Args:
        plan: what to run.
        say: called with one line of progress at a time.
    """
    results = Results()
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        recording = Path(folder, "frames")
        if "same" in plan.only:
            _same(plan, say, results.same, recording)
        if "most" in plan.only:
            _most(plan, say, results.most, recording)
    if OURS in plan.who:
        if "idle" in plan.only:
            results.idle = _told(say, "idle", targets.ours(), Load(10, 100, plan.seconds))
        if "memory" in plan.only:
            results.memory = _memory(plan, say)
    if "intake" in plan.only:
        _intake(plan, say, results.intake)
    if OURS in plan.who:
        if "stalled" in plan.only:
            results.stalled_clients = variants.stalled(plan, say, results.stalled)
        if "filters" in plan.only:
            variants.filters(plan, say, results.filters)
        if "comeback" in plan.only:
            results.comeback = returns.comeback(plan, say)
    if "replay" in plan.only:
        returns.replay(plan, say, results.replay)
    if OURS in plan.who:
        if "deflate" in plan.only:
            variants.deflate(plan, say, results.deflate, results.deflate_memory)
        if "growth" in plan.only:
            variants.growth(plan, say, results.growth)
        if "monitor" in plan.only:
            results.monitoring = monitoring.monitor(plan.gateways, 2 * plan.seconds, say)
        if "ship" in plan.only:
            results.shipping = shipping.ship(plan.lines, say)
        if "sdk" in plan.only:
            results.sdk = sdk.sdk(plan.seconds, say)
        if "tokens" in plan.only:
            tokens.tokens(say, results.tokens)
        if "strangers" in plan.only:
            strangers.strangers(plan.strangers, plan.siege, plan.seconds, say, results.strangers)
        if "start" in plan.only:
            results.starting = starting.start(plan.stored, plan.starts, say)
    return results


def _told(
    say: Callable[[str], None],
    scenario: str,
    start: AbstractContextManager[Target],
    load: Load,
    record: Path | None = None,
) -> Row:
    """Start a target, measure it, and tell the progress."""
    with start as target:
        what = f"{scenario}: {target.who}, {load.clients} clients x {load.rate:,.0f} events/s"
        say(f"{what}, {load.seconds:g} s ...")
        row = measure(target, load, record)
    latency = "" if math.isnan(row.p99) else f", p99 {row.p99:.1f} ms"
    say(f"{what}: {row.deliveries:,.0f} deliveries/s on {row.cores:.2f} cores{latency}")
    return row


def _replay(
    plan: Plan, say: Callable[[str], None], scenario: str, rows: list[Row], recording: Path, load: Load
) -> None:
    """Bare sending of what our relay has just sent, if it was asked for and there is a recording."""
    if PLAIN not in plan.who:
        return
    if OURS not in plan.who:
        say(f"{scenario}: {PLAIN} left out; it sends again what {OURS} has sent, which was not run")
        return
    target = targets.plain(recording, int(load.seconds * 1e9), load.clients)
    rows.append(_told(say, scenario, target, load))


def _same(plan: Plan, say: Callable[[str], None], rows: list[Row], recording: Path) -> None:
    load = Load(plan.clients, plan.rate, plan.seconds)
    if OURS in plan.who:
        rows.append(_told(say, "same", targets.ours(), load, recording))
    if NATS in plan.who:
        rows.append(_told(say, "same", targets.nats_websocket(), load))
    if NAIVE in plan.who:
        rows.append(_told(say, "same", targets.naive(), load))
    _replay(plan, say, "same", rows, recording, load)


def _most(plan: Plan, say: Callable[[str], None], rows: list[Row], recording: Path) -> None:
    load = Load(plan.most_clients, plan.rate, plan.seconds)
    if OURS in plan.who:
        rows.append(_told(say, "most", targets.ours(), load, recording))
    for who, (start, first) in _TRIES.items():
        if who not in plan.who:
            continue

        def attempt(
            clients: int, start: Callable[[], AbstractContextManager[Target]] = start
        ) -> tuple[bool, Row]:
            seconds = min(_TRY_SECONDS, plan.seconds)
            row = _told(say, "most (search)", start(), Load(clients, plan.rate, seconds))
            return row.sustained, row

        found = most_sustained(attempt, first, attempts=plan.attempts)
        if found is None:
            say(f"most: {who} sustained nothing that was tried")
            continue
        clients, row = found
        if plan.seconds > _TRY_SECONDS:
            row = _told(say, "most", start(), Load(clients, plan.rate, plan.seconds))
            for _ in range(_STEPS_DOWN):
                if row.sustained:
                    break
                # What holds for three seconds need not hold for ten.
                clients = max(1, clients * 3 // 4)
                row = _told(say, "most", start(), Load(clients, plan.rate, plan.seconds))
        rows.append(row)
    _replay(plan, say, "most", rows, recording, load)


def _memory(plan: Plan, say: Callable[[str], None]) -> Memory:
    say(f"memory: {OURS}, {plan.connections:,} idle connections ...")
    result = variants.idle_memory(plan.connections)
    say(f"memory: {OURS}, {result.each / 1024:.1f} KB for each of {plan.connections:,} idle connections")
    return result


def _intake(plan: Plan, say: Callable[[str], None], rows: list[Intake]) -> None:
    if OURS in plan.who:
        with targets.ours() as target:
            name = "tickertape_events_received_total"
            for msg_ids in (False, True):
                say(f"intake: {OURS}, {plan.backlog:,} events{_headers(msg_ids)} ...")
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
                _say_intake(say, rows[-1])
    with (
        targets.nats_server(jetstream=True) as (_, port),
        module("nats-py", "peers", who="consume", nats_port=port) as child,
    ):
        child.hear(30)

        def count() -> int:
            child.say(count=True)
            return int(child.hear(30)["received"])

        for msg_ids in (False, True):
            say(f"intake: bare nats-py, {plan.backlog:,} events{_headers(msg_ids)} ...")
            rows.append(_drain("bare nats-py", child, port, plan, msg_ids, count))
            _say_intake(say, rows[-1])


def _drain(
    who: str, process: Child, nats_port: int, plan: Plan, msg_ids: bool, count: Callable[[], int]
) -> Intake:
    """Make a backlog while a consumer is stopped, let it go on, and take its CPU until it has everything."""
    wanted = count() + plan.backlog
    spec = {"way": "backlog", "nats_port": nats_port, "count": plan.backlog, "size": 300, "msg_ids": msg_ids}
    with module("the publisher", "publisher", **spec) as publisher:
        publisher.hear(30)
        process.signal(signal.SIGSTOP)
        try:
            publisher.say(go=True)
            publisher.hear(_BACKLOG_SECONDS)
            cpu, began = process.cpu, time.monotonic()
        finally:
            process.signal(signal.SIGCONT)
    while (reached := count()) < wanted:
        process.check()
        if time.monotonic() - began > _BACKLOG_SECONDS:
            raise BenchError(
                f"{who} took in only {plan.backlog - wanted + reached:,} of {plan.backlog:,} events"
            )
        time.sleep(_POLL_SECONDS)
    return Intake(who, msg_ids, plan.backlog, process.cpu - cpu, time.monotonic() - began)


def _headers(msg_ids: bool) -> str:
    return " with Nats-Msg-Id" if msg_ids else ""


def _say_intake(say: Callable[[str], None], row: Intake) -> None:
    say(f"intake: {row.who}{_headers(row.msg_ids)}: {row.per_core:,.0f} events per core-second")
