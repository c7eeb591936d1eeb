"""Commands of the operator: run without a shell, in a clean environment, with a deadline.

Invariants:

1. A command inherits no setting and no secret of this process: only ``INHERITED`` variables and its own
   ones, and no descriptor except its output. Standard input is empty.
2. ``run_command`` returns when the command has exited or the time is up, even if a process that it started
   holds its output open.
3. The process group of a command is killed if it timed out or was cancelled, and never after it has exited: a
   daemon that it started continues, and can write to its output for as long as this process runs.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tickertape.process import shutdown

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Bytes kept of an output, half of them from its beginning, the others from its end."""

MAX_DAEMON_OUTPUTS: Final = 16
"""Outputs that are read for daemons; beyond that the one that was opened first is closed."""

INHERITED: Final = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR")
"""Environment variables that commands inherit."""

_PIPE_BYTES: Final = 1024 * 1024
"""Capacity of a pipe at most: more cannot have been written before the command exited."""

_DISCARD_INTERVAL: Final = 0.1
"""Seconds between two reads of a daemon's output, which may be without end."""

_POLL_INTERVAL: Final = 0.02
"""Seconds between two looks at a process where the system does not report its exit."""

_REAP_GRACE: Final = 5.0
"""Seconds for a killed process to exit; one that is stuck in the kernel is reaped later."""


@dataclass(frozen=True, slots=True)
class Finished:
    """Command that has exited.

    Attributes:
        code: exit code, negative for a signal.
        output: standard output, at most ``MAX_OUTPUT_BYTES``.
        errors: standard error, at most as much.
    """

    code: int
    output: bytes
    errors: bytes


def clean_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a command: the ``INHERITED`` variables, and the given ones."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {"PATH": os.defpath, **inherited, **variables}


async def run_command(command: list[str], variables: Mapping[str, str], seconds: float) -> Finished:
    """Run a command in a session of its own.

    Args:
        command: program and arguments; the working directory is that of this process.
        variables: environment variables in addition to those of ``INHERITED``.
        seconds: deadline.

    Returns:
        the exit code and the output.

    Raises:
        TimeoutError: the command timed out and was killed with all processes of its group.
        OSError: the command cannot be started.
    """
    outputs: list[_Output] = []
    try:
        outputs += [_Output()]
        outputs += [_Output()]
        process = _start(command, variables, *outputs)
        shutdown.track(process)
        try:
            async with asyncio.timeout(seconds):
                await _wait(process)
        except BaseException:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REAP_GRACE):
                    await _wait(process)
            raise
        finished = Finished(process.returncode or 0, *(output.read_rest() for output in outputs))
    except BaseException:
        for output in outputs:
            output.close()
        raise
    for output in outputs:
        output.leave_open()
    return finished


def _start(
    command: list[str], variables: Mapping[str, str], output: "_Output", errors: "_Output"
) -> "subprocess.Popen[bytes]":
    # Otherwise the kernel discards the exit codes. The process that started this one may have ignored it.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Not a process of the event loop: uvloop passes further descriptors on, copies of the output among them.
    # Starting blocks for as long as the system takes to load the program, in either case.
    process = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        stdout=output.write_end,
        stderr=errors.write_end,
        env=clean_environment(variables),
        start_new_session=True,
    )
    output.close_write_end()
    errors.close_write_end()
    return process


async def _wait(process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process has exited, and reap it."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or a kernel without it, or no descriptor is left
        while process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)
        return
    loop = asyncio.get_running_loop()
    exited = asyncio.Event()
    loop.add_reader(descriptor, exited.set)
    try:
        await exited.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    process.wait()


class _Output:
    """Pipe of a command, of which the beginning and the end are kept.

    Attributes:
        write_end: descriptor for the command.
    """

    def __init__(self) -> None:
        self._descriptor, self.write_end = os.pipe()
        self._head = bytearray()
        self._tail = b""
        self._ended = False
        self._loop = asyncio.get_running_loop()
        os.set_blocking(self._descriptor, False)
        self._loop.add_reader(self._descriptor, self._keep)

    def read_rest(self) -> bytes:
        """Read what was written so far, without waiting for more; return the beginning and the end."""
        for _ in range(_PIPE_BYTES // MAX_OUTPUT_BYTES):
            if not self._keep():
                break
        return bytes(self._head + self._tail)

    def leave_open(self) -> None:
        """Discard what daemons still write, because a write to a closed pipe would end them."""
        if self._ended:
            self.close()
            return
        _daemon_outputs.append(self)
        if len(_daemon_outputs) > MAX_DAEMON_OUTPUTS:
            _daemon_outputs.popleft().close()
        self._await_more()

    def close_write_end(self) -> None:
        """Close the end for the command, which has its own copy."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def close(self) -> None:
        """Stop reading; a process that still writes to the pipe receives SIGPIPE."""
        self.close_write_end()
        with contextlib.suppress(RuntimeError):  # the event loop in which a daemon was started is closed
            self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = -1

    def _keep(self) -> bool:
        data = self._read()
        room = max(0, MAX_OUTPUT_BYTES // 2 - len(self._head))
        self._head += data[:room]
        self._tail = (self._tail + data[room:])[-(MAX_OUTPUT_BYTES // 2) :]
        return bool(data)

    def _await_more(self) -> None:
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._discard)

    def _discard(self) -> None:
        self._read()
        if self._ended:
            _daemon_outputs.remove(self)
            self.close()
        else:
            self._loop.remove_reader(self._descriptor)
            self._loop.call_later(_DISCARD_INTERVAL, self._await_more)

    def _read(self) -> bytes:
        try:
            data = os.read(self._descriptor, MAX_OUTPUT_BYTES)
        except BlockingIOError:
            return b""
        if not data:
            self._ended = True
            self._loop.remove_reader(self._descriptor)  # it would be readable without end
        return data


_daemon_outputs: Final[deque[_Output]] = deque()
