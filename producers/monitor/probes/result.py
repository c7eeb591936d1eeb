"""Results of probes: readable errors, and degradation by latency."""

from typing import Final

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

from tickertape.process.outgoing import describe_failure

MAX_ERROR_LENGTH: Final = 200
"""Maximum characters of an error in an event."""


def failed(error: str, latency: float | None = None) -> Result:
    """Return a failed result with an error."""
    return Result(Outcome.FAILED, error[:MAX_ERROR_LENGTH], latency)


def answered(latency: float, degraded_above: float | None, expires: float | None = None) -> Result:
    """Return an ok result, or a degraded one above the latency limit; ``expires`` is in UNIX seconds."""
    if degraded_above is not None and latency > degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; degraded above {degraded_above * 1000:.0f} ms"
        return Result(Outcome.DEGRADED, error, latency, expires)
    return Result(Outcome.OK, None, latency, expires)


def describe(error: Exception) -> str:
    """Describe an error for operators, with the length of an event's error."""
    return describe_failure(error)[:MAX_ERROR_LENGTH]
