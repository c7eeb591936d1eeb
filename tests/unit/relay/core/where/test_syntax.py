"""Syntax of conditions: positions of errors, and bounds."""

import time

import pytest
from tickertape.contracts.messages import MAX_WHERE_BYTES
from tickertape.relay.core.where.condition import Condition
from tickertape.relay.core.where.syntax import MAX_DEPTH, MAX_NODES, parse
from tickertape.relay.core.where.tokens import WhereError

CPU_SECONDS = 2.0
"""Far more than any of these takes, on whatever machine; without bounds they take minutes."""


@pytest.mark.parametrize(
    ("source", "position", "problem"),
    [
        ("", 1, "the condition is empty"),
        ("event.level ==", 15, "expected a value before the end"),
        ('event.level == "a', 16, "not terminated"),
        ("event.level = 1", 13, "unexpected character '='"),
        ("level == 1", 1, "unknown name 'level'; fields are written event.level"),
        ("event.n == 7u", 13, "unsigned integers are not supported"),
        ("event.n == 7a", 13, "the number 7 is followed by 'a'"),
        ("event.n == 1e999", 12, "exceeds the range of a double"),
        ("event.n == 9223372036854775808", 12, "exceeds 64 bits"),
        ("event.n == b'a'", 12, "bytes are not supported"),
        ("event.x == '\\q'", 12, "unknown escape"),
        ("event.x == '\\ud800'", 12, "an escape of no character"),
        ("event.x == '\ud800'", None, ""),
        ("event.in == 1", 7, "'in' is a reserved word"),
        ("package == 1", 1, "'package' is a reserved word"),
        ("event.[1]", 7, "expected a name before '['"),
        ("event.level == 1 and true", 18, "expected an operator before 'and'"),
        ("(event.level == 1", 18, "expected ')' before the end"),
        ("event{}", 6, "maps and messages are not supported"),
        ("has(event)", 1, "has() takes a field"),
        ("has(event.a, 1)", 1, "has() takes a field"),
        ("event.list.exists(x, x > 1)", 19, "unknown name 'x'"),
        ("event.list.exists(1, true)", 12, "exists() is not supported"),
        ("lower(event.a)", 1, "unknown function lower()"),
        ("contains(event.a, 'b')", 1, "contains() is called as value.contains(…)"),
        ("event.a.timestamp() == 1", 9, "timestamp() is called as timestamp(value)"),
        ("event.a.contains()", 9, "contains() takes 1 argument, not 0"),
        ("size() == 1", 1, "size() takes 1 argument, not 0"),
        ("size(1,) == 1", 8, "expected a value before ')'"),
        ("event.a.matches(event.b)", 23, "takes a text literal"),
        ("event.a.matches('(')", 17, "not valid in RE2"),
        ("event.a.matches('(.{1,900}){1,900}')", 17, "not valid in RE2"),
        ("event.a.matches('[^a]{999}')", 17, "pattern too large"),
        (" || ".join(["event.a.matches('a')"] * 5), 105, "more than 4 matches()"),
        ("timestamp('now') < timestamp(event.timestamp)", 11, "takes an RFC 3339 time"),
        ("event.a + 1", 9, "expected a condition, not a value of type int"),
        ("'a'", 1, "not a value of type string"),
        ("event.a || 'b'", 12, "not a value of type string"),
        ("!1", 2, "not a value of type int"),
        ("1 ? true : false", 1, "not a value of type int"),
        ("event.a ? 1 : 2", 9, "not a value of type int"),
        ("[true]", 1, "not a value of type list"),
        ("event", 1, "not a value of type map"),
        ("null", 1, "not a value of type null"),
        ("-event.a", 1, "not a value of type number"),
        ("event.text", 7, "not a value of type string"),
    ],
)
def test_an_error_names_its_position(source: str, position: int | None, problem: str) -> None:
    """An invalid condition is rejected with what is wrong, and where."""
    if position is None:
        Condition(source)  # a text that no request contains does no harm
        return
    with pytest.raises(WhereError) as caught:
        Condition(source)
    assert problem in str(caught.value)
    assert (caught.value.position, str(caught.value).rpartition(" ")[2]) == (position, str(position))


@pytest.mark.parametrize(
    ("source", "tree"),
    [
        ("1 + 2 * 3 == 7 && !true || false", "(or (and (binary '==' "),
        (
            "event.a && event.b && event.c && event.d",
            "(and (field 'a' (event)) (field 'b' (event)) (field 'c' ",
        ),
        ("event.a ? true : event.b ? false : true", "(if (field 'a' (event)) (literal True) (if "),
        ("1 - -1", "(binary '-' (literal 1) (literal -1))"),
        ("-event.a.b", "(negate (field 'b' (field 'a' (event))))"),
        ("!!!true", "(not (literal True))"),
        ("!!true", "(not (not (literal True)))"),
        ("event.a in [1, 'b',]", "(binary 'in' (field 'a' (event)) (list (literal 1) (literal 'b')))"),
        (
            "event.a.size() < size(event.b)",
            "(binary '<' (call 'size' (field 'a' (event))) (call 'size' (field ",
        ),
        ("has(event.a.b)", "(has 'b' (field 'a' (event)))"),
        ("""event.a == r'\\d' + "\\d\\x41" """[:-6] + '"', None),
        ("""'''it's''' == "it's" // a comment""", "(binary '==' (literal \"it's\") (literal \"it's\"))"),
    ],
)
def test_the_tree_has_the_precedence_of_cel(source: str, tree: str | None) -> None:
    """Operators bind as in CEL, and chains of ``&&`` and ``||`` are flat."""
    if tree is None:
        with pytest.raises(WhereError, match="unknown escape"):
            parse(source)
    else:
        assert repr(parse(source)).startswith(tree)


@pytest.mark.parametrize(
    "source",
    [
        "(" * 1_000 + "true" + ")" * 1_000,
        "[" * 2_000,
        "event" + "[0]" * 600,
        "event" + ".a" * 1_000,
        "1" + "+1" * 1_000,
        "-(" * 600 + "1" + ")" * 600,
        "!" * 2_000 + "true",
        "true" + "?true:true" * 190,
        "true ? " * 250 + "1",
        "size(" * 400,
        " && ".join(["event.a == 1"] * 130),
        "event.a in [" + "1," * 900 + "]",
    ],
)
def test_depth_and_size_are_bounded(source: str) -> None:
    """A nested or long condition is rejected in little time, without deep recursion."""
    began = time.thread_time()
    with pytest.raises(
        WhereError, match=rf"deeper than {MAX_DEPTH} levels|more than {MAX_NODES} parts|expected"
    ):
        Condition(source[:MAX_WHERE_BYTES])
    assert time.thread_time() - began < CPU_SECONDS


@pytest.mark.parametrize(
    "source", ["a" * 100_000, "(" * 100_000, "é" * 1_025, "'" + "x" * 2_048, "\ud800" * 683]
)
def test_the_length_is_checked_before_anything_is_parsed(source: str) -> None:
    """A condition of more than 2 KiB is rejected for its length, whatever it contains."""
    with pytest.raises(WhereError, match="more than 2048 bytes"):
        Condition(source)


def test_a_condition_of_the_greatest_length_is_accepted() -> None:
    """2 048 bytes are allowed."""
    source = "event.a == '" + "x" * (MAX_WHERE_BYTES - 13) + "'"
    assert len(source) == MAX_WHERE_BYTES
    assert Condition(source).source == source
