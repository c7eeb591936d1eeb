"""Parsing of each log format, and detection of the format from the lines of a file."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tickertape.producers.shipper.parsing.formats import FORMATS, MAX_MISSES, MIN_VOTES
from tickertape.producers.shipper.parsing.parser import (
    FieldNames,
    ParsedEvent,
    Parser,
    ParserCounts,
    ParseSettings,
)

NOW = 1_750_740_000.0  # 2025-06-24T04:40:00Z
TIME = "2025-06-24T02:30:45.123Z"
NOW_TEXT = "2025-06-24T04:40:00.000Z"


def parse_lines(
    lines: list[str], format_name: str = "auto", fields: FieldNames | None = None
) -> list[ParsedEvent]:
    """Parse lines, with Shanghai as the time zone."""
    settings = ParseSettings(format_name, fields or FieldNames(), ZoneInfo("Asia/Shanghai"), "off")
    data = [line.encode() for line in lines]
    return Parser(settings, "app", ParserCounts()).feed(data, list(range(1, len(data) + 1)), NOW)


CASES: list[tuple[str, str, tuple[str, str, str, str, dict[str, Any]]]] = [
    ("json", '{"level":"warn","msg":"m","time":"2025-06-24T10:30:45.123+08:00","logger":"db","n":1}',
     ("WARN", "m", "db", TIME, {"n": 1})),
    ("json", '{"levelno":30,"msg":"m"}', ("WARN", "m", "app", NOW_TEXT, {})),
    ("logfmt", 'time=2025-06-24T10:30:45.123+08:00 level=warn msg="a \\"b\\" \\u4e2d" logger=db n=1 e=',
     ("WARN", 'a "b" 中', "db", TIME, {"n": "1", "e": ""})),
    ("logfmt", '<189>date=2025-06-24 time=10:30:45 tz="+0800" level=alert type=vpn msg="no such user"',
     ("CRITICAL", "no such user", "app", "2025-06-24T02:30:45.000Z", {"type": "vpn"})),
    ("logfmt", 'date=2025-06-24 time=09:00:01 eventtime=1750732245123000000 level=notice msg="up"',
     ("INFO", "up", "app", TIME, {"date": "2025-06-24", "time": "09:00:01"})),
    ("logfmt", "date=2025-06-24 time=10:30:45 action=deny",
     ("INFO", "date=2025-06-24 time=10:30:45 action=deny", "app", "2025-06-24T02:30:45.000Z", {})),
    ("logfmt", "level=error code=7", ("ERROR", "level=error code=7", "app", NOW_TEXT, {})),
    ("python", "2025-06-24 10:30:45,123 WARNING app.db connected to x",
     ("WARN", "connected to x", "app.db", TIME, {})),
    ("python", "2025-06-24 10:30:45,123 WARNING db: up", ("WARN", "up", "db", TIME, {})),
    ("python", "2025-06-24 10:30:45,123 [WARNING] [db] up", ("WARN", "up", "db", TIME, {})),
    ("python", "2025-06-24 10:30:45,123 - db - ERROR - up: 1", ("ERROR", "up: 1", "db", TIME, {})),
    ("python", "CRITICAL:a.db:down: now", ("CRITICAL", "down: now", "a.db", NOW_TEXT, {})),
    ("loguru", "2025-06-24 10:30:45.123 | SUCCESS  | app.x:<module>:12 - done - ok",
     ("INFO", "done - ok", "app.x", TIME, {"function": "<module>", "line": 12})),
    ("loguru", "2025-06-24 10:30:45.123 | AUDIT | token:run:12 - done",
     ("INFO", "done", "token", TIME, {"function": "run", "line": 12, "level": "AUDIT"})),
    ("glog", "W0624 10:30:45.123456   12345 file.go:123] a message",
     ("WARN", "a message", "app", "2025-06-24T02:30:45.123456Z",
      {"thread": 12345, "file": "file.go", "line": 123})),
    ("glog", "F20250624 10:30:45.123 1 a.cc:3] x",
     ("CRITICAL", "x", "app", TIME, {"thread": 1, "file": "a.cc", "line": 3})),
    ("syslog", "<11>Jun 24 10:30:45 host sshd[42]: refused",
     ("ERROR", "refused", "sshd", "2025-06-24T02:30:45.000Z", {"host": "host", "pid": "42", "facility": 1})),
    ("syslog", "Jun  4 10:30:45 host kernel: WARNING: hot",
     ("WARN", "WARNING: hot", "kernel", "2025-06-04T02:30:45.000Z", {"host": "host"})),
    ("syslog", "2025-06-24T10:30:45.123+08:00 host cron[1]: ran",
     ("INFO", "ran", "cron", TIME, {"host": "host", "pid": "1"})),
    ("syslog", '<165>1 2025-06-24T02:30:45.123Z h.x su 77 ID4 [e@1 a="1" b="q\\"\\]"][f@2] went',
     ("INFO", "went", "su", TIME,
      {"facility": 20, "host": "h.x", "pid": "77", "message_id": "ID4",
       "e@1": {"a": "1", "b": 'q"]'}, "f@2": {}})),
    ("syslog", "Jun 24 10:30:45 <4.3> host sshd[42]: refused",
     ("ERROR", "refused", "sshd", "2025-06-24T02:30:45.000Z",
      {"host": "host", "pid": "42", "facility": "4"})),
    ("syslog", "Jun 24 10:30:45 <auth.warning> host sshd[42]: slow",
     ("WARN", "slow", "sshd", "2025-06-24T02:30:45.000Z",
      {"host": "host", "pid": "42", "facility": "auth"})),
    ("syslog", "<13>1 - - - - - - went", ("INFO", "went", "app", NOW_TEXT, {"facility": 1})),
    ("plain", "2025-06-24 10:30:45.123 ERROR db: lost", ("ERROR", "db: lost", "app", TIME, {})),
    ("plain", "<Event xmlns='http://x/event'><System><Provider Name='Desk-Feed'/><EventID>7</EventID>"
     "<Level>2</Level><TimeCreated SystemTime='2025-06-24T02:30:45.1230000Z'/></System></Event>",
     ("ERROR", "<Event xmlns='http://x/event'><System><Provider Name='Desk-Feed'/><EventID>7</EventID>"
      "<Level>2</Level><TimeCreated SystemTime='2025-06-24T02:30:45.1230000Z'/></System></Event>",
      "Desk-Feed", "2025-06-24T02:30:45.1230000Z", {})),
    ("plain", '<log4j:event logger="app.db" timestamp="1750732245123" level="WARN" thread="main">',
     ("WARN", '<log4j:event logger="app.db" timestamp="1750732245123" level="WARN" thread="main">', "app.db",
      TIME, {})),
    ("plain", '<co ts="2025-06-24T10:30:45.12" sc="submit" mi="level=error"/>',
     ("INFO", '<co ts="2025-06-24T10:30:45.12" sc="submit" mi="level=error"/>', "app",
      "2025-06-24T02:30:45.120Z", {})),
    ("plain", "<Level>2</Level> is text", ("INFO", "<Level>2</Level> is text", "app", NOW_TEXT, {})),
    ("plain", "just text", ("INFO", "just text", "app", NOW_TEXT, {})),
]  # fmt: skip


@pytest.mark.parametrize("format_name", ["by its name", "auto"])
@pytest.mark.parametrize(("name", "line", "expected"), CASES)
def test_a_format_is_parsed(
    name: str, line: str, expected: tuple[str, str, str, str, dict[str, Any]], format_name: str
) -> None:
    """A format is parsed from the first line, whether it is configured or detected, before and after
    detection has settled.
    """
    for event in parse_lines([line] * (MIN_VOTES + 2), "auto" if format_name == "auto" else name):
        assert (event.level, event.message, event.source, event.timestamp, event.metadata) == expected


@pytest.mark.parametrize(
    "line",
    [
        "2025-06-24 10:30:45,123 INFO started the server",
        "2025-06-24 10:30:45.123 ERROR timeout: 30 s",
        "2025-06-24 10:30:45,123 ERROR ValueError: no",
        "INFO:http://host/path",
        "INFO:     10.0.0.1 - GET",
        "a=1",
        "a=1 and b=2",
        'a="1" b="2',
        "<200>Jun 24 10:30:45 host a: b",
        "<13>1 2025-06-24T02:30:45Z too short",
        "Feb 30 10:30:45 host a: b",
        "2025-06-24 10:30:45 word other: text",
        "I0624 25:30:45.1 1 a.go:1] x",
        "IDEA 10:30",
        "2025-13-24 10:30:45.123 | INFO | a:b:1 - x",
    ],
)
def test_a_line_that_resembles_a_format_is_plain(line: str) -> None:
    """A line that only resembles a format is plain: its message is complete, without a source or metadata."""
    event = parse_lines([line])[0]
    assert event.source == "app"
    assert event.metadata == {}
    assert line.endswith(event.message)


def test_a_configured_format_is_matched_less_strictly() -> None:
    """If the format is configured as Python's, the first word after the level is the logger name."""
    line = "2025-06-24 10:30:45.123 INFO uvicorn started"
    assert parse_lines([line], "python")[0].source == "uvicorn"
    assert parse_lines([line], "auto")[0].source == "app"


def test_a_configured_format_is_respected() -> None:
    """JSON lines are plain text if the configured format is plain."""
    line = '{"level":"error","msg":"m"}'
    assert [parse_lines([line], format_name)[0].message for format_name in ("json", "plain", "auto")] == [
        "m",
        line,
        "m",
    ]


def test_json_lines_are_parsed_in_any_file() -> None:
    """A JSON object is parsed as JSON even between lines of another format."""
    plain = ["a plain line"] * (MIN_VOTES * 2)
    python = [f"ERROR:db:{number}" for number in range(MIN_VOTES * 2)]
    for lines in (plain, python):
        event = parse_lines([*lines, '{"level":"error","msg":"m","logger":"j"}'])[-1]
        assert (event.level, event.message, event.source) == ("ERROR", "m", "j")


def test_a_changed_format_is_detected() -> None:
    """After many lines that do not match the detected format, another one is detected."""
    old = ["ERROR:db:down"] * (MIN_VOTES * 2)
    new = ["2025-06-24 10:30:45.123 | ERROR | a:run:1 - down"] * (MAX_MISSES + MIN_VOTES)
    sources = [event.source for event in parse_lines([*old, *new])]
    assert sources[: len(old)] == ["db"] * len(old)
    found = [event.metadata.get("function") for event in parse_lines([*old, *new])][len(old) :]
    assert found == [None] * MAX_MISSES + ["run"] * MIN_VOTES


def test_glog_lines_are_parsed_in_any_file() -> None:
    """Lines of glog occur among those of other libraries in one process."""
    lines = ["2025-06-24 10:30:45.123 ready"] * 30 + ["W0624 10:30:45.123456 1 a.go:1] slow"]
    event = parse_lines(lines)[-1]
    assert (event.level, event.message, event.metadata["file"]) == ("WARN", "slow", "a.go")


def test_a_banner_does_not_hide_a_format() -> None:
    """A banner at the start of a file does not affect the detection of its format."""
    lines = ["*** banner ***"] * 7 + ["ERROR:db:down"] * 30
    assert [event.source for event in parse_lines(lines)] == ["app"] * 7 + ["db"] * 30


def test_field_names_are_configurable() -> None:
    """Field names can be configured, with dots for nested fields; all other fields stay in the metadata."""
    fields = FieldNames(level=("sev",), message=("body.text",), timestamp=("at",), source=("who",))
    event = parse_lines(
        ['{"sev":"err","body":{"text":"m"},"at":1750000000,"who":"w","level":"x"}'], fields=fields
    )[0]
    assert (event.level, event.message, event.source) == ("ERROR", "m", "w")
    assert event.timestamp == "2025-06-15T15:06:40.000Z"
    assert event.metadata == {"body": {"text": "m"}, "level": "x"}


def test_every_format_has_a_case() -> None:
    """Every format is covered by ``CASES``."""
    assert {format_name for format_name, _, _ in CASES} == set(FORMATS) - {"auto"}


def test_an_unknown_format_is_rejected() -> None:
    """An unknown format is rejected with a list of the known ones."""
    assert "auto" in FORMATS
    with pytest.raises(ValueError, match=r"'xml' is not a format; use one of auto, json"):
        parse_lines([], "xml")
