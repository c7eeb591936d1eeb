"""Conditions on the values in a JSON document that a JSONPath query (RFC 9535) selects.

Invariant: whatever a peer sends, a query ends after a time that is proportional to the size of the document.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from pydantic import Field, StrictFloat, StrictInt, model_validator
from tickertape.producers.monitor.probes.options.patterns import RegularExpression, compile_pattern, matches
from tickertape.producers.monitor.types import Settings

from tickertape.validation import checked_by

if TYPE_CHECKING:
    from jsonpath import JSONPath

MAX_DESCENDANTS: Final = 1
"""Segments ``..`` in a query: with two of them, the time is not proportional to the size of the document."""

MAX_VALUES: Final = 1_000
"""Values that a query may select."""


def compile_query(query: str) -> JSONPath:
    """Compile a JSONPath query.

    Raises:
        ValueError: the query is not valid.
    """
    if query.count("..") > MAX_DESCENDANTS:
        raise ValueError(f"JSONPath {query!r} has several '..'; write the names on the path")
    return _compile(query)


@lru_cache(maxsize=1024)
def _compile(query: str) -> JSONPath:
    # Imported when it is used, because most monitors have no such condition.
    import jsonpath

    try:
        compiled = _environment().compile(query)
    except jsonpath.JSONPathError as error:
        if not query.startswith("$"):
            raise ValueError(
                f"JSONPath {query!r} is not valid without a '$' at its beginning; write it as $.queue.length"
            ) from None
        # The parser's names of tokens are no words of the standard, but functions have those of their types.
        position = error.token.index if error.token is not None else -1
        if not isinstance(error, jsonpath.JSONPathSyntaxError):
            reason = str(error.args[0])
        else:
            reason = f"wrong at character {position + 1}" if position >= 0 else "it ends too soon"
        raise ValueError(
            f"JSONPath {query!r} is not valid: {reason}; use a query of RFC 9535, such as $.queue.length"
        ) from None
    if not isinstance(compiled, jsonpath.JSONPath):
        raise ValueError(f"JSONPath {query!r} is not one query; write one condition for each")
    return compiled


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Return the environment of queries, in which regular expressions are those of RE2."""
    import jsonpath

    environment: Any = jsonpath.JSONPathEnvironment(strict=True)
    for name in ("match", "search"):
        environment.function_extensions[name].check_cache = compile_pattern
    return environment


Number = StrictInt | Annotated[StrictFloat, Field(allow_inf_nan=False)]


def check_json(value: Any) -> Any:
    """Return a value unchanged if JSON has it.

    Raises:
        ValueError: no value in a JSON document can be equal to it.
    """
    match value:
        case float() if not math.isfinite(value):
            raise ValueError(f"has the number {value}, which JSON does not have; use another one")
        case dict():
            if not all(isinstance(key, str) for key in value):
                raise ValueError("has a key that is not text; put the key in quotes")
            for item in value.values():
                check_json(item)
        case list():
            for item in value:
                check_json(item)
        case None | bool() | int() | float() | str():
            pass
        case _:
            raise ValueError("has a value that JSON does not have; remove its tag, or put it in quotes")
    return value


JsonValue = Annotated[Any, checked_by(check_json)]


class JsonCondition(Settings):
    """Condition on the values that a JSONPath query selects: at least one, and all must fulfil it."""

    path: Annotated[str, checked_by(compile_query)]
    equals: JsonValue = None
    not_equals: JsonValue = None
    below: Number | None = None
    at_most: Number | None = None
    above: Number | None = None
    at_least: Number | None = None
    matches: RegularExpression | None = None
    """Regular expression that the text must match; numbers are compared as they are written in JSON."""
    count: Annotated[int, Field(ge=0, strict=True)] | None = None
    """Number of selected values; 0 for none."""

    @model_validator(mode="after")
    def _check_condition(self) -> JsonCondition:
        if self.count == 0 and len(self.model_fields_set) > 2:
            raise ValueError("'count: 0' has no values to compare; remove the other conditions")
        return self

    def find_mismatch(self, document: Any) -> tuple[str, str] | None:
        """Return the value that does not fulfil the condition, and the expectation; None without one.

        Raises:
            ValueError: the document is nested too deeply, or the query selects too many values.
        """
        values = []
        try:
            for match in compile_query(self.path).finditer(document):
                values.append(match.obj)
                if len(values) > MAX_VALUES:
                    raise ValueError(f"{self.path} selects more than {MAX_VALUES} values")
        except RecursionError:
            raise ValueError("response is nested too deeply for JSONPath") from None
        if self.count is not None and len(values) != self.count:
            return f"selects {len(values)} values", str(self.count)
        if not values and self.count is None:
            return "is absent", self._expectation()
        for value in values:
            if not self._is_fulfilled(value):
                return f"is {_to_text(value)}", self._expectation()
        return None

    def _is_fulfilled(self, value: Any) -> bool:
        given = self.model_fields_set
        if "equals" in given and not _equal(value, self.equals):
            return False
        if "not_equals" in given and _equal(value, self.not_equals):
            return False
        text = value if isinstance(value, str) else _to_text(value)
        if self.matches is not None and not matches(self.matches, text):
            return False
        limits = (self.below, self.at_most, self.above, self.at_least)
        if limits == (None,) * 4:
            return True
        return _is_number(value) and (
            (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
        )

    def _expectation(self) -> str:
        parts = [
            f"{name.replace('_', ' ')} {_to_text(getattr(self, name))}"
            for name in type(self).model_fields
            if name in self.model_fields_set and name not in ("path", "count")
        ]
        return " and ".join(parts).removeprefix("equals ") or "a value"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equal(value: Any, expected: Any) -> bool:
    # In Python 1 == True, but not in JSON.
    return bool(value == expected) and isinstance(value, bool) == isinstance(expected, bool)


def _to_text(value: Any) -> str:
    """Return a value as it is written in JSON."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # a date of YAML, or a number beyond 64 bits
        return repr(value)
