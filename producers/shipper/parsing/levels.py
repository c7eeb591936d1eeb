"""Levels of loggers, as words and as numbers, become the five of the contract.

Invariants:

1. Every answer is one of ``contracts.subjects.LEVELS``, or None.
2. In running text only what is marked as a level counts: upper case, brackets, or a key before it.
"""

import re
from typing import Final

SEARCH_CHARACTERS: Final = 200
"""A level stands at the beginning of a line; further on the same word is a part of the message."""

DEFAULT_LEVEL: Final = "INFO"

IN_TEXT: Final = {
    "TRACE": "DEBUG",
    "VERBOSE": "DEBUG",
    "DBG": "DEBUG",
    "DEBUG": "DEBUG",
    "INF": "INFO",
    "INFO": "INFO",
    "INFORMATION": "INFO",
    "NOTICE": "INFO",
    "WRN": "WARN",
    "WARN": "WARN",
    "WARNING": "WARN",
    "ERR": "ERROR",
    "ERROR": "ERROR",
    "SEVERE": "ERROR",
    "CRIT": "CRITICAL",
    "CRITICAL": "CRITICAL",
    "FATAL": "CRITICAL",
    "ALERT": "CRITICAL",
    "EMERG": "CRITICAL",
    "EMERGENCY": "CRITICAL",
    "PANIC": "CRITICAL",
}
"""Words that are a level when they stand in a text."""

# These are levels only where a level is expected: in running text they are words or initials.
_WORDS: Final = {
    **IN_TEXT,
    "T": "DEBUG",
    "D": "DEBUG",
    "I": "INFO",
    "W": "WARN",
    "E": "ERROR",
    "F": "CRITICAL",
    "FINE": "DEBUG",
    "FINER": "DEBUG",
    "FINEST": "DEBUG",
    "SILLY": "DEBUG",
    "CONFIG": "INFO",
    "INFORMATIONAL": "INFO",
    "SUCCESS": "INFO",
    "EXCEPTION": "ERROR",
    "DPANIC": "CRITICAL",
}
WORDS: Final = {
    spelt: level for word, level in _WORDS.items() for spelt in (word, word.lower(), word.title())
}
"""Words that are a level where one is expected, in the usual spellings."""

_PINO: Final = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "CRITICAL"}
_PYTHON: Final = {5: "DEBUG", 10: "DEBUG", 20: "INFO", 25: "INFO", 30: "WARN", 40: "ERROR", 50: "CRITICAL"}
SYSLOG: Final = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
"""Level of each severity of syslog."""

# Each begins with a set of characters, which the engine skips to quickly.
_UPPER = re.compile(r"[A-Z]{3,11}(?![A-Za-z0-9_])")
_BRACKET = re.compile(r"[\[<(]([A-Za-z]{3,11})[\])>]")
_PAIR = re.compile(r"(?:level|lvl|severity)[=:]\s*\"?([a-z]{3,11})(?![a-z0-9_])")


def level_of(value: object, key: str = "level") -> str | None:
    """Level that a value means; None when it means none.

    Args:
        value: a word or a number.
        key: the key it stands under; ``levelno`` has the numbers of Python's logging.
    """
    if isinstance(value, str):
        known = WORDS.get(value)
        if known is not None:
            return known
        name = value.strip().upper()
        if len(name) <= 3 and name.isascii() and name.isdigit():
            return level_of(int(name), key)
        return _WORDS.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        if key.endswith("levelno"):
            return _PYTHON.get(value)
        # Syslog counts severities from 0 to 7, pino and bunyan count levels in tens.
        return SYSLOG[value] if 0 <= value < 8 else _PINO.get(value)
    return None


def find(text: str) -> tuple[str, int, int] | None:
    """Look for a level near the beginning of a text.

    Returns:
        The level, and the first and the last place of what names it; None when nothing does.
    """
    stop = min(len(text), SEARCH_CHARACTERS)
    line_end = text.find("\n", 0, stop)
    if line_end >= 0:
        stop = line_end
    best: tuple[str, int, int] | None = None
    for found in _UPPER.finditer(text, 0, stop):
        level = IN_TEXT.get(found[0])
        begin = found.start()
        if level is not None and not (begin and _is_word(text[begin - 1])):
            best = level, begin, found.end()
            break
    limit = best[1] if best is not None else stop
    for found in _BRACKET.finditer(text, 0, stop):
        if found.start() >= limit:
            break
        level = IN_TEXT.get(found[1].upper())
        if level is not None:
            return level, found.start(), found.end()
    low = text[:stop].lower()
    # Lower case can change the length of exotic texts; those have no pair worth the trouble.
    if len(low) == stop and ("level" in low or "lvl" in low or "severity" in low):
        for found in _PAIR.finditer(low, 0, stop):
            level = IN_TEXT.get(found[1].upper())
            begin = found.start()
            if level is not None and begin < limit and not (begin and _is_word(text[begin - 1])):
                return level, begin, found.end()
    return best


def _is_word(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())
