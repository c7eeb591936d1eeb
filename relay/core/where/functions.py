"""Functions of conditions. Each takes values, none of which is ``ERROR``, and returns one or ``ERROR``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tickertape.relay.core.where.tokens import WhereError
from tickertape.relay.core.where.values import ERROR, EventView, to_double, to_int, to_timestamp

PROGRAM_MEMORY: Final = 32 * 1024
"""Maximum bytes with which a pattern has to compile, in 0.2 ms. Larger ones would match too slowly."""

MATCH_MEMORY: Final = 256 * 1024
"""Maximum bytes that RE2 uses for a pattern while it matches; with those above alone it would be slow."""

REGEX_COST: Final = 8
"""Number of examined characters that a character counts as, when a regular expression is matched."""

NO_REGEX: Final = "matches() needs google-re2 on the relay: pip install 'tickertape[where]'"
"""Error of an expression with ``matches`` if RE2 is not installed."""

_MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})


@dataclass(frozen=True, slots=True)
class Function:
    """Function of conditions.

    Attributes:
        apply: computes the result; takes the event and the arguments, of a method its target first.
        arity: number of arguments, including the target.
        result: type of the result; None if it is that of the argument.
        cost: cost of a call, in comparison to that of an operator.
        as_method: whether it can be called as ``target.name(…)``.
        as_function: whether it can be called as ``name(…)``.
    """

    apply: Callable[..., Any]
    arity: int
    result: str | None
    cost: int = 1
    as_method: bool = False
    as_function: bool = False


def _size(view: EventView, value: Any) -> Any:
    return len(value) if type(value) in (str, list, dict) else ERROR


def _contains(view: EventView, text: Any, part: Any) -> Any:
    if type(text) is not str or type(part) is not str or not view.spend(len(text)):
        return ERROR
    return part in text


def _starts_with(view: EventView, text: Any, part: Any) -> Any:
    return text.startswith(part) if type(text) is str and type(part) is str else ERROR


def _ends_with(view: EventView, text: Any, part: Any) -> Any:
    return text.endswith(part) if type(text) is str and type(part) is str else ERROR


def _matches(view: EventView, text: Any, regex: Any) -> Any:
    if type(text) is not str or not view.spend(REGEX_COST * len(text)):
        return ERROR
    return regex.search(text) is not None


FUNCTIONS: Final[Mapping[str, Function]] = {
    "contains": Function(_contains, 2, "bool", 3, as_method=True),
    "double": Function(lambda view, value: to_double(value), 1, "double", 2, as_function=True),
    "dyn": Function(lambda view, value: value, 1, None, 0, as_function=True),
    "endsWith": Function(_ends_with, 2, "bool", as_method=True),
    "int": Function(lambda view, value: to_int(value), 1, "int", 2, as_function=True),
    "matches": Function(_matches, 2, "bool", 100, as_method=True, as_function=True),
    "size": Function(_size, 1, "int", as_method=True, as_function=True),
    "startsWith": Function(_starts_with, 2, "bool", as_method=True),
    "timestamp": Function(lambda view, value: to_timestamp(value), 1, "timestamp", 20, as_function=True),
}
"""All functions by name, except ``has``, which takes a field and not its value."""


def find_function(name: str, arguments: int, position: int, *, method: bool) -> Function:
    """Return a function by its name and the form of the call.

    Args:
        name: name of the function.
        arguments: number of arguments, including the target of a method.
        position: position of the name.
        method: whether the call has a target.

    Raises:
        WhereError: there is no such function, or it takes other arguments.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        if name in _MACROS:
            raise WhereError(f"{name}() is not supported", position)
        raise WhereError(f"unknown function {name[:40]}(); known are has, {', '.join(FUNCTIONS)}", position)
    if not (function.as_method if method else function.as_function):
        form = f"value.{name}(…)" if function.as_method else f"{name}(value)"
        raise WhereError(f"{name}() is called as {form}", position)
    if arguments != function.arity:
        expected, given = function.arity - method, arguments - method
        raise WhereError(
            f"{name}() takes {expected} argument{'' if expected == 1 else 's'}, not {given}", position
        )
    return function


def compile_regex(pattern: object, position: int) -> Any:
    """Compile the regular expression of a ``matches``.

    Args:
        pattern: literal that the condition has as its argument.
        position: position of the literal.

    Raises:
        WhereError: it is not a valid pattern of RE2, or RE2 is not installed.
    """
    if type(pattern) is not str:
        raise WhereError("matches() takes a text literal as its pattern", position)
    try:
        # An optional dependency, which is loaded when a client first needs it.
        from tickertape.user_regex import compile_pattern
    except ImportError:
        raise WhereError(NO_REGEX, position) from None
    try:
        compile_pattern(pattern, "the pattern", max_memory=PROGRAM_MEMORY)
        return compile_pattern(pattern, "the pattern", max_memory=MATCH_MEMORY)
    except ValueError as error:
        raise WhereError(str(error), position) from None
