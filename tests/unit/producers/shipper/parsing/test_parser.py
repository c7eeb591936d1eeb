"""Parsing of lines into events."""

import json
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection
from tickertape.producers.shipper.parsing.parser import (
    MAX_LINE_BYTES,
    ParsedEvent,
    Parser,
    ParserCounts,
    ParseSettings,
    clean,
    level_of,
)

from tests.support.parsed_line import parse

NOW = 1_750_000_000.0
NOW_TEXT = "2025-06-15T15:06:40.000Z"


@pytest.fixture
def shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to Shanghai, eight hours ahead of UTC."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2025-06-24 10:30:45,123 ERROR gateway: lost", "ERROR"),
        ("WARNING: disk", "WARN"),
        ("[info] started", "INFO"),
        ("<Fatal> no", "CRITICAL"),
        ('time=x level=debug msg="a"', "DEBUG"),
        ("an error is a common word", "INFO"),
        ("TERRORS and INFORMATIONAL", "INFO"),
        ("x" * 300 + " ERROR", "INFO"),
        ("\x1b[31mERROR\x1b[0m red", "ERROR"),
    ],
)
def test_a_level_is_found_in_the_text(line: str, level: str) -> None:
    """The level is the first word near the start of the line that is marked as one."""
    assert parse(line.encode(), source="app", now=NOW).level == level


@pytest.mark.parametrize(
    ("line", "timestamp"),
    [
        ("2025-06-24T10:30:45.123Z up", "2025-06-24T10:30:45.123Z"),
        ("[2025-06-24 10:30:45+0800] up", "2025-06-24T02:30:45.000Z"),
        ("2025-06-24 10:30:45,5 up", "2025-06-24T02:30:45.500Z"),
        ("2025-13-24 10:30:45 up", NOW_TEXT),
        ("started at 2025-06-24 10:30:45", NOW_TEXT),
        ("up", NOW_TEXT),
    ],
)
@pytest.mark.usefixtures("shanghai")
def test_a_time_at_the_start_of_a_line_is_used(line: str, timestamp: str) -> None:
    """The event has the time at the start of the line, by default in the host's zone, or else the current
    time.
    """
    assert parse(line.encode(), source="app", now=NOW).timestamp == timestamp


def test_json_fields_are_mapped_and_the_rest_is_kept() -> None:
    """Level, message, time and source of a JSON line become fields; its other fields stay in metadata."""
    line = b'{"level":"warning","msg":"slow","ts":1750000001.5,"logger":"db","ms":12,"ctx":{"a":[1]}}'
    parsed = parse(line, source="app", now=NOW)
    assert parsed.subject == "log.warn.db"
    assert parsed.message == "slow"
    assert parsed.timestamp == "2025-06-15T15:06:41.500Z"
    assert parsed.metadata == {"ms": 12, "ctx": {"a": [1]}}


@pytest.mark.parametrize(
    ("line", "subject"),
    [
        (b'{"log.level":"error","message":"m"}', "log.error.app"),
        (b'{"log":{"level":"error"},"message":"m"}', "log.error.app"),
        (b'{"level":50,"msg":"pino"}', "log.error.app"),
        (b'{"severity":3,"msg":"syslog"}', "log.error.app"),
        (b'{"level":"odd","severity":"error","msg":"m"}', "log.error.app"),
        (b'{"msg":"m","source":""}', "log.info.app"),
        (b'{"msg":"m","source":"a.b"}', "log.info.a=2Eb"),
        (b'{"no":"message"}', "log.info.app"),
    ],
)
def test_json_of_common_loggers(line: bytes, subject: str) -> None:
    """The field names of common loggers for level and source are recognized."""
    assert parse(line, source="app", now=NOW).subject == subject


def test_json_without_a_message_is_its_own_message() -> None:
    """A JSON line without a message has the complete line as its message, so that it is not empty."""
    assert parse(b'{"a": 1}', source="app", now=NOW).message == '{"a":1}'


@pytest.mark.parametrize("line", [b"{", b'{"a":NaN}', b"[1]", b'{"a":"\xff"', b"{'a':1}"])
def test_an_invalid_json_object_is_plain_text(line: bytes) -> None:
    """A line that only resembles a JSON object is shipped unchanged."""
    assert parse(line, source="app", now=NOW).message == line.decode("utf-8", "replace")


def test_escapes_and_control_characters_are_removed() -> None:
    """Control characters and escape sequences are removed from message and metadata, so that an event cannot
    control a terminal.
    """
    assert clean("\x1b]0;title\x07a\x1b[1;31mb\x9b2Jc\x00\x08d\x7f\te\r") == "abcd\te"
    parsed = parse(b'{"msg":"a\\u001b[2Jb","k\\u0000":["\\u0007x"]}', source="app", now=NOW)
    assert parsed.message == "ab"
    assert parsed.metadata == {"k": ["x"]}


def test_a_long_line_is_cut_and_marked() -> None:
    """A line above the limit is cut and marked, and its event is valid for any bytes."""
    parsed = parse(b"\xff" * (MAX_LINE_BYTES + 1), source="app", now=NOW)
    assert parsed.metadata == {"truncated": True, "replaced_characters": True}
    assert not isinstance(decode(parsed.subject, parsed.encode()), Rejection)


def test_levels_are_read_from_text_and_numbers() -> None:
    """Levels are recognized as text and as numbers; any other value has no level."""
    assert [level_of(value) for value in ("Err", "30", 7, True, None, "loud", 99)] == [
        "ERROR",
        "INFO",
        "DEBUG",
        None,
        None,
        None,
        None,
    ]


JSON_LINES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_make_a_valid_event(line: bytes) -> None:
    """Every line results in a valid event."""
    parsed = parse(line, source="app", now=NOW)
    assert not isinstance(decode(parsed.subject, parsed.encode()), Rejection)


# The first text that Hypothesis generates builds tables, which takes long on a loaded machine.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(["level", "msg", "message", "time", "ts", "source", "metadata", "x", "log"]),
        JSON_LINES,
    )
)
def test_any_json_makes_a_valid_event(body: dict[str, object]) -> None:
    """Every JSON line results in a valid event."""
    parsed = parse(json.dumps(body).encode("utf-8", "replace"), source="app", now=NOW)
    assert not isinstance(decode(parsed.subject, parsed.encode()), Rejection)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"2026-11-22 22:42:10.201 WARN  [xtp] slow callback", "[xtp] slow callback"),
        (b"[2026-11-22T22:42:10Z] [error]: no route", "no route"),
        (b"2026-11-22 22:42:10,201 - risk - INFO - limit set", "limit set"),
        (b"2026-11-22 22:42:10 - INFO - limit set", "limit set"),
        (b"2026-11-22 22:42:10.201 (WARN) limit", "limit"),
        (b"2026-11-22 22:42:10 DEBUG", "2026-11-22 22:42:10 DEBUG"),
        (b"INFO without a time", "INFO without a time"),
    ],
)
def test_the_message_does_not_repeat_time_and_level(line: bytes, message: str) -> None:
    """Time and level at the start of a plain line become fields and are removed from the message."""
    assert parse(line, source="x", now=0.0).message == message


def parse_batch(
    lines: list[bytes], counts: ParserCounts, truncated: frozenset[int] = frozenset()
) -> list[ParsedEvent]:
    """Parse lines, and return their events."""
    ends = [sum(len(line) + 1 for line in lines[: index + 1]) for index in range(len(lines))]
    parser = Parser(ParseSettings(), "app", counts)
    return [*parser.feed(lines, ends, NOW, truncated), *parser.flush(NOW)]


def test_lines_that_are_not_text_are_flagged() -> None:
    """Each line is UTF-8 or has the encoding of the file; others are counted, and marked in their events."""
    counts = ParserCounts()
    lines = ["行情 utf".encode(), "行情 gb".encode("gb18030"), b"x \xff", b"\xef\xbb\xbfINFO bom"]
    events = parse_batch(lines, counts)
    assert [event.message for event in events] == ["行情 utf", "行情 gb", "x \ufffd", "INFO bom"]
    assert [event.metadata for event in events] == [{}, {}, {"replaced_characters": True}, {}]
    assert (counts.lines, counts.invalid, counts.truncated) == (4, 1, 0)


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_cut_within_a_character_is_not_invalid_text(encoding: str) -> None:
    """A line that is cut within a character loses only that character, and does not count as invalid."""
    counts = ParserCounts()
    event = parse_batch(["a行情".encode(encoding)[:-1]], counts, frozenset({0}))[0]
    assert event.message == "a行"
    assert event.metadata == {"truncated": True}
    assert (counts.truncated, counts.invalid) == (1, 0)


def test_only_long_lines_are_cut() -> None:
    """Only the lines above the limit are cut."""
    counts = ParserCounts()
    events = parse_batch([b"a", b"b" * (MAX_LINE_BYTES + 1), b"c"], counts)
    assert [len(event.message) for event in events] == [1, MAX_LINE_BYTES, 1]
    assert [event.metadata for event in events] == [{}, {"truncated": True}, {}]
    assert counts.truncated == 1


def test_bidirectional_controls_are_removed() -> None:
    """Bidirectional control characters are removed, literal or escaped, so that an event cannot change the
    direction of the surrounding text.
    """
    marks = "\u202a\u202e\u2066\u2069\u200e\u200f\u061c"
    events = parse_batch(
        [f"a{marks}b".encode(), json.dumps({"msg": f"a{marks}b", marks + "k": marks}).encode()],
        ParserCounts(),
    )
    assert [event.message for event in events] == ["ab", "ab"]
    assert events[1].metadata == {"k": ""}


def test_a_line_of_escapes_only_is_blank() -> None:
    """A line of escape sequences only is blank and not an event."""
    assert [event.message for event in parse_batch([b"\x1b[0m", b"a", b" \x00"], ParserCounts())] == ["a"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"msg":"m","x":' + b"[" * 70 + b"]" * 70 + b"}",
        b'{"x":' * 500 + b"1" + b"}" * 500,
        b'{"msg":"m","x":' + b"[" * 57 + b"]" * 57 + b"}",
        b'{"msg":"m","x":' + b"[" * 58 + b"]" * 58 + b"}",
        b'{"msg":"m","x":[' + b"1e15," * 13000 + b"1]}",
        b'{"x":[' + b"1e15," * 13000 + b"1]}",
        b'{"msg":"m","x":123456789012345678901234567890}',
        b'{"msg":"\\ud800"}',
        b"pwd=1 " * 10_000,
        b'"' * MAX_LINE_BYTES,
        b"\x01" * MAX_LINE_BYTES + b"x",
    ],
)
def test_a_line_that_does_not_fit_into_an_event_is_shortened(line: bytes) -> None:
    """A line whose event would be too large or too deeply nested is shipped as text, as far as it fits."""
    for event in parse_batch([line, b"next"], ParserCounts()):
        assert not isinstance(decode(event.subject, event.encode()), Rejection)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=80).map(lambda data: data.replace(b"\n", b"")), max_size=20))
def test_any_file_makes_valid_events(lines: list[bytes]) -> None:
    """The lines of any file result in valid events without control characters."""
    for event in parse_batch(lines, ParserCounts()):
        assert not isinstance(decode(event.subject, event.encode()), Rejection)
        assert event.message == clean(event.message)


PIECES = st.sampled_from(
    ["<13>", "1 ", "Jun 24 10:30:45 ", "2025-06-24 10:30:45", ",123 ", ".1 | ", "INFO ", "INFO     | ",
     "a:b:1 - ", "I0624 ", "10:30:45.123456 ", "12 f.go:3] ", "host ", "app[1]: ", "- ", '[a@1 k="v"] ',
     "k=v ", 'k="v" ', "level=err ", "msg=", "password=", "x" * 130, "a.b: ", "{", "}", '{"a":1}',
     "\x1b[1m", "\u202e", "中", "Feb 30 ", "99:99:99 "]
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_any_prefix_makes_a_valid_event(text: str) -> None:
    """Lines that almost match a format result in valid events."""
    event = parse(text.encode(), source="app", now=NOW)
    assert not isinstance(decode(event.subject, event.encode()), Rejection)
