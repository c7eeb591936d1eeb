"""Probe ``exec``: the exit code of a command is the outcome, its last line of output the error."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from typing import Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import MAX_ERROR_LENGTH, failed
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Command

from tickertape.text import printable

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Bytes kept of a command's output, counted from its end; a command may write more."""

_OUTCOMES: Final = {0: Outcome.OK, 1: Outcome.DEGRADED, 2: Outcome.FAILED}


class ExecProbe(ProbeSettings):
    """Command that exits with 0 for healthy, 1 for degraded and 2 for unhealthy."""

    target = "command"
    kind: Literal["exec"]
    command: Command
    environment: dict[str, str] = Field(default={}, repr=False)

    def unusable_reason(self) -> str | None:
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]!r} is not an executable on this machine; use its full path"
        return None

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        code, output = await run_command(self.command, self.environment, time_limit)
        latency = clock() - started
        message = last_line(output)
        outcome = _OUTCOMES.get(code)
        if outcome is None:
            return failed(
                f"exited with {code}; expected 0, 1 or 2" + (f": {message}" if message else ""), latency
            )
        if outcome is Outcome.OK:
            return Result(outcome, None, latency)
        return Result(outcome, (message or f"exited with {code}")[:MAX_ERROR_LENGTH], latency)


async def run_command(
    command: list[str], environment: dict[str, str], time_limit: float
) -> tuple[int, bytes]:
    """Run a command without a shell, in its own process group, which is killed before this call returns.

    Args:
        command: program and arguments.
        environment: environment variables in addition to the monitor's own.
        time_limit: seconds.

    Returns:
        the exit code, negative for a signal; and the end of the output.

    Raises:
        TimeoutError: the command timed out and was killed with all its child processes.
        OSError: the command cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert process.stdout is not None
    output = b""
    try:
        async with asyncio.timeout(time_limit):
            while data := await process.stdout.read(MAX_OUTPUT_BYTES):
                output = (output + data)[-MAX_OUTPUT_BYTES:]
            return await process.wait(), output
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # Also after a normal exit, because child processes of the command may still run.
            os.killpg(process.pid, signal.SIGKILL)
        # Shielded, so that a probe that is cancelled here still reaps its process.
        await asyncio.shield(process.wait())


def last_line(output: bytes) -> str:
    """Return the last line that is not blank, with control characters escaped."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
