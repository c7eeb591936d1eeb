"""End of a process that hangs, in new interpreters."""

import subprocess
import sys
import time

import pytest

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.programs.worker_desk import alive
from tickertape.process import shutdown

PROGRAM = """\
import asyncio, os, signal, sys, threading, time
from tickertape.process import shutdown
from tickertape.process.child import start
from tickertape.process.event_loop import run_async
from tickertape.process.signals import stop_on_signals
shutdown.enable()
shutdown.FINAL_GRACE = 0.3
GRACE = 0.3

async def swallow():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

async def main():
{body}

sys.exit(run_async(main()))
"""

HANGS = {
    "a task that swallows cancellations": """\
    asyncio.create_task(swallow(), name="swallowing")
    await asyncio.sleep(0)
    return 0
""",
    "a failed start": """\
    asyncio.create_task(swallow(), name="swallowing")
    await asyncio.sleep(0)
    raise SystemExit(5)
""",
    "a thread that does not end": """\
    threading.Thread(target=time.sleep, args=(600,)).start()
    return 0
""",
    "a loop that is blocked": """\
    shutdown.receive(signal.SIGTERM, GRACE)
    time.sleep(600)
""",
    "an async generator that does not finish": """\
    async def endless():
        try:
            yield 1
        finally:
            await swallow()
    await anext(endless())
    return 0
""",
}


@pytest.mark.parametrize("name", HANGS)
def test_whatever_hangs_the_process_exits(name: str) -> None:
    """The process exits in time with code 1 and says so, and its children are gone."""
    child = '    print((await start("sleep", "600")).pid, flush=True)\n'
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=child + HANGS[name])],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "did not end within 0.3 s; exiting with code 1" in done.stderr
    assert ("swallowing" in done.stderr) == ("swallowing" in HANGS[name])
    eventually(lambda: not alive(int(done.stdout)), "the child is gone")


def test_a_signal_after_the_end_changes_nothing() -> None:
    """Once the main coroutine is done, its code is the exit code, whatever arrives."""
    body = """\
    with stop_on_signals(hangup=True) as stop:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    shutdown.begin()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(os.getpid(), number)
    return 7
"""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.parametrize(("second", "code"), [("SIGINT", 143), ("SIGTERM", 143)])
def test_a_second_signal_cancels(second: str, code: int) -> None:
    """The second signal cancels the command, and the code is that of the first."""
    body = f"""\
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.{second})
        await asyncio.sleep(600)
"""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")


def test_nothing_happens_in_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an entry point that enables them, the functions do nothing to a process."""
    shutdown.exit_within(0.0)
    shutdown.receive(15, 0.0)
    shutdown.begin()
    shutdown.end_children()
    time.sleep(0.05)
    assert shutdown.received == []
    assert shutdown.interrupted_code() == 1
