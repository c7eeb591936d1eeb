"""One measurement: connect clients to a target, publish events, and measure in windows of time.

All clients connect before publishing begins. Then for each window: wait for a second of warm-up, read the CPU
usage at both ends of the window, and continue reading for a second, so that the last events of the window
count.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tests.bench.load.children import Child, module
from tests.bench.load.publisher import GRACE_NS
from tests.bench.measures.measure import cpu_seconds, machine_seconds
from tests.bench.measures.targets import Target, metric

_REPLY_SECONDS: Final = 30.0
_WARM_UP_NS: Final = 1_000_000_000
_LATENCIES: Final = ("p50", "p99", "max")
_BUSY: Final = 0.9
"""Share of its core above which the load generator is reported as a possible bottleneck."""

_SUSTAINED_SHARE: Final = 0.95
"""Share of the published events that must be delivered within the window itself, whose ends split batches."""

_NOISY: Final = 0.25
"""Cores used by other programs above which a row is reported as disturbed."""

_TOLERANCE: Final = 0.03
"""Tolerated relative difference between two counts of the same events, since the window splits batches."""


@dataclass(frozen=True, slots=True)
class Load:
    """Load on a target.

    Attributes:
        clients: number of connections.
        rate: events published per second.
        seconds: length of the window.
        size: bytes of each event.
        level: level of the log events.
        gateways: if positive, a tenth of the events are states of this many gateways, and each client
            receives those of one.
        deflate: whether clients offer permessage-deflate.
        stalling: number of clients that can be told to stall.
        token: token of all clients, if the target requires one.
        exact: whether every client reads every message.
    """

    clients: int
    rate: float
    seconds: float
    size: int = 300
    level: str = "INFO"
    gateways: int = 0
    deflate: bool = False
    stalling: int = 0
    token: str = ""
    exact: bool = False

    @property
    def sampled(self) -> int:
        """Number of clients that read every message: 2 %, between 2 and 50; all if there are at most 10."""
        return self.clients if self.exact or self.clients <= 10 else min(50, max(2, self.clients // 50))


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one measurement.

    Attributes:
        target: name of the target.
        clients: number of connections.
        rate: events published per second in the window; for ``plain``, events replayed.
        deliveries: events delivered per second, over all clients.
        cores: cores used by the target.
        fraction: share of the window's events that the sampled clients received; NaN if unknown.
        p50: latency from the publisher's send to the client's read, in milliseconds; likewise ``p99`` and
            ``max``.
        mb: megabytes received per second, over all clients.
        frames: WebSocket frames per second, over all clients.
        rss_mb: resident memory of the target at the end of the window, in MB.
        load_cores: cores used by the load generator.
        other_cores: cores used by programs that are not part of the benchmark.
        closed: number of clients that lost their connection.
        lost: events of the window that sampled clients did not receive, reported by a gap or not.
        notes: reasons to doubt the row.
    """

    target: str
    clients: int
    rate: float
    deliveries: float
    cores: float
    fraction: float
    p50: float
    p99: float
    max: float
    mb: float
    frames: float
    rss_mb: float
    load_cores: float
    other_cores: float = 0.0
    closed: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def per_core(self) -> float:
        """Deliveries per second of the target's CPU."""
        return self.deliveries / self.cores if self.cores else 0.0

    @property
    def sustained(self) -> bool:
        """Whether 99 % of the events were delivered within a second and no backlog was growing."""
        keeps_up = self.deliveries >= _SUSTAINED_SHARE * self.rate * self.clients
        return self.fraction >= 0.99 and self.p99 < 1000 and keeps_up


@contextlib.contextmanager
def connected(
    target: Target, clients: int, sampled: int = 0, record: Path | None = None, **more: Any
) -> Iterator[Child]:
    """Run a load generator whose clients are all connected."""
    spec: dict[str, Any] = {
        "port": target.port,
        "path": target.path,
        "protocol": target.protocol,
        "clients": clients,
        "sampled": max(1, sampled),
        "record": str(record) if record else None,
        **more,
    }
    with module("the load generator", "loadgen", **spec) as generator:
        generator.receive(_REPLY_SECONDS + 30 + clients / 500)
        yield generator


def sleep_until(moment_ns: int) -> None:
    """Sleep until a time of the monotonic clock, in nanoseconds."""
    time.sleep(max(0.0, (moment_ns - time.monotonic_ns()) / 1e9))


class Stage:
    """Target with its clients and its publisher, ready for successive windows.

    Args:
        target: running target.
        load: load on the target.
        generator: process of the clients.
        publisher: process of the publisher; None if the target generates its own events.
    """

    def __init__(self, target: Target, load: Load, generator: Child, publisher: Child | None) -> None:
        self.target = target
        self._load = load
        self._generator = generator
        self._publisher = publisher

    def stall(self) -> None:
        """Stall the clients that were chosen to stall."""
        self._generator.send(stall=True)
        self._generator.receive(_REPLY_SECONDS)

    def window(self, seconds: float | None = None) -> Row:
        """Measure one window of the load's length or of ``seconds``."""
        load = self._load if seconds is None else replace(self._load, seconds=seconds)
        target, generator, publisher = self.target, self._generator, self._publisher
        delivered_before = metric(target, "tickertape_events_delivered_total") if target.ops_port else 0.0
        counted_at = time.monotonic()
        start = time.monotonic_ns() + _WARM_UP_NS
        end = start + int(load.seconds * 1e9)
        generator.send(start=start, end=end)
        if publisher:
            publisher.send(start=start, end=end)

        sleep_until(start)
        began, cpu, load_cpu = time.monotonic(), target.process.cpu, generator.cpu
        others = _other_cpu_seconds()
        sleep_until(end)
        elapsed = time.monotonic() - began
        cores = (target.process.cpu - cpu) / elapsed
        load_cores = (generator.cpu - load_cpu) / elapsed
        other_cores = (_other_cpu_seconds() - others) / elapsed
        rss = target.process.rss
        target.process.check()
        reported_rate = 0.0
        if target.ops_port:
            delivered = metric(target, "tickertape_events_delivered_total") - delivered_before
            reported_rate = delivered / (time.monotonic() - counted_at)

        sleep_until(end + GRACE_NS)
        got = generator.receive(_REPLY_SECONDS)
        sent = publisher.receive(_REPLY_SECONDS) if publisher else None
        return _row(target, load, got, sent, (cores, load_cores, other_cores), rss, reported_rate)


@contextlib.contextmanager
def staged(target: Target, load: Load, record: Path | None = None) -> Iterator[Stage]:
    """Connect the clients and start publishing.

    Args:
        target: running target.
        load: load on the target.
        record: file for the frames of one client.
    """
    with contextlib.ExitStack() as stack:
        more = {"deflate": load.deflate, "stalling": load.stalling, "token": load.token}
        publisher: Child | None = None
        if target.nats_port:
            # The gateways' first states are published before clients connect, as in production.
            publisher = stack.enter_context(publishing(target.nats_port, load))
        generator = stack.enter_context(connected(target, load.clients, load.sampled, record, **more))
        (publisher or target.process).send(go=True)
        yield Stage(target, load, generator, publisher)


@contextlib.contextmanager
def publishing(nats_port: int, load: Load) -> Iterator[Child]:
    """Run a publisher that sends a load's events evenly once it is told to start."""
    spec = {
        "mode": "paced",
        "nats_port": nats_port,
        "rate": load.rate,
        "size": load.size,
        "level": load.level,
        "gateways": load.gateways,
    }
    with module("the publisher", "publisher", **spec) as publisher:
        publisher.receive(_REPLY_SECONDS)
        yield publisher


def measure(target: Target, load: Load, record: Path | None = None) -> Row:
    """Measure a target under one load, in one window."""
    with staged(target, load, record) as stage:
        return stage.window()


def _other_cpu_seconds() -> float:
    """Return the CPU seconds used by other programs; only differences within a window are meaningful."""
    return machine_seconds() - cpu_seconds(os.getpid())


def _row(
    target: Target,
    load: Load,
    got: dict[str, Any],
    sent: dict[str, Any] | None,
    used: tuple[float, float, float],
    rss: int,
    reported_rate: float,
) -> Row:
    cores, load_cores, other_cores = used
    # JSON has no NaN: latencies are null if no event of the window arrived in time.
    p50, p99, largest = (got[name] if sent and got[name] is not None else math.nan for name in _LATENCIES)
    deliveries = got["deliveries"] / got["seconds"]
    each = sent["published"] + sent["states"] / max(1, load.gateways) if sent else 0.0
    expected = got["sampled"] * each
    fraction = got["in_window"] / expected if expected else math.nan
    notes = []
    if load_cores > _BUSY:
        notes.append(f"the load generator used {load_cores:.0%} of a core and may be the bottleneck")
    if other_cores > _NOISY:
        notes.append(f"other programs used {other_cores:.1f} cores; run again on an idle machine")
    if got["closed"]:
        notes.append(f"{got['closed']} clients lost their connection")
    if load.deflate and not got["compressed"]:
        notes.append("no message was compressed")
    if got["lost"]:
        notes.append(f"{got['lost']} events reported as dropped to the sampled clients")
    if sent and fraction < 0.99:
        notes.append(f"only {fraction:.1%} of the events arrived within a second of the end")
    elif got["deviation"] > _TOLERANCE + 2 * load.clients / max(1, got["frames"]):
        # One frame more or less at either end of the window is due to the window, not to a fault.
        notes.append(f"a client's bytes differ by {got['deviation']:.0%} from those of the sampled clients")
    if sent and sent["latest_ms"] > 100:
        notes.append(f"the publisher was up to {sent['latest_ms']:.0f} ms late")
    # The relay's counter covers slightly more than the window, so rates are compared instead of counts.
    if reported_rate and deliveries and abs(reported_rate / deliveries - 1) > 2 * _TOLERANCE:
        notes.append(f"the relay's metrics report {reported_rate:,.0f} deliveries/s")
    return Row(
        target=target.name,
        clients=load.clients,
        rate=each / load.seconds if sent else deliveries / load.clients,
        deliveries=deliveries,
        cores=cores,
        fraction=fraction,
        p50=p50,
        p99=p99,
        max=largest,
        mb=got["bytes"] / got["seconds"] / 1e6,
        frames=got["frames"] / got["seconds"],
        rss_mb=rss / 1e6,
        load_cores=load_cores,
        other_cores=other_cores,
        closed=got["closed"],
        lost=max(0, round(expected - got["in_window"])),
        notes=notes,
    )
