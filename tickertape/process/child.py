"""Child processes that are isolated from the terminal's Ctrl-C and die with this process (on Linux)."""

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from typing import IO, Any, Final

from tickertape.process import shutdown

_PR_SET_PDEATHSIG: Final = 1
# Loaded here, because a child must not load a library between fork and exec: another thread may have held
# the loader's lock during the fork.
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


async def start(
    *command: str, output: IO[bytes] | int = DEVNULL, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a child process.

    Args:
        command: program and arguments.
        output: receives standard output and standard error.
        environment: environment variables; None inherits those of this process.

    Raises:
        OSError: the program cannot be started.
    """
    options: dict[str, Any] = {} if _libc is None else {"preexec_fn": _die_with_parent}
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,  # the parent stops the child itself; Ctrl-C must not reach it first
        **options,
    )
    shutdown.track(process, signal.SIGTERM)
    return process


async def stop(process: Process, grace: float) -> bool:
    """Send SIGTERM to a child and wait until it exits; kill it after the grace period.

    Args:
        process: the child; may have exited already.
        grace: seconds before it is killed.

    Returns:
        False if it had to be killed.
    """
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    return await wait_or_kill(process, grace)


async def wait_or_kill(process: Process, grace: float) -> bool:
    """Wait until a child exits; kill it after ``grace`` seconds and return False."""
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return True


def _die_with_parent() -> None:
    # Runs in the child between fork and exec, as a process can set the signal only for itself.
    # The kernel sends the signal when the thread that forked ends, even if its process continues; here, that
    # is the thread of the event loop.
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
