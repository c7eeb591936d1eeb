"""Scenarios of clients that were away: all of them come back at once, and one reads everything again.

comeback  ten thousand clients with cursors five seconds old, while events go on: when are they live, and did
          each get every event once?
replay    one client, from the beginning of a stream that is far longer than the relay's memory, beside bare
          nats-py, which reads the same.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from tests.bench.load.children import BenchError, Child, module
from tests.bench.measures import targets
from tests.bench.measures.measure import descriptors
from tests.bench.measures.plan import Comeback, Plan, Replay
from tests.bench.measures.targets import OURS, Target
from tests.bench.run import Load, publishing

_AWAY_SECONDS: Final = 5.0
_RATE: Final = 200.0
_PATIENCE: Final = 150.0
"""Seconds after which the process of the clients that came back is no longer waited for."""

_PATH: Final = "/ws?subjects=log.%3E&mode=complete"
_BACKLOG_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.1

Say = Callable[[str], None]


def _returners(target: Target, clients: int, epoch: str, after: int, rate: float, full: int) -> Any:
    return module(
        "the returning clients", "returners",
        port=target.port, path=target.path + f"&cursor={epoch}-{{cursor}}", protocol=target.protocol,
        clients=clients, sampled=1, record=None, after=after, rate=rate, every=full,
    )  # fmt: skip


def comeback(plan: Plan, say: Say) -> Comeback:
    """Have all clients connect with old cursors, and check what each is sent."""
    clients = min(plan.returning, descriptors())
    if clients < plan.returning:
        say(f"comeback: only {clients:,} of {plan.returning:,} clients: the limit on descriptors is lower")
    say(f"comeback: {OURS}, {clients:,} clients with cursors {_AWAY_SECONDS:g} s old ...")
    with targets.ours(_PATH) as target, publishing(target.nats_port, Load(1, _RATE, 1)) as publisher:
        publisher.say(go=True)
        time.sleep(0.5)
        epoch, after = targets.place(target)
        time.sleep(_AWAY_SECONDS)
        with _returners(target, clients, epoch, after, _RATE, 20) as generator:
            cpu, load_cpu, began = target.process.cpu, generator.cpu, time.monotonic()
            connected = generator.hear(_PATIENCE)["connected"]
            live = generator.hear(_PATIENCE)["live"]
            cpu = target.process.cpu - cpu
            load_cores = (generator.cpu - load_cpu) / (time.monotonic() - began)
            time.sleep(1)
            publisher.say(stop=True)
            generator.say(last=after_all(publisher))
            got = generator.hear(_PATIENCE)
    result = Comeback(
        clients, plan.returning, connected, live, got["events"], got["lost"], got["repeated"], got["gaps"],
        got["behind"], cpu, load_cores,
    )  # fmt: skip
    late = "never" if live is None else f"after {live:.1f} s"
    served = "never" if connected is None else f"after {connected:.1f} s"
    say(
        f"comeback: all connected {served}, all live {late}; {result.lost} lost,"
        f" {result.repeated} repeated of {result.events:,} events"
    )
    return result


def after_all(publisher: Child) -> int:
    """Sequence of the last event that was published: nothing else is in the stream."""
    return int(publisher.hear(30)["published"])


def replay(plan: Plan, say: Say, rows: list[Replay]) -> None:
    """Fill a stream, then read it from its beginning."""
    say(f"replay: {plan.old:,} events are published ...")
    with targets.nats_server(jetstream=True) as (_, port):
        targets.make_streams(port)
        spec = {"way": "backlog", "nats_port": port, "count": plan.old, "size": 300, "msg_ids": False}
        with module("the publisher", "publisher", **spec) as publisher:
            publisher.hear(30)
            publisher.say(go=True)
            publisher.hear(_BACKLOG_SECONDS)
        if OURS in plan.who:
            rows.append(_replay_ours(plan, say, port))
        rows.append(_replay_bare(plan, say, port))


def _replay_ours(plan: Plan, say: Say, port: int) -> Replay:
    with targets.relay(port, _PATH, "--log-size", "10000") as target:
        deadline = time.monotonic() + 30
        while (place := targets.place(target))[1] < plan.old:
            if time.monotonic() > deadline:
                raise BenchError(f"{OURS} stands at {place[1]:,} of {plan.old:,}")
            time.sleep(_POLL_SECONDS)
        time.sleep(1)  # its memory warms from the stream's tail
        say(f"replay: {OURS}, one client, {plan.old:,} events ...")
        cpu = target.process.cpu
        with _returners(target, 1, place[0], 0, 0, 1) as generator:
            generator.say(last=plan.old)
            for _ in ("connected", "live"):
                generator.hear(_BACKLOG_SECONDS)
            got = generator.hear(_BACKLOG_SECONDS)
        cpu = target.process.cpu - cpu
    row = Replay(OURS, got["events"], got["seconds"], cpu, plan.old - got["events"], got["repeated"])
    say(f"replay: {OURS}: {row.rate:,.0f} events/s on {row.cores:.2f} cores, {row.lost} lost")
    return row


def _replay_bare(plan: Plan, say: Say, port: int) -> Replay:
    began = time.monotonic()
    with module("nats-py", "peers", who="consume", nats_port=port, deliver="all") as child:
        child.hear(30)
        while True:
            child.say(count=True)
            received = int(child.hear(30)["received"])
            if received >= plan.old:
                break
            if time.monotonic() - began > _BACKLOG_SECONDS:
                raise BenchError(f"bare nats-py read only {received:,} of {plan.old:,} events")
            time.sleep(_POLL_SECONDS)
        row = Replay("bare nats-py", received, time.monotonic() - began, child.cpu)
    say(f"replay: {row.who}: {row.rate:,.0f} events/s")
    return row
