"""Lines of container runtimes: CRI, Docker's json-file driver, and Docker Compose."""

from zoneinfo import ZoneInfo

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.container_lines import MAX_GROUP, MAX_OTHER_LINES
from tickertape.producers.shipper.parsing.multiline import MAX_BYTES
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW = 1_790_000_000.0


def cri(stream: str, text: str, tag: str = "F", second: int = 45) -> str:
    return f"2025-06-24T10:30:{second:02}.123456789Z {stream} {tag} {text}"


def docker(stream: str, text: str, **attributes: str) -> str:
    body = {"log": text, "stream": stream, **attributes, "time": "2025-06-24T10:30:45.123456789Z"}
    return orjson.dumps(body).decode()


def parse_lines(lines: list[str], block: int = 1000) -> list[ParsedEvent]:
    """Parse the lines of a file in blocks."""
    parser = Parser(ParseSettings(zone=ZoneInfo("UTC")), "app", ParserCounts())
    data = [line.encode() for line in lines]
    ends = list(range(1, len(data) + 1))
    events = []
    for start in range(0, len(data), block):
        events += parser.feed(data[start : start + block], ends[start : start + block], NOW)
    return events + parser.flush(NOW)


def test_the_inner_line_is_read() -> None:
    """What the program wrote is read like a line of a file; the rest completes it."""
    lines = [
        cri("stderr", "2025-06-24 09:00:00,500 WARNING a.db slow"),
        cri("stdout", "up"),
        cri("stdout", '{"level":"error","msg":"lost","ts":1750761045.5}'),
        docker("stdout", "E0624 10:30:45.5 1 a.go:1] lost\n", tag="web"),
        'web-1  | {"level":"warn","msg":"slow"}',
        "caddy    | {\"level\":\"warn\",\"msg\":\"slow\"}",
        "name  | value",
    ]  # fmt: skip
    found = [
        (event.level, event.source, event.message, event.timestamp[11:23], event.metadata)
        for event in parse_lines(lines)
    ]
    assert found == [
        ("WARN", "a.db", "slow", "09:00:00.500", {"stream": "stderr"}),
        ("INFO", "app", "up", "10:30:45.123", {"stream": "stdout"}),
        ("ERROR", "app", "lost", "10:30:45.500", {"stream": "stdout"}),
        ("ERROR", "app", "lost", "10:30:45.500",
         {"stream": "stdout", "tag": "web", "thread": 1, "file": "a.go", "line": 1}),
        ("WARN", "web-1", "slow", "14:13:20.000", {}),
        ("WARN", "caddy", "slow", "14:13:20.000", {}),
        ("INFO", "app", "name  | value", "14:13:20.000", {}),
    ]  # fmt: skip


TRACEBACK = ["Traceback (most recent call last):", '  File "a.py", line 1, in f', "    f()", "ValueError: no"]


def test_streams_are_joined_on_their_own() -> None:
    """Tracebacks and partial lines of one stream are joined, whatever the other stream writes in between."""
    for write in (cri, lambda stream, text, tag="F": docker(stream, text + "\n" * (tag == "F"))):
        lines = [write("stdout", "one")]
        for number, text in enumerate(TRACEBACK):
            lines += [write("stderr", text), write("stdout", f"line {number}")]
        lines += [write("stdout", "a ", tag="P"), write("stderr", "next"), write("stdout", "b", tag="F")]
        events = parse_lines(lines)
        assert [event.message for event in events] == [
            "one", "\n".join(TRACEBACK), *(f"line {number}" for number in range(4)), "a b", "next",
        ]  # fmt: skip
        assert events[1].level == "ERROR"


def test_events_that_overlap_are_committed_together() -> None:
    """Only a position that separates events may end a batch."""
    lines = [cri("stdout", "one"), cri("stderr", TRACEBACK[0]), cri("stdout", "two"), cri("stderr", "  x")]
    lines += [cri("stdout", "three"), cri("stderr", "next one")]
    events = parse_lines(lines)
    assert [(event.message[:5], event.end, event.may_end_batch) for event in events] == [
        ("one", 1, True), ("Trace", 2, False), ("two", 4, True), ("three", 5, True), ("next ", 6, True),
    ]  # fmt: skip


def test_a_quiet_stream_does_not_hold_back_others() -> None:
    """A line waits for a bounded number of lines of other streams."""
    parser = Parser(ParseSettings(), "app", ParserCounts())
    lines = [cri("stderr", "last"), *(cri("stdout", str(number)) for number in range(MAX_OTHER_LINES + 2))]
    events = parser.feed([line.encode() for line in lines], list(range(len(lines))), NOW)
    assert [event.message for event in events[:2]] == ["last", "0"]


def test_a_group_is_bounded() -> None:
    """However many lines of another stream fall within a traceback, a batch can end."""
    lines = [cri("stderr", TRACEBACK[0])]
    for number in range(10 * MAX_GROUP):
        lines += [cri("stderr", f"  {number}"), cri("stdout", str(number))]
    length = longest = 0
    for event in parse_lines(lines):
        length = 0 if event.may_end_batch else length + 1
        longest = max(longest, length)
    assert 1 < longest <= MAX_GROUP + 2


def test_a_long_partial_line_is_cut() -> None:
    """A line in parts has the limit of a line in one part."""
    events = parse_lines([cri("stdout", "x" * 16_000, "P")] * 6 + [cri("stdout", "end")])
    assert [len(event.message) for event in events] == [MAX_BYTES, 16_003]
    assert events[0].metadata == {"truncated": True, "stream": "stdout"}


def test_secrets_within_container_lines_are_redacted() -> None:
    """A secret in two parts, a key in several lines, and a label of the container are redacted."""
    key = ["-----BEGIN RSA PRIVATE KEY-----", "MIIEowIBAAKCAQEAx", "-----END RSA PRIVATE KEY-----"]
    lines = [cri("stdout", "password=hun", "P"), cri("stdout", "ter2")]
    lines += [docker("stderr", f"{text}\n") for text in key]
    lines += [docker("stdout", "\x1b[31mred\x1b[0m\n", password="hunter2")]
    text = repr(parse_lines(lines))
    for secret in ("hun", "ter2", "MIIE", "\x1b"):
        assert secret not in text
    assert "red" in text


@given(
    st.lists(
        st.builds(
            lambda write, stream, text, tag: write(stream, text, tag),
            st.sampled_from([cri, lambda stream, text, tag: docker(stream, text + "\n" * (tag == "F")),
                             lambda stream, text, _: f"{stream}-1  | {text}", lambda _, text, __: text]),
            st.sampled_from(["stdout", "stderr"]),
            st.sampled_from([*TRACEBACK, "  at x", "2025-06-24 10:30:45 INFO", '{"msg":"x"}', "",
                             "x" * 30_000]),
            st.sampled_from("FFP"),
        ),
        max_size=40,
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_container_events_do_not_depend_on_blocks(lines: list[str], block: int) -> None:
    """Events are in order, do not depend on blocks, and can be read again from the end of a batch."""
    events = parse_lines(lines)
    assert parse_lines(lines, block) == events
    ends = [event.end for event in events]
    assert ends == sorted(set(ends))
    if events:
        assert events[-1].may_end_batch
