"""Two relays behind haproxy are restarted one after the other under load, as in an upgrade.

``CHAOS=full`` uses 1 000 clients instead of 100 and times how they reconnect.
"""

import asyncio
import csv
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.request import urlopen

import orjson
import pytest

from tests.bench.load.children import running
from tests.chaos.rolling_clients import largest_share
from tests.support.browser.browser_desk import missing
from tests.support.clients.feed_client import jetstream, line, publish
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, environment, eventually
from tests.support.servers.nats_server import NatsServer, free_port

FULL: Final = os.environ.get("CHAOS") == "full"
CLIENTS: Final = 1_000 if FULL else 100
NAMES: Final = ("first", "second")
EVENTS_EVERY: Final = 0.05
DRAIN: Final = 10.0 if FULL else 5.0
NOTICE: Final = 2.0
MOST_AT_ONCE: Final = 0.20
"""Maximum share of the clients that may reconnect within one second."""

SETTLE: Final = 3 * PATIENCE


class Balancer:
    """A running haproxy.

    Args:
        port: port of the feed.
        state_port: port that reports the health of its relays.
    """

    def __init__(self, port: int, state_port: int) -> None:
        self.port = port
        self._state = f"http://127.0.0.1:{state_port}/;csv"

    def up(self) -> int:
        """Return the number of relays that receive clients."""
        try:
            with urlopen(self._state, timeout=PATIENCE) as answer:
                rows = list(csv.DictReader(io.StringIO(answer.read().decode())))
        except OSError:
            return 0
        return sum(
            row["# pxname"] == "relays" and row["svname"] in NAMES and row["status"] == "UP" for row in rows
        )


@contextmanager
def balancer(first: Relay, second: Relay, folder: Path) -> Iterator[Balancer]:
    """Run haproxy in front of two relays; it has found both healthy."""
    program = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if program is None:
        missing("needs haproxy; 'apt-get install haproxy' brings it")
    ports = {"BALANCER_PORT": free_port(), "STATE_PORT": free_port()}
    for name, relay in zip(NAMES, (first, second), strict=True):
        ports[f"{name.upper()}_PORT"] = relay.host_port[1]
        ports[f"{name.upper()}_OPS_PORT"] = int(relay.ops_url.rpartition(":")[2])
    logged = folder / "haproxy.txt"
    with logged.open("wb") as output:
        process = subprocess.Popen(
            [program, "-db", "-f", str(Path(__file__).with_name("balancer.cfg"))],
            env=environment(**{name: str(value) for name, value in ports.items()}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    found = Balancer(ports["BALANCER_PORT"], ports["STATE_PORT"])

    def serves() -> bool:
        assert process.poll() is None, logged.read_text()
        return found.up() == 2

    try:
        eventually(serves, "haproxy has found both relays")
        yield found
    finally:
        process.terminate()
        process.wait(PATIENCE)


async def load(nats_url: str, front: Balancer, relays: list[Relay]) -> int:
    """Publish at an even rate while the relays are restarted in turn; return the last event's sequence."""
    async with jetstream(nats_url) as js:
        over = asyncio.Event()
        last = 0

        async def talk() -> None:
            nonlocal last
            number = 0
            while not over.is_set():
                number += 1
                last = await publish(js, line(f"line {number} {'x' * 200}"))
                await asyncio.sleep(EVENTS_EVERY)

        async with asyncio.TaskGroup() as group:
            group.create_task(talk())
            try:
                for relay in relays:
                    code = await asyncio.to_thread(relay.stop)
                    assert code == 0, relay.log
                    await asyncio.to_thread(relay.start)
                    # Wait like an orchestrator before restarting the next one.
                    await asyncio.to_thread(
                        eventually, lambda: front.up() == 2, "haproxy knows that it is back"
                    )
            finally:
                over.set()
        return last


def test_a_rolling_restart_loses_nothing_and_causes_no_wave(nats_server: NatsServer, tmp_path: Path) -> None:
    """Every client receives every event once, none is rejected or cut off, and they reconnect at an even
    rate.
    """
    options = ("--drain", str(DRAIN), "--drain-delay", str(NOTICE))
    with (
        Relay(nats_server.url, *options) as first,
        Relay(nats_server.url, *options) as second,
        balancer(first, second, tmp_path) as front,
        running("clients", clients_command(front.port)) as clients,
    ):
        assert clients.receive(SETTLE) == {"connected": CLIENTS, "tries": 0}
        last = asyncio.run(asyncio.wait_for(load(nats_server.url, front, [first, second]), SETTLE))
        clients.send(last=last)
        found = clients.receive(SETTLE)
        print(f"\n{CLIENTS} clients, {last} events: {orjson.dumps(found).decode()}")
        assert {name: found[name] for name in ("behind", "lost", "repeated", "gaps")} == {
            "behind": 0, "lost": 0, "repeated": 0, "gaps": 0,
        }  # fmt: skip
        assert found["fewest_events"] == last
        assert found["returns"] >= CLIENTS, "each had to come back at least once"
        assert found["refused"] == 0
        assert found["cut"] == 0
        if FULL:  # a measurement, which needs an otherwise idle machine
            assert found["largest_share"] <= MOST_AT_ONCE


def clients_command(port: int) -> list[str]:
    """Return the command that runs the clients."""
    spec: dict[str, Any] = {"port": port, "clients": CLIENTS}
    return [sys.executable, "-m", "tests.chaos.rolling_clients", orjson.dumps(spec).decode()]


@pytest.mark.parametrize(
    ("times", "share"),
    [([], 0.0), ([1.0], 0.25), ([1.0, 1.5, 1.9, 2.1], 0.75), ([0.0, 1.0, 2.0], 0.25)],
)
def test_the_share_within_a_second_is_counted_wherever_that_second_begins(
    times: list[float], share: float
) -> None:
    """The window may start anywhere; full seconds could split a wave in two."""
    assert largest_share(times, 4) == share
