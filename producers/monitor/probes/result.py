"""Results of probes: readable errors, and degradation by latency."""

import os
import re
from collections.abc import Mapping
from typing import Final

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

from tickertape.net.outgoing import describe_failure
from tickertape.text import printable

MAX_ERROR_LENGTH: Final = 200
"""Maximum characters of an error in an event."""


MIN_SECRET_LENGTH: Final = 4
"""Characters of a value that is replaced as a secret; shorter ones occur in any text."""

OWN_SECRETS: Final = frozenset({"TICKERTAPE_NATS_PASSWORD", "TICKERTAPE_NATS_TOKEN"})
"""Environment variables of the monitor that contain secrets."""

_SECRET_NAME: Final = re.compile(r"auth|cookie|credential|key|pass|pwd|secret|session|token", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"://[^,\s]*?:([^,\s]*)@")


def failed(error: str, latency: float | None = None) -> Result:
    """Return a failed result with an error."""
    return Result(Outcome.FAILED, error[:MAX_ERROR_LENGTH], latency)


def answered(latency: float, degraded_above: float | None, expires: float | None = None) -> Result:
    """Return an ok result, or a degraded one above the latency limit; ``expires`` is in UNIX seconds."""
    if degraded_above is not None and latency > degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; degraded above {degraded_above * 1000:.0f} ms"
        return Result(Outcome.DEGRADED, error, latency, expires)
    return Result(Outcome.OK, None, latency, expires)


def redact(text: str, variables: Mapping[str, str]) -> str:
    """Replace secrets in a text that a peer or a command has sent, because events show it.

    Args:
        text: the text.
        variables: environment variables, headers or other settings that the peer or the command has received;
            those whose name says that they are secret are replaced, and so are the monitor's own secrets.
    """
    secrets = {value for name, value in variables.items() if _SECRET_NAME.search(name)}
    secrets |= {os.environ.get(name, "") for name in OWN_SECRETS}
    if (url := os.environ.get("TICKERTAPE_NATS_URL")) is not None:
        secrets |= set(_URL_PASSWORD.findall(url))
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, "***").replace(printable(secret), "***")
    return text


def describe(error: Exception) -> str:
    """Describe an error for operators, with the length of an event's error."""
    return describe_failure(error)[:MAX_ERROR_LENGTH]
