"""The trace context that an event carries: the ``traceparent`` header of W3C Trace Context.

Invariants:

1. A header that is not of W3C's form is left out; it never keeps an event from being published.
2. OpenTelemetry is used when the program has it, and is no dependency.
"""

import importlib
import re
from collections.abc import Callable
from typing import Final

HEADER: Final = "traceparent"

Provider = Callable[[], str | None]
"""Returns the context of now, or None when there is none."""

# Version 00 ends after the flags; later versions may go on after another dash. Version ff is forbidden.
_FORM: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}"
    r"-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def valid(value: object) -> bool:
    """Tell whether a value is a traceparent of W3C's form, in any version."""
    if not isinstance(value, str) or len(value) > 512 or not value.isascii() or not value.isprintable():
        return False
    found = _FORM.match(value)
    if found is None:
        return False
    rest = value[found.end() :]
    return not rest or (not value.startswith("00") and rest.startswith("-"))


def current_span() -> Provider | None:
    """Return a function that asks OpenTelemetry for the current span; None when it is not installed."""
    try:
        trace = importlib.import_module("opentelemetry.trace")
    except ImportError:
        return None

    def ask() -> str | None:
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    return ask


def carried(headers: dict[str, str] | None, provider: Provider | None) -> dict[str, str] | None:
    """Return the headers with the trace context of now.

    Args:
        headers: of the caller; a traceparent among them is taken in place of the provider's.
        provider: where the context comes from.
    """
    if headers is None and provider is None:
        return None
    found = dict(headers or {})
    given = [key for key in found if key.lower() == HEADER]
    value: str | None = None
    for key in given:
        value = found.pop(key)
    if not given and provider is not None:
        value = provider()
    if value is not None and valid(value):
        found[HEADER] = value
    return found
