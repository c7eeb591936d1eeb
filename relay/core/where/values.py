"""Values of conditions, and their operators: equality, order and arithmetic as CEL defines them.

JSON is dynamically typed: an integer is an ``int`` of CEL, any other number a ``double``. Integers from 2^63
on can be compared, and nothing else.

Invariants:

1. No operator raises: the result of an invalid operation is ``ERROR``, which is passed on like a value.
2. An int and a double are compared as doubles, as the conformance tests of CEL demand; other types are never
   equal, and have no order among one another. A bool is not a number.
"""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tickertape.contracts.events import MAX_TIME, MIN_TIME, parse_time

MAX_COST: Final = 1024 * 1024
"""Maximum characters that one evaluation examines or builds; a condition that needs more is an error."""

ELEMENT_COST: Final = 64
"""Number of characters that an element of a list or an object counts as, when it is compared."""

_INT_END: Final = 1 << 63
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = timedelta(seconds=1)
_MAX_TIME_TEXT: Final = 64
_MAX_NUMBER_TEXT: Final = 400
_INTEGER: Final = re.compile(r"[+-]?0*([0-9]{1,19})", re.ASCII)
_DOUBLE: Final = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|inf|infinity|nan)", re.ASCII | re.IGNORECASE
)
_FINITE: Final = frozenset("0123456789")


class _Error:
    """Result of an operation without a value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ERROR"


ERROR: Final = _Error()
"""Result of an operation without a value, such as a missing field, a division by zero, or a wrong type."""


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    """Moment in UNIX nanoseconds."""

    ns: int


class EventView:
    """View of an event for conditions: its parsed fields, its text, and the cost of the evaluation.

    Args:
        fields: fields of the event.

    Attributes:
        budget: characters that the current evaluation may still examine; negative if it needed more.
    """

    __slots__ = ("_text", "budget", "fields")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = fields
        self.budget = MAX_COST
        self._text: str | None = None

    def text(self) -> str:
        """Return the message, and a line ``key=value`` for each value in the metadata."""
        if self._text is None:
            message = self.fields.get("message")
            lines = [message] if type(message) is str else []
            _flatten("", self.fields.get("metadata"), lines)
            self._text = "\n".join(lines)
        return self._text

    def spend(self, cost: int) -> bool:
        """Count characters that are examined; return False if the evaluation has examined too many."""
        self.budget -= cost
        return self.budget >= 0


def _flatten(key: str, value: object, lines: list[str]) -> None:
    if type(value) is dict:
        for name, item in value.items():
            _flatten(f"{key}.{name}" if key else name, item, lines)
    elif type(value) is list:
        for item in value:
            _flatten(key, item, lines)
    elif key:
        constant = value is None or type(value) is bool
        lines.append(f"{key}={_CONSTANTS[value] if constant else value}")


_CONSTANTS: Final[dict[object, str]] = {None: "null", True: "true", False: "false"}


def equal(view: EventView, one: Any, other: Any) -> bool:
    """Return whether two values are equal; False if that exceeds the budget, which is then negative."""
    kind = type(one)
    if kind is bool or type(other) is bool:
        return one is other
    if kind is not list and kind is not dict:
        if kind is not type(other) and kind in _NUMBERS and type(other) in _NUMBERS:
            return float(one) == float(other)  # unlike Python, which compares their exact values
        return bool(one == other)
    if type(other) is not kind or len(one) != len(other) or not view.spend(ELEMENT_COST * len(one)):
        return False
    if kind is list:
        return all(equal(view, *pair) for pair in zip(one, other, strict=True))
    return all(key in other and equal(view, value, other[key]) for key, value in one.items())


def contains_element(view: EventView, element: Any, container: Any) -> Any:
    """Return whether a list has an equal element, or an object has a key."""
    if element is ERROR:
        return ERROR
    if type(container) is dict:
        return type(element) is str and element in container
    if type(container) is not list or not view.spend(ELEMENT_COST * len(container)):
        return ERROR
    found = any(equal(view, element, item) for item in container)
    return found if view.budget >= 0 else ERROR


def select(container: Any, key: Any) -> Any:
    """Return the value of a key of an object, or the element at an index of a list."""
    kind = type(key)
    if type(container) is dict:
        return container.get(key, ERROR) if kind is str else ERROR
    if type(container) is not list or (kind is not int and kind is not float):
        return ERROR
    if not 0 <= key < len(container) or key != int(key):
        return ERROR
    return container[int(key)]


def has_field(container: Any, name: str) -> Any:
    """Return whether an object has a field; other values have none, except that a list is an error."""
    if type(container) is dict:
        return name in container
    return ERROR if container is ERROR or type(container) in (list, Timestamp) else False


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[EventView, Any, Any], Any]:
    def apply(view: EventView, one: Any, other: Any) -> Any:
        kind, other_kind = type(one), type(other)
        if kind is other_kind:
            return compare(one, other) if kind in _ORDERED else ERROR
        if kind in _NUMBERS and other_kind in _NUMBERS:
            return compare(float(one), float(other))
        return ERROR

    return apply


_NUMBERS: Final = frozenset({int, float})
_ORDERED: Final = frozenset({int, float, str, bool, Timestamp})


def _in_range(number: int) -> Any:
    return number if -_INT_END <= number < _INT_END else ERROR


def _integers(one: Any, other: Any) -> bool:
    return (
        type(one) is int
        and type(other) is int
        and -_INT_END <= one < _INT_END
        and -_INT_END <= other < _INT_END
    )


def _add(view: EventView, one: Any, other: Any) -> Any:
    if _integers(one, other):
        return _in_range(one + other)
    kind = type(one)
    if kind is not type(other):
        return ERROR
    if kind is float:
        return one + other
    if kind is str or kind is list:
        return one + other if view.spend(len(one) + len(other)) else ERROR
    return ERROR


def _subtract(view: EventView, one: Any, other: Any) -> Any:
    if _integers(one, other):
        return _in_range(one - other)
    return one - other if type(one) is float and type(other) is float else ERROR


def _multiply(view: EventView, one: Any, other: Any) -> Any:
    if _integers(one, other):
        return _in_range(one * other)
    return one * other if type(one) is float and type(other) is float else ERROR


def _divide(view: EventView, one: Any, other: Any) -> Any:
    if _integers(one, other):
        if other == 0:
            return ERROR
        # Towards zero, unlike ``//``.
        quotient = abs(one) // abs(other)
        return _in_range(quotient if (one < 0) == (other < 0) else -quotient)
    if type(one) is not float or type(other) is not float:
        return ERROR
    if other:
        return one / other
    if one == 0 or one != one:
        return float("nan")
    # The sign of a zero counts: 1.0 / -0.0 is negative.
    return float("inf") if (one < 0) == (str(other)[0] == "-") else float("-inf")


def _modulo(view: EventView, one: Any, other: Any) -> Any:
    if not _integers(one, other) or other == 0 or (one == -_INT_END and other == -1):
        return ERROR
    rest = abs(one) % abs(other)
    return -rest if one < 0 else rest


def negate(value: Any) -> Any:
    """Return the negative of a number."""
    if type(value) is int and -_INT_END < value < _INT_END:
        return -value
    return -value if type(value) is float else ERROR


OPERATORS: Final[Mapping[str, Callable[[EventView, Any, Any], Any]]] = {
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
    "%": _modulo,
}
"""Binary operators on two values, neither of which is ``ERROR``; ``==``, ``!=`` and ``in`` are separate."""


def to_timestamp(value: Any) -> Any:
    """Return the moment that an RFC 3339 text or a number of UNIX seconds stands for."""
    kind = type(value)
    if kind is Timestamp:
        return value
    if kind is int:
        return Timestamp(value * 10**9) if MIN_TIME <= value <= MAX_TIME else ERROR
    if kind is not str or len(value) > _MAX_TIME_TEXT:
        return ERROR
    try:
        # Nanoseconds, of which a datetime has only thousands.
        moment = parse_time(value)
        seconds = (moment.replace(microsecond=0) - _EPOCH) // _SECOND
    except (ValueError, OverflowError):
        return ERROR
    fraction = value.partition(".")[2].rstrip("zZ").partition("+")[0].partition("-")[0]
    nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction else 0
    return Timestamp(seconds * 10**9 + nanoseconds) if MIN_TIME <= seconds <= MAX_TIME else ERROR


def to_int(value: Any) -> Any:
    """Convert a number, a text with a decimal integer, or a timestamp (to UNIX seconds) to an int."""
    kind = type(value)
    if kind is int:
        return _in_range(value)
    if kind is float:
        # False for NaN, too; the bounds themselves are excluded, as in other implementations.
        return int(value) if -_INT_END < value < _INT_END else ERROR
    if kind is Timestamp:
        return value.ns // 10**9
    if kind is str and len(value) <= _MAX_NUMBER_TEXT and _INTEGER.fullmatch(value):
        return _in_range(int(value))
    return ERROR


def to_double(value: Any) -> Any:
    """Convert a number, or a text with one, to a double."""
    kind = type(value)
    if kind is int or kind is float:
        return float(value)
    if kind is str and len(value) <= _MAX_NUMBER_TEXT and _DOUBLE.fullmatch(value):
        number = float(value)
        # A number that is too large is an error, unlike the name of infinity.
        return ERROR if abs(number) == float("inf") and not _FINITE.isdisjoint(value) else number
    return ERROR
