"""Shortcuts of the parser: what it remembers of earlier lines of a file must never change an event."""

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch
from zoneinfo import ZoneInfo

import pytest
from tickertape.producers.shipper.parsing import levels, multiline, timestamps
from tickertape.producers.shipper.parsing.container_lines import StreamJoiner
from tickertape.producers.shipper.parsing.event_starts import all_begin_events
from tickertape.producers.shipper.parsing.formats.text import PlainReader
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW = 1_767_312_000.0

LINES = (
    "2026-01-01T00:00:05.123Z INFO order 7 filled",
    "2026-01-01T00:00:06Z  WARN: order 8 late",
    "2026-01-01 00:00:06,5 EST ERROR of a host",
    "2026-01-01T00:01:06.1234567891Z INFO order 9",
    "2026-01-01 00:01:07 UTC INFO order 9",
    "[2026-01-01 00:01:07.001] [main] ERROR com.example.Desk - rejected",
    "2026-01-01 00:01:07,001 [main] DEBUG com.example.Desk - sent",
    "2026-01-01 00:01:07,001 - desk.orders - WARNING - late",
    "#Date: 2026-01-01 00:01:07",
    '10.1.2.3 - - [01/Jan/2026:00:00:05 +0000] "GET /a HTTP/1.1" 500 12',
    '10.1.20.25 - info [01/Jan/2026:00:00:06 +0000] "GET /a HTTP/1.1" 200 12',
    '10.1.20.2 - sunny [01/Jan/2026:00:00:07 +0000] "TRACE /a?level=warn HTTP/1.1" 404 12',
    '12.01.20.2 - - [01/Jan/2026:00:00:07 +0000] "POST /a?level=error HTTP/1.1" 404 12',
    '::1 - - [01/Jan/2026:00:00:07 +0000] "GET / HTTP/1.1" 200 1',
    "[Thu Jan 01 00:00:05.123456 2026] [core:error] [pid 7:tid 8] lost",
    "Thu Jan  1 00:00:05 2026 INFO lost",
    "20260101 00:00:05 ERROR lost",
    "2026:01:01-00:00:05 fw WARN dropped",
    "Jan  1 00:00:05 gateway-1 femas[12]: order 7 filled",
    "<13>Jan  1 00:00:05 gateway-1 femas: lvl=error lost",
    "I0101 00:00:05.123456 7 server.go:12] ready",
    "01/02/2026 00:00:05 INFO ambiguous",
    "13/02/2026 00:00:05 INFO day first",
    "[7] 2026/01/01 00:00:05.123456 [INF] ready",
    "12:00:01 INFO without a date",
    "1767225605 INFO UNIX time",
    "time=2026-01-01T00:00:05Z level=warn msg=late n=1",
    '{"time": "2026-01-01T00:00:05.123Z", "level": "error", "msg": "lost"}',
    '{"ts": 1767225605.25, "msg": "lost", "time": "no time"}',
    '{"time": "no time", "ts": "2026-01-01T00:00:05.123Z", "event": {"a": 1}, "msg": "lost"}',
    "2026-01-01T00:00:05.000000007Z stdout F 2026-01-01T00:00:05.123Z INFO inside",
    "2026-01-01T00:00:05.000000007Z stderr F   at com.example.Desk(Desk.java:7)",
    "2026-01-01T00:00:05.000000007Z stdout F java.lang.IllegalStateException: closed",
    "2026-01-01T00:00:05.000000007Z stdout P the first part,",
    "2026-01-01T00:00:05.000000007Z stdout F ",
    '{"log":"2026-01-01T00:00:05.123Z WARN inside\\n","stream":"stdout","time":"2026-01-01T00:00:06Z"}',
    '{"log":"a part","stream":"stderr","time":"2026-01-01T00:00:06Z","attrs":{"tag":"a"}}',
    "desk-1  | 2026-01-01T00:00:05.123Z INFO inside",
    "order 7 filled and no level",
    "Error: order 7 rejected",
    "order Level=7 filled, severity: crit",
    "Traceback (most recent call last):",
    '  File "/app/desk.py", line 7, in send',
    "ValueError: bad price",
    "java.lang.IllegalStateException: closed",
    "\tat com.example.Desk.send(Desk.java:7)",
    "Caused by: java.io.IOException: reset",
    "panic: runtime error",
    "goroutine 7 [running]:",
    "Jan 1, 2026 12:00:05 AM com.example.Desk send",
    "SEVERE: lost",
    "<Event><a>1</a>",
    "<b>2</b>",
    "<14>1 2026-01-01T00:00:05.123Z gateway-1 femas 12 - - order 7 filled",
    "</Event>",
    "Node.js v22.1.0",
    "    ^",
    "password=hunter2x of a user",
    "-----BEGIN RSA PRIVATE KEY-----",
    "MIIEowIBAAKCAQEA7",
    "-----END RSA PRIVATE KEY-----",
    "",
    "   ",
)
PIECES = (
    " ",
    "[",
    "]",
    ":",
    "-",
    "\t",
    "INFO",
    "error",
    "level=",
    "12",
    "Jan",
    "Z",
    "+01:00",
    ".5",
    "Error",
    '"',
    "{",
    "<",
)


@contextmanager
def without_shortcuts() -> Iterator[None]:
    """Make each line be read as if none had been read before it, other than what decides about its date."""
    with (
        patch.object(multiline, "all_begin_events", lambda texts: False),
        patch.object(StreamJoiner, "_end_of_run", lambda self, stream, lines, start: start + 1),
        patch.object(PlainReader, "_read_same_minute", lambda self, text: None),
        patch.object(PlainReader, "_read_access", lambda self, text: None),
        patch.object(PlainReader, "_is_found", lambda self, start: False),
        patch.object(timestamps, "_SECONDS", re.compile("(?!)")),
    ):
        yield


def parse(lines: list[bytes], settings: ParseSettings, block: int) -> list[ParsedEvent]:
    """Parse the lines of a file in blocks."""
    parser = Parser(settings, "app", ParserCounts())
    ends = []
    end = 0
    for line in lines:
        end += len(line) + 1
        ends.append(end)
    events = []
    for start in range(0, len(lines), block):
        events += parser.feed(lines[start : start + block], ends[start : start + block], NOW)
    return events + parser.flush(NOW)


def mixed_lines(choice: random.Random) -> list[bytes]:
    """Return lines of a few formats in runs, some of them damaged."""
    lines = []
    for _ in range(choice.randint(1, 12)):
        some = choice.sample(LINES, choice.randint(1, 4))
        for line in choice.choices(some, k=choice.randint(1, 15)):
            if choice.random() < 0.3:
                start = choice.randint(0, len(line))
                piece = choice.choice((*PIECES, choice.choice(LINES)[:40]))
                line = line[:start] + piece + line[start + choice.randint(0, 4) :]
            if choice.random() < 0.2:
                line = line.replace("00:00:0", "00:00:1").replace("00:01:", "00:02:")
            lines.append(line.encode())
    return lines


@pytest.mark.parametrize("seed", range(150))
def test_what_is_remembered_never_changes_an_event(seed: int) -> None:
    """The events of any lines in any order are those that the parser finds without shortcuts."""
    choice = random.Random(seed)
    lines = mixed_lines(choice)
    settings = ParseSettings(
        format=choice.choice(("auto", "auto", "plain", "json")),
        zone=ZoneInfo(choice.choice(("UTC", "America/New_York"))),
        multiline=choice.choice(("auto", "auto", "off")),
        access_levels=choice.random() < 0.5,
    )
    with without_shortcuts():
        expected = parse(lines, settings, len(lines))
    assert parse(lines, settings, len(lines)) == expected
    assert parse(lines, settings, choice.randint(1, 9)) == expected


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("other", [*LINES[:2], LINES[9], *LINES[30:32]])
def test_a_line_is_read_alike_after_itself_and_after_another(line: str, other: str) -> None:
    """Lines after one of their own format, or of another, have the same events as without shortcuts."""
    lines = [text.encode() for text in (other, other, line, line, other, line, other)]
    with without_shortcuts():
        expected = parse(lines, ParseSettings(zone=ZoneInfo("UTC")), 1)
    assert parse(lines, ParseSettings(zone=ZoneInfo("UTC")), 7) == expected


def test_shortcuts_are_taken() -> None:
    """The common formats are read by their shortcuts, or the comparison would compare nothing."""
    taken = set()
    for name in ("_read_same_minute", "_read_access"):
        read = getattr(PlainReader, name)

        def record(
            self: PlainReader, text: str, name: str = name, read: Callable[..., object] = read
        ) -> object:
            fields = read(self, text)
            if fields is not None:
                taken.add(name)
            return fields

        with patch.object(PlainReader, name, record):
            parse(
                [line.encode() for line in LINES[:1] * 20 + LINES[9:10] * 20],
                ParseSettings(format="plain"),
                5,
            )
    assert taken == {"_read_same_minute", "_read_access"}
    assert all_begin_events(list(LINES[:2]))
    assert not all_begin_events([LINES[0], "java.lang.IllegalStateException: closed"])


def test_a_level_after_its_name_is_found_by_any_spelling() -> None:
    """The searches that exclude most texts exclude none that has a level after its name."""
    for name in ("level", "Level", "LEVEL", "lvl", "LVL", "severity", "Severity", "SEVERITY", "loglevel"):
        for mark in "=:":
            text = f"a text {name}{mark}warning"
            found = levels.find_pair(text, len(text))
            assert (found is None) == (name == "loglevel"), text
            assert found is None or found[0] == "WARN"
    assert levels.find_pair("level warn", 10) is None
