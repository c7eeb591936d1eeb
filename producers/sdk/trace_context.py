"""Trace context of an event: the ``traceparent`` header of W3C Trace Context.

Invariants:

1. A malformed header is left out; it never prevents an event from being published.
2. OpenTelemetry is used if the program has it installed; it is not a dependency.
"""

import importlib
import re
from collections.abc import Callable
from typing import Final

HEADER: Final = "traceparent"

Provider = Callable[[], str | None]
"""Function that returns the current trace context as a ``traceparent``; None if there is none."""

_MAX_LENGTH: Final = 512
"""Maximum characters of a header; version 00 has 55, and later versions may append fields."""

# Version 00 ends after the flags; later versions may append fields after another dash. Version ff is invalid.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}"
    r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def is_valid(value: object) -> bool:
    """Return whether a value is a well-formed ``traceparent`` of any version."""
    if (
        not isinstance(value, str)
        or len(value) > _MAX_LENGTH
        or not value.isascii()
        or not value.isprintable()
    ):
        return False
    match = _TRACEPARENT.match(value)
    if match is None:
        return False
    rest = value[match.end() :]
    return not rest or (not value.startswith("00") and rest.startswith("-"))


def opentelemetry_provider() -> Provider | None:
    """Return a function that reads OpenTelemetry's current span; None if OpenTelemetry is not installed."""
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None

    def current_traceparent() -> str | None:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    return current_traceparent


def no_trace_context() -> None:
    """Return None: a provider for a publisher whose caller adds the headers itself, in its own thread."""


def with_traceparent(headers: dict[str, str] | None, provider: Provider | None) -> dict[str, str] | None:
    """Return the headers with the current trace context added.

    Args:
        headers: headers given by the caller; a ``traceparent`` in them takes precedence over the provider's.
        provider: source of the trace context.
    """
    if headers is None and provider is None:
        return None
    result = dict(headers or {})
    # NATS distinguishes upper and lower case in header names, so another spelling would be a second header.
    given_keys = [key for key in result if key.lower() == HEADER]
    value: str | None = None
    for key in given_keys:
        value = result.pop(key)
    if not given_keys and provider is not None:
        value = provider()
    if value is not None and is_valid(value):
        result[HEADER] = value
    return result
