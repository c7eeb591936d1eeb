"""``tickertape serve --workers``: clients see one relay, whatever happens to one of its processes."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nats.js import JetStreamContext
from tickertape.contracts.messages import Subscribed, Welcome
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.programs.worker_desk import (
    Numbers,
    kill_worker,
    number,
    numbers,
    pids,
    ready,
    slots,
    status,
)
from tests.support.servers.nats_server import NatsServer

HOST = socket.gethostname()


@pytest.fixture(scope="module")
def nats_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run one server for the module."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def relay(nats_of_all: NatsServer) -> Iterator[Relay]:
    """Run two workers on a port that the system chose."""
    with Relay(nats_of_all.url, "--workers", "2", "--client-rate", "0") as running:
        yield running


@pytest.fixture(autouse=True)
def _all_serve(relay: Relay) -> None:
    """Wait until both workers serve, whatever the previous test did to one of them."""
    eventually(lambda: all(slot["state"] == "ready" for slot in slots(relay)), "both workers serve")


@contextlib.asynccontextmanager
async def crowd(relay: Relay, count: int) -> AsyncIterator[list[FeedClient]]:
    """Connect a number of clients to both workers."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(count)]


def relay_of(client: FeedClient) -> str:
    """Return the name of the relay that welcomed a client."""
    return only(client.messages, Welcome)[0].relay


def test_sessions_are_spread_and_numbers_add_up(relay: Relay) -> None:
    """Both slots get sessions, every client receives every event, and ``/metrics`` is that of one relay."""

    async def check() -> None:
        async with crowd(relay, 30) as clients, jetstream(relay.nats_url) as js:
            names = Counter(map(relay_of, clients))
            assert set(names) == {f"{HOST}/0", f"{HOST}/1"}
            before = await asyncio.to_thread(numbers, relay)
            seq = await publish(js, line("to all"))
            for client in clients:
                await client.until(lambda seen=client.seqs: seq in seen())  # type: ignore[misc]
            after = await asyncio.to_thread(numbers, relay)

            def grown(name: str, **labels: str) -> float:
                key = (f"tickertape_{name}", tuple(sorted(labels.items())))
                return after[key] - before.get(key, 0.0)

            assert after["tickertape_connections", ()] == 30
            assert after["tickertape_nats_connected", ()] == 1
            assert after["tickertape_log_events", ()] == before["tickertape_log_events", ()] + 1
            assert grown("events_delivered_total") == 30
            assert grown("delivery_delay_seconds_count") == 30
            assert grown("delivery_delay_seconds_bucket", le="+Inf") == 30
            assert grown("events_received_total", kind="log") == 1  # each worker receives the same events
            received = await asyncio.to_thread(status, relay)
            assert received["sessions"]["open"] == 30
            each = {slot["status"]["relay"]: slot["status"]["sessions"]["open"] for slot in received["slots"]}
            assert each == dict(names)

    run(check())


class Returning:
    """Client that reconnects with its cursor whenever its connection ends, and keeps events in order."""

    def __init__(self, relay: Relay) -> None:
        self.seqs: list[int] = []
        self.relays: list[str] = []
        self._relay = relay

    async def follow(self, last: str) -> None:
        """Read until an event with this message arrives."""
        cursor: str | None = None
        while True:
            query: dict[str, Any] = {} if cursor is None else {"cursor": cursor}
            with contextlib.suppress(OSError, ConnectionClosed, InvalidMessage):
                async with follow(self._relay.ws_url, **query) as client:
                    self.relays.append(relay_of(client))
                    assert cursor is None or only(client.messages, Subscribed)[0].resumed
                    try:
                        await client.until(lambda: last in str(client.messages[-1]))
                        return
                    finally:
                        self.seqs += client.seqs()
                        cursor = client.cursor


async def publish_until(js: JetStreamContext, over: asyncio.Event, last: str) -> list[int]:
    """Publish one line after the other, and a last one; return their sequences."""
    sent = []
    while not over.is_set():
        sent.append(await publish(js, line("one of many")))
        await asyncio.sleep(0.002)
    return [*sent, await publish(js, line(last))]


async def poll(relay: Relay, until: list[asyncio.Task[None]]) -> list[Numbers]:
    """Sample everything that must never decrease until told to stop, and once more."""
    seen = []
    while not all(task.done() for task in until):
        seen.append(await asyncio.to_thread(numbers, relay, accumulating=True))
        await asyncio.sleep(0.02)
    return [*seen, await asyncio.to_thread(numbers, relay, accumulating=True)]


def test_a_killed_worker_costs_nothing(relay: Relay) -> None:
    """After a worker is killed, clients resume without loss or repetition, its slot keeps its name, and no
    counter decreases.
    """

    async def check() -> None:
        over, last = asyncio.Event(), "the very last"
        clients = [Returning(relay) for _ in range(12)]
        async with jetstream(relay.nats_url) as js, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(publish_until(js, over, last))
            following = [tasks.create_task(client.follow(last)) for client in clients]
            looking = tasks.create_task(poll(relay, following))
            while not all(client.relays for client in clients):
                await asyncio.sleep(0.01)
            victim = clients[0].relays[0]
            slot = int(victim.rpartition("/")[2])
            before = (await asyncio.to_thread(slots, relay))[slot]["restarts"]
            await asyncio.to_thread(kill_worker, relay, slot)
            over.set()
        assert len(clients[0].relays) > 1
        for client in clients:
            assert client.seqs == [seq for seq in sending.result() if seq >= client.seqs[0]]
        for earlier, later in itertools.pairwise(looking.result()):
            assert {key: value for key, value in earlier.items() if later.get(key, -1.0) < value} == {}
        state = (await asyncio.to_thread(slots, relay))[slot]
        assert state["status"]["relay"] == victim
        assert state["restarts"] == before + 1
        total = await asyncio.to_thread(number, relay, "worker_restarts_total", slot=str(slot))
        assert total == before + 1

    run(check())


def test_ready_once_all_serve_and_while_one_does(relay: Relay) -> None:
    """The relay is ready once all workers are, stays ready while one is, and is not ready without NATS."""

    async def deliver() -> None:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url) as client:
            seq = await publish(js, line("counted"))
            await client.until(lambda: seq in client.seqs())

    run(deliver())
    before = number(relay, "events_delivered_total")
    assert before > 0
    eventually(lambda: ready(relay), "it is ready")
    one, other = pids(relay)
    os.kill(one, signal.SIGSTOP)
    try:
        eventually(lambda: ready(relay), "it is ready")
        eventually(lambda: slots(relay)[0]["state"] == "silent", "the stopped worker is seen")
        assert number(relay, "events_delivered_total") == before, "what it told last still counts"
        os.kill(other, signal.SIGSTOP)
        try:
            assert not ready(relay)
        finally:
            os.kill(other, signal.SIGCONT)
    finally:
        os.kill(one, signal.SIGCONT)
    eventually(lambda: [slot["state"] for slot in slots(relay)] == ["ready", "ready"], "both answer again")


def test_sighup_ends_no_worker(relay: Relay) -> None:
    """SIGHUP is passed on to the workers, which reload and keep running."""
    before = pids(relay)
    relay.signal(signal.SIGHUP)
    assert pids(relay) == before
    eventually(lambda: ready(relay), "it is ready")


def test_a_port_is_not_shared_with_strangers(relay: Relay) -> None:
    """A second relay on the same port is rejected, since it would receive half of the clients."""
    port = relay.url.rpartition(":")[2]
    done = run_command(
        "serve", "--workers", "2", "--port", port, "--ops-port", "0", "--nats-url", relay.nats_url
    )
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is already in use" in done.stderr
    eventually(lambda: ready(relay), "it is ready")


def output(relay: Relay) -> list[str]:
    """Return the log lines about exits of the second worker."""
    return [text for text in relay.log if " ERROR " in text and "worker 1 was killed by SIGKILL" in text]


def test_a_worker_that_dies_again_and_again_waits_longer(relay: Relay) -> None:
    """The restart delay doubles with each crash, with one log line each, while the other worker serves."""
    received = len(output(relay))
    pauses: list[float] = []
    for _ in range(3):
        eventually(lambda: slots(relay)[1]["pid"] is not None, "a worker to kill")
        other, victim = pids(relay)
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(output(relay)) > received + len(pauses), "its end is told")
        pauses.append(float(output(relay)[-1].split()[-2]))
        assert pids(relay)[0] == other
    assert len(output(relay)) == received + 3
    assert pauses[1:] == [2 * pauses[0], 4 * pauses[0]]
    eventually(lambda: ready(relay), "it is ready")
