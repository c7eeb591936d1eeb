"""A host whose system clock is set by an hour, forwards and back, while every program runs."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import Events, Gap, Heartbeat

from tests.support.clients import forge
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, run
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.faked_clock import FakedClock
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import Relay, environment
from tests.support.servers.nats_server import NatsServer, free_port

PROGRAM = [sys.executable, "-m", "tests.support.programs.unhurried_program"]
HOUR = 3600
OFFSETS = (HOUR, 0, -HOUR)
"""Offsets of the clock, one after the other: a step forwards, a step back, and one to before the start."""

LINES = 10
"""Lines that are written before each step, after it, and to a new file after a rotation."""

GATEWAYS = """
defaults: {{interval: 100ms, timeout: 60s, unhealthy_after: 2, healthy_after: 1}}
gateways:
  - {{id: steady, type: x, probes: [{{kind: tcp, address: "127.0.0.1:{steady}"}}]}}
  - {{id: fresh, type: x, probes: [{{kind: freshness, subject: "log.>", within: 30m}}]}}
  - id: failing
    type: x
    probes: [{{kind: tcp, address: "127.0.0.1:{failing}"}}]
    recovery: {{command: ["true"], after: 1s, backoff: 30m, per_hour: 100}}
"""


@contextmanager
def running(clock: FakedClock, *arguments: str) -> Iterator[None]:
    """Run a command with the clock until the end of the block; it ends with code 0."""
    with subprocess.Popen(
        [*PROGRAM, *arguments], cwd=ROOT, env=environment(**clock.environment), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        output = ProgramOutput(process.stdout)
        try:
            yield
            process.terminate()
            assert process.wait(PATIENCE) == 0, "".join(output.lines)
        finally:
            process.kill()
            process.wait(PATIENCE)
            output.close()


class Host:
    """The host: its clock, a log file, a gateway that fails when asked, and two clients of its relay."""

    def __init__(self, folder: Path, clients: list[FeedClient], port: int, clock: FakedClock) -> None:
        self.lines = 0
        self.clock = clock
        self._steps = 0
        self._log = folder / "app.log"
        self._clients = clients
        self._port = port

    def write(self) -> None:
        """Write further lines to the log file."""
        with self._log.open("a") as file:
            file.writelines(f"line {number}\n" for number in range(self.lines, self.lines + LINES))
        self.lines += LINES

    def rotate(self) -> None:
        """Move the log file away, and write to a new one."""
        self._log.rename(f"{self._log}.{self.lines}")
        self.write()

    async def until(self, **fields: object) -> None:
        """Wait until each client has received an event with these fields that the current clock has timed."""
        for client in self._clients:
            await client.until(
                lambda client=client: any(map(self._is_current, events_of(client, **fields)))  # type: ignore[misc]
            )

    def _is_current(self, event: dict[str, Any]) -> bool:
        return abs(parse_time(event["timestamp"]).timestamp() - time.time() - self.clock.offset) < HOUR / 2

    async def step(self, offset: int) -> None:
        """Set the clock while a recovery waits for its attempt and lines are written."""
        await self.until(gateway_id="failing", phase="started")
        self.write()
        self.clock.set(offset)
        self.write()
        self.rotate()
        # It may have begun before the step.
        self._steps += 1
        for client in self._clients:
            await client.until(lambda client=client: self._attempts(client) == self._steps)  # type: ignore[misc]
        async with self.serve():
            await self.until(gateway_id="failing", current_status="HEALTHY")
            await self.until(component="shipper", status="HEALTHY")
            await self.until(component="monitor", status="HEALTHY")
            await self.until(message=f"line {self.lines - 1}")
            for client in self._clients:
                assert await client.one(Heartbeat)

    @staticmethod
    def _attempts(client: FeedClient) -> int:
        return len(events_of(client, gateway_id="failing", phase="attempt"))

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Run the failing gateway."""
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", self._port)
        yield
        server.close()
        await server.wait_closed()


def events_of(client: FeedClient, **fields: object) -> list[dict[str, Any]]:
    """Return the events with these fields that a client has received, without those of the snapshot."""
    events = (item.event for message in only(client.messages, Events) for item in message.events)
    return [event for event in events if fields.items() <= event.items()]


def values_of(client: FeedClient, name: str, **fields: object) -> list[Any]:
    """Return the values of a field in the events with other fields."""
    return [event[name] for event in events_of(client, **fields) if name in event]


def test_programs_continue_when_the_clock_is_set(nats_server: NatsServer, tmp_path: Path) -> None:
    """No session ends, no gateway changes, no line is lost or repeated, and no wait lasts an hour."""
    clock = FakedClock(tmp_path / "clock")
    gateways, failing = tmp_path / "gateways.yaml", free_port()
    gateways.write_text(GATEWAYS.format(steady=nats_server.port, failing=failing))
    token = forge.token(values=forge.claims(exp=int(time.time()) + 24 * HOUR, tickertape={"subjects": [">"]}))
    secret = {"TICKERTAPE_JWT_KEY": forge.SECRET.decode()}
    relay = Relay(nats_server.url, "--auth", "jwt", "--jwt-algorithm", "HS256", **secret, **clock.environment)
    relay.program = PROGRAM
    common = ("--nats-url", nats_server.url, "--health-interval", "1")

    async def check() -> None:
        async with (
            follow(relay.ws_url, token=token, mode="complete") as complete,
            follow(relay.ws_url, token=token) as live,
        ):
            host = Host(tmp_path, [complete, live], failing, clock)
            host.write()
            with (
                running(clock, "monitor", "--gateways", str(gateways), *common),
                running(clock, "ship", f"{tmp_path}/*.log", "--state-dir", str(tmp_path / "state"), *common),
            ):
                # A file that is rotated before the shipper has seen it is not one of its files.
                await host.until(message=f"line {LINES - 1}")
                for offset in OFFSETS:
                    await host.step(offset)
                    async with follow(relay.ws_url, token=token):
                        pass
                    for probe in ("readyz", "livez"):
                        assert urlopen(f"{relay.ops_url}/{probe}", timeout=PATIENCE).status == 200
            for client in (complete, live):
                assert values_of(client, "message", event_type="system_log") == [
                    f"line {number}" for number in range(host.lines)
                ]
                for gateway in ("steady", "fresh"):
                    assert values_of(client, "current_status", gateway_id=gateway) == ["UNKNOWN", "HEALTHY"]
                assert set(values_of(client, "status", event_type="system_health")) == {"HEALTHY"}
                assert not only(client.messages, Gap)

    with relay:
        run(check())
        assert relay.stop() == 0
