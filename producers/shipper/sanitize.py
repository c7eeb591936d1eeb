"""Bytes become text that is safe to show: decoding, and taking out what steers terminals or reorders text.

Invariants:

1. Any bytes become text; no character of it is a lone surrogate.
2. Cleaned text has no control character but tabs and line breaks, no terminal escape, and nothing that
   changes the direction of text.
3. A line that ``SUSPECT`` does not find anything in, as UTF-8, is the same before and after ``clean``.
"""

import re
from typing import Final

SUSPECT: Final = (
    rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xd8\x9c"
    rb"|\xef\xbb\xbf"
)
"""Expression for what ``clean`` takes out, in the bytes of UTF-8."""

ESCAPED: Final = rb"\\u(?:00[0-9]|06|20|[fF])|\\[bfr]"
"""Expression for JSON escapes of characters that ``clean`` takes out, or that hide plain letters."""

_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
# A line break stands in the message of a JSON line with a traceback; it and the tab are text.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """Take terminal escapes, control characters and marks of direction out, but for tabs and line breaks."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub("", _ANSI.sub("", text).replace("\r\n", "\n"))


def decode(line: bytes, *, cut: bool = False) -> tuple[str, bool]:
    """Read bytes as UTF-8, else as GB18030, else as UTF-8 with replacement characters.

    Args:
        line: any bytes.
        cut: the line goes on; a character that its end broke is left out.

    Returns:
        The text, and whether the bytes were text at all.
    """
    for encoding in ("utf-8", "gb18030"):
        try:
            return line.decode(encoding), True
        except UnicodeDecodeError as error:
            if cut and error.end == len(line) and len(line) - error.start < 4:
                return line[: error.start].decode(encoding), True
    return line.decode("utf-8", "replace"), False
