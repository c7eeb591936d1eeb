"""Trace ids of events, read on demand for a sample of events only.

An event names its trace as ``trace_id`` or as W3C ``traceparent``, at its top level or in ``metadata``, or in
the ``traceparent`` header of its message.
"""

import re
from typing import Any, Final

import orjson
from tickertape.relay.core.event_log import Record

_MAX_BYTES: Final = 16 * 1024
"""Maximum size of an event to parse for its trace id, since parsing delays the flush."""

_ID: Final = re.compile(r"[0-9A-Fa-f-]{8,64}")
"""Hexadecimal ids as in W3C and Jaeger, and UUIDs; anything else could be free text."""

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def may_be_traced(record: Record) -> bool:
    """Return whether an event may name a trace; takes a fraction of a microsecond."""
    encoded = record.encoded
    if len(encoded) > _MAX_BYTES:
        return False
    # A search of the bytes: a nested object may have such a key, too; then ``trace_id`` finds nothing.
    return record.traceparent is not None or b'"trace_id"' in encoded or b'"traceparent"' in encoded


def trace_id(record: Record) -> str | None:
    """Return the trace id of an event, or None."""
    if record.traceparent is not None and (trace := _parse_traceparent(record.traceparent)) is not None:
        return trace
    event = orjson.loads(record.encoded)["event"]
    for fields in (event.get("metadata"), event):
        if isinstance(fields, dict) and (trace := _read_trace(fields)) is not None:
            return trace
    return None


def _read_trace(fields: dict[str, Any]) -> str | None:
    trace = fields.get("trace_id")
    if isinstance(trace, str) and _ID.fullmatch(trace):
        return trace
    parent = fields.get("traceparent")
    return _parse_traceparent(parent) if isinstance(parent, str) else None


def _parse_traceparent(text: str) -> str | None:
    match = _TRACEPARENT.fullmatch(text)
    # W3C declares an id of zeros invalid.
    return match[1] if match is not None and int(match[1], 16) else None
