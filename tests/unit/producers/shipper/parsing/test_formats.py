"""Each format is read, and found from the lines of a file."""

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


def read(lines: list[str], form: str = "auto", fields: FieldNames | None = None) -> list[ParsedEvent]:
    """The events of lines, in Shanghai."""
    settings = ParseSettings(form, fields or FieldNames(), ZoneInfo("Asia/Shanghai"), "off")
    data = [line.encode() for line in lines]
    return Parser(settings, "app", ParserCounts()).feed(data, list(range(1, len(data) + 1)), NOW)


CASES: list[tuple[str, str, tuple[str, str, str, str, dict[str, Any]]]] = [
    ("json", '{"level":"warn","msg":"m","time":"2025-06-24T10:30:45.123+08:00","logger":"db","n":1}',
     ("WARN", "m", "db", TIME, {"n": 1})),
    ("json", '{"levelno":30,"msg":"m"}', ("WARN", "m", "app", NOW_TEXT, {})),
    ("logfmt", 'time=2025-06-24T10:30:45.123+08:00 level=warn msg="a \\"b\\" \\u4e2d" logger=db n=1 e=',
     ("WARN", 'a "b" 中', "db", TIME, {"n": "1", "e": ""})),
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
    ("syslog", "<13>1 - - - - - - went", ("INFO", "went", "app", NOW_TEXT, {"facility": 1})),
    ("plain", "2025-06-24 10:30:45.123 ERROR db: lost", ("ERROR", "db: lost", "app", TIME, {})),
    ("plain", "just text", ("INFO", "just text", "app", NOW_TEXT, {})),
]  # fmt: skip


@pytest.mark.parametrize("form", ["by its name", "auto"])
@pytest.mark.parametrize(("name", "line", "expected"), CASES)
def test_a_format_is_read(
    name: str, line: str, expected: tuple[str, str, str, str, dict[str, Any]], form: str
) -> None:
    """Set by name or found: from the first line on, and when the format has been settled."""
    for event in read([line] * (MIN_VOTES + 2), "auto" if form == "auto" else name):
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
def test_what_only_resembles_a_format_is_plain(line: str) -> None:
    """No word of a message is taken for a source, and nothing is lost."""
    event = read([line])[0]
    assert event.source == "app"
    assert event.metadata == {}
    assert line.endswith(event.message)


def test_by_name_a_format_may_be_looser() -> None:
    """A first word behind the level is the name when the file is known to be Python's."""
    line = "2025-06-24 10:30:45.123 INFO uvicorn started"
    assert read([line], "python")[0].source == "uvicorn"
    assert read([line], "auto")[0].source == "app"


def test_a_name_is_kept_to() -> None:
    """JSON is text where the format says so."""
    line = '{"level":"error","msg":"m"}'
    assert [read([line], form)[0].message for form in ("json", "plain", "auto")] == ["m", line, "m"]


def test_json_lines_count_in_any_file() -> None:
    """A line that is an object is read as one between lines of another format."""
    plain = ["a plain line"] * (MIN_VOTES * 2)
    python = [f"ERROR:db:{number}" for number in range(MIN_VOTES * 2)]
    for lines in (plain, python):
        event = read([*lines, '{"level":"error","msg":"m","logger":"j"}'])[-1]
        assert (event.level, event.message, event.source) == ("ERROR", "m", "j")


def test_a_changed_format_is_noticed() -> None:
    """After many lines that do not fit, another format is looked for."""
    old = ["ERROR:db:down"] * (MIN_VOTES * 2)
    new = ["E0624 10:30:45.123456 1 a.go:1] down"] * (MAX_MISSES + MIN_VOTES)
    sources = [event.source for event in read([*old, *new])]
    assert sources[: len(old)] == ["db"] * len(old)
    found = [event.metadata.get("file") for event in read([*old, *new])][len(old) :]
    assert found == [None] * MAX_MISSES + ["a.go"] * MIN_VOTES


def test_plain_lines_do_not_hide_a_format() -> None:
    """A banner at the head of a file says nothing about its lines."""
    lines = ["*** banner ***"] * 7 + ["ERROR:db:down"] * 30
    assert [event.source for event in read(lines)] == ["app"] * 7 + ["db"] * 30


def test_fields_can_be_named() -> None:
    """Dots lead into objects; what is not taken stays."""
    fields = FieldNames(level=("sev",), message=("body.text",), timestamp=("at",), source=("who",))
    event = read(['{"sev":"err","body":{"text":"m"},"at":1750000000,"who":"w","level":"x"}'], fields=fields)[
        0
    ]
    assert (event.level, event.message, event.source) == ("ERROR", "m", "w")
    assert event.timestamp == "2025-06-15T15:06:40.000Z"
    assert event.metadata == {"body": {"text": "m"}, "level": "x"}


def test_every_format_has_a_case() -> None:
    """One that is added is read above."""
    assert {form for form, _, _ in CASES} == set(FORMATS) - {"auto"}


def test_an_unknown_format_is_refused() -> None:
    """The error tells which there are."""
    assert "auto" in FORMATS
    with pytest.raises(ValueError, match=r"'xml' is not a format; use one of auto, json"):
        read([], "xml")
