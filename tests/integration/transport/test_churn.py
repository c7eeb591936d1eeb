"""After clients have disconnected, the relay keeps no object, task or descriptor of them."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import Final

import orjson

from tests.support.clients.churn import Churn, publish
from tests.support.clients.feed_client import follow, jetstream, line
from tests.support.clients.feed_client import publish as publish_one
from tests.support.programs.counted_relay import PREFIX, SIGNAL
from tests.support.programs.relay_process import PATIENCE, Relay, eventually
from tests.support.servers.nats_server import NatsServer

AT_ONCE: Final = 20
EVENTS: Final = 200.0
WARM: Final = 210
"""Clients before the first count, after which caches are filled."""

CLIENTS: Final = 1_400
LOG: Final = 200
"""Capacity of the event log, which is full before the first count."""

SLACK: Final = 100
"""Tolerance for objects of one type, since the log evicts events in blocks; one object leaked by every
seventh client would be 200.
"""


def counts(relay: Relay) -> dict[str, int]:
    """Return the live objects of the relay by type, and its descriptors."""
    before = sum(line.startswith(PREFIX) for line in relay.lines)
    relay.signal(signal.Signals(SIGNAL))
    eventually(
        lambda: sum(line.startswith(PREFIX) for line in relay.lines) > before, "the relay counts its objects"
    )
    newest = next(line for line in reversed(relay.lines) if line.startswith(PREFIX))
    found: dict[str, int] = orjson.loads(newest.removeprefix(PREFIX))
    found["descriptors"] = len(list(Path(f"/proc/{relay.pid}/fd").iterdir()))
    return found


def quiet(relay: Relay) -> dict[str, int]:
    """Count once activity has settled: two consecutive counts with the same sockets and tasks."""
    deadline = time.monotonic() + PATIENCE
    one = counts(relay)
    while True:
        time.sleep(0.5)
        other = counts(relay)
        if one == other or time.monotonic() > deadline:
            return other
        one = other


async def turmoil(relay: Relay, nats_url: str, clients: int) -> Churn:
    """Connect and disconnect clients under a steady flow of events, beside one that stays."""
    over = asyncio.Event()
    churn = Churn(relay.ws_url)
    async with follow(relay.ws_url) as staying, asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(publish(nats_url, EVENTS, over))
        await churn.run_all(clients, AT_ONCE)
        await staying.events(LOG)
        over.set()
        await publishing
        # Events that arrived in one block are evicted by the following ones.
        async with jetstream(nats_url) as js:
            for number in range(2 * LOG):
                await publish_one(js, line(f"line {number:09d} {'x' * 180}", source="abcd"[number % 4]))
    return churn


def test_disconnected_clients_leave_nothing(nats_server: NatsServer) -> None:
    """Objects of each type, tasks and descriptors are as many after 1 400 clients as after the first ones."""
    relay = Relay(nats_server.url, "--client-rate", "0", "--log-size", str(LOG))
    relay.program = [sys.executable, "-m", "tests.support.programs.counted_relay"]
    with relay:
        asyncio.run(turmoil(relay, nats_server.url, WARM))
        before = quiet(relay)
        churn = asyncio.run(turmoil(relay, nats_server.url, CLIENTS))
        after = quiet(relay)
    print(
        f"{churn.made} connections, {len(churn.failed)} failed; tasks {before['tasks']} and {after['tasks']}"
    )
    assert churn.failed == []
    assert churn.made == CLIENTS
    more = {name: number - before.get(name, 0) for name, number in after.items()}
    assert more.pop("tickertape.relay.core.event_log.Record", 0) <= LOG + SLACK
    assert {name: number for name, number in more.items() if number > SLACK} == {}
    assert after["tasks"] == before["tasks"]
    assert after["descriptors"] == before["descriptors"]
