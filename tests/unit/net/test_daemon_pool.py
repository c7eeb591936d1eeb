"""Threads that do not delay the end of the process."""

import subprocess
import sys
import threading
from concurrent.futures import wait

import pytest

from tests.support.patience import PATIENCE
from tickertape.net.daemon_pool import DaemonPool


def test_results_and_errors_are_returned() -> None:
    """The pool returns results and errors of its calls, and reuses its threads."""
    pool = DaemonPool(4, "worker")
    assert pool.submit(int, "7", base=8).result(PATIENCE) == 7
    with pytest.raises(ValueError, match="invalid literal"):
        pool.submit(int, "x").result(PATIENCE)
    threads = {pool.submit(threading.get_ident).result(PATIENCE) for _ in range(10)}
    assert len(threads) <= 4


def test_the_number_of_threads_is_limited() -> None:
    """More calls than threads wait for a free thread; all of them finish."""
    pool, both, go = DaemonPool(2, "worker"), threading.Barrier(3), threading.Event()

    def hold() -> int:
        both.wait(PATIENCE)
        go.wait(PATIENCE)
        return threading.get_ident()

    held = [pool.submit(hold) for _ in range(2)]
    both.wait(PATIENCE)
    later = [pool.submit(threading.get_ident) for _ in range(5)]
    assert not any(future.done() for future in later)
    go.set()
    wait([*held, *later], PATIENCE)
    assert len({future.result() for future in [*held, *later]}) == 2


@pytest.mark.parametrize(
    "blocked", ["loop.run_in_executor(None, time.sleep, 600)", "asyncio.to_thread(time.sleep, 600)"]
)
def test_a_call_that_hangs_does_not_delay_the_end_of_the_process(blocked: str) -> None:
    """A program ends while a call in a thread hangs."""
    program = f"""
import asyncio, time
from tickertape.process.event_loop import run_async

async def main():
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future({blocked})
    await asyncio.sleep(0.05)
    task.cancel()
    return 7

raise SystemExit(run_async(main()))
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=PATIENCE).returncode == 7
