"""Scenarios of clients with old cursors.

reconnect  10 000 clients reconnect simultaneously with cursors five seconds old while events are published:
           time until all are live, and a check that each received every event once.
replay     one client reads a stream from its beginning, far beyond the relay's event log; compared to plain
           nats-py reading the same events.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from tests.bench.load.children import BenchError, Child, module
from tests.bench.measures import targets
from tests.bench.measures.measure import descriptors
from tests.bench.measures.plan import Plan, Reconnect, Replay
from tests.bench.measures.targets import OURS, Target
from tests.bench.run import Load, publishing

_CURSOR_AGE_SECONDS: Final = 5.0
_RATE: Final = 200.0
_PATIENCE: Final = 150.0
"""Seconds to wait for a reply of the process with the reconnecting clients."""

_PATH: Final = "/ws?subjects=log.%3E&mode=complete"
_BACKLOG_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.1

Progress = Callable[[str], None]


def _reconnecting_clients(
    target: Target, clients: int, epoch: str, after: int, rate: float, full: int
) -> Any:
    return module(
        "the reconnecting clients", "reconnecting",
        port=target.port, path=target.path + f"&cursor={epoch}-{{cursor}}", protocol=target.protocol,
        clients=clients, sampled=1, record=None, after=after, rate=rate, every=full,
    )  # fmt: skip


def reconnect(plan: Plan, progress: Progress) -> Reconnect:
    """Reconnect all clients with old cursors and check the events that each receives."""
    clients = min(plan.reconnecting, descriptors())
    if clients < plan.reconnecting:
        progress(
            f"reconnect: only {clients:,} of {plan.reconnecting:,} clients fit the limit on file descriptors"
        )
    progress(f"reconnect: {OURS}, {clients:,} clients with cursors {_CURSOR_AGE_SECONDS:g} s old ...")
    with targets.ours(_PATH) as target, publishing(target.nats_port, Load(1, _RATE, 1)) as publisher:
        publisher.send(go=True)
        time.sleep(0.5)
        epoch, after = targets.position(target)
        time.sleep(_CURSOR_AGE_SECONDS)
        with _reconnecting_clients(target, clients, epoch, after, _RATE, 20) as generator:
            cpu, load_cpu, began = target.process.cpu, generator.cpu, time.monotonic()
            connected = generator.receive(_PATIENCE)["connected"]
            live = generator.receive(_PATIENCE)["live"]
            cpu = target.process.cpu - cpu
            load_cores = (generator.cpu - load_cpu) / (time.monotonic() - began)
            time.sleep(1)
            publisher.send(stop=True)
            generator.send(last=last_published(publisher))
            got = generator.receive(_PATIENCE)
    result = Reconnect(
        clients, plan.reconnecting, connected, live, got["events"], got["lost"], got["repeated"], got["gaps"],
        got["behind"], cpu, load_cores,
    )  # fmt: skip
    live_after = "never" if live is None else f"after {live:.1f} s"
    connected_after = "never" if connected is None else f"after {connected:.1f} s"
    progress(
        f"reconnect: all connected {connected_after}, all live {live_after}; {result.lost} lost,"
        f" {result.repeated} repeated of {result.events:,} events"
    )
    return result


def last_published(publisher: Child) -> int:
    """Return the sequence of the last published event; the stream contains nothing else."""
    return int(publisher.receive(30)["published"])


def replay(plan: Plan, progress: Progress, rows: list[Replay]) -> None:
    """Fill a stream, then read it from its beginning."""
    progress(f"replay: {plan.replay_events:,} events are being published ...")
    with targets.nats_server(jetstream=True) as (_, port):
        targets.make_streams(port)
        spec = {
            "mode": "backlog",
            "nats_port": port,
            "count": plan.replay_events,
            "size": 300,
            "msg_ids": False,
        }
        with module("the publisher", "publisher", **spec) as publisher:
            publisher.receive(30)
            publisher.send(go=True)
            publisher.receive(_BACKLOG_SECONDS)
        if OURS in plan.targets:
            rows.append(_replay_ours(plan, progress, port))
        rows.append(_replay_bare(plan, progress, port))


def _replay_ours(plan: Plan, progress: Progress, port: int) -> Replay:
    with targets.relay(port, _PATH, "--log-size", "10000") as target:
        deadline = time.monotonic() + 30
        while (position := targets.position(target))[1] < plan.replay_events:
            if time.monotonic() > deadline:
                raise BenchError(f"{OURS} ingested only {position[1]:,} of {plan.replay_events:,} events")
            time.sleep(_POLL_SECONDS)
        time.sleep(1)  # its event log warms up from the tail of the stream
        progress(f"replay: {OURS}, one client, {plan.replay_events:,} events ...")
        cpu = target.process.cpu
        with _reconnecting_clients(target, 1, position[0], 0, 0, 1) as generator:
            generator.send(last=plan.replay_events)
            for _ in ("connected", "live"):
                generator.receive(_BACKLOG_SECONDS)
            got = generator.receive(_BACKLOG_SECONDS)
        cpu = target.process.cpu - cpu
    row = Replay(
        OURS, got["events"], got["seconds"], cpu, plan.replay_events - got["events"], got["repeated"]
    )
    progress(f"replay: {OURS}: {row.rate:,.0f} events/s on {row.cores:.2f} cores, {row.lost} lost")
    return row


def _replay_bare(plan: Plan, progress: Progress, port: int) -> Replay:
    began = time.monotonic()
    with module("nats-py", "peers", peer="consume", nats_port=port, deliver="all") as child:
        child.receive(30)
        while True:
            child.send(count=True)
            received = int(child.receive(30)["received"])
            if received >= plan.replay_events:
                break
            if time.monotonic() - began > _BACKLOG_SECONDS:
                raise BenchError(f"plain nats-py read only {received:,} of {plan.replay_events:,} events")
            time.sleep(_POLL_SECONDS)
        row = Replay("plain nats-py", received, time.monotonic() - began, child.cpu)
    progress(f"replay: {row.target}: {row.rate:,.0f} events/s")
    return row
