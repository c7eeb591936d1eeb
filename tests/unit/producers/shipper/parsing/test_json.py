"""JSON lines in the forms that common programs write."""

from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from tickertape.producers.shipper.parsing.formats.otlp import MAX_RECORDS
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW = 1_790_000_000.0
TIME = "2025-06-24T10:30:45.123Z"


def parse_line(body: dict[str, Any] | str) -> ParsedEvent:
    """Parse one line."""
    line = body.encode() if isinstance(body, str) else orjson.dumps(body)
    parser = Parser(ParseSettings(zone=ZoneInfo("UTC")), "app", ParserCounts())
    return [*parser.feed([line], [len(line) + 1], NOW), *parser.flush(NOW)][0]


@pytest.mark.parametrize(
    ("body", "level", "source", "message", "timestamp"),
    [
        ({"t": {"$date": "2025-06-24T10:30:45.123+00:00"}, "s": "W", "c": "STORAGE", "id": 22220,
         "ctx": "main",
          "msg": "unclean"}, "WARN", "STORAGE", "unclean", TIME),
        ({"@t": "2025-06-24T10:30:45.1230000Z", "@mt": "{Count} orders of {@User}", "@l": "Warning",
         "Count": 2,
          "User": {"id": 1}, "SourceContext": "A.B", "@x": "E: no\n at A"},
         "WARN", "A.B", '2 orders of {"id":1}', "2025-06-24T10:30:45.1230000Z"),
        ({"@t": "2025-06-24T10:30:45.123Z", "@m": "done", "@i": "a1"}, "INFO", "app", "done", TIME),
        ({"Timestamp": "2025-06-24T10:30:45.123+00:00", "Level": "Error", "MessageTemplate": "{A:000} lost",
          "Properties": {"A": 7, "SourceContext": "A.B"}}, "ERROR", "A.B", "7 lost", TIME),
        ({"severity": "CRITICAL", "textPayload": "lost", "timestamp": "2025-06-24T10:30:45.123Z"},
         "CRITICAL", "app", "lost", TIME),
        ({"severity": "ERROR", "jsonPayload": {"message": "lost"}, "timestamp": {"seconds": 1750761045,
          "nanos": 123000000}}, "ERROR", "app", "lost", "2025-06-24T10:30:45.123Z"),
        ({"timeUnixNano": "1750761045123000000", "severityNumber": 17, "body": {"stringValue": "lost"}},
         "ERROR", "app", "lost", TIME),
        ({"__REALTIME_TIMESTAMP": "1750761045123456", "PRIORITY": "3", "SYSLOG_IDENTIFIER": "sshd",
          "MESSAGE": "lost"}, "ERROR", "sshd", "lost", "2025-06-24T10:30:45.123456Z"),
        ({"__REALTIME_TIMESTAMP": "1750761045123456", "MESSAGE": [108, 111, 255],
         "_SYSTEMD_UNIT": "a.service"},
         "INFO", "a.service", "lo\ufffd", "2025-06-24T10:30:45.123456Z"),
        ({"level": 50, "time": 1750761045123, "pid": 1, "hostname": "h", "msg": "lost",
         "err": {"stack": "E\n at a"}},
         "ERROR", "app", "lost", TIME),
        ({"name": "db", "hostname": "h", "pid": 1, "level": 40, "msg": "slow",
         "time": "2025-06-24T10:30:45.123Z",
          "v": 0}, "WARN", "db", "slow", TIME),
        ({"@timestamp": "2025-06-24T10:30:45.123Z", "log.level": "error", "message": "lost",
          "log": {"logger": "a.b"}, "error": {"stack_trace": "E\n at a"}}, "ERROR", "a.b", "lost", TIME),
        ({"@timestamp": "2025-06-24T10:30:45.123Z", "log": {"level": "warn", "logger": "a"},
         "message": "slow"},
         "WARN", "a", "slow", TIME),
        ({"level": "error", "ts": 1750761045.1230001, "logger": "http.log", "msg": "lost",
         "stacktrace": "a\nb"},
         "ERROR", "http.log", "lost", "2025-06-24T10:30:45.1230001Z"),
        ({"level": "panic", "msg": "lost", "time": "2025-06-24T10:30:45Z"},
         "CRITICAL", "app", "lost", "2025-06-24T10:30:45.000Z"),
        ({"instant": {"epochSecond": 1750761045, "nanoOfSecond": 123456789}, "level": "WARN",
         "loggerName": "a.B",
          "message": "slow", "thrown": {"extendedStackTrace": "E\n at a"}},
         "WARN", "a.B", "slow", "2025-06-24T10:30:45.123456789Z"),
        ({"timestamp": "2025-06-24T10:30:45.123Z", "level": "WARN", "fields": {"message": "slow"},
         "target": "a::b"},
         "WARN", "a::b", "slow", TIME),
        ({"reqId": "x", "level": 3, "time": "2025-06-24T10:30:45.123+00:00", "app": "files",
         "message": "lost"},
         "ERROR", "app", "lost", TIME),
        ({"time": "2025-06-24T10:30:45.123Z", "level": "ERROR+2", "msg": "lost"}, "ERROR", "app", "lost",
         TIME),
        ('{"ts":1750761045.123456789,"level":"info","msg":"x"}', "INFO", "app", "x",
         "2025-06-24T10:30:45.123456789Z"),
        ('{"ts":1750761045123.4567,"level":"info","msg":"x"}', "INFO", "app", "x",
         "2025-06-24T10:30:45.1234567Z"),
    ],
)  # fmt: skip
def test_json_of_a_common_program_is_read(
    body: dict[str, Any] | str, level: str, source: str, message: str, timestamp: str
) -> None:
    """Level, source, message and time are read, without the loss of a digit; stack traces are kept."""
    event = parse_line(body)
    assert (event.level, event.source, event.message, event.timestamp) == (level, source, message, timestamp)
    for trace in ("@x", "err", "error", "stacktrace", "thrown"):
        if trace in body:
            assert isinstance(body, dict)
            assert event.metadata[trace] == body[trace]


@pytest.mark.parametrize(
    "body",
    [
        {"resourceLogs": 1}, {"resourceLogs": [1, {"scopeLogs": [{"logRecords": [3]}]}]},
        {"t": {"$date": {"$date": []}}, "s": 1, "c": {}, "msg": "x"}, {"@mt": ["{a}"], "@m": "x"},
        {"MESSAGE": [300], "PRIORITY": "x"}, {"instant": {"epochSecond": "x", "nanoOfSecond": -1},
        "msg": "x"},
        {"severityNumber": 99, "body": {"stringValue": 1}}, {"reqId": 1, "app": 1, "level": 9, "msg": "x"},
        {"level": {"a": 1}, "time": [1], "msg": "x", "source": {"a": 1}}, {"@mt": "{a}", "msg": "x", "a": {}},
        {"timestamp": {"seconds": True, "nanos": 10**12}, "msg": "x"}, {"fields": 1, "@fields": {"msg": {}}},
    ],
)  # fmt: skip
def test_unusual_values_are_kept(body: dict[str, Any]) -> None:
    """A value of another type is no field; it stays in the event, and raises no error."""
    event = parse_line(body)
    assert event.timestamp == "2026-09-21T14:13:20.000Z"
    assert orjson.loads(event.encode())["message"] in ("x", orjson.dumps(body).decode())


def attribute(key: str, **value: Any) -> dict[str, Any]:
    return {"key": key, "value": value}


def request(*records: Any, service: str = "pay") -> dict[str, Any]:
    """Return a request of OpenTelemetry with one resource and one scope."""
    resource = {"attributes": [attribute("service.name", stringValue=service)]}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": list(records)}]}]}


def feed(*bodies: Any) -> list[ParsedEvent]:
    """Return the events of lines, each of ten bytes as far as offsets are concerned."""
    lines = [body if isinstance(body, bytes) else orjson.dumps(body) for body in bodies]
    parser = Parser(ParseSettings(), "app", ParserCounts())
    ends = [10 * number for number in range(1, len(lines) + 1)]
    return [*parser.feed(lines, ends, 1_790_000_000), *parser.flush(1_790_000_000)]


def test_each_record_of_a_line_is_an_event() -> None:
    """A line of OpenTelemetry's file exporter is as many events as it has records."""
    records = [
        {"timeUnixNano": "1750761045123000000", "severityNumber": 9, "body": {"stringValue": "one"},
         "traceId": "4b", "attributes": [attribute("venue", stringValue="CME"), attribute("n", intValue="7"),
         attribute("list", arrayValue={"values": [{"boolValue": True}, 1]})]},
        {"severityText": "WARN", "body": {"kvlistValue": {"values": [attribute("a", doubleValue=1.5)]}}},
    ]  # fmt: skip
    first, second, last = feed(request(*records), request({"body": {"stringValue": "three"}}, service="ops"))
    assert (first.level, first.source, first.message, first.timestamp) == ("INFO", "pay", "one", TIME)
    assert first.metadata == {
        "resource": {"service.name": "pay"}, "traceId": "4b",
        "attributes": {"venue": "CME", "n": 7, "list": [True, 1]},
    }  # fmt: skip
    assert (second.level, second.message) == ("WARN", '{"a":1.5}')
    assert (last.source, last.message) == ("ops", "three")
    # No position separates the records of a line, but each has its own message id.
    assert [event.may_end_batch for event in (first, second, last)] == [False, True, True]
    assert [event.end for event in (first, second, last)] == [9, 10, 20]


def test_records_within_lines_of_containers_are_events() -> None:
    """Records have the stream of the container whose output they are."""
    line = orjson.dumps(request(*({"body": {"stringValue": f"r{number}"}} for number in range(3)))).decode()
    wrapped = {"log": f"{line}\n", "stream": "stdout", "time": "2025-06-24T10:30:45.123Z"}
    events = feed(wrapped, {**wrapped, "log": "plain\n"})
    assert [event.message for event in events] == ["r0", "r1", "r2", "plain"]
    assert {event.timestamp for event in events} == {TIME}
    assert {event.metadata["stream"] for event in events} == {"stdout"}
    assert [event.end for event in events] == [8, 9, 10, 20]


def test_records_are_redacted() -> None:
    """A secret in a record, in its attributes or in its resource reaches no event."""
    record = {
        "body": {"stringValue": "login password=Sesame71"},
        "attributes": [attribute("api_key", stringValue="k7Qz91Xw44")],
    }
    events = feed(request(record, record))
    assert len(events) == 2
    assert not any(secret in event.encode() for event in events for secret in (b"Sesame71", b"k7Qz91Xw44"))


def test_too_many_records_are_one_event() -> None:
    """More records than a commit has room for stay together."""
    (event,) = feed(request(*[{}] * (MAX_RECORDS + 1)))
    assert event.may_end_batch
    assert len(feed(request(*[{}] * MAX_RECORDS))) == MAX_RECORDS
