"""Probe ``exec``: a command with the conventions of Nagios plug-ins.

The exit code is the outcome: 0 healthy, 1 degraded (WARNING), 2 failed (CRITICAL), 3 no verdict (UNKNOWN).
The first line of output is the reason; performance data, after a ``|``, and further lines are ignored. A
command runs in a clean environment (``process/command.py``): it inherits neither settings nor secrets.
"""

import signal
import time
from typing import Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import MAX_ERROR_LENGTH, CannotProbe, failed, redact
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Command, Environment

from tickertape.process.command import Finished, run_command
from tickertape.text import printable

_OUTCOMES: Final = {0: Outcome.OK, 1: Outcome.DEGRADED, 2: Outcome.FAILED, 3: Outcome.UNKNOWN}


class ExecProbe(ProbeSettings):
    """Command that exits with 0 for healthy, 1 for degraded, 2 for failed and 3 for no verdict."""

    target = "command"
    kind: Literal["exec"]
    command: Command
    environment: Environment = Field(default={}, repr=False)
    """Environment variables, in addition to PATH, HOME, TMPDIR, TZ and the locale."""

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        try:
            finished = await run_command(self.command, self.environment, time_limit)
        except OSError as error:
            if error.filename is None:  # no descriptor or process is left
                raise
            # It says nothing about the gateway: the command is missing here, or is being replaced.
            reason = describe_start(self.command, error)
            raise CannotProbe(reason, "install it, or correct 'command'") from None
        latency = clock() - started
        message = redact(first_line(finished), self.environment)
        ending = describe_code(finished.code)
        outcome = _OUTCOMES.get(finished.code)
        if outcome is None:
            return failed(f"{ending}; expected 0 to 3" + (f": {message}" if message else ""), latency)
        if outcome is Outcome.OK:
            return Result(outcome, None, latency)
        return Result(outcome, (message or ending)[:MAX_ERROR_LENGTH], latency)


def describe_start(command: list[str], error: OSError) -> str:
    """Describe why a command cannot be started."""
    return f"{command[0]} cannot be started: {(error.strerror or str(error)).lower()}"


def describe_code(code: int) -> str:
    """Describe an exit code, which is negative for a signal."""
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal
        return f"killed by signal {-code}"


def first_line(finished: Finished) -> str:
    """Return the first line of the output without performance data; without output, the last line of errors.

    Blank lines do not count, and control characters are escaped.
    """
    lines = _lines(finished.output)
    return printable(lines[0].partition("|")[0].rstrip()) if lines else _last(_lines(finished.errors))


def last_line(finished: Finished) -> str:
    """Return the last line of the errors, or without errors that of the output, like ``first_line``."""
    return _last(_lines(finished.errors) or _lines(finished.output))


def _last(lines: list[str]) -> str:
    return printable(lines[-1]) if lines else ""


def _lines(output: bytes) -> list[str]:
    return [line.strip() for line in output.decode(errors="replace").split("\n") if line.strip()]
