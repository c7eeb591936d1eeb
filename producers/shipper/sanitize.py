"""Sanitizing: characters that control terminals or reorder text are removed.

Invariants:

1. Clean text has no control characters but tabs and line breaks, no terminal escape sequences, and no
   bidirectional control characters.
2. A line in which ``SUSPECT`` matches nothing, as UTF-8, is not changed by ``clean``.
"""

import re
from typing import Final

SUSPECT: Final = (
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xd8\x9c"
    rb"|\xef\xbb\xbf"
)
"""Expression for everything that ``clean`` removes, in the bytes of UTF-8."""

ESCAPED: Final = rb"\\u(?:00[0-9]|06|20|[fF])|\\[bfr]"
"""Expression for JSON escapes of characters that ``clean`` removes, or of plain letters."""

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
# Tabs and line breaks are kept: the message of a JSON line can be a traceback.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """Remove terminal escapes, control and bidirectional characters, except tabs and line breaks."""
    # Escape sequences begin with an unsafe character, so one search decides for nearly all texts.
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub("", _ANSI.sub("", text).replace("\r\n", "\n"))
