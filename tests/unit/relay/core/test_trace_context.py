"""The trace that an event belongs to."""

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
    """An event as the relay keeps it."""
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
def test_where_a_trace_may_stand(of: Record, found: str | None) -> None:
    """In the header, in metadata, in the event; and never free text."""
    assert may_be_traced(of)
    assert trace_id(of) == found


def test_the_header_of_the_message_goes_first() -> None:
    """It is of the one who published; the event may have been copied."""
    assert trace_id(record(PARENT, metadata={"trace_id": "f" * 32})) == ID


@pytest.mark.parametrize(
    "of",
    [
        record(message="plain"),
        record(metadata={"traceback": "..."}),
        record(message="x" * 20_000, metadata={"trace_id": ID}),
    ],
)
def test_what_is_not_looked_into(of: Record) -> None:
    """What names no trace, and what would be dear to read."""
    assert not may_be_traced(of)
