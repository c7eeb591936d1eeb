"""Backup and restore of a large EVENTS stream with the shipped configuration, and a killed restore.

``CHAOS=full`` fills the stream, 1 GiB; else it has 24 MiB.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.support.clients.feed_client import run
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import command, environment
from tests.support.servers.deployed_nats import Deployed, deployed
from tickertape.nats.stream_differences import RESTORE_MARK
from tickertape.text import MIB

GIB: Final = 1024 * MIB
FULL: Final = os.environ.get("CHAOS") == "full"
SIZE: Final = GIB if FULL else 24 * MIB
BLOCK: Final = 200_000
MAX_MEMORY: Final = 160 * MIB
"""Peak memory of a command: the interpreter with all modules has 60 MiB."""

LIMIT: Final = 20 * PATIENCE


async def fill(nats: Deployed) -> int:
    """Store random data in EVENTS, more than fits if it is to be full; return its last sequence."""
    async with nats.client("publisher") as (client, _):
        for _ in range(SIZE // BLOCK // 10 + 3):
            for _ in range(9):
                await client.publish("log.info.x", os.urandom(BLOCK))
            reply = await client.request("log.info.x", os.urandom(BLOCK), timeout=PATIENCE)
        return int(orjson.loads(reply.data)["seq"])


async def info(client: Client, stream: str = "EVENTS") -> dict[str, Any]:
    """Return the description of a stream."""
    reply = await client.request(f"$JS.API.STREAM.INFO.{stream}", timeout=PATIENCE)
    found: dict[str, Any] = orjson.loads(reply.data)
    return found


async def sample(client: Client, first: int, last: int) -> list[bytes]:
    """Return some events of EVENTS, from all parts of the stream."""
    return [
        (await client.request("$JS.API.DIRECT.GET.EVENTS", b'{"seq":%d}' % seq, timeout=PATIENCE)).data
        for seq in range(first, last + 1, max(1, (last - first) // 50))
    ]


def start(nats: Deployed, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a command as the operator."""
    line = command("streams", *arguments, "--nats-url", nats.url, *nats.options("operator"))
    return subprocess.Popen(
        line, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[bytes], what: str) -> str:
    """Wait for a command to succeed within its memory; print its speed, and return its output."""
    began, peak, lines = time.monotonic(), 0, []
    assert process.stdout is not None
    # The maximum that ``wait4`` reports includes the process that started the command.
    for line in process.stdout:
        lines.append(line.decode())
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max(peak, *(int(kib) * 1024 for kib in re.findall(r"VmHWM:\s+(\d+)", status)), 0)
    seconds = time.monotonic() - began
    print(f"{what}: {seconds:.1f} s, {SIZE / MIB / seconds:.0f} MiB/s, {peak / MIB:.0f} MiB")
    assert process.wait() == 0, lines
    assert 0 < peak < MAX_MEMORY
    return "".join(lines)


def test_a_large_stream_is_backed_up_and_restored(tmp_path: Path) -> None:
    """A large stream of random data is restored completely, in bounded memory, also after a kill."""
    with deployed(tmp_path) as nats:
        nats.command_apply()
        last = run(fill(nats), LIMIT)
        run(_check(nats, tmp_path / "backup", last), LIMIT)
        assert nats.violations == []


async def _check(nats: Deployed, path: Path, last: int) -> None:
    async with nats.client("operator") as (client, _):
        before = (await info(client))["state"]
        assert (before["first_seq"] > 1) is FULL
        events = await sample(client, before["first_seq"], last)
        finish(start(nats, "backup", str(path)), "backup")
        # Killed in the middle: the streams accept no events, and the same command completes the restore.
        killed = start(nats, "restore", str(path), "--yes")
        async with asyncio.timeout(LIMIT):
            while RESTORE_MARK not in ((await info(client)).get("config", {}).get("metadata") or {}):
                await asyncio.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        with pytest.raises(NatsError):  # no stream accepts events
            await client.request("log.info.x", b"{}", timeout=1.0)
        printed = finish(start(nats, "restore", str(path), "--yes"), "restore")
        assert "restore complete" in printed
        after = (await info(client))["state"]
        for key in ("messages", "bytes", "first_seq", "last_seq"):
            assert after[key] == before[key], key
        assert await sample(client, before["first_seq"], last) == events
