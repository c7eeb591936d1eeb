"""The ``exec`` probe: a command's exit code is the verdict, its last line of output the reason."""

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
"""Output of a command that is kept, from its end; it may write more."""

_OUTCOMES: Final = {0: Outcome.OK, 1: Outcome.DEGRADED, 2: Outcome.FAILED}


class ExecProbe(ProbeSettings):
    """Runs a command: it ends with 0 for healthy, 1 for degraded, 2 for unhealthy."""

    target = "command"
    kind: Literal["exec"]
    command: Command
    environment: dict[str, str] = Field(default={}, repr=False)

    def unusable(self) -> str | None:
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]!r} is no program that can be run here; write its whole path"
        return None

    async def probe(self, limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        code, output = await run(self.command, self.environment, limit)
        latency = clock() - began
        said = last_line(output)
        outcome = _OUTCOMES.get(code)
        if outcome is None:
            return failed(f"ended with {code}, none of 0, 1, 2" + (f": {said}" if said else ""), latency)
        if outcome is Outcome.OK:
            return Result(outcome, None, latency)
        return Result(outcome, (said or f"ended with {code}")[:MAX_ERROR_LENGTH], latency)


async def run(command: list[str], environment: dict[str, str], limit: float) -> tuple[int, bytes]:
    """Run a command without a shell, in a process group of its own that does not outlive this call.

    Args:
        command: program and arguments.
        environment: on top of the monitor's own.
        limit: seconds.

    Returns:
        exit code, negative for a signal; and the end of what it wrote.

    Raises:
        TimeoutError: it took longer; it was killed with all that it had started.
        OSError: it cannot be started.
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
        async with asyncio.timeout(limit):
            while data := await process.stdout.read(MAX_OUTPUT_BYTES):
                output = (output + data)[-MAX_OUTPUT_BYTES:]
            return await process.wait(), output
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.shield(process.wait())


def last_line(output: bytes) -> str:
    """Return the last line that says something, with what a terminal would obey escaped."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
