"""Trace context of events."""

from typing import Any

import orjson
import pytest
from tickertape.contracts.encode import encode_event
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Route
from tickertape.relay.core.trace_context import may_be_traced, trace_id

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{ID}-00f067aa0ba902b7-01"


def record(traceparent: str | None = None, **fields: Any) -> Record:
    """Build a record as the relay keeps it."""
    route = Route("log.info.x")
    payload = orjson.dumps({"event_type": "system_log", **fields})
    return Record(1, route, encode_event(route.prefix, 1, payload), False, False, 0.0, 0.0, 0, traceparent)


@pytest.mark.parametrize(
    ("of", "found"),
    [
        (record(metadata={"trace_id": ID}), ID),
        (record(metadata={"traceparent": PARENT}), ID),
        (record(trace_id=ID), ID),
        (record(traceparent=PARENT), ID),
        (record("nonsense", metadata={"trace_id": "0af7651916cd43dd"}), "0af7651916cd43dd"),
        (record(f"00-{'0' * 32}-00f067aa0ba902b7-01"), None),
        (record(metadata={"trace_id": "a client called Bob"}), None),
        (record(metadata={"trace_id": 7, "traceparent": 8}), None),
        (record(metadata=["trace_id"]), None),
        (record(metadata={"trace_id": "f" * 65}), None),
    ],
)
def test_locations_of_a_trace_id(of: Record, found: str | None) -> None:
    """A trace id is found in the header, in metadata or in the event, and free text is never returned."""
    assert may_be_traced(of)
    assert trace_id(of) == found


def test_the_message_header_takes_precedence() -> None:
    """The header of the message takes precedence, since it is the publisher's and the event may be a copy."""
    assert trace_id(record(PARENT, metadata={"trace_id": "f" * 32})) == ID


@pytest.mark.parametrize(
    "of",
    [
        record(message="plain"),
        record(metadata={"traceback": "..."}),
        record(message="x" * 20_000, metadata={"trace_id": ID}),
    ],
)
def test_events_without_a_trace_are_not_examined(of: Record) -> None:
    """Events that name no trace, or are too large to parse, are not examined."""
    assert not may_be_traced(of)
