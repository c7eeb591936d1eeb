"""Lines that belong together become one event."""

import traceback

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.multiline import MAX_BYTES, MAX_LINES
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

NOW = 1_750_000_000.0
LOG = "2025-06-24 10:30:45.123 ERROR it failed"
NEXT = "2025-06-24 10:30:46.123 INFO it goes on"


def events(text: str, multiline: str = "auto", form: str = "auto") -> list[ParsedEvent]:
    """The events of lines, fed one by one."""
    parser = Parser(ParseSettings(multiline=multiline, format=form), "app", ParserCounts())
    end = 0
    found = []
    for line in text.encode().split(b"\n"):
        end += len(line) + 1
        found += parser.feed([line], [end], NOW)
    return [*found, *parser.flush(NOW)]


def raised(error: BaseException) -> str:
    """The traceback that Python writes of an error."""
    try:
        raise error
    except BaseException:
        return traceback.format_exc().rstrip("\n")


def chained(*, direct: bool) -> str:
    """The traceback of an error that another one led to."""

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
PRETTY = """config is {
  "a": 1,

  "b": [
    2
  ]
}"""
STACKS = {
    "plain": raised(ValueError("bad value")),
    "no text": raised(KeyboardInterrupt()),
    "during": chained(direct=False),
    "cause": chained(direct=True),
    "group": raised(ExceptionGroup("many", [ValueError(1), ExceptionGroup("in", [OSError(2)])])),
    "marked": MARKED,
    "java": JAVA,
    "sql": "  SELECT 1\n    FROM x\n  WHERE y",
    "node": "    at f (a.js:1:2)\n    at async g (b.js:3:4)",
}


@pytest.mark.parametrize("kind", STACKS)
def test_a_stack_belongs_to_the_line_before_it(kind: str) -> None:
    """The event has all of its lines, and the next line is not among them."""
    stack = STACKS[kind]
    found = events(f"{LOG}\n{stack}\n{NEXT}\nlast")
    assert [event.message for event in found] == [f"it failed\n{stack}", "it goes on", "last"]
    assert found[0].level == "ERROR"
    assert found[0].end == len(f"{LOG}\n{stack}\n".encode())


@pytest.mark.parametrize("kind", ["plain", "during", "cause", "group", "marked", "java"])
def test_stacks_on_their_own_are_apart(kind: str) -> None:
    """Without a line before it a stack is an event, and so is the same one behind it."""
    stack = STACKS[kind]
    found = events(f"{stack}\n{stack}\n\n{stack}\n{NEXT}")
    # A group begins with spaces, so that two in a row look like one.
    if kind != "group":
        assert [event.message for event in found] == [stack, stack, stack, "it goes on"]
    assert found[-1].message == "it goes on"
    assert found[0].message.startswith(stack.strip())


def test_a_raw_traceback_is_an_error() -> None:
    """It names no level, but nobody would call it information."""
    assert events(STACKS["plain"])[0].level == "ERROR"


def test_a_pretty_object_is_one_event() -> None:
    """Brackets at the beginning of a line close what went on over indented lines."""
    assert [event.message for event in events(f"{PRETTY}\n}}\nx")] == [PRETTY + "\n}", "x"]
    assert [event.message for event in events('{\n  "msg": "over lines"\n}\nx')] == ["over lines", "x"]


@pytest.mark.parametrize(
    "text",
    [
        "one\ntwo\nthree",
        "one\njava.lang\nat noon\n... and so on",
        "During handling of the above exception, another exception occurred:\nThe above exception was fine",
        "a\nDuring handling of the above exception, another exception occurred:",
        "}\n]",
        "INFO: one\nERROR: two",
        "Error: a\nTimeout: b",
    ],
)
def test_lines_that_only_resemble_others_are_apart(text: str) -> None:
    """Joining is for what surely goes on."""
    assert [event.message for event in events(text)] == text.split("\n")


def test_json_lines_are_never_joined() -> None:
    """Neither to each other nor to what stands around them, and they do not wait."""
    parser = Parser(ParseSettings(), "app", ParserCounts())
    lines = [b"start", b'{"msg":"a"}', b'  {"msg":"b"}', b"", b'{"msg":"c"}']
    ends = [6, 18, 32, 33, 45]
    found = parser.feed(lines, ends, NOW)
    assert [(event.message, event.end) for event in found] == [("start", 6), ("a", 18), ("b", 32), ("c", 45)]
    assert not parser.has_partial


def test_the_end_is_that_of_the_last_line() -> None:
    """Blank lines behind an event are between it and the next."""
    found = events("a\n\n \n  b\n\n\nc\n")
    assert [(event.message, event.end) for event in found] == [("a\n\n\n  b", 9), ("c", 13)]


def test_off_joins_nothing_and_waits_for_nothing() -> None:
    """Every line that is not blank is an event."""
    parser = Parser(ParseSettings(multiline="off"), "app", ParserCounts())
    found = parser.feed([b"a", b"  b", b"", b"\tc"], [2, 6, 7, 10], NOW)
    assert [(event.message, event.end) for event in found] == [("a", 2), ("b", 6), ("c", 10)]
    assert not parser.has_partial


def test_a_start_pattern_tells_where_events_begin() -> None:
    """All that does not match goes on; a JSON line stands alone where JSON is read."""
    text = '## a\nb\n\n c\n##d\n{"msg":"j"}\ne'
    assert [event.message for event in events(text, "^##")] == ["## a\nb\n\n c", "##d", "j", "e"]
    assert [event.message for event in events(text, "^##", "plain")] == [
        "## a\nb\n\n c",
        '##d\n{"msg":"j"}\ne',
    ]


@pytest.mark.parametrize("pattern", ["(", "(?=x)"])
def test_a_bad_start_pattern_is_refused(pattern: str) -> None:
    """The error tells the pattern."""
    with pytest.raises(ValueError, match="start pattern"):
        Parser(ParseSettings(multiline=pattern), "app", ParserCounts())


def test_an_event_has_at_most_so_many_lines() -> None:
    """The rest is in further events."""
    text = "\n".join(["first", *(f" {number}" for number in range(MAX_LINES * 2))])
    found = events(text)
    assert [event.message.count("\n") + 1 for event in found] == [MAX_LINES, MAX_LINES, 1]
    assert "\n".join(event.message for event in found).split() == text.split()


def test_an_event_has_at_most_so_many_bytes() -> None:
    """The rest is in further events."""
    text = "\n".join(["first", *("  " + "y" * 1000 for _ in range(200))])
    found = events(text)
    assert all(len(event.message) <= MAX_BYTES for event in found)
    assert len(found) == 4
    assert sum(event.message.count("y") for event in found) == 200_000


def test_what_waits_can_be_flushed_or_forgotten() -> None:
    """A flush gives the event; after a reset its lines can come again."""
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
def test_blocks_make_no_difference(lines: list[bytes], sizes: list[int], multiline: str) -> None:
    """However the lines of a file are split, the same events come of them."""
    ends = []
    end = 0
    for line in lines:
        end += len(line) + 1
        ends.append(end)

    def fed(steps: list[int]) -> list[ParsedEvent]:
        parser = Parser(ParseSettings(multiline=multiline), "app", ParserCounts())
        found = []
        begin = turn = 0
        while begin < len(lines):
            stop = begin + steps[turn % len(steps)]
            found += parser.feed(lines[begin:stop], ends[begin:stop], NOW)
            begin, turn = stop, turn + 1
        return [*found, *parser.flush(NOW)]

    whole = fed([1000])
    assert fed(sizes) == whole
    assert [event.end for event in whole] == sorted({event.end for event in whole})


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
def test_every_line_is_in_one_event(texts: list[str], multiline: str) -> None:
    """Numbered lines come out once each and in order, each within the bytes of its event."""
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
