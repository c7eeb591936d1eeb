"""Text that deceives the reader of a terminal, and a check of what a program writes."""

import re
import unicodedata
from typing import Final

INVISIBLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\ufe00\ufe0d\uffa0\U000e0100\U000e01ef"
)
"""Characters of visible categories that show nothing."""

_CATEGORIES: Final = ("Cc", "Cf", "Zl", "Zp")
CONTROLS: Final = "".join(
    character for character in map(chr, range(0x110000)) if unicodedata.category(character) in _CATEGORIES
)
"""All control and format characters, and both separators: ESC and OSC, C1, bidirectional controls, tags."""

UNDECODABLE: Final = "\udc80\udcff"
"""Lone surrogates that Python makes of undecodable bytes in arguments, variables and file names."""

SURROGATES: Final = f"{UNDECODABLE}\ud800"

MARKUP: Final = "[bold red]markup[/] [link=http://evil.example]x[/link] :warning:"

SEQUENCES: Final = "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\link\x9b31m\x9d0;t\x9c"

TEXT: Final = f"{SEQUENCES}{CONTROLS}{INVISIBLE}\ue000\U000f0000\U0010fffd{MARKUP}行情"
"""All of these, except for surrogates."""

_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")


def deceptive(text: str, *, styled: bool = False) -> set[str]:
    """Return the characters in a program's output that must not be there.

    Args:
        text: the output.
        styled: whether it was written for a terminal, and may contain colours.
    """
    if styled:
        text = _STYLE.sub("", text)
    return {
        character
        for character in text
        if character != "\n"
        and (unicodedata.category(character) in (*_CATEGORIES, "Co", "Cs", "Cn") or character in INVISIBLE)
    }
