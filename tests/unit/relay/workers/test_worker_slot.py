"""A worker slot whose workers are programs that end in unusual ways."""

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
link.sendall({output!r})
{end}
"""


def install(end: str, output: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a program the worker."""
    program = folder / "worker"
    program.write_text(WORKER.format(python=sys.executable, output=output, end=end))
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))


async def run_until_second_worker(slot: WorkerSlot, changed: asyncio.Event) -> None:
    """Run a slot until its second worker has started, and stop it."""
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
    ("output", "end", "message"),
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
    output: bytes,
    end: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A worker that dies in any way is logged and replaced."""
    install(end, output, tmp_path, monkeypatch)

    async def scenario() -> None:
        changed = asyncio.Event()
        slot = WorkerSlot(0, {}, SharedCounters.create(1), changed.set)
        await run_until_second_worker(slot, changed)
        assert slot.start_count >= 2
        assert slot.has_been_ready
        assert slot.pid is None

    with caplog.at_level(logging.ERROR, "tickertape.workers"):
        asyncio.run(scenario())
    assert f"worker 0 {message}" in caplog.text


def test_a_reload_waits_until_a_worker_handles_signals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGHUP does not end a worker that has just been started, and reaches it later."""
    handler = "signal.signal(signal.SIGHUP, lambda *_: os._exit(7))"
    end = f'{handler}\nlink.sendall(b\'{{"announced":"relay"}}\\n\')\nsignal.pause()'
    install(end, b"", tmp_path, monkeypatch)

    async def scenario() -> None:
        slot = WorkerSlot(0, {}, SharedCounters.create(1), lambda: None)
        running = asyncio.create_task(slot.run())
        async with asyncio.timeout(PATIENCE):
            while slot.pid is None:
                await asyncio.sleep(0)
            slot.signal(signal.SIGHUP)
            while slot.pid is not None:
                await asyncio.sleep(0.01)
            slot.stop(signal.SIGTERM)
            await running

    with caplog.at_level(logging.ERROR, "tickertape.workers"):
        asyncio.run(scenario())
    assert "worker 0 exited with code 7" in caplog.text


def test_an_interrupt_prints_no_traceback_of_a_worker_that_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends a worker without a handler silently."""
    started = tmp_path / "started"
    install(f"open({str(started)!r}, 'w')\nsignal.pause()", b"", tmp_path, monkeypatch)

    async def scenario() -> None:
        slot = WorkerSlot(0, {}, SharedCounters.create(1), lambda: None)
        running = asyncio.create_task(slot.run())
        async with asyncio.timeout(PATIENCE):
            while not started.exists():
                await asyncio.sleep(0.01)
            slot.stop(signal.SIGINT)
            await running

    asyncio.run(scenario())
    assert capfd.readouterr().err == ""
