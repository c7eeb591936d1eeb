"""One measurement: clients connect to a target, events are published, and windows of time are looked at.

Order: connect everyone, begin to publish; then for each window: let a warm-up second pass, take the CPU at
both ends of the window, read on for a second so that the window's last events count too.
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

_ANSWER_SECONDS: Final = 30.0
_WARM_UP_NS: Final = 1_000_000_000
_LATENCIES: Final = ("p50", "p99", "max")
_BUSY: Final = 0.9
"""Share of its core above which the load generator is said to be the limit."""

_KEEPS_UP: Final = 0.95
"""Share of the published events that go out within the window itself; batches are cut by its ends."""

_CROWDED: Final = 0.25
"""Cores used by programs that are not of the benchmark, above which a row is said to be disturbed."""

_AGREE: Final = 0.03
"""Difference that two ways of counting the same thing may have, from where the window cuts them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a target is given.

    Attributes:
        clients: connections.
        rate: events published each second.
        seconds: length of the window.
        size: bytes of each event.
        level: of the log events.
        gateways: with any, a tenth of the events are states of so many gateways, one to a client.
        deflate: whether clients offer permessage-deflate.
        stalling: clients that will be told to stall.
        token: of all clients, where the target asks for one.
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
        """Clients that read every message: one in fifty, at least two, at most fifty, all of a few."""
        return self.clients if self.exact or self.clients <= 10 else min(50, max(2, self.clients // 50))


@dataclass(frozen=True, slots=True)
class Row:
    """What came out.

    Attributes:
        who: the target.
        clients: connections.
        rate: events published each second in the window; for ``plain``, events replayed.
        deliveries: events delivered each second, over all clients.
        cores: cores that the target used.
        fraction: share of the window's events that the sampled clients have received; NaN where unknown.
        p50: latency from the publisher's send to the client's read, in milliseconds; p99, max likewise.
        mb: megabytes received each second, over all clients.
        frames: WebSocket frames each second, over all clients.
        rss_mb: the target's resident memory at the window's end, in MB.
        load_cores: cores that the load generator used.
        other_cores: cores that programs used that are not of the benchmark.
        closed: clients that lost their connection.
        lost: events of the window that sampled clients did not get, told or not.
        notes: what casts doubt on the row.
    """

    who: str
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
        """Deliveries for each second of the target's CPU."""
        return self.deliveries / self.cores if self.cores else 0.0

    @property
    def sustained(self) -> bool:
        """True when (nearly) everything was delivered within a second, and no backlog was growing."""
        keeps_up = self.deliveries >= _KEEPS_UP * self.rate * self.clients
        return self.fraction >= 0.99 and self.p99 < 1000 and keeps_up


@contextlib.contextmanager
def connected(
    target: Target, clients: int, sampled: int = 0, record: Path | None = None, **more: Any
) -> Iterator[Child]:
    """A load generator whose clients are all connected."""
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
        generator.hear(_ANSWER_SECONDS + 30 + clients / 500)
        yield generator


def sleep_until(moment_ns: int) -> None:
    """Wait for a moment of the monotonic clock."""
    time.sleep(max(0.0, (moment_ns - time.monotonic_ns()) / 1e9))


class Stage:
    """A target with its clients and its publisher, ready for one window after the other.

    Args:
        target: started and ready.
        load: how much it is given.
        generator: the clients.
        publisher: None for a target that publishes by itself.
    """

    def __init__(self, target: Target, load: Load, generator: Child, publisher: Child | None) -> None:
        self.target = target
        self._load = load
        self._generator = generator
        self._publisher = publisher

    def stall(self) -> None:
        """Have the clients stall that were meant to."""
        self._generator.say(stall=True)
        self._generator.hear(_ANSWER_SECONDS)

    def window(self, seconds: float | None = None) -> Row:
        """Measure for the load's seconds, or so many."""
        load = self._load if seconds is None else replace(self._load, seconds=seconds)
        target, generator, publisher = self.target, self._generator, self._publisher
        told_before = metric(target, "tickertape_events_delivered_total") if target.ops_port else 0.0
        asked_before = time.monotonic()
        start = time.monotonic_ns() + _WARM_UP_NS
        end = start + int(load.seconds * 1e9)
        generator.say(start=start, end=end)
        if publisher:
            publisher.say(start=start, end=end)

        sleep_until(start)
        began, cpu, load_cpu = time.monotonic(), target.process.cpu, generator.cpu
        others = _others()
        sleep_until(end)
        took = time.monotonic() - began
        cores = (target.process.cpu - cpu) / took
        load_cores = (generator.cpu - load_cpu) / took
        other_cores = (_others() - others) / took
        rss = target.process.rss
        target.process.check()
        told_rate = 0.0
        if target.ops_port:
            told = metric(target, "tickertape_events_delivered_total") - told_before
            told_rate = told / (time.monotonic() - asked_before)

        sleep_until(end + GRACE_NS)
        got = generator.hear(_ANSWER_SECONDS)
        sent = publisher.hear(_ANSWER_SECONDS) if publisher else None
        return _row(target, load, got, sent, (cores, load_cores, other_cores), rss, told_rate)


@contextlib.contextmanager
def staged(target: Target, load: Load, record: Path | None = None) -> Iterator[Stage]:
    """Connect the clients and begin to publish.

    Args:
        target: started and ready.
        load: how much.
        record: where to keep the frames of one client.
    """
    with contextlib.ExitStack() as stack:
        more = {"deflate": load.deflate, "stalling": load.stalling, "token": load.token}
        publisher: Child | None = None
        if target.nats_port:
            # The first states of gateways are there before the clients are, as in life.
            publisher = stack.enter_context(publishing(target.nats_port, load))
        generator = stack.enter_context(connected(target, load.clients, load.sampled, record, **more))
        (publisher or target.process).say(go=True)
        yield Stage(target, load, generator, publisher)


@contextlib.contextmanager
def publishing(nats_port: int, load: Load) -> Iterator[Child]:
    """A publisher that sends a load's events evenly once it is told to go."""
    spec = {
        "way": "paced",
        "nats_port": nats_port,
        "rate": load.rate,
        "size": load.size,
        "level": load.level,
        "gateways": load.gateways,
    }
    with module("the publisher", "publisher", **spec) as publisher:
        publisher.hear(_ANSWER_SECONDS)
        yield publisher


def measure(target: Target, load: Load, record: Path | None = None) -> Row:
    """Run one load against a target, in one window."""
    with staged(target, load, record) as stage:
        return stage.window()


def _others() -> float:
    """CPU seconds used by what is not the benchmark; only its change within a window means anything."""
    return machine_seconds() - cpu_seconds(os.getpid())


def _row(
    target: Target,
    load: Load,
    got: dict[str, Any],
    sent: dict[str, Any] | None,
    used: tuple[float, float, float],
    rss: int,
    told_rate: float,
) -> Row:
    cores, load_cores, other_cores = used
    # JSON has no NaN: latencies are null when no event of the window arrived in time.
    p50, p99, largest = (got[name] if sent and got[name] is not None else math.nan for name in _LATENCIES)
    deliveries = got["deliveries"] / got["seconds"]
    each = sent["published"] + sent["states"] / max(1, load.gateways) if sent else 0.0
    expected = got["sampled"] * each
    fraction = got["in_window"] / expected if expected else math.nan
    notes = []
    if load_cores > _BUSY:
        notes.append(f"the load generator used {load_cores:.0%} of a core: it may be the limit")
    if other_cores > _CROWDED:
        notes.append(f"other programs used {other_cores:.1f} cores: run it again on a quiet machine")
    if got["closed"]:
        notes.append(f"{got['closed']} clients were disconnected")
    if load.deflate and not got["compressed"]:
        notes.append("nothing came compressed")
    if got["lost"]:
        notes.append(f"{got['lost']} events told as dropped to the sample")
    if sent and fraction < 0.99:
        notes.append(f"only {fraction:.1%} of the events arrived within a second of the end")
    elif got["uneven"] > _AGREE + 2 * load.clients / max(1, got["frames"]):
        # One frame more or less at either end of the window is the cut, not a fault.
        notes.append(f"a client got {got['uneven']:.0%} more or less than the sample")
    if sent and sent["latest_ms"] > 100:
        notes.append(f"the publisher was up to {sent['latest_ms']:.0f} ms late")
    # The relay's own count spans a little more than the window, so rates are compared, not counts.
    if told_rate and deliveries and abs(told_rate / deliveries - 1) > 2 * _AGREE:
        notes.append(f"the relay's metrics say {told_rate:,.0f} deliveries/s")
    return Row(
        who=target.who,
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
