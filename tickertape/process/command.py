"""Commands of the operator: run without a shell, in a clean environment, with a deadline.

Invariants:

1. A command inherits no setting and no secret of this process: only ``INHERITED`` variables and its own
   ones, and no descriptor except its output. Standard input is empty.
2. ``run_command`` returns when the command has exited or the time is up, even if a process that it started
   holds its output open. All processes of its session have been killed by then.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Mapping
from typing import Final

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Bytes kept of a command's output, counted from its end; a command may write more."""

INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""Environment variables that commands inherit."""

_PIPE_BYTES: Final = 1024 * 1024
"""Capacity of a pipe at most: more cannot have been written before the command exited."""

_STANDARD_ERROR: Final = 2

_REAP_GRACE: Final = 5.0
"""Seconds for a process to start or to exit; a killed one that is stuck in the kernel is reaped later."""


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: the ``INHERITED`` variables, and the given ones."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {"PATH": os.defpath, **inherited, **variables}


async def run_command(command: list[str], variables: Mapping[str, str], seconds: float) -> tuple[int, bytes]:
    """Run a command in a session of its own, which is killed before this call returns.

    Args:
        command: program and arguments; the working directory is that of this process.
        variables: environment variables in addition to those of ``INHERITED``.
        seconds: deadline.

    Returns:
        the exit code, negative for a signal; and the end of the output.

    Raises:
        TimeoutError: the command timed out and was killed with all processes of its session.
        OSError: the command cannot be started.
    """
    read_end, write_end = os.pipe()
    # Not a pipe of asyncio, which would report the exit only when every process has closed the pipe.
    output = _Output(read_end)
    _close_descriptors_on_exec()
    try:
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *command,
                stdin=DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=clean_environment(variables),
                start_new_session=True,
            )
        )
        try:
            process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The command may run already, and would continue with no one to end it. In a callback, since the
            # wait may be cancelled, too, or be too short.
            starting.add_done_callback(_kill_started)
            await asyncio.wait({starting}, timeout=_REAP_GRACE)
            if starting.done() and starting.exception() is None:
                await asyncio.wait({asyncio.ensure_future(starting.result().wait())}, timeout=_REAP_GRACE)
            raise
        finally:
            os.close(write_end)
        exited = asyncio.ensure_future(process.wait())
        try:
            async with asyncio.timeout(seconds):
                code = await asyncio.shield(exited)
        finally:
            _kill(process.pid)
            await asyncio.wait({exited}, timeout=_REAP_GRACE)
        return code, output.read_rest()
    finally:
        output.close()


def _kill(pid: int) -> None:
    """Kill a command with all processes of its session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        # Also after a normal exit, because child processes of the command may still run.
        os.killpg(pid, signal.SIGKILL)


def _kill_started(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        _kill(starting.result().pid)


def _close_descriptors_on_exec() -> None:
    """Mark inherited descriptors of this process as close-on-exec; uvloop would pass them on to commands."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    for name in os.listdir(folder):
        if int(name) > _STANDARD_ERROR:
            with contextlib.suppress(OSError):  # the descriptor of the folder itself
                os.set_inheritable(int(name), False)


class _Output:
    """Reader of a pipe that keeps the end of what it reads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._tail = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(descriptor, False)
        self._loop.add_reader(descriptor, self._read)

    def read_rest(self) -> bytes:
        """Read what was written so far, without waiting for more; return the end of the output."""
        for _ in range(_PIPE_BYTES // MAX_OUTPUT_BYTES):
            if not self._read():
                break
        return self._tail

    def close(self) -> None:
        """Stop reading; a process that still writes to the pipe receives SIGPIPE."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._loop.remove_reader(self._descriptor)  # it would be readable without end
        self._tail = (self._tail + data)[-MAX_OUTPUT_BYTES:]
        return bool(data)
