"""Regular expressions in the monitor's file, compiled with RE2, which matches any of them in linear time."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field
from tickertape.producers.monitor.probes.result import redact

from tickertape import user_regex
from tickertape.text import printable
from tickertape.validation import checked_by

MAX_SHOWN: Final = 60
"""Characters of a received text in an error."""

MAX_PATTERNS: Final = 1024
"""Compiled expressions that are kept."""

MAX_SEARCHED: Final = 80 * 1024
"""Characters of a received text in which secrets are replaced before a part is shown."""


# Cached, because a peer decides how many lines are matched.
@lru_cache(MAX_PATTERNS)
def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression.

    Raises:
        ValueError: the pattern is not valid in RE2.
    """
    return user_regex.compile_pattern(pattern, f"regular expression {pattern!r}")


def matches(pattern: str, text: str) -> bool:
    """Return whether a regular expression matches a text anywhere."""
    return compile_pattern(pattern).search(text) is not None


def show(text: str, secrets: Mapping[str, str]) -> str:
    """Return the beginning of a received text for an error: in quotes, printable, without secrets."""
    return f"'{shorten(text, secrets)}'"


def shorten(text: str, secrets: Mapping[str, str]) -> str:
    """Return the beginning of a received text for an error: printable, without secrets."""
    # Secrets first, in more text than is shown: a truncated one would not be found.
    shown = printable(redact(text[:MAX_SEARCHED], secrets))
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"


RegularExpression = Annotated[str, checked_by(compile_pattern)]
RegularExpressions = Annotated[
    list[RegularExpression],
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    Field(min_length=1),
]
"""One regular expression, or a list."""
