"""The ``exec`` probe: a command's exit code is the verdict, its last line of output the reason."""

import asyncio
import contextlib
import os
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from typing import Final

from tickertape.producers.monitor.config.probes import ExecProbe
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.result import MAX_ERROR_LENGTH, failed

from tickertape.text import printable

MAX_OUTPUT_BYTES: Final = 64 * 1024
"""Output of a command that is kept, from its end; it may write more."""

_OUTCOMES: Final = {0: Outcome.OK, 1: Outcome.DEGRADED, 2: Outcome.FAILED}


async def look(probe: ExecProbe, limit: float) -> Result:
    """Probe once, within ``limit`` seconds."""
    clock = time.monotonic  # the loop's own clock stands still within a turn
    began = clock()
    code, output = await run(probe.command, probe.environment, limit)
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
