"""Scenario ``conditions``: clients with a condition each, compared with as many other filters.

Two relays read the same stream in the same window, so that whatever else the machine does affects both alike.
Each client follows one of a hundred subjects: at the one relay with a condition that no other client has and
that all events fulfil, at the other with a pattern of its own that nothing matches. So both relays have as
many feeds and deliveries, and differ in the evaluations.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.bench.load.children import BenchError, Child
from tests.bench.load.publisher import GRACE_NS, PublisherConnection
from tests.bench.measures import targets
from tests.bench.measures.targets import Target, metric
from tests.bench.run import connected, sleep_until

SUBJECTS: Final = 100
RATE: Final = 1_000
"""Events per second over all subjects."""

_WARM_UP_NS: Final = 2_000_000_000
_TICK: Final = 0.01
_CONDITION: Final = "event.level%20==%20%22INFO%22%20%26%26%20event.metadata.n%20!=%20-{each}{n}"


@dataclass(frozen=True, slots=True)
class Conditions:
    """Cost of conditions.

    Attributes:
        clients: clients of each relay.
        cores_without: cores used without conditions; ``cores`` with them.
        delivered_without: events delivered in the window without conditions; ``delivered`` with them.
    """

    clients: int
    cores_without: float
    cores: float
    delivered_without: float
    delivered: float

    @property
    def ratio(self) -> float:
        """CPU with conditions, relative to that without."""
        return self.cores / self.cores_without


def conditions(clients: int, seconds: float, progress: Callable[[str], None]) -> Conditions:
    """Measure a relay whose clients have conditions beside one whose clients have none.

    Args:
        clients: clients of each relay, a multiple of ``SUBJECTS``.
        seconds: length of the window.
        progress: called with each line of progress.
    """
    progress(f"conditions: {clients:,} clients with a condition each, {SUBJECTS} subjects, {RATE:,}/s ...")
    each = clients // SUBJECTS
    with ExitStack() as stack:
        _, port = stack.enter_context(targets.nats_server(jetstream=True))
        relays = [stack.enter_context(targets.relay(port)) for _ in range(2)]
        generators = []
        for number in range(each):
            condition = _CONDITION.replace("{each}", str(number + 1))
            for target, extra in ((relays[0], f",unused.{number}.{{n}}"), (relays[1], f"&where={condition}")):
                path = f"/ws?subjects=log.info.s{{n}}{extra}"
                generators.append(stack.enter_context(connected(_at(target, path), SUBJECTS)))
        cores, delivered = _window(relays, generators, port, seconds)
    found = Conditions(clients, cores[0], cores[1], delivered[0], delivered[1])
    progress(
        f"conditions: {found.cores:.3f} cores with, {found.cores_without:.3f} without: {found.ratio:.2f} x;"
        f" {found.delivered:,.0f} and {found.delivered_without:,.0f} deliveries"
    )
    return found


def _at(target: Target, path: str) -> Target:
    return Target(target.name, target.process, target.port, target.protocol, path, 0, target.ops_port)


def _window(
    relays: list[Target], generators: list[Child], port: int, seconds: float
) -> tuple[list[float], list[float]]:
    """Publish for some seconds, and return the cores and deliveries of each relay meanwhile."""
    start = time.monotonic_ns() + _WARM_UP_NS
    end = start + int(seconds * 1e9)
    for generator in generators:
        generator.send(start=start, end=end)
    publisher, number = PublisherConnection(port), 0
    began: list[tuple[float, float]] = []
    opened = time.monotonic_ns()
    while (now := time.monotonic_ns()) < end:
        if not began and now >= start:
            start, began = now, [_usage(relay) for relay in relays]
        due = int((now - opened) / 1e9 * RATE)
        publisher.send(b"".join(_event(n) for n in range(number, due)))
        number = due
        sleep_until(now + int(_TICK * 1e9))
    elapsed = (time.monotonic_ns() - start) / 1e9
    if not began:
        raise BenchError("the window of the conditions was missed")
    ended = [_usage(relay) for relay in relays]
    sleep_until(end + GRACE_NS)
    for generator in generators:
        generator.receive(60)
    cores = [(last[0] - first[0]) / elapsed for last, first in zip(ended, began, strict=True)]
    return cores, [last[1] - first[1] for last, first in zip(ended, began, strict=True)]


def _usage(relay: Target) -> tuple[float, float]:
    return relay.process.cpu, metric(relay, "tickertape_events_delivered_total")


def _event(number: int) -> bytes:
    """Return the protocol text that publishes an event of about 300 bytes."""
    source = number % SUBJECTS
    body = (
        b'{"event_type":"system_log","timestamp":"2025-06-24T10:30:45.123Z","level":"INFO","source":"s%d",'
        b'"metadata":{"n":%d,"sent":%d},"message":"%b"}'
    ) % (source, number, time.monotonic_ns(), b"margin call " * 13)
    return b"PUB log.info.s%d %d\r\n%b\r\n" % (source, len(body), body)
