"""Child processes: each hears no Ctrl-C of the terminal, dies with this process (Linux), and can be ended."""

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping
from typing import IO, Any, Final

_PR_SET_PDEATHSIG: Final = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


async def start(
    *command: str, output: IO[bytes] | int = DEVNULL, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a child process.

    Args:
        command: program and arguments.
        output: where its output and its errors go.
        environment: this process's own by default.

    Raises:
        OSError: it cannot be started.
    """
    options: dict[str, Any] = {} if _libc is None else {"preexec_fn": _die_with_parent}
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        start_new_session=True,
        **options,
    )


async def stop(process: Process, grace: float) -> bool:
    """Ask a child to end, and wait for it.

    Args:
        process: may have ended already.
        grace: seconds until it is killed.

    Returns:
        False when it had to be killed.
    """
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    return await wait_or_kill(process, grace)


async def wait_or_kill(process: Process, grace: float) -> bool:
    """Wait until a child ends; kill it after ``grace`` seconds, and return False then."""
    try:
        async with asyncio.timeout(grace):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
        return False
    return True


def _die_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
