"""Joining of lines into multiline events."""

import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.multiline import MAX_BYTES, MAX_LINES
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW = 1_750_000_000.0
LOG = "2025-06-24 10:30:45.123 ERROR it failed"
NEXT = "2025-06-24 10:30:46.123 INFO it continues"


def events(text: str, multiline: str = "auto", format_name: str = "auto") -> list[ParsedEvent]:
    """Parse lines fed one by one."""
    parser = Parser(ParseSettings(multiline=multiline, format=format_name), "app", ParserCounts())
    end = 0
    found = []
    for line in text.encode().split(b"\n"):
        end += len(line) + 1
        found += parser.feed([line], [end], NOW)
    return [*found, *parser.flush(NOW)]


def traceback_of(error: BaseException) -> str:
    """Raise an exception, and return its traceback as text."""
    try:
        raise error
    except BaseException:
        return traceback.format_exc().rstrip("\n")


def chained_traceback(*, direct: bool) -> str:
    """Return the traceback of an exception that was caused by another one."""

    def fail() -> None:
        try:
            int("x")
        except ValueError as error:
            if direct:
                raise RuntimeError("second") from error
            raise RuntimeError("second")  # noqa: B904 - the other kind of chain

    with pytest.raises(RuntimeError) as caught:
        fail()
    return "".join(traceback.format_exception(caught.value)).rstrip("\n")


MARKED = """Traceback (most recent call last):
  File "a.py", line 1, in <module>
    x = a["k"]["l"] + f(1)
        ~~~~~~^^^^^
    {"json": 1}
KeyError: 'l'"""
JAVA = """java.lang.IllegalStateException: no
\tat com.x.Y.z(Y.java:12)
\tSuppressed: java.io.IOException: close
\t\tat com.x.Y.close(Y.java:3)
Caused by: java.lang.NullPointerException
\tat com.x.Z.a(Z.java:1)
\t... 12 more"""
PRETTY_PRINTED = """config is {
  "a": 1,

  "b": [
    2
  ]
}"""
GO = """panic: runtime error: index out of range [5] with length 3
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x1]

goroutine 1 [running]:
main.(*Book).add(0xc000012345, {0x1, 0x2})
\t/src/book.go:8 +0x1d
main.main()
\t/src/main.go:3 +0x2

goroutine 7 [select]:
net/http.(*conn).serve(0xc0000a6000)
\t/go/http.go:1 +0x5
created by net/http.(*Server).Serve in goroutine 1
\t/go/http.go:2 +0x6
exit status 2"""
RUST = """thread 'main' panicked at src/main.rs:4:5:
index out of bounds: the len is 3 but the index is 99
stack backtrace:
   0: rust_begin_unwind
             at /rustc/std.rs:5:5
   1: main
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace"""
DOTNET = """Unhandled exception. System.InvalidOperationException: no
 ---> System.IO.IOException: inner
   at A.B.C() in /src/A.cs:line 5
   --- End of inner exception stack trace ---
   at A.B.D()
--- End of stack trace from previous location ---
   at A.B.E()"""
NODE = """/app/a.js:5
    throw new Error("x")
    ^

TypeError: x is not a function
    at f (/app/a.js:5:9)
    at node:internal/main:1:1

Node.js v22.0.0"""
ASAN = """==12==ERROR: AddressSanitizer: heap-use-after-free on address 0x602
READ of size 4 at 0x602 thread T0
    #0 0x4f in main /a.c:5
0x602 is located 0 bytes inside of 4-byte region
freed by thread T0 here:
    #0 0x4f in free

SUMMARY: AddressSanitizer: heap-use-after-free /a.c:5 in main
=>0x0c: fa fa
==12==ABORTING"""
PHP = """PHP Fatal error:  Uncaught Exception: no in /a.php:3
Stack trace:
#0 /a.php(5): f()
#1 {main}

Next RuntimeException: other
#0 {main}
  thrown in /a.php on line 3"""
TRACES = {"go": GO, "rust": RUST, "dotnet": DOTNET, "node": NODE, "asan": ASAN, "php": PHP}
STACKS = {
    "plain": traceback_of(ValueError("bad value")),
    "no text": traceback_of(KeyboardInterrupt()),
    "during": chained_traceback(direct=False),
    "cause": chained_traceback(direct=True),
    "group": traceback_of(ExceptionGroup("many", [ValueError(1), ExceptionGroup("in", [OSError(2)])])),
    "marked": MARKED,
    "java": JAVA,
    "sql": "  SELECT 1\n    FROM x\n  WHERE y",
    "node": "    at f (a.js:1:2)\n    at async g (b.js:3:4)",
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_trace_is_joined_to_the_line_before_it(kind: str) -> None:
    """A stack trace is joined to the line before it, and the line after it is a separate event."""
    stack = STACKS[kind]
    found = events(f"{LOG}\n{stack}\n{NEXT}\nlast")
    assert [event.message for event in found] == [f"it failed\n{stack}", "it continues", "last"]
    assert found[0].level == "ERROR"
    assert found[0].end == len(f"{LOG}\n{stack}\n".encode())


@pytest.mark.parametrize("kind", ["plain", "during", "cause", "group", "marked", "java"])
def test_consecutive_stack_traces_are_separate_events(kind: str) -> None:
    """A stack trace without a line before it is an event, and so is an identical one right after it."""
    stack = STACKS[kind]
    found = events(f"{stack}\n{stack}\n\n{stack}\n{NEXT}")
    # The traceback of a group begins with spaces, so two consecutive ones cannot be told apart.
    if kind != "group":
        assert [event.message for event in found] == [stack, stack, stack, "it continues"]
    assert found[-1].message == "it continues"
    assert found[0].message.startswith(stack.strip())


@pytest.mark.parametrize("kind", TRACES)
def test_a_trace_of_a_program_that_ends_is_one_event(kind: str) -> None:
    """The trace with which a program ends is one event of its own, with a level that shows it."""
    trace = TRACES[kind]
    if kind == "node":
        found = events(f"{LOG}\n{trace}\n{NEXT}")
        assert [event.message for event in found] == ["it failed", trace, "it continues"]
        return
    found = events(f"{NEXT}\n{trace}\n{NEXT}\n{trace}\n{trace}")
    assert [event.message for event in found] == ["it continues", trace, "it continues", trace, trace]
    assert found[1].level in ("ERROR", "CRITICAL")


def test_other_traces_continue_a_line() -> None:
    """A trace after a log line belongs to it."""
    lines = [
        "[2025-06-24 10:30:45] production.ERROR: no {\"exception\":\"[object]", "[stacktrace]",
        "#0 /a.php(5): f()", "#1 {main}", "\"} ",
        "2025-06-24 10:30:45 ERROR http: panic serving 10.0.0.1:5: no", "goroutine 7 [running]:", "main.f()",
        "\t/src/main.go:3 +0x2",
        "2025-06-24 10:30:45 ERROR failed", "System.InvalidOperationException: no", "   at A.B.C()",
        "Jun 24, 2025 10:30:45 AM com.example.Main run", "WARNING: slow",
        "Jun 24, 2025 10:30:46 AM com.example.Main run", "INFO: up",
    ]  # fmt: skip
    found = events("\n".join(lines))
    assert [(event.level, event.message.count("\n")) for event in found] == [
        ("ERROR", 4), ("ERROR", 3), ("ERROR", 2), ("WARN", 1), ("INFO", 1),
    ]  # fmt: skip


def test_a_raw_traceback_is_an_error() -> None:
    """A traceback without a level has the level ERROR."""
    assert events(STACKS["plain"])[0].level == "ERROR"


def test_a_pretty_printed_object_is_one_event() -> None:
    """A pretty-printed object is one event that ends with a closing bracket at the start of a line."""
    assert [event.message for event in events(f"{PRETTY_PRINTED}\n}}\nx")] == [PRETTY_PRINTED + "\n}", "x"]
    assert [event.message for event in events('{\n  "msg": "over lines"\n}\nx')] == ["over lines", "x"]


@pytest.mark.parametrize(
    "text",
    [
        "<Event xmlns='x'>\n  <System/>\n</Event>",
        '<log4j:event level="WARN">\n<log4j:message>a</log4j:message>\n</log4j:event>',
        "<record>\n<level>INFO</level>\n</record>",
    ],
)
def test_an_element_over_lines_is_one_event(text: str) -> None:
    """An XML element ends with its closing tag, and where the next one begins."""
    assert [event.message for event in events(f"{text}\n{text}\n<x/>\ny")] == [text, text, "<x/>", "y"]


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\nthree",
        "<ann> hello\n<bob> hello",
        "<a/>\n<b/>",
        "<a b='c'/>\n<b/>",
        "<a b='c'>\n<a b='d'>\nx",
        "one\njava.lang\nat noon\n... and so on",
        "During handling of the above exception, another exception occurred:\nThe above exception was fine",
        "a\nDuring handling of the above exception, another exception occurred:",
        "}\n]",
        "INFO: one\nERROR: two",
        "Error: a\nTimeout: b",
    ],
)
def test_lines_that_resemble_stack_traces_are_not_joined(text: str) -> None:
    """Lines are joined only if they certainly continue the line before."""
    assert [event.message for event in events(text)] == text.split("\n")


def test_json_lines_are_never_joined() -> None:
    """JSON lines are not joined to any other line, and are returned without waiting."""
    parser = Parser(ParseSettings(), "app", ParserCounts())
    lines = [b"start", b'{"msg":"a"}', b'  {"msg":"b"}', b"", b'{"msg":"c"}']
    ends = [6, 18, 32, 33, 45]
    found = parser.feed(lines, ends, NOW)
    assert [(event.message, event.end) for event in found] == [("start", 6), ("a", 18), ("b", 32), ("c", 45)]
    assert not parser.has_partial


def test_an_event_ends_with_its_last_line() -> None:
    """An event ends with its last line that is not blank."""
    found = events("a\n\n \n  b\n\n\nc\n")
    assert [(event.message, event.end) for event in found] == [("a\n\n\n  b", 9), ("c", 13)]


def test_off_joins_no_lines() -> None:
    """With 'off', every line that is not blank is an event and is returned without waiting."""
    parser = Parser(ParseSettings(multiline="off"), "app", ParserCounts())
    found = parser.feed([b"a", b"  b", b"", b"\tc"], [2, 6, 7, 10], NOW)
    assert [(event.message, event.end) for event in found] == [("a", 2), ("b", 6), ("c", 10)]
    assert not parser.has_partial


def test_a_start_pattern_separates_events() -> None:
    """Lines that do not match the start pattern continue an event; JSON lines do not, if JSON is parsed."""
    text = '## a\nb\n\n c\n##d\n{"msg":"j"}\ne'
    assert [event.message for event in events(text, "^##")] == ["## a\nb\n\n c", "##d", "j", "e"]
    assert [event.message for event in events(text, "^##", "plain")] == [
        "## a\nb\n\n c",
        '##d\n{"msg":"j"}\ne',
    ]


@pytest.mark.parametrize("pattern", ["(", "(?=x)"])
def test_an_invalid_start_pattern_is_rejected(pattern: str) -> None:
    """An invalid start pattern is rejected with an error that names it."""
    with pytest.raises(ValueError, match="start pattern"):
        Parser(ParseSettings(multiline=pattern), "app", ParserCounts())


def test_an_event_has_a_maximum_number_of_lines() -> None:
    """An event with too many lines is split, and no line is lost."""
    text = "\n".join(["first", *(f" {number}" for number in range(MAX_LINES * 2))])
    found = events(text)
    assert [event.message.count("\n") + 1 for event in found] == [MAX_LINES, MAX_LINES, 1]
    assert "\n".join(event.message for event in found).split() == text.split()


def test_an_event_has_a_maximum_size() -> None:
    """An event with too many bytes is split, and none are lost."""
    text = "\n".join(["first", *("  " + "y" * 1000 for _ in range(200))])
    found = events(text)
    assert all(len(event.message) <= MAX_BYTES for event in found)
    assert len(found) == 4
    assert sum(event.message.count("y") for event in found) == 200_000


def test_a_pending_event_is_flushed_or_discarded() -> None:
    """A pending event is returned by a flush, and discarded by a reset so that its lines can be fed again."""
    parser = Parser(ParseSettings(), "app", ParserCounts())
    assert parser.feed([b"a", b" b"], [2, 5], NOW) == []
    assert parser.has_partial
    parser.reset()
    assert not parser.has_partial
    assert parser.flush(NOW) == []
    parser.feed([b"a", b" b"], [2, 5], NOW)
    assert [event.message for event in parser.flush(NOW)] == ["a\n b"]
    assert not parser.has_partial


LINES = st.lists(
    st.one_of(
        st.sampled_from([line.encode() for stack in STACKS.values() for line in stack.split("\n")]),
        st.sampled_from(
            [LOG.encode(), b"", b" ", b'{"a":1}', b' {"a":1}', b"{", b"}", b"password=abc", b"\x1b[1m",
             b"-----BEGIN PRIVATE KEY-----", b"MIIEvQIBADANBgkq", b"-----END PRIVATE KEY-----",
             "订单".encode("gb18030"), b"level=info msg=x", b"I0624 10:30:45.123456 1 a.go:1] m"]
        ),
        st.binary(max_size=20).map(lambda data: data.replace(b"\n", b"")),
    ),
    max_size=60,
)  # fmt: skip


@settings(deadline=None)
@given(LINES, st.lists(st.integers(1, 7), min_size=1), st.sampled_from(["auto", "off", "^[a-z]"]))
def test_events_do_not_depend_on_blocks(lines: list[bytes], sizes: list[int], multiline: str) -> None:
    """The events of a file do not depend on the blocks in which its lines are fed."""
    ends = []
    end = 0
    for line in lines:
        end += len(line) + 1
        ends.append(end)

    def feed_in_blocks(block_sizes: list[int]) -> list[ParsedEvent]:
        parser = Parser(ParseSettings(multiline=multiline), "app", ParserCounts())
        found = []
        start = block = 0
        while start < len(lines):
            stop = start + block_sizes[block % len(block_sizes)]
            found += parser.feed(lines[start:stop], ends[start:stop], NOW)
            start, block = stop, block + 1
        return [*found, *parser.flush(NOW)]

    expected = feed_in_blocks([1000])
    assert feed_in_blocks(sizes) == expected
    assert [event.end for event in expected] == sorted({event.end for event in expected})


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(["", " ", "word", "  indented", "\tat x", "Caused by: y",
                         "Traceback (most recent call last):",
                         "ValueError: z", "}", '{"a', "{x}", LOG]),
        max_size=40,
    ),
    st.sampled_from(["auto", "off", "w"]),
)  # fmt: skip
def test_every_line_is_in_exactly_one_event(texts: list[str], multiline: str) -> None:
    """Each line that is not blank is in exactly one event, in order and within the event's offsets."""
    lines = [text + f" #{number:03d}#" if text.strip() else text for number, text in enumerate(texts)]
    ends = {}
    end = 0
    for number, line in enumerate(lines):
        end += len(line.encode()) + 1
        ends[number] = end
    seen = []
    before = 0
    for event in events("\n".join(lines), multiline, "plain"):
        numbers = [int(part[:3]) for part in event.message.split("#")[1::2]]
        assert numbers
        assert event.end == ends[numbers[-1]]
        assert all(before < ends[number] <= event.end for number in numbers)
        before = event.end
        seen += numbers
    assert seen == [number for number, text in enumerate(texts) if text.strip()]
