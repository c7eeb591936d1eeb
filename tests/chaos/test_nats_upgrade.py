"""NATS is upgraded from 2.12 under load, step by step on one data directory; there is no NATS 2.13.

An SDK, a shipper, a relay and a client stay up meanwhile. Every acknowledged event and every line is in the
stream once, and the client continues from its cursors. ``CHAOS=full`` runs longer, and kills.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import nats
import orjson
import pytest
from tickertape.contracts.events import SystemLog
from tickertape.contracts.messages import Gap
from tickertape.producers.sdk.publisher import Publisher

from tests.chaos.test_ship_kills import shipping
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.nats_versions import EARLIER, versions

FULL: Final = os.environ.get("CHAOS") == "full"
SECONDS: Final = 20.0 if FULL else 1.5
"""Seconds of load with each version."""

RATE: Final = 300.0
"""Events per second of the SDK, and lines per second of the log."""

SETTLE: Final = 4 * PATIENCE


class Load:
    """Publisher of numbered events, and writer of a numbered log.

    Attributes:
        acknowledged: numbers of the events that NATS has acknowledged.
        lines: number of lines written.
    """

    def __init__(self, url: str, log: Path) -> None:
        self.acknowledged: list[int] = []
        self.lines = 0
        self._url = url
        self._log = log
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Publish and write until ``stop`` is called; then wait for all acknowledgements."""
        async with Publisher(self._url) as publisher, asyncio.TaskGroup() as tasks:
            number = 0
            with self._log.open("a") as log:
                while not self._stop.is_set():
                    number += 1
                    tasks.create_task(self._publish(publisher, number))
                    self.lines += 1
                    log.write(f"2026-11-24T10:00:00Z INFO app {self.lines} line\n")
                    log.flush()
                    await asyncio.sleep(1 / RATE)

    async def _publish(self, publisher: Publisher, number: int) -> None:
        await publisher.publish(SystemLog(level="INFO", message=f"sdk {number} event", source="sdk"))
        self.acknowledged.append(number)

    def stop(self) -> None:
        """Stop publishing."""
        self._stop.set()


class Follower:
    """Client that resumes from its cursor after each upgrade.

    Attributes:
        received: sequences of the events in order.
        gaps: gaps, of which there must be none.
    """

    def __init__(self, relay: Relay) -> None:
        self.received: list[int] = []
        self.gaps: list[Gap] = []
        self._relay = relay
        self._cursor: str | None = None

    async def session(self, until: asyncio.Event) -> None:
        """Follow the feed until an event is set, then remember the cursor."""
        resume: dict[str, Any] = {"since": "earliest"} if self._cursor is None else {"cursor": self._cursor}
        async with follow(self._relay.ws_url, mode="complete", subjects="log.>", **resume) as feed:
            while not until.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await feed.read()
            self.received += feed.seqs()
            self.gaps += only(feed.messages, Gap)
            self._cursor = feed.cursor

    def has(self, sequence: int) -> bool:
        """Return whether an event was received."""
        return sequence in self.received[-1:]


async def read_events(url: str) -> tuple[list[int], dict[str, list[int]]]:
    """Return the sequences of all log events, and the numbers of each source, in order."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        info = await js.stream_info("EVENTS", subjects_filter="log.>")
        total = sum((info.state.subjects or {}).values())
        subscription = await js.subscribe("log.>", stream="EVENTS", ordered_consumer=True)
        sequences: list[int] = []
        numbers: dict[str, list[int]] = {"sdk": [], "app": []}
        for _ in range(total):
            message = await subscription.next_msg(PATIENCE)
            source, number, _ = orjson.loads(message.data)["message"].split(" ")
            sequences.append(message.metadata.sequence.stream)
            numbers[source].append(int(number))
        return sequences, numbers
    finally:
        await client.close()


@pytest.fixture
def programs() -> dict[str, Path]:
    """Return the servers by version, the oldest first."""
    found = versions()
    if missing := [minor for minor in EARLIER if minor not in found]:
        pytest.skip(f"needs nats-server {' and '.join(missing)}; 'make test' installs them")
    return found


def replace(server: NatsServer, program: Path, *, kill: bool) -> None:
    """Restart the server as another version on the same data."""
    server.kill() if kill else server.stop()
    server.binary = program
    server.start()


async def upgrade(server: NatsServer, relay: Relay, log: Path, steps: list[Path]) -> tuple[Load, Follower]:
    """Run the load while the server is replaced, once for each step."""
    load, follower = Load(server.url, log), Follower(relay)
    running = asyncio.create_task(load.run())
    for number, program in enumerate([None, *steps]):
        over = asyncio.Event()
        session = asyncio.create_task(follower.session(over))
        if program is not None:
            await asyncio.to_thread(replace, server, program, kill=FULL and number % 2 == 0)
        await asyncio.sleep(SECONDS)
        over.set()
        await session
    load.stop()
    await asyncio.wait_for(running, SETTLE)
    return load, follower


async def settle(url: str, load: Load, follower: Follower) -> dict[str, list[int]]:
    """Wait until all lines are in the stream and the client has everything; return the numbers."""
    deadline = time.monotonic() + SETTLE
    numbers: dict[str, list[int]] = {}
    sequences: list[int] = []
    while len(numbers.get("app", ())) < load.lines and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        sequences, numbers = await read_events(url)
    over = asyncio.Event()
    session = asyncio.create_task(follower.session(over))
    await asyncio.sleep(1.0)
    over.set()
    await session
    while not follower.has(sequences[-1]) and time.monotonic() < deadline:
        again = asyncio.Event()
        again.set()
        await follower.session(again)
    assert follower.received == sequences
    return numbers


def test_upgrades_lose_and_repeat_nothing(tmp_path: Path, programs: dict[str, Path]) -> None:
    """From 2.12 to the newest, and one step back."""
    oldest, *later = programs.values()
    steps = [*later, later[-2], later[-1]]
    log = tmp_path / "logs" / "app.log"
    log.parent.mkdir()
    with NatsServer(tmp_path / "nats", binary=oldest) as server:
        assert run_command("streams", "apply", "--nats-url", server.url).returncode == 0
        with (
            Relay(server.url, "--client-rate", "0", "--complete-rate", "0") as relay,
            shipping(server.url, tmp_path) as shipper,
        ):
            load, follower = asyncio.run(upgrade(server, relay, log, steps))
            numbers = asyncio.run(settle(server.url, load, follower))
            assert shipper.process.poll() is None, (tmp_path / "ship.txt").read_text()
        checked = run_command("check", "--nats-url", server.url)
        assert "all streams match the contract" in checked.stdout
    assert follower.gaps == []
    assert numbers["app"] == list(range(1, load.lines + 1))
    counts: Counter[Any] = Counter(numbers["sdk"])
    assert set(load.acknowledged) <= counts.keys(), "acknowledged events are lost"
    assert max(counts.values()) == 1, "events are repeated"
    if FULL:
        print(
            f"{len(steps)} restarts, {len(load.acknowledged)} events, {load.lines} lines: 0 lost, 0 repeated"
        )
