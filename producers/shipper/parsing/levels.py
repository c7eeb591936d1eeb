"""Mapping of the levels of logging libraries, as words and numbers, to the five of the contract.

Invariants:

1. Every result is one of ``contracts.subjects.LEVELS``, or None.
2. In running text a word counts as a level only in upper case, in brackets, or after a key.
"""

import re
from typing import Final

SEARCH_CHARACTERS: Final = 200
"""Characters at the start of a line that are searched for a level; later words belong to the message."""

DEFAULT_LEVEL: Final = "INFO"
"""Level of events whose line does not name one."""

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
"""Words that are a level in running text."""

# Levels only where a level is expected: in running text they are ordinary words or initials.
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
    spelling: level for word, level in _WORDS.items() for spelling in (word, word.lower(), word.title())
}
"""Words that are a level where one is expected, in the common spellings."""

_PINO: Final = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "CRITICAL"}
_PYTHON: Final = {5: "DEBUG", 10: "DEBUG", 20: "INFO", 25: "INFO", 30: "WARN", 40: "ERROR", 50: "CRITICAL"}
SYSLOG: Final = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
"""Level of each syslog severity, 0 to 7."""

# Each starts with a character class, to which the regex engine skips quickly.
_UPPER = re.compile(r"[A-Z]{3,11}(?![A-Za-z0-9_])")
_BRACKET = re.compile(r"[\[<(]([A-Za-z]{3,11})[\])>]")
_PAIR = re.compile(r"(?:level|lvl|severity)[=:]\s*\"?([a-z]{3,11})(?![a-z0-9_])")


def level_of(value: object, key: str = "level") -> str | None:
    """Return the level that a value denotes, or None.

    Args:
        value: a word or a number.
        key: key of the value; ``levelno`` selects the numbers of Python's logging.
    """
    if isinstance(value, str):
        level = WORDS.get(value)
        if level is not None:
            return level
        name = value.strip().upper()
        if len(name) <= 3 and name.isascii() and name.isdigit():
            return level_of(int(name), key)
        return _WORDS.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        if key.endswith("levelno"):
            return _PYTHON.get(value)
        # Syslog severities are 0 to 7; pino and bunyan use multiples of ten.
        return SYSLOG[value] if 0 <= value < 8 else _PINO.get(value)
    return None


def find(text: str) -> tuple[str, int, int] | None:
    """Find a level near the beginning of a text.

    Returns:
        The level, and the start and end of the match; None if there is none.
    """
    stop = min(len(text), SEARCH_CHARACTERS)
    line_end = text.find("\n", 0, stop)
    if line_end >= 0:
        stop = line_end
    best: tuple[str, int, int] | None = None
    for match in _UPPER.finditer(text, 0, stop):
        level = IN_TEXT.get(match[0])
        start = match.start()
        if level is not None and not (start and _is_word_character(text[start - 1])):
            best = level, start, match.end()
            break
    # Only what is nearer to the start of the line replaces an upper-case word.
    limit = best[1] if best is not None else stop
    for match in _BRACKET.finditer(text, 0, stop):
        if match.start() >= limit:
            break
        level = IN_TEXT.get(match[1].upper())
        if level is not None:
            return level, match.start(), match.end()
    lowered = text[:stop].lower()
    # Lower case can change the length of unusual texts, which invalidates offsets; those are skipped.
    if len(lowered) == stop and ("level" in lowered or "lvl" in lowered or "severity" in lowered):
        for match in _PAIR.finditer(lowered, 0, stop):
            level = IN_TEXT.get(match[1].upper())
            start = match.start()
            if level is not None and start < limit and not (start and _is_word_character(text[start - 1])):
                return level, start, match.end()
    return best


def _is_word_character(character: str) -> bool:
    return character == "_" or (character.isascii() and character.isalnum())
