"""The store of NATS fails under load: relay, monitor, shipper and SDK name the cause, and lose nothing.

An embedded server recovers by itself when there is space; an external one is restarted, as the hints say.
Each test takes 40 s and more, so ``make test`` runs only the short ones in
``tests/integration/nats/test_full_store.py``; ``CHAOS=full`` fills each server three times.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

import orjson
import pytest
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.publisher import FOREVER, Publisher

from tests.support.patience import PATIENCE
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import Relay, command, environment
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.small_disk import SmallDisk, small_disk
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.direct_get import get_last_message
from tickertape.nats.stream_sizes import parse_sizes
from tickertape.nats.streams import provision
from tickertape.net.http_client import fetch

ROUNDS: Final = {"full": 3, "short": 1}.get(os.environ.get("CHAOS", ""), 0)
"""Times that the disk is filled."""

SIZES: Final = (
    "EVENTS=120MiB,LATEST=1MiB,HEALTH=1MiB,WATCHDOG=1MiB,CHECKPOINTS=1MiB,REJECTED=1MiB,HISTORY=1MiB"
)
SETTLE: Final = 2 * PATIENCE
"""Seconds for an effect; only a failing test takes this long."""


class Desk:
    """Everything that runs, and what it should have stored.

    Attributes:
        relay: relay, with its embedded server or an external one.
        external: external server; None for an embedded one.
        disk: disk of the store.
        gateway: port of the gateway.
        acknowledged: numbers of the SDK's acknowledged events.
        written: number of lines in the shipped file.
    """

    def __init__(self, folder: Path, relay: Relay, external: NatsServer | None, disk: SmallDisk) -> None:
        self.folder = folder
        self.relay = relay
        self.external = external
        self.disk = disk
        self.gateway = free_port()
        self.stalls: list[str] = []
        self.acknowledged: list[int] = []
        self.submitted = 0
        self.written = 0
        self.publisher: Publisher
        self.shipper: ProgramOutput
        self.monitor: ProgramOutput

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for a condition."""
        try:
            async with asyncio.timeout(SETTLE):
                while not condition():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TimeoutError(
                f"{what}; {self.stalls=} {self.shipper.lines=} {self.monitor.lines=} {self.relay.log[-20:]=}"
            ) from None

    async def page(self, path: str) -> str:
        """Return the body of a page of the ops port."""
        return (await fetch(f"{self.relay.ops_url}{path}", PATIENCE, 1 << 20)).body.decode()

    async def until_page(self, path: str, text: str) -> None:
        """Wait until a page of the ops port contains a text."""
        body = ""
        try:
            async with asyncio.timeout(SETTLE):
                while text not in (body := await self.page(path)):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TimeoutError(f"{path} lacks {text!r}: {body} {self.relay.log[-20:]=}") from None

    async def publish_events(self, stop: asyncio.Event) -> None:
        """Publish numbered events until told to stop, and wait for all acknowledgements."""

        async def publish(number: int) -> None:
            event = SystemLog(level="INFO", message="x" * 8000, source="sdk", metadata={"number": number})
            await self.publisher.publish(event, msg_id=f"sdk-{number}")
            self.acknowledged.append(number)

        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                group.create_task(publish(self.submitted))
                self.submitted += 1
                await asyncio.sleep(0.005)

    async def write_lines(self, stop: asyncio.Event) -> None:
        """Append numbered lines to the shipped file until told to stop."""
        with (self.folder / "app.log").open("a", buffering=1) as file:
            while not stop.is_set():
                for _ in range(20):
                    file.write(f"line {self.written} {os.urandom(200).hex()}\n")
                    self.written += 1
                await asyncio.sleep(0.05)

    async def status(self) -> str:
        """Return the stored status of the gateway; empty if there is none."""
        client = await connection.connect(self.relay.nats_url, name="reader")
        try:
            message = await get_last_message(client, "LATEST", "gateway.status.tcp.main")
            return "" if message is None else str(orjson.loads(message.data)["current_status"])
        finally:
            await connection.close(client)

    async def until_status(self, expected: str) -> None:
        """Wait for a stored status of the gateway."""
        async with asyncio.timeout(SETTLE):
            while await self.status() != expected:
                await asyncio.sleep(0.2)

    async def stored(self) -> tuple[list[int], list[int]]:
        """Return the numbers of the stored events of the SDK, and of the shipped lines, in order."""
        client = await connection.connect(self.relay.nats_url, name="reader")
        try:
            consumer = await client.jetstream().subscribe("log.>", ordered_consumer=True)
            events, lines = [], []
            while True:
                message = await consumer.next_msg(timeout=PATIENCE)
                body = orjson.loads(message.data)
                if body["source"] == "sdk":
                    events.append(body["metadata"]["number"])
                else:
                    lines.append(int(body["message"].split(" ", 2)[1]))
                if message.metadata.num_pending == 0:
                    return events, lines
        finally:
            await connection.close(client)


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """Accept connections on a port, like a healthy gateway."""
    with socket.create_server(("127.0.0.1", port), backlog=128):
        yield


@contextlib.contextmanager
def program(*arguments: str) -> Iterator[ProgramOutput]:
    """Run a command, and yield its messages."""
    process = subprocess.Popen(
        command(*arguments),
        env=environment(TICKERTAPE_STREAMS_MAX_BYTES=SIZES),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    output = ProgramOutput(process.stderr)
    try:
        yield output
        assert process.poll() is None, output.lines
    finally:
        process.kill()
        process.wait()
        output.close()


async def create_streams(url: str) -> None:
    """Create the streams with small sizes."""
    client = await connection.connect(url, name="operator")
    await provision(client, Names("", parse_sizes(SIZES)))
    await connection.close(client)


@contextlib.asynccontextmanager
async def desk(folder: Path, *, embedded: bool) -> AsyncIterator[Desk]:
    """Run everything on a small disk."""
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", "200m", inodes=400))
        external = None
        if embedded:
            options = ["--data-dir", str(disk.path), "--nats-port", str(free_port())]
        else:
            monitoring = f"127.0.0.1:{free_port()}"
            external = stack.enter_context(NatsServer(disk.path / "nats", config=f"http: {monitoring}"))
            await create_streams(external.url)
            options = ["--nats-monitoring-url", f"http://{monitoring}"]
        url = None if external is None else external.url
        relay = stack.enter_context(Relay(url, *options, TICKERTAPE_STREAMS_MAX_BYTES=SIZES))
        one = Desk(folder, relay, external, disk)
        gateways = folder / "gateways.yaml"
        gateways.write_text(
            "defaults: {interval: 100ms, timeout: 5s, unhealthy_after: 2, healthy_after: 2}\ngateways:\n"
            f"  - {{id: main, type: tcp, probes: [{{kind: tcp, address: '127.0.0.1:{one.gateway}'}}]}}\n"
        )
        nats = ["--nats-url", relay.nats_url]
        one.monitor = stack.enter_context(program("monitor", "--gateways", str(gateways), *nats))
        state = ["--state-dir", str(folder / "state"), "--host", "chaos"]
        one.shipper = stack.enter_context(program("ship", str(folder / "app.log"), *state, *nats))
        async with Publisher(
            relay.nats_url, deadline=FOREVER, max_pending=100_000, on_stall=one.stalls.append
        ) as publisher:
            one.publisher = publisher
            yield one


@pytest.mark.skipif(not ROUNDS, reason="takes minutes: CHAOS=full, or short")
@pytest.mark.parametrize("server", ["embedded", "external"])
@pytest.mark.parametrize("cause", ["bytes", "inodes"])
def test_nothing_is_lost_when_the_disk_of_nats_is_full(tmp_path: Path, server: str, cause: str) -> None:
    """Each program names the cause, and continues when the disk has space again."""

    async def main() -> None:
        async with desk(tmp_path, embedded=server == "embedded") as one:
            stop = asyncio.Event()
            with listening(one.gateway):
                await one.until_status("HEALTHY")
            await one.until_status("UNHEALTHY")
            async with asyncio.TaskGroup() as group:
                group.create_task(one.publish_events(stop))
                group.create_task(one.write_lines(stop))
                for _ in range(ROUNDS):
                    await fail_and_recover(one, cause)
                stop.set()
            await shipped_all(one)
            events, lines = await one.stored()
            assert events == sorted(set(events))
            assert events == sorted(one.acknowledged) == list(range(one.submitted))
            assert lines == list(range(one.written))

    asyncio.run(main())


async def fail_and_recover(one: Desk, cause: str) -> None:
    """Fill the disk, wait until every program reports it, free the disk, and wait until all continue."""
    one.stalls.clear()
    seen = len(one.shipper.lines), len(one.monitor.lines)
    if cause == "bytes":
        one.disk.fill()
    else:
        one.disk.use_inodes()
    await one.until(lambda: bool(one.stalls), "the SDK reports it")
    with listening(one.gateway):
        await one.until(
            lambda: any("shipping is blocked" in line for line in one.shipper.lines[seen[0] :]),
            "the shipper reports it",
        )
        # A file of its own holds each batch until its commit, so the shipper needs an inode before others do.
        assert any("restart nats-server" in line for line in one.shipper.lines[seen[0] :])
        await one.until(
            lambda: any("cannot write its store" in line for line in one.monitor.lines[seen[1] :]),
            "the monitor reports it",
        )
        await one.until_page("/readyz", "ready: nats-server cannot store events: its disk is full")
        assert "tickertape_nats_store_writable 0.0" in await one.page("/metrics")
        for line in (one.stalls[0], *one.shipper.lines[seen[0] :], *one.monitor.lines[seen[1] :]):
            assert "permission" not in line
        acknowledged = len(one.acknowledged)
        one.disk.free()
        if one.external is not None:
            await asyncio.to_thread(one.external.stop)
            await asyncio.to_thread(one.external.start)
        await one.until(lambda: len(one.acknowledged) > acknowledged + 100, "the SDK continues")
        assert one.stalls[-1] == "NATS stores events again"
        await one.until_status("HEALTHY")
        await one.until_page("/readyz", "ready\n")
    await one.until_status("UNHEALTHY")


async def shipped_all(one: Desk) -> None:
    """Wait until every line is shipped."""
    async with asyncio.timeout(SETTLE):
        while len((await one.stored())[1]) < one.written:
            await asyncio.sleep(0.5)
