"""Recognition of lines that begin an event, as nearly all do.

Invariant: ``all_begin_events`` is True only if ``multiline`` would join none of the lines to an earlier one,
and none begins a trace or is a JSON object.
"""

from operator import itemgetter
from string import ascii_letters
from typing import Final

_BEGINS: Final = frozenset("0123456789(*|@/!+~%&$^_?:;,>\\'`")
"""First characters of lines that begin an event, unless they are within a trace."""

_MAY_BEGIN: Final = _BEGINS | frozenset(ascii_letters) | {"<"}
_TRACE_HEADS: Final = frozenset({
    "Tra", "Dur", "The", "Cau", "Sup", "at ", "Sta", "Nex", "Nod", "gor", "pan", "fat", "thr",
})  # fmt: skip
"""First three characters of lines of a trace that begin with a letter, except for names of exceptions."""

# Characters with which a continuation line outside of a traceback can begin, unless it names an exception.
_MAY_CONTINUE: Final = frozenset(' \t.])}"#[-<aCDNST')

_first_character = itemgetter(0)
_last_character = itemgetter(-1)


def may_continue(text: str, first: str) -> bool:
    """Return whether a line may continue one of a log; it costs little, since nearly all do not."""
    return first in _MAY_CONTINUE or (
        first.isalpha() and ("Exception" in text or "Error" in text or "Throwable" in text or first == "g")
    )


def all_begin_events(texts: list[str]) -> bool:
    """Return whether every line begins an event; False if this costs more to know than to join them.

    Args:
        texts: clean lines that follow a line outside of any trace and XML element.
    """
    try:
        firsts = set(map(_first_character, texts))
        if not firsts <= _MAY_BEGIN:
            return False
        lasts = set(map(_last_character, texts))
    except IndexError:  # an empty line
        return False
    # A line that announces a traceback ends with a colon.
    if ":" in lasts:
        return False
    # After '<' there is a priority, or the name of an XML element.
    if "<" in firsts and not all(text[1:2].isdigit() for text in texts if text[0] == "<"):
        return False
    return firsts <= _BEGINS or _have_no_trace(texts)


def _have_no_trace(texts: list[str]) -> bool:
    """Return whether no line is part of a trace; each begins with one of ``_MAY_BEGIN``."""
    return (
        _TRACE_HEADS.isdisjoint({text[:3] for text in texts})
        # java.util.logging writes a comma after the day.
        and "," not in "".join([text[5:8] for text in texts])
        and not [text for text in texts if "Error" in text or "Exception" in text or "Throwable" in text]
    )
