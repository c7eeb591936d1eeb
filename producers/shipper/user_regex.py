"""Expressions of the user, in RE2: whatever they are, a line takes time in proportion to its length."""

from typing import Any

import re2


def compile_pattern(pattern: str, what: str) -> Any:
    """Compile an expression.

    Args:
        pattern: as the user wrote it.
        what: what it is, for the error.

    Raises:
        ValueError: it is not legal in RE2.
    """
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        shown = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"{what} is not legal in RE2: {shown}") from None
