"""Records as events: what is redacted, shortened and rejected."""

import asyncio
from typing import Any

import orjson
import pytest
from tickertape.producers.shipper.otlp import records
from tickertape.producers.shipper.otlp.records import RecordReader, RequestEvents
from tickertape.producers.shipper.parsing.parser import ParserCounts, ParseSettings
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings

from tests.support.clients.otlp_requests import json_request, record, request


def read(
    body: bytes, *, is_json: bool = False, counts: ParserCounts | None = None, limit: int = 1_000_000
) -> RequestEvents:
    """Read a request."""
    throttle = Throttle(ThrottleSettings(), "otlp", "otlp")
    reader = RecordReader(ParseSettings(), "otlp", counts or ParserCounts(), throttle, limit)
    return asyncio.run(reader.read(body, is_json=is_json, now=1772447445.0))


@pytest.mark.parametrize(
    ("body", "attributes"),
    [
        ("password=hunter2-Xy9", {}),
        ("x", {"password": "hunter2-Xy9"}),
        ("x", {"nested": {"api_key": "hunter2-Xy9"}}),
        ({"password": "hunter2-Xy9"}, {}),
    ],
)
def test_secrets_are_redacted(body: object, attributes: dict[str, Any]) -> None:
    """A secret is redacted wherever it is, in the right record, and counted once."""
    counts = ParserCounts()
    found = read(request([record("before"), record(body, **attributes), record("after")]), counts=counts)
    payloads = [event.payload for event in found.events]
    assert b"hunter2" not in b"".join(payloads)
    assert [b"[redacted:" in payload for payload in payloads] == [False, True, False]
    assert counts.redacted.total() == 1


def test_terminal_escapes_are_removed() -> None:
    """A record is cleaned as a line is."""
    [event] = read(request([record("\x1b[31mred\x07 \u202etxt", a="\x1b]0;x\x07y")])).events
    body = orjson.loads(event.payload)
    assert (body["message"], body["metadata"]["attributes"]) == ("red txt", {"a": "y"})


def test_large_records_are_shortened() -> None:
    """A record that exceeds an event is shortened and counted; one beyond NATS' limit is rejected."""
    counts = ParserCounts()
    body = request([record("x" * 300_000), record("y")])
    found = read(body, counts=counts)
    assert [orjson.loads(event.payload)["metadata"].get("truncated") for event in found.events] == [
        True,
        None,
    ]
    assert counts.truncated == 1
    small = read(body, limit=1_000)
    assert (len(small.events), small.rejected) == (1, 1)


def test_records_of_a_request_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request with more of them is rejected, and stores nothing."""
    monkeypatch.setattr(records, "MAX_RECORDS", 2)
    assert len(read(request([record("x")] * 2)).events) == 2
    with pytest.raises(records.RequestTooLarge, match="more than 2 records"):
        read(request([record("x")] * 3))


def test_ids_depend_on_the_request_alone() -> None:
    """The ids of a request are the same again, and differ from those of any other."""
    first, again, other = (read(request([record(text)] * 2)).events for text in ("x", "x", "y"))
    assert [event.id for event in first] == [event.id for event in again]
    assert len({event.id for event in [*first, *other]}) == 4


def test_json_and_protobuf_agree() -> None:
    """The same record has the same event in either encoding."""
    trace = {"traceId": bytes(range(16)).hex(), "spanId": bytes(range(8)).hex()}
    attributes = [
        {"key": "a", "value": {"intValue": "7"}},
        {"key": "b", "value": {"arrayValue": {"values": [{"boolValue": True}, {"doubleValue": 1.5}]}}},
    ]
    json = json_request([
        {
            "timeUnixNano": "1772447445123000000", "severityNumber": 9, "body": {"stringValue": "x"},
            "observedTimeUnixNano": "1772447446123000001", "attributes": attributes, **trace,
        }
    ])  # fmt: skip
    observed = b"\x59" + (1772447446123000001).to_bytes(8, "little")
    [one] = read(request([record("x", a=7, b=[True, 1.5]) + observed])).events
    [two] = read(json, is_json=True).events
    assert (one.subject, orjson.loads(one.payload)) == (two.subject, orjson.loads(two.payload))


def test_time_of_a_record_without_one() -> None:
    """The time of observation counts, else that of arrival; zero is none, in either encoding."""
    zero = {"timeUnixNano": "0", "body": {"stringValue": "x"}}
    observed = {**zero, "observedTimeUnixNano": "1772447445123000000"}
    found = read(json_request([zero, observed]), is_json=True).events
    found += read(request([record("x", time=0)])).events
    assert [orjson.loads(event.payload)["timestamp"] for event in found] == [
        "2026-03-02T10:30:45.000Z", "2026-03-02T10:30:45.123Z", "2026-03-02T10:30:45.000Z",
    ]  # fmt: skip
