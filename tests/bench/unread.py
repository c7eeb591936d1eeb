"""Scenario ``unread``: clients that subscribe again and again and never read, beside others that do.

The relay has the states of many gateways, so that each subscription requests megabytes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.bench.load.children import module
from tests.bench.measures import targets
from tests.bench.run import Load, staged

CLIENTS: Final = 100
RATE: Final = 500.0
"""Events per second to each client that reads; a tenth are states."""

SUBSCRIPTIONS: Final = 120.0
"""Subscriptions per second of each client that does not read."""

_LEAD_NS: Final = 1_000_000_000  # warm-up of a window; the others connect during it


@dataclass(frozen=True, slots=True)
class Unread:
    """Effect of clients that never read.

    Attributes:
        states: states in a snapshot.
        clients: clients that never read.
        sent: subscriptions that they could send.
        p99_before: latency of the other clients before, in ms; ``p99`` with them.
        cores_before: cores used by the relay before; ``cores`` with them.
        closed: other clients that lost their connection.
        rss_before: resident bytes of the relay before; ``rss_peak`` with them.
    """

    states: int
    clients: int
    sent: int
    p99_before: float
    p99: float
    cores_before: float
    cores: float
    closed: int
    rss_before: int
    rss_peak: int

    @property
    def growth(self) -> int:
        """Bytes by which the relay grew."""
        return self.rss_peak - self.rss_before


def unread(states: int, clients: int, seconds: float, progress: Callable[[str], None]) -> Unread:
    """Measure the other clients, first alone, then beside clients that never read.

    Args:
        states: number of gateways.
        clients: number of clients that never read.
        seconds: length of each window.
        progress: called with each line of progress.
    """
    progress(f"unread: {clients} clients that never read, {states:,} states, beside {CLIENTS} clients ...")
    load = Load(CLIENTS, RATE, seconds, gateways=states)
    # A small event log fills up early, so that it does not contribute to the relay's growth.
    with (
        targets.ours(targets.LIVE, "--log-size", "1000") as target,
        staged(target, load) as stage,
        module(
            "the clients that never read", "reader_load",
            port=target.port, clients=clients, rate=SUBSCRIPTIONS, pid=target.process.pid,
        ) as readers,
    ):  # fmt: skip
        readers.receive(30)
        before = stage.window()
        rss = target.process.rss
        start = time.monotonic_ns()
        readers.send(start=start, end=start + _LEAD_NS + int(seconds * 1e9))
        during = stage.window()
        report = readers.receive(seconds + 60)
    found = Unread(
        states, clients, report["sent"], before.p99, during.p99, before.cores, during.cores,
        before.closed + during.closed, rss, report["peak_rss"],
    )  # fmt: skip
    progress(
        f"unread: memory {found.growth / 1e6:+.1f} MB, p99 of the others {found.p99_before:.1f} ms before,"
        f" {found.p99:.1f} ms with them; {found.cores_before:.2f} and {found.cores:.2f} cores;"
        f" {found.sent:,} subscriptions sent"
    )
    return found
