"""Probe ``exec``: the exit code of a command is the outcome, its last line of output the error.

A command runs in a clean environment (``process/command.py``): it inherits neither settings nor secrets.
"""

import shutil
import time
from typing import Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import MAX_ERROR_LENGTH, failed, redact
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Command, Environment

from tickertape.process.command import run_command
from tickertape.text import printable

_OUTCOMES: Final = {0: Outcome.OK, 1: Outcome.DEGRADED, 2: Outcome.FAILED}


class ExecProbe(ProbeSettings):
    """Command that exits with 0 for healthy, 1 for degraded and 2 for unhealthy."""

    target = "command"
    kind: Literal["exec"]
    command: Command
    environment: Environment = Field(default={}, repr=False)
    """Environment variables, in addition to PATH, HOME, TMPDIR, TZ and the locale."""

    def unusable_reason(self) -> str | None:
        if shutil.which(self.command[0]) is None:
            return f"{self.command[0]!r} is not an executable on this machine; use its full path"
        return None

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        code, output = await run_command(self.command, self.environment, time_limit)
        latency = clock() - started
        message = redact(last_line(output), self.environment)
        outcome = _OUTCOMES.get(code)
        if outcome is None:
            return failed(
                f"exited with {code}; expected 0, 1 or 2" + (f": {message}" if message else ""), latency
            )
        if outcome is Outcome.OK:
            return Result(outcome, None, latency)
        return Result(outcome, (message or f"exited with {code}")[:MAX_ERROR_LENGTH], latency)


def last_line(output: bytes) -> str:
    """Return the last line that is not blank, with control characters escaped."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1]) if lines else ""
