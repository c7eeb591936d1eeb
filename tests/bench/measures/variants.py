"""Scenarios that change one thing about the fan-out, beside the same without it.

stalled   some of the clients stop reading: what the others notice of it, and what the relay keeps for them.
filters   as many different filters as clients, beside one filter for all, at the same deliveries.
deflate   permessage-deflate: bytes, CPU, and memory of idle connections.
growth    ten clients, a hundred, a thousand, ten thousand: how cost grows.
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
"""Time until the buffers of clients that stalled are full."""

_LONGEST: Final = 8.0
"""Seconds of a window here: less than it takes until a client that does not answer pings is cut off."""

_GROWTH_RATE: Final = 100
_GROWTH_SECONDS: Final = 5.0
_IDLE: Final = "/ws?subjects=log.info.nothing"

Say = Callable[[str], None]


def _told(say: Say, scenario: str, row: Row) -> Row:
    say(
        f"{scenario}: {row.who}, {row.clients:,} clients: {row.deliveries:,.0f} deliveries/s"
        f" on {row.cores:.2f} cores, p99 {row.p99:.1f} ms"
    )
    return row


def stalled(plan: Plan, say: Say, rows: list[Row]) -> int:
    """Measure with all clients reading, then with the same of which some have stalled.

    Returns:
        how many stalled.
    """
    count = max(1, int(plan.most_clients * STALLED_SHARE))
    load = Load(plan.most_clients, plan.rate, min(plan.seconds, _LONGEST), stalling=count)
    say(f"stalled: {OURS}, {load.clients:,} clients x {load.rate:,.0f} events/s, then {count} never read ...")
    # A small log is full soon, and then no longer what makes the relay grow.
    with targets.ours(targets.LIVE, "--log-size", "1000") as target, staged(target, load) as stage:
        rows.append(_told(say, "stalled", replace(stage.window(), who="all read")))
        stage.stall()
        time.sleep(_FILL_SECONDS)
        row = stage.window()
        rows.append(_told(say, "stalled", replace(row, who=f"{count} stalled", clients=row.clients - count)))
    return count


def filters(plan: Plan, say: Say, rows: list[Row]) -> None:
    """Measure one filter for all, then one for each; every client gets the same number of events."""
    clients = plan.most_clients
    # A tenth of what is published are states, of which a client gets one in as many as there are gateways.
    load = Load(clients, plan.rate, min(plan.seconds, _LONGEST), level="ERROR", gateways=clients)
    for who, gateway in (("one filter", "0"), (f"{clients:,} filters", "{n}")):
        say(f"filters: {OURS}, {clients:,} clients, {who} ...")
        path = f"/ws?subjects=gateway.status.bench.g{gateway},log.error.%3E"
        with targets.ours(path) as target:
            rows.append(_told(say, "filters", replace(measure(target, load), who=who)))


def deflate(plan: Plan, say: Say, rows: list[Row], memory: list[Memory]) -> None:
    """Measure without permessage-deflate, then with it."""
    load = Load(plan.most_clients, plan.rate, min(plan.seconds, _LONGEST))
    for who, on in (("plain", False), ("deflate", True)):
        say(f"deflate: {OURS}, {load.clients:,} clients, {who} ...")
        with targets.ours() as target:
            row = measure(target, replace(load, deflate=on))
        rows.append(_told(say, "deflate", replace(row, who=who)))
    for who, on in (("plain", False), ("deflate", True)):
        memory.append(idle_memory(min(plan.connections, 3_000), deflate=on))
        say(f"deflate: {OURS}, {who}, {memory[-1].each / 1024:.1f} KB for each idle connection")


def growth(plan: Plan, say: Say, rows: list[Row]) -> None:
    """Measure more and more clients at the same rate."""
    for wanted in plan.growth:
        clients = min(wanted, descriptors())
        if clients < wanted:
            say(f"growth: only {clients:,} of {wanted:,} clients: the limit on descriptors is lower")
        load = Load(clients, _GROWTH_RATE, min(plan.seconds, _GROWTH_SECONDS))
        say(f"growth: {OURS}, {clients:,} clients x {load.rate:,.0f} events/s ...")
        with targets.ours() as target:
            rows.append(_told(say, "growth", replace(measure(target, load), who=f"{clients:,} at 100/s")))


def idle_memory(connections: int, *, deflate: bool = False) -> Memory:
    """What idle connections cost our relay."""
    with targets.ours(_IDLE) as target, contextlib.ExitStack() as stack:
        # The first connections pay for what is imported, compiled and cached once.
        stack.enter_context(connected(target, _WARM_CONNECTIONS, deflate=deflate))
        time.sleep(_SETTLE_SECONDS)
        before = target.process.rss
        stack.enter_context(connected(target, connections, deflate=deflate))
        time.sleep(_SETTLE_SECONDS)
        return Memory(connections, before, target.process.rss)
