"""Conditions against the results of cel-go, which were recorded: values, errors and syntax.

The event and the expressions are in ``cel_go.json``. ``value`` holds a result with its type, as the recording
tool wrote it; ``error`` is an error of the evaluation, and ``parse`` an expression that cel-go rejects.
"""

import json
import struct
from pathlib import Path
from typing import Any, Final

import pytest
from tickertape.relay.core.where.compiler import _compile, compile_condition
from tickertape.relay.core.where.syntax import parse
from tickertape.relay.core.where.tokens import WhereError
from tickertape.relay.core.where.values import ERROR, EventView, Timestamp

RECORDED: Final = json.loads(Path(__file__).with_name("cel_go.json").read_text())

UNSUPPORTED: Final = {
    '{"a":1} == event.obj', ".event.n", "1u", 'b"a"', "[,]", "event.`n`", "int", "type(1)", "string(1)",
    'contains("a","a")', 'bool("true")', "uint(1)", 'duration("1s")', 'bytes("a")',
}  # fmt: skip
"""Valid CEL outside of the documented subset, which is rejected."""

DIFFERENT: Final = {
    'event["text"]': "the computed field",
    'double("1_0")': "an underscore that Go's parser accepts",
}
"""Expressions with another result than cel-go's, and why."""


def _normalized(value: Any) -> Any:
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        return {"int": str(value)}
    if type(value) is float:
        if value != value or abs(value) == float("inf"):
            return {"double": str(value)}
        return {"double": f"{struct.unpack('>Q', struct.pack('>d', value))[0]:x}"}
    if type(value) is list:
        return {"list": [_normalized(item) for item in value]}
    if type(value) is Timestamp:
        return {"ns": "{}.{:09d}".format(*divmod(value.ns, 10**9))}
    assert type(value) is dict
    return {"map": {key: _normalized(item) for key, item in value.items()}}


def result(source: str) -> Any:
    """Return the result of an expression, with its type, for the recorded event."""
    value = _compile(parse(source)).evaluate(EventView(RECORDED["event"]))
    return "error" if value is ERROR else _normalized(value)


@pytest.mark.parametrize("kind", ["value", "error", "parse"])
def test_results_are_those_of_cel_go(kind: str) -> None:
    """Each expression has the value, the error, or the syntax error that it has in cel-go."""
    checked, rejected = 0, []
    for source, expected, *value in RECORDED["cases"]:
        if expected != kind or source in UNSUPPORTED or source in DIFFERENT:
            continue
        try:
            found = result(source)
        except WhereError as error:
            # What can never have a value is found when the condition is compiled, such as ``true || 1``.
            rejected.append((source, error.problem))
            continue
        assert found == (value[0] if kind == "value" else kind), source
        checked += 1
    assert checked >= {"value": 300, "error": 150, "parse": 0}[kind]
    if kind == "value":
        assert {problem.partition(",")[0] for _, problem in rejected} <= {"expected a condition"}, rejected


@pytest.mark.parametrize("source", sorted(UNSUPPORTED))
def test_what_is_not_supported_is_an_error(source: str) -> None:
    """Valid CEL outside of the subset is rejected, never understood differently."""
    with pytest.raises(WhereError):
        result(source)


def test_text_is_message_and_metadata() -> None:
    """``event.text`` has the message, and each value of the metadata with its path."""
    view = EventView(
        {
            "message": "margin call",
            "metadata": {"account": 7, "order": {"id": "a-1", "tags": ["x", None, True]}, "rate": 0.5},
            "other": "not in it",
        }
    )
    expected = (
        "margin call\naccount=7\norder.id=a-1\norder.tags=x\norder.tags=null\norder.tags=true\nrate=0.5"
    )
    assert view.text() == expected
    assert EventView({"message": 7, "metadata": "x"}).text() == ""
    condition = compile_condition(parse('event.text.matches("order.id=a-[0-9]") && has(event.text)'))
    assert condition.evaluate(view) is True


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('event.message.contains("x")', True),
        (" || ".join(['event.message.contains("y")'] * 20), ERROR),
        (" || ".join(['event.message.contains("y")'] * 20) + " || true", True),
        (" && ".join(['event.message.matches("x")'] * 2), ERROR),
        ("event.message + event.message == event.message", False),
        ("size(" + "+".join(["event.message"] * 16) + ") > 0", ERROR),
        ("event.list == event.copy", ERROR),
        ("event.list != event.copy", ERROR),
        ("1 in event.list", ERROR),
        ("event.short == event.short && 1 in event.short", True),
    ],
)
def test_the_cost_of_an_evaluation_is_bounded(source: str, expected: object) -> None:
    """An evaluation that would examine too much text, or too many elements, ends in an error."""
    view = EventView(
        {"message": "x" * 100_000, "list": [2] * 20_000, "copy": [2] * 20_000, "short": [1] * 50}
    )
    assert compile_condition(parse(source)).evaluate(view) is expected


@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1])
def test_integers_beyond_64_bits_are_compared_only(number: int) -> None:
    """An unsigned integer of JSON can be compared, and has no arithmetic."""
    view = EventView({"n": number})
    for source, expected in [
        ("event.n > 9223372036854775807", True),
        ("event.n == event.n", True),
        ("event.n < 1.0", False),
        ("event.n + 1 > 0", ERROR),
        ("-event.n < 0", ERROR),
        ("int(event.n) > 0", ERROR),
        ("double(event.n) > 9e18", True),
    ]:
        assert compile_condition(parse(source)).evaluate(view) is expected, source
