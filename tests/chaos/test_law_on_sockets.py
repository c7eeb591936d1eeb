"""The conservation law on real sockets.

Relays and NATS are killed at random, clients resume with cursors, and the stream deletes events meanwhile,
whether or not they have been read.

``CHAOS=full`` kills 50 times instead of 6; ``CHAOS_SEED`` repeats a run.
"""

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import nats
import orjson
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from tickertape.contracts.events import EventModel, GatewayStatusChange, Status, SystemLog
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL
from tickertape.relay.core.filters import Filter
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.chaos.ledger import Counts, Ledger, number_of
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

CLIENTS: Final = 100
BURST: Final = 10
"""Number of events in a burst."""

PAUSE: Final = 0.06
"""Seconds between two bursts."""

SETTLE: Final = 2 * PATIENCE
"""Seconds for all clients to catch up at the end; only a failing test takes this long."""

FILTERS: Final = (
    ((">",), "DEBUG"),
    (("gateway.>", "log.critical.>"), "DEBUG"),
    ((">",), "WARN"),
    (("log.*.a", "log.*.b", "log.critical.>"), "INFO"),
)
"""Filters of the clients; all of them match the last event, a critical line."""

LEVELS: Final = ("DEBUG", "INFO", "INFO", "INFO", "WARN", "ERROR")


class Publisher:
    """Publisher of numbered events that retries each one until it is acknowledged, through any outage.

    Attributes:
        acknowledged: sequence, subject and number of each acknowledged event.
    """

    def __init__(self, url: str, choose: random.Random) -> None:
        self._url = url
        self._choose = choose
        self.acknowledged: list[tuple[int, str, int]] = []
        self._number = 0

    async def run(self, over: asyncio.Event) -> None:
        """Publish until told to stop, then publish one last critical line."""

        async def silent(error: Exception) -> None:
            """Ignore connection errors: this test causes outages."""

        nc = await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=silent
        )
        try:
            self._js = nc.jetstream()
            while not over.is_set():
                await asyncio.gather(*(self._publish(self._make()) for _ in range(BURST)))
                await asyncio.sleep(PAUSE)
            self._number += 1
            await self._publish(self._line("CRITICAL", "end"))
        finally:
            await nc.close()

    def _make(self) -> EventModel:
        self._number += 1
        if self._choose.random() < 0.2:
            return GatewayStatusChange(
                gateway_id=f"g{self._choose.randrange(20)}",
                gateway_type="ctp",
                previous_status=Status.UNKNOWN,
                current_status=self._choose.choice([Status.HEALTHY, Status.DEGRADED]),
                metadata={"n": self._number},
            )
        return self._line(self._choose.choice(LEVELS), self._choose.choice("abcd"))

    def _line(self, level: str, source: str) -> SystemLog:
        return SystemLog.model_validate(
            {"level": level, "message": "x" * 200, "source": source, "metadata": {"n": self._number}}
        )

    async def _publish(self, event: EventModel) -> None:
        number = number_of(event.model_dump())
        while True:
            try:
                ack = await self._js.publish(
                    event.subject, event.encode(), timeout=2.0, headers={"Nats-Msg-Id": f"n{number}"}
                )
            except (NatsError, OSError):
                await asyncio.sleep(0.1)
                continue
            self.acknowledged.append((ack.seq, event.subject, number))
            return


class Client:
    """Client that follows either relay and resumes with its cursor after any disconnection.

    Args:
        relays: URLs of the feeds.
        mode: mode of the subscription.
        wanted: patterns and level.
        choose: source of randomness.
    """

    def __init__(
        self, relays: list[str], mode: str, expected: tuple[tuple[str, ...], str], choose: random.Random
    ) -> None:
        self.ledger = Ledger()
        self.mode = mode
        self.filter = Filter(*expected)
        self.connections = 0
        self._relays = relays
        self._query = {
            "mode": mode,
            "subjects": ",".join(expected[0]),
            "level": expected[1],
            "interval_ms": 200,
        }
        self._choose = choose

    def __repr__(self) -> str:
        return f"<{self.mode} {self._query['subjects']} {self._query['level']} at {self.ledger.cursor}>"

    async def run(self) -> None:
        """Follow the feed until cancelled."""
        while True:
            # OSError: the port is closed; the others: the relay stopped, or is not ready yet.
            with contextlib.suppress(OSError, ConnectionClosed, InvalidHandshake, EOFError):
                await self._follow(self._choose.choice(self._relays))
            self.ledger.leave()
            await asyncio.sleep(self._choose.uniform(0.02, 0.3))

    @staticmethod
    def address_of(relay: Relay) -> str:
        """Return the URL of a relay's feed."""
        return relay.ws_url

    async def _follow(self, relay: str) -> None:
        query = dict(self._query)
        if self.ledger.cursor:
            query["cursor"] = self.ledger.cursor
        # One in four clients disconnects on its own, between two messages.
        patience = self._choose.randrange(5, 200) if self._choose.random() < 0.25 else None
        async with connect(
            f"{relay}?{urlencode(query)}",
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=self._choose.choice([None, "deflate"]),
            max_size=MAX_MESSAGE_BYTES,
            proxy=None,
            ping_interval=None,
            open_timeout=PATIENCE,
            close_timeout=0.2,
        ) as socket:
            self.connections += 1
            while patience is None or patience > 0:
                self.ledger.note(orjson.loads(await socket.recv()))
                if patience is not None:
                    patience -= 1


class Chaos:
    """Process that kills the others with -9 and restarts them, independently of each other, a fixed number of
    times.
    """

    def __init__(
        self, nats_server: NatsServer, relays: list[Relay], kills: int, choose: random.Random
    ) -> None:
        self.done: dict[str, int] = {}
        self._left = kills
        self._choose = choose
        self._victims: list[tuple[str, Callable[[], None], Callable[[], None]]] = [
            ("nats", nats_server.kill, nats_server.start)
        ]
        for number, relay in enumerate(relays):
            self._victims.append((f"relay {number}", relay.kill, partial(relay.start, ready=False)))

    async def run(self) -> None:
        """Kill until the budget is used up; at the end every process is running."""
        async with asyncio.TaskGroup() as tasks:
            for victim in self._victims:
                tasks.create_task(self._haunt(*victim))

    async def _haunt(self, name: str, kill: Callable[[], None], start: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(self._choose.uniform(1.0, 6.0))
            if self._left == 0:
                return
            self._left -= 1
            self.done[name] = self.done.get(name, 0) + 1
            await asyncio.to_thread(kill)
            await asyncio.sleep(self._choose.uniform(0.0, 1.0))
            await asyncio.to_thread(start)


class Evictions:
    """Process that deletes events of the stream by retention, purge, TTL and single deletions.

    Args:
        url: URL of NATS.
        choose: source of randomness.
    """

    def __init__(self, url: str, choose: random.Random) -> None:
        self._url = url
        self._choose = choose
        self._purged = 0
        self._deleted: set[int] = set()

    def __contains__(self, seq: int) -> bool:
        return seq <= self._purged or seq in self._deleted

    def __str__(self) -> str:
        return f"purged up to {self._purged}, {len(self._deleted)} deleted"

    async def run(self, over: asyncio.Event) -> None:
        """Delete until told to stop; a requested deletion counts as done even without a response."""

        async def silent(error: Exception) -> None:
            """Ignore connection errors: this test causes outages."""

        nc = await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.02, error_cb=silent
        )
        try:
            js = nc.jetstream(timeout=1.0)
            while not over.is_set():
                with contextlib.suppress(NatsError, OSError, TimeoutError):
                    await self._delete_some(js)
                await asyncio.sleep(self._choose.uniform(0.02, 0.6))
        finally:
            await nc.close()

    async def _delete_some(self, js: JetStreamContext) -> None:
        state = (await js.stream_info("EVENTS")).state
        if self._choose.random() < 0.1:
            upto = state.last_seq - self._choose.randrange(200)
            self._purged = max(self._purged, upto - 1)
            await js.purge_stream("EVENTS", seq=max(1, upto))
            return
        for _ in range(self._choose.randrange(1, 6)):
            seq = state.last_seq - self._choose.randrange(30)
            if seq > 0:
                self._deleted.add(seq)
                await js.delete_msg("EVENTS", seq)


async def read_stream(url: str) -> list[tuple[int, str, int]]:
    """Return sequence, subject and number of everything in EVENTS."""
    nc = await nats.connect(url)
    try:
        js = nc.jetstream()
        head = (await js.stream_info("EVENTS")).state.last_seq
        subscription = await js.subscribe(">", stream="EVENTS", ordered_consumer=True)
        found: list[tuple[int, str, int]] = []
        while not found or found[-1][0] < head:
            message = await subscription.next_msg(timeout=PATIENCE)
            found.append(
                (message.metadata.sequence.stream, message.subject, number_of(orjson.loads(message.data)))
            )
        return found
    finally:
        await nc.close()


async def unleash(
    nats_server: NatsServer,
    relays: list[Relay],
    kills: int,
    choose: random.Random,
    client_type: type[Client] = Client,
    number_of_clients: int = CLIENTS,
) -> tuple[list[Client], Publisher, Chaos, Evictions, list[tuple[int, str, int]]]:
    """Run clients and publisher while everything is killed; return what the stream holds at the end."""
    addresses = [client_type.address_of(relay) for relay in relays]
    modes = ("complete", "live", "complete", "live", "complete", "live", "latest")
    clients = [
        client_type(
            addresses,
            modes[number % len(modes)],
            FILTERS[number // len(modes) % len(FILTERS)],
            random.Random(choose.random()),
        )
        for number in range(number_of_clients)
    ]
    publisher = Publisher(nats_server.url, random.Random(choose.random()))
    chaos = Chaos(nats_server, relays, kills, random.Random(choose.random()))
    evictions = Evictions(nats_server.url, random.Random(choose.random()))
    kept, over = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(client.run()) for client in clients]
        async with asyncio.timeout(SETTLE):
            while any(client.ledger.start < 0 for client in clients):
                await asyncio.sleep(0.05)
        publishing = tasks.create_task(publisher.run(over))
        evicting = tasks.create_task(evictions.run(kept))
        await chaos.run()
        kept.set()
        await evicting
        over.set()  # the last event stays in the stream
        await publishing
        held = await read_stream(nats_server.url)
        until = time.monotonic() + SETTLE
        while behind := [client for client in clients if client.ledger.last < held[-1][0]]:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(behind)} clients do not arrive at {held[-1]}: {behind[:5]}")
            await asyncio.sleep(0.05)
        for task in following:
            task.cancel()
    return clients, publisher, chaos, evictions, held


def test_the_law_holds_while_everything_is_killed(tmp_path: Path, nats_server: NatsServer) -> None:
    """Every event that is lost, repeated or out of order was reported to the client in a gap."""
    check_law(nats_server, Client, CLIENTS)


def check_law(nats_server: NatsServer, client_type: type[Client], number_of_clients: int) -> None:
    """Run clients while everything is killed, and compare what they received with the stream."""
    full = os.environ.get("CHAOS") == "full"
    kills = 50 if full else 6
    seed = int(os.environ.get("CHAOS_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}: CHAOS_SEED={seed} repeats the choices")
    began = time.monotonic()
    # A small event log and a low catch-up limit exercise every way of resuming.
    options = ("--client-rate", "0", "--log-size", "400", "--max-catch-up", "100")
    with Relay(nats_server.url, *options) as one, Relay(nats_server.url, *options) as other:
        work = unleash(nats_server, [one, other], kills, random.Random(seed), client_type, number_of_clients)
        clients, publisher, chaos, evictions, held = asyncio.run(asyncio.wait_for(work, 600.0 + 2 * SETTLE))
    truth = sorted(publisher.acknowledged)
    totals: dict[str, Counts] = {}
    worst: list[str] = []
    for client in clients:
        mine = {seq: number for seq, subject, number in truth if client.filter.matches(subject)}
        counts = client.ledger.judge(mine, truth[-1][0])
        totals[client.mode] = totals.get(client.mode, Counts()) + counts
        if counts.breaches:
            worst.append(f"{client!r}: {counts.breaches}")
    print(
        f"kills {sum(chaos.done.values())} {chaos.done}, {time.monotonic() - began:.0f} s, "
        f"{len(truth)} events, {evictions}, {sum(client.connections for client in clients)} connections "
        f"of {number_of_clients} clients"
    )
    for mode, counts in totals.items():
        print(f"  {mode}: {counts}")
    assert len({number for _, _, number in truth}) == len(truth), "an event stands twice in the stream"
    assert set(held) <= set(truth), "the stream holds what was not acknowledged"
    assert {one for one in truth if one[0] not in evictions} <= set(held), "an acknowledged event is gone"
    assert worst == []
    assert totals["complete"].dropped == 0, "nothing is passed over"
    for client in clients:
        if client.mode == "complete":
            had = {seq for seq, _ in client.ledger.delivered}
            for gap in client.ledger.gaps:
                lost = {seq for seq, _, _ in truth if gap.start < seq <= gap.end} - had
                assert all(seq in evictions for seq in lost), "only what was deleted is missing"


@pytest.mark.parametrize(
    ("messages", "breaches"),
    [
        ([("events", [1, 2, 3, 4])], {}),
        ([("events", [1, 2, 4])], {"lost": 1}),
        ([("events", [1, 2, 2, 3, 4])], {"repeated": 1}),
        ([("events", [1, 3, 2, 4])], {"disordered": 1}),
        ([("gap", 0, 3, 3), ("events", [4])], {}),
        ([("gap", 0, 3, 2), ("events", [2, 4])], {}),
        ([("gap", 0, 3, 1), ("events", [4])], {"lost": 2}),
        ([("gap", 0, 2, None), ("events", [3, 4])], {}),
        ([("events", [1, 2, 3, 4, 9])], {"foreign": 1}),
    ],
)
def test_the_ledger_detects_each_violation(
    messages: list[tuple[object, ...]], breaches: dict[str, int]
) -> None:
    """The ledger detects each kind of violation."""
    ledger = Ledger(start=0)
    for kind, *rest in messages:
        if kind == "events":
            (seqs,) = rest
            assert isinstance(seqs, list)
            items = [{"seq": seq, "event": {"metadata": {"n": seq}}} for seq in seqs]
            ledger.note({"type": "events", "events": items, "cursor": f"e-{seqs[-1]}"})
        else:
            begin, end, dropped = rest
            ledger.note(
                {"type": "gap", "from": f"e-{begin}", "to": f"e-{end}", "dropped": dropped, "reason": "slow"}
            )
    assert ledger.judge({1: 1, 2: 2, 3: 3, 4: 4}, 4).breaches == breaches
