"""Results of probes: readable errors, and degradation by latency."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

from tickertape.errors import OperatorError
from tickertape.net.outgoing import describe_failure
from tickertape.text import printable

MAX_ERROR_LENGTH: Final = 200
"""Maximum characters of an error in an event."""


MIN_SECRET_LENGTH: Final = 4
"""Characters of a value that is replaced as a secret; shorter ones occur in any text."""

_own_secrets: Final[set[str]] = set()
"""Secrets of the monitor itself."""

SECRET_NAME: Final = re.compile(r"auth|cookie|credential|key|pass|pwd|secret|session|token", re.IGNORECASE)
"""Words in the name of a variable, header or setting that say that its value is secret."""

_URL_PASSWORD: Final = re.compile(r"://[^,\s]*?:([^,\s]*)@")


class CannotProbe(OperatorError):
    """Failure to run a probe for a reason that lies on this host, and says nothing about a gateway."""


def failed(error: str, latency: float | None = None) -> Result:
    """Return a failed result with an error."""
    return Result(Outcome.FAILED, error[:MAX_ERROR_LENGTH], latency)


def answered(latency: float, degraded_above: float | None, expires: float | None = None) -> Result:
    """Return an ok result, or a degraded one above the latency limit; ``expires`` is in UNIX seconds."""
    if degraded_above is not None and latency > degraded_above:
        error = f"answered in {latency * 1000:.0f} ms; degraded above {degraded_above * 1000:.0f} ms"
        return Result(Outcome.DEGRADED, error, latency, expires)
    return Result(Outcome.OK, None, latency, expires)


def protect(secrets: Iterable[str | None], url: str) -> None:
    """Add secrets of the monitor to those that ``redact`` replaces.

    Args:
        secrets: the secrets.
        url: URL that may contain a password.
    """
    _own_secrets.update(filter(None, secrets), _URL_PASSWORD.findall(url))


def redact(text: str, variables: Mapping[str, str]) -> str:
    """Replace secrets in a text that a peer or a command has sent, because events show it.

    Args:
        text: the text.
        variables: environment variables, headers or other settings that the peer or the command has received;
            those whose name says that they are secret are replaced, and so are the monitor's own secrets.
    """
    secrets = {value for name, value in variables.items() if SECRET_NAME.search(name)}
    secrets |= _own_secrets
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= MIN_SECRET_LENGTH:
            text = text.replace(secret, "***").replace(printable(secret), "***")
    return text


def describe(error: Exception) -> str:
    """Describe an error for operators, with the length of an event's error."""
    return describe_failure(error)[:MAX_ERROR_LENGTH]
