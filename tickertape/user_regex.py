"""Regular expressions from users, compiled with RE2, which matches any of them in linear time."""

from typing import Any

import re2


def compile_pattern(
    pattern: str, description: str, *, for_bytes: bool = False, max_memory: int | None = None
) -> Any:
    """Compile a regular expression from a user.

    Args:
        pattern: RE2 syntax.
        description: the subject of the error message.
        for_bytes: match bytes of UTF-8 rather than text, which costs half as much.
        max_memory: maximum bytes of the compiled pattern, and of what RE2 computes while it matches; 8 MiB
            by default.

    Raises:
        ValueError: the pattern is not valid in RE2.
    """
    options = re2.Options()
    options.log_errors = False
    if max_memory is not None:
        options.max_mem = max_memory
    try:
        return re2.compile(pattern.encode() if for_bytes else pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else error
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else reason
        raise ValueError(f"{description} is not valid in RE2: {text}") from None
