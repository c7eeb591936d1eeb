"""Scenarios that change one aspect of the fan-out, each measured without and with the change.

stalled   some clients stop reading: effect on the other clients, and memory that the relay keeps for each.
filters   one filter per client, compared to one shared filter, with the same number of deliveries.
deflate   permessage-deflate: bytes, CPU, and memory of idle connections.
streams   Server-Sent Events and JSON lines, compared to the WebSocket.
growth    cost with 10, 100, 1 000 and 10 000 clients.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.bench.measures import targets
from tests.bench.measures.measure import descriptors
from tests.bench.measures.plan import Memory, Plan
from tests.bench.measures.targets import OURS
from tests.bench.run import Load, Row, connected, measure, staged

STALLED_SHARE: Final = 0.1

_WARM_CONNECTIONS: Final = 100
_SETTLE_SECONDS: Final = 2.0
_FILL_SECONDS: Final = 3.0
"""Seconds until the buffers of stalled clients are full."""

_LONGEST: Final = 8.0
"""Maximum seconds of a window: less than the timeout for a client that does not answer pings."""

_GROWTH_RATE: Final = 100
_GROWTH_SECONDS: Final = 5.0
_IDLE: Final = "/ws?subjects=log.info.nothing"

Progress = Callable[[str], None]


def _report_row(progress: Progress, scenario: str, row: Row) -> Row:
    progress(
        f"{scenario}: {row.target}, {row.clients:,} clients: {row.deliveries:,.0f} deliveries/s"
        f" on {row.cores:.2f} cores, p99 {row.p99:.1f} ms"
    )
    return row


def stalled(plan: Plan, progress: Progress, rows: list[Row]) -> int:
    """Measure with all clients reading, then with some of them stalled.

    Returns:
        The number of stalled clients.
    """
    count = max(1, int(plan.max_clients * STALLED_SHARE))
    load = Load(plan.max_clients, plan.rate, min(plan.seconds, _LONGEST), stalling=count)
    progress(f"stalled: {OURS}, {load.clients:,} clients x {load.rate:,.0f} events/s, {count} stalled ...")
    # A small event log fills up early, so that it does not contribute to the relay's growth.
    with targets.ours(targets.LIVE, "--log-size", "1000") as target, staged(target, load) as stage:
        rows.append(_report_row(progress, "stalled", replace(stage.window(), target="all reading")))
        stage.stall()
        time.sleep(_FILL_SECONDS)
        row = stage.window()
        rows.append(
            _report_row(
                progress, "stalled", replace(row, target=f"{count} stalled", clients=row.clients - count)
            )
        )
    return count


def filters(plan: Plan, progress: Progress, rows: list[Row]) -> None:
    """Measure one shared filter, then one filter per client, with the same number of events for each."""
    clients = plan.max_clients
    # A tenth of the events are states. Each client receives those of one gateway.
    load = Load(clients, plan.rate, min(plan.seconds, _LONGEST), level="ERROR", gateways=clients)
    for label, gateway in (("one filter", "0"), (f"{clients:,} filters", "{n}")):
        progress(f"filters: {OURS}, {clients:,} clients, {label} ...")
        path = f"/ws?subjects=gateway.status.bench.g{gateway},log.error.%3E"
        with targets.ours(path) as target:
            rows.append(_report_row(progress, "filters", replace(measure(target, load), target=label)))


def deflate(plan: Plan, progress: Progress, rows: list[Row], memory: list[Memory]) -> None:
    """Measure without permessage-deflate, then with it."""
    load = Load(plan.max_clients, plan.rate, min(plan.seconds, _LONGEST))
    for label, on in (("plain", False), ("deflate", True)):
        progress(f"deflate: {OURS}, {load.clients:,} clients, {label} ...")
        with targets.ours() as target:
            row = measure(target, replace(load, deflate=on))
        rows.append(_report_row(progress, "deflate", replace(row, target=label)))
    for label, on in (("plain", False), ("deflate", True)):
        memory.append(idle_memory(min(plan.connections, 3_000), deflate=on))
        progress(f"deflate: {OURS}, {label}, {memory[-1].each / 1024:.1f} KB per idle connection")


def streams(plan: Plan, progress: Progress, rows: list[Row]) -> None:
    """Measure the WebSocket, then each of the HTTP streams."""
    load = Load(plan.max_clients, plan.rate, plan.seconds)
    for label, path, protocol in (
        ("WebSocket", targets.LIVE, "tickertape"),
        ("SSE", targets.LIVE.replace("/ws", "/sse"), "stream"),
        ("JSON lines", targets.LIVE.replace("/ws", "/stream"), "stream"),
    ):
        progress(f"streams: {OURS}, {load.clients:,} clients x {load.rate:,.0f} events/s, {label} ...")
        with targets.ours(path) as target:
            row = measure(replace(target, protocol=protocol), load)
        rows.append(_report_row(progress, "streams", replace(row, target=label)))


def growth(plan: Plan, progress: Progress, rows: list[Row]) -> None:
    """Measure increasing numbers of clients at the same rate."""
    for requested in plan.growth:
        clients = min(requested, descriptors())
        if clients < requested:
            progress(f"growth: only {clients:,} of {requested:,} clients fit the limit on file descriptors")
        load = Load(clients, _GROWTH_RATE, min(plan.seconds, _GROWTH_SECONDS))
        progress(f"growth: {OURS}, {clients:,} clients x {load.rate:,.0f} events/s ...")
        with targets.ours() as target:
            rows.append(
                _report_row(
                    progress, "growth", replace(measure(target, load), target=f"{clients:,} at 100/s")
                )
            )


def idle_memory(connections: int, *, deflate: bool = False) -> Memory:
    """Measure the memory that idle connections use in our relay."""
    with targets.ours(_IDLE) as target, contextlib.ExitStack() as stack:
        # The first connections pay the one-time cost of imports, compilation and caches.
        stack.enter_context(connected(target, _WARM_CONNECTIONS, deflate=deflate))
        time.sleep(_SETTLE_SECONDS)
        before = target.process.rss
        stack.enter_context(connected(target, connections, deflate=deflate))
        time.sleep(_SETTLE_SECONDS)
        return Memory(connections, before, target.process.rss)
