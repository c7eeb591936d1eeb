"""Time of the parser, which is linear in the size of a line, whatever the line contains."""

import time

import pytest
from tickertape.contracts import strict_json
from tickertape.producers.shipper.parsing.formats import FORMATS
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings

NOW = 1_767_312_000.0
SIZE = 4_000
GROWTH = 4
FLOOR = 0.1
"""Seconds that are no sign of anything: quadratic time of the larger size is several times as much."""

REPEATED = (
    "a=", "a:", "a=b ", 'a="', 'a="b" ', '=\\"', "[", "]", "(", "{", "<", '"', "'", "\\", "1", "1.", "1 ",
    "a ",
    "a.", "A.", ":", "::", " ", "\t", "-", "<a ", "pass:", "pass:A", "password=", "password is ", "api key ",
    "token ", "auth ", "name=\"", "--token ", "<token>a</", "a://b:c@", "a://", "eyJ", "sk-", "MMMM",
    "4111 1111 ",
    "4111", "DE89 3704 ", "card ", "authorization: ", "cookie: a=b; ", "apple ", "8=FIX.4.4|", "35=D|96=a|",
    "\x01554=", "\x1b[", "\x1b]", "level=", "2026-01-01T00:00:00Z ", "12:12:12 ", "Jan 1 ", "12345678 ",
    "10.1.1.1 - - [", "stdout F ", "a  | ", "a.Error", '{"a":', '[{"a":1},', "\\n", "curl ", "密码：",
)  # fmt: skip
STARTS = (
    "",
    '{"level":"info","msg":"a","x":"',
    "Jan  1 00:00:00 h a: ",
    '<13>1 - h a p m [x@1 a="',
    "8=FIX.4.4|35=D|",
)


def seconds_of(line: bytes, settings: ParseSettings) -> float:
    """Return the least CPU seconds of three attempts to parse a line."""
    found = []
    for _ in range(3):
        parser = Parser(settings, "app", ParserCounts())
        began = time.process_time()
        for event in [*parser.feed([line], [len(line) + 1], NOW), *parser.flush(NOW)]:
            event.encode()
        found.append(time.process_time() - began)
        if found[-1] < FLOOR:
            break
    return min(found)


@pytest.mark.parametrize("start", STARTS)
def test_repeated_text_costs_linear_time(start: str) -> None:
    """A line that repeats a text takes at most in proportion to its size, and not its square."""
    slow = []
    for number, repeated in enumerate(REPEATED):
        settings = ParseSettings(format=FORMATS[number % len(FORMATS)] if number % 3 else "auto")
        large = (start + repeated * (GROWTH * SIZE // len(repeated))).encode()
        seconds = seconds_of(large, settings)
        # With a square, a sixteenth of this: generous for a busy machine, and still far from it.
        if seconds > FLOOR and seconds > 2 * GROWTH * seconds_of(large[: len(large) // GROWTH], settings):
            slow.append((repeated, seconds))
    assert slow == []


def test_parts_of_a_line_cost_linear_time() -> None:
    """Each part of a long line of a container costs the same, however many precede it."""

    def seconds(count: int) -> float:
        lines = [b"2026-01-01T00:00:00.000000001Z stdout P a"] * count
        parser = Parser(ParseSettings(), "app", ParserCounts())
        began = time.process_time()
        parser.feed(lines, list(range(42, 42 * (count + 1), 42)), NOW)
        return time.process_time() - began

    assert min(seconds(16_000) for _ in range(3)) < 8 * min(seconds(4_000) for _ in range(3)) + FLOOR


def test_depth_of_text_that_is_no_json_costs_linear_time() -> None:
    """Quotes without an end are not each the start of a search to the end of the text."""
    began = time.process_time()
    assert strict_json.is_deeper(b"[{" * 40 + b'=\\"' * 100_000, 60)
    assert not strict_json.is_deeper(b'"' + b'=\\"[{' * 100_000, 60)
    assert not strict_json.is_deeper(b'"\\\n' * 50_000 + b"[" * 61, 62)
    assert time.process_time() - began < 5, "quadratic time is minutes"
