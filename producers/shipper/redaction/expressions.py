"""Compilation of the redactor's RE2 expressions over the bytes of UTF-8, and parts that they share."""

import re
from typing import Any, Final

import re2

MAX_MEMORY: Final = 64 * 1024 * 1024
"""Bytes for the program and the DFA of an expression.

RE2's default of 8 MiB is too small for the longest expressions: it then rejects them or matches slowly.
"""

MARK: Final = rb"(?:=>|[:=]+|\xef\xbc\x9a|%3[ad])"
"""Character between a name and its value; the third is the colon of Chinese text."""

BETWEEN: Final = rb"(?:\\[tnr]|[\\\"' \t])*"
"""White space and quotes, which may be written as JSON escapes, between a name and the mark."""

BOUNDARY: Final = rb"(?:^|[^A-Za-z0-9_-]|\\[nrtbf])"
"""Start of a word; the letter of a JSON escape is not part of the word after it."""


REDACTED: Final = re.compile(rb"\[redacted:[\w-]+\]")
"""Replacement of a secret."""


def byte_options() -> Any:
    """Return RE2 options for expressions over bytes."""
    options = re2.Options()
    # One character for each byte: UTF-8 need not be valid, and offsets are those of the bytes.
    options.encoding = re2.Options.Encoding.LATIN1
    options.log_errors = False
    options.max_mem = MAX_MEMORY
    return options


def compile_bytes(pattern: bytes) -> Any:
    """Compile an RE2 expression over bytes."""
    return re2.compile(pattern, byte_options())


def compile_set(patterns: list[bytes]) -> Any:
    """Compile RE2 expressions that are searched for in one pass; ``Match`` returns the indexes found."""
    expressions = re2.Set.SearchSet(byte_options())
    for pattern in patterns:
        expressions.Add(pattern)
    expressions.Compile()
    return expressions
