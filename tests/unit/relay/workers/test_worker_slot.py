"""Tests of a slot whose workers are programs that end in ways a relay does not by itself."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import pytest
from tickertape.relay.workers.shared_counters import SharedCounters
from tickertape.relay.workers.worker_slot import WorkerSlot

from tests.support.patience import PATIENCE

WORKER = """\
#!{python}
import os, signal, socket, sys
from tickertape.relay.workers.ipc import read_worker_config
link = socket.socket(fileno=int(sys.argv[4]))
read_worker_config(link)
link.sendall({said!r})
{end}
"""


async def two_lives(slot: WorkerSlot, changed: asyncio.Event) -> None:
    """Run a slot until its second worker was started, and stop it."""
    running = asyncio.create_task(slot.run())
    async with asyncio.timeout(PATIENCE):
        while slot.start_count < 2 or slot.pid is None:
            waiting = asyncio.create_task(changed.wait())
            await asyncio.wait({waiting, running}, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            changed.clear()
            if running.done():
                break
        slot.stop(signal.SIGTERM)
        await running


@pytest.mark.parametrize(
    ("said", "end", "told"),
    [
        (
            b'{"announced":"ready"}\n{"id":1,"bo',
            "os.kill(os.getpid(), signal.SIGKILL)",
            "was killed by SIGKILL",
        ),
        (
            b'{"announced":"ready"}\nnonsense\n',
            "link.recv(1)",
            "lost its connection to the supervisor (JSONDecodeError",
        ),
    ],
    ids=["dies in a line", "talks nonsense"],
)
def test_the_next_worker_is_started(
    said: bytes,
    end: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """However a worker dies, its death is told and its place taken."""
    program = tmp_path / "worker"
    program.write_text(WORKER.format(python=sys.executable, said=said, end=end))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    async def check() -> None:
        changed = asyncio.Event()
        slot = WorkerSlot(0, {}, SharedCounters.create(1), changed.set)
        await two_lives(slot, changed)
        assert slot.start_count >= 2
        assert slot.has_been_ready
        assert slot.pid is None

    with caplog.at_level(logging.ERROR, "tickertape.workers"):
        asyncio.run(check())
    assert f"worker 0 {told}" in caplog.text
