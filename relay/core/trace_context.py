"""The trace that an event belongs to, read only when somebody asks: of a sample of events, not of all.

Two forms count, in the event or in its ``metadata``: ``trace_id``, and W3C's ``traceparent``, which may be a
header of its message too.
"""

import re
from typing import Any, Final

import orjson
from tickertape.relay.core.event_log import Record

_MAX_BYTES: Final = 16 * 1024
"""Of an event that is looked into: one in each flush, so that the largest would be dear."""

_ID: Final = re.compile(r"[0-9A-Fa-f-]{8,64}")
"""Hexadecimal as in W3C and Jaeger, or a UUID; anything else could be free text."""

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def may_be_traced(record: Record) -> bool:
    """Tell, in a fraction of a microsecond, whether it pays to ask for an event's trace."""
    encoded = record.encoded
    if len(encoded) > _MAX_BYTES:
        return False
    return record.traceparent is not None or b'"trace_id"' in encoded or b'"traceparent"' in encoded


def trace_id(record: Record) -> str | None:
    """Id of the trace that an event belongs to; None when it names none."""
    if record.traceparent is not None and (found := _of_traceparent(record.traceparent)) is not None:
        return found
    event = orjson.loads(record.encoded)["event"]
    for place in (event.get("metadata"), event):
        if isinstance(place, dict) and (found := _named(place)) is not None:
            return found
    return None


def _named(place: dict[str, Any]) -> str | None:
    named = place.get("trace_id")
    if isinstance(named, str) and _ID.fullmatch(named):
        return named
    parent = place.get("traceparent")
    return _of_traceparent(parent) if isinstance(parent, str) else None


def _of_traceparent(text: str) -> str | None:
    found = _TRACEPARENT.fullmatch(text)
    return found[1] if found is not None and int(found[1], 16) else None
