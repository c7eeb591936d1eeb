"""Full disks of the programs themselves: spool, state, locks, standard output and standard error."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from tickertape.producers.sdk.publisher import FOREVER, Publisher
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent

from tests.support.patience import PATIENCE
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import command, environment, eventually
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.small_disk import SmallDisk, small_disk
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.streams import provision
from tickertape.process.lockfile import acquire_lock


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Attach a disk of 4 MiB."""
    with small_disk(tmp_path / "disk", "4m") as mounted:
        yield mounted


async def stored_messages(url: str) -> list[str]:
    """Return the text of all log events."""
    client = await connection.connect(url, name="reader")
    try:
        consumer = await client.jetstream().subscribe("log.>", ordered_consumer=True)
        texts: list[str] = []
        while True:
            message = await consumer.next_msg(timeout=PATIENCE)
            texts.append(message.data.decode().partition('"message":"')[2].partition('"')[0])
            if message.metadata.num_pending == 0:
                return texts
    finally:
        await connection.close(client)


def test_standard_input_waits_for_space(nats_server: NatsServer, disk: SmallDisk) -> None:
    """While the disk of the spool is full nothing is read, and afterwards every line is shipped once."""
    lines = [f"line {number} {'x' * 50}" for number in range(10_000)]
    options = ["--nats-url", nats_server.url, "--state-dir", str(disk.path / "state")]
    disk.fill(except_bytes=16 * 1024)
    with subprocess.Popen(
        command("ship", "-", *options),
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        output = ProgramOutput(process.stderr)
        try:
            # More than the disk has left, and less than a pipe holds: nothing reads it.
            process.stdin.write("".join(f"{line}\n" for line in lines[:700]))
            process.stdin.flush()
            eventually(lambda: any("no lines are lost" in line for line in output.lines), "it waits")
            assert any("No space left on device; free space or inodes" in line for line in output.lines)
            disk.free()
            process.stdin.write("".join(f"{line}\n" for line in lines[700:]))
            process.stdin.close()
            assert process.wait(PATIENCE) == 0, output.lines
        finally:
            process.kill()
            output.close()
    assert asyncio.run(stored_messages(nats_server.url)) == lines


def test_a_checkpoint_waits_for_space(nats_server: NatsServer, disk: SmallDisk) -> None:
    """A sink whose checkpoints cannot be saved ships nothing further until they are."""
    event = OutgoingEvent(
        "log.info.x",
        b'{"event_type":"system_log","timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"m",'
        b'"source":"x"}',
        "id-1",
    )

    async def main() -> None:
        client: Client = await connection.connect(nats_server.url, name="operator")
        await provision(client, Names())
        await connection.close(client)
        warned: list[str] = []
        state = LocalState(disk.path / "state", "key")
        async with (
            asyncio.timeout(PATIENCE),
            Publisher(nats_server.url, name="x", deadline=FOREVER) as publisher,
        ):
            sink = DedupeSink(publisher, state, "host", warned.append)
            assert await sink.load() == {}
            disk.fill()
            task = asyncio.create_task(sink.commit([event], Checkpoint("/a", count=1), 0))
            while not warned:
                await asyncio.sleep(0.01)
            assert "No space left on device; free space" in warned[0]
            assert not task.done()
            disk.free()
            assert await task == 1
        assert state.load()["/a"].count == 1
        state.close()

    asyncio.run(main())


def test_a_lock_needs_no_space(disk: SmallDisk) -> None:
    """A program that has run before starts on a full disk."""
    with acquire_lock(disk.path / "lock"):
        pass
    disk.fill()
    with acquire_lock(disk.path / "lock"), pytest.raises(BlockingIOError):
        acquire_lock(disk.path / "lock")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("schema", "events"),
        ("ship", "{log}", "--dry-run", "--once"),
        ("check", "--live", "--ops-port", "{port}"),
        ("publish", "log.info.x", '{"level": "INFO", "message": "m", "source": "x"}', "--nats-url", "{url}"),
        ("streams", "show", "--nats-url", "{url}"),
    ],
    ids=" ".join,
)
def test_a_full_disk_behind_standard_output_is_named(
    nats_server: NatsServer, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """A command whose output is not stored fails, with one line that says why."""
    (tmp_path / "a.log").write_text("INFO one\n")
    asyncio.run(create_streams(nats_server.url))
    values = {"log": str(tmp_path / "a.log"), "url": nats_server.url, "port": str(free_port())}
    filled = [
        part.format(**values) if part.startswith("{") and part.endswith("}") and ":" not in part else part
        for part in arguments
    ]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command(*filled), env=environment(TICKERTAPE_DATA_DIR=str(tmp_path)), stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert "standard output cannot be written: No space left on device; free space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_behind_standard_error_ends_no_program(nats_server: NatsServer, tmp_path: Path) -> None:
    """Messages to the operator are not worth a line of a log."""
    (tmp_path / "a.log").write_text("".join(f"line {number}\n" for number in range(100)))
    options = ("--nats-url", nats_server.url, "--state-dir", str(tmp_path / "state"))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("ship", str(tmp_path / "a.log"), "--once", *options),
            env=environment(), stdout=full, stderr=full, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        relay = subprocess.Popen(
            [
                sys.executable, "-m", "tickertape", "serve", "--nats-url", nats_server.url, "--port", "0",
                "--ops-port", str(port := free_port()), "--drain", "0", "--drain-delay", "0",
            ],
            env=environment(), stdout=full, stderr=full,
        )  # fmt: skip
        try:
            eventually(lambda: is_ready(port), "the relay is ready")
            relay.terminate()
            assert relay.wait(PATIENCE) == 0
        finally:
            relay.kill()
    assert len(asyncio.run(stored_messages(nats_server.url))) == 100


def is_ready(port: int) -> bool:
    """Return whether a relay is ready."""
    done = subprocess.run(
        command("check", "--ready", "--ops-port", str(port)),
        env=environment(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


async def create_streams(url: str) -> None:
    """Create the streams."""
    client = await connection.connect(url, name="operator")
    await provision(client, Names())
    await connection.close(client)
