"""A shipper and a monitor continue from what those of 0.1.0 left: each line once, and no status repeated."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from tests.support.clients.feed_client import jetstream
from tests.support.compatibility.fixture_0_1_0 import (
    FIXTURE,
    HOST,
    on_this_disk,
    server_folder,
    shipper_desk,
)
from tests.support.patience import PATIENCE
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import command, environment, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

CHECKPOINT = "checkpoint.desk.app=2Elog-21e97806083fe64d"
"""Subject of the checkpoint of 0.1.0; the hash is that of the path of the log."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Run a NATS server on the streams of 0.1.0, with the present layout."""
    with NatsServer(server_folder(tmp_path / "nats")) as server:
        done = run_command("streams", "apply", "--nats-url", server.url)
        assert done.returncode == 0, done.stderr
        yield server


async def stored(url: str, pattern: str, after: int = 0) -> list[dict[str, Any]]:
    """Return the bodies of all events on subjects that match a pattern, oldest first."""
    found = []
    async with jetstream(url) as js:
        with contextlib.suppress(NotFoundError):
            while True:
                message = await js.get_msg("EVENTS", after + 1, subject=pattern, next=True, direct=True)
                assert message.seq is not None
                found.append(json.loads(message.data or b"{}"))
                after = message.seq
    return found


async def last_sequence(url: str) -> int:
    """Return the last sequence of EVENTS."""
    async with jetstream(url) as js:
        return int((await js.stream_info("EVENTS")).state.last_seq)


async def adapt_checkpoint(url: str) -> None:
    """Replace device and inode in the checkpoint, because the files were unpacked."""
    async with jetstream(url) as js:
        message = await js.get_last_msg("CHECKPOINTS", CHECKPOINT)
        assert message.data is not None
        ack = await js.publish(CHECKPOINT, on_this_disk(message.data))
        async with asyncio.timeout(PATIENCE):
            while f"EVENTS {ack.seq} " not in str((await js.get_last_msg("CHECKPOINTS", CHECKPOINT)).headers):
                await asyncio.sleep(0.02)


def test_a_log_is_continued(server: NatsServer) -> None:
    """0.1.0 shipped lines 0 to 29; this version ships 30 to 49, of a rotated file and its successor, once."""
    with shipper_desk() as desk:
        asyncio.run(adapt_checkpoint(server.url))
        options = ["--host", HOST, "--state-dir", str(desk / "state"), "--nats-url", server.url]
        for _ in range(2):
            done = run_command("ship", str(desk / "logs" / "*.log"), "--once", *options)
            assert done.returncode == 0, done.stderr
        messages = [body["message"] for body in asyncio.run(stored(server.url, "log.info.app"))]
    assert messages == [f"line {number}" for number in range(50)]


def test_a_spool_is_continued(server: NatsServer) -> None:
    """A line of standard input that 0.1.0 had stored and not shipped is shipped once."""
    with shipper_desk() as desk:
        arguments = command("ship", "-", "--source", "piped", "--host", HOST)
        arguments += ["--state-dir", str(desk / "state"), "--nats-url", server.url]
        for text in ("another line\n", ""):
            done = subprocess.run(
                # Its folder is a part of the name of a shipper of standard input.
                arguments,
                cwd=desk,
                env=environment(),
                input=text,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
    messages = [body["message"] for body in asyncio.run(stored(server.url, "log.*.piped"))]
    assert messages == ["a piped line", "another line"]


def test_statuses_are_restored(server: NatsServer) -> None:
    """The monitor takes the statuses of 0.1.0 over without a transition, with the silence of one gateway.

    Of the gateway whose dead man's switch had fired, it publishes that it is watched again.
    """
    before = asyncio.run(last_sequence(server.url))
    arguments = command("monitor", "--gateways", str(FIXTURE / "gateways.yaml"), "--id", "second")
    with subprocess.Popen(
        [*arguments, "--nats-url", server.url, "--health-interval", "1"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as monitor:
        assert monitor.stdout is not None
        output = ProgramOutput(monitor.stdout)
        try:
            eventually(lambda: _probed(server.url, before) >= 20, "several rounds of probes")
        finally:
            monitor.terminate()
            code = monitor.wait(PATIENCE)
    assert code == 0, output.lines
    found = [
        (body["gateway_id"], body["previous_status"], body["current_status"])
        for body in asyncio.run(stored(server.url, "gateway.status.>", before))
        if body["metadata"].get("reason") != "monitor_silent"
    ]
    assert found == [("watched", "UNKNOWN", "HEALTHY")]
    listed = run_command("monitor", "silence", "quiet", "--end", "--nats-url", server.url)
    assert listed.returncode == 0, listed.stderr


def _probed(url: str, after: int) -> int:
    reports = asyncio.run(stored(url, "system.health.monitor.second", after))
    return max((int(body["checks"]["probes_total"]) for body in reports), default=0)
