"""Mapping of the levels of logging libraries, as words and numbers, to the five of the contract.

Invariants:

1. Every result is one of ``contracts.subjects.LEVELS``, or None.
2. Only the header of a line decides, which is what precedes its first ordinary word; words of the message
   never do.
"""

import re
from typing import Final

from tickertape.contracts.subjects import LEVELS

_MAX_TOKENS: Final = 12
"""Tokens of a header that may precede the level, such as thread, process and logger."""

_KEY_CHARACTERS: Final = 200
"""Characters at the start of a line that are searched for ``level=``."""

DEFAULT_LEVEL: Final = "INFO"
"""Level of events whose line does not name one."""

IN_TEXT: Final = {
    "TRACE": "DEBUG",
    "VERBOSE": "DEBUG",
    "DBG": "DEBUG",
    "DEBUG": "DEBUG",
    "TRC": "DEBUG",
    "TRAC": "DEBUG",
    "DEBG": "DEBUG",
    "INF": "INFO",
    "INFO": "INFO",
    "INFORMATION": "INFO",
    "NOTE": "INFO",
    "NOTICE": "INFO",
    "SYSTEM": "INFO",
    "LOG": "INFO",
    "WRN": "WARN",
    "WARN": "WARN",
    "WARNING": "WARN",
    "ERR": "ERROR",
    "EROR": "ERROR",
    "ERRO": "ERROR",
    "ERROR": "ERROR",
    "FAIL": "ERROR",
    "FAILURE": "ERROR",
    "SEVERE": "ERROR",
    "CRIT": "CRITICAL",
    "CRITICAL": "CRITICAL",
    "FTL": "CRITICAL",
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
    "V": "DEBUG",
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
IN_HEADER: Final = frozenset(_WORDS)
"""Words that may be a level in the header of a line, in upper case."""

WORDS: Final = {
    spelling: level for word, level in _WORDS.items() for spelling in (word, word.lower(), word.title())
}
"""Words that are a level where one is expected, in the common spellings."""

_PINO: Final = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "CRITICAL"}
_PYTHON: Final = {5: "DEBUG", 10: "DEBUG", 20: "INFO", 25: "INFO", 30: "WARN", 40: "ERROR", 50: "CRITICAL"}
_OTLP: Final = ("DEBUG", "DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")
SYSLOG: Final = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
"""Level of each syslog severity, 0 to 7."""

_ORDINARY: Final = frozenset({
    "ALERT", "CONFIG", "CRITICAL", "EMERGENCY", "EXCEPTION", "FAIL", "FAILURE", "FINE", "LOG", "NOTE",
    "PANIC", "SILLY", "SUCCESS", "SYSTEM",
})  # fmt: skip
"""Levels that also begin sentences."""

AFTER_TIME: Final = {
    spelling: level
    for word, level in _WORDS.items()
    if len(word) > 2
    for spelling in ((word,) if word in _ORDINARY else (word, word.lower(), word.title()))
}
"""Words that are a level directly after a timestamp, whatever follows them."""

# Matches anywhere: without a word, the groups end where the separators do.
_LEVEL = re.compile(
    r"[\s|,;:)\]>*=-]*([\[(<{\"]?)"
    r"(?:(?<=\[):)?(?: ?([A-Za-z]{1,13})(?: error(?=:))?(?:[+-]?\d{1,2})?(?![A-Za-z0-9_'@.=]))?"
)
# The logger, facility or channel directly before a level, as in 'core:error' and 'production.ERROR', or
# before a level with a mark of its own, as in 'security: error: '.
_CHANNEL = re.compile(
    r"[\[(<{\"]?[A-Za-z_][\w-]{0,60}?(?:\[\d{1,10}\])?(?:[.:]|::|: (?=[a-z]{4,8}: ))(?=[A-Za-z])", re.ASCII
)
# What a header has besides the level: groups in brackets, words that are no plain words, names between marks.
_SKIPPED = re.compile(
    r"\[[^\]\n]{0,120}\]|\([^)\n]{0,80}\)|\{[^}\n]{0,80}\}|[A-Za-z]{0,60}[^A-Za-z\s\[\](){}<>\"'|,;:]"
    r"[^\s\[\](){}<>\"'|,;]{0,120}|[A-Za-z]{1,40}(?= - | *\|)|RAS [A-Z]{1,20}"
    r"|PHP(?: Parse| Core| Compile| Recoverable fatal| Catchable fatal)?(?= )"
    r"|[A-Za-z][\w-]{0,40}\[[\d:.]{1,20}\]:?",
)
_COLUMN = re.compile(r"[A-Za-z]{1,20}(?= {3,}[A-Za-z])", re.ASCII)
_PAIR = re.compile(r"(?:level|lvl|severity)[=:]\s*\"?([a-z]{3,11})(?![a-z0-9_])")
_KEYS: Final = ("evel", "lvl", "everity", "EVEL", "LVL", "EVERITY")
_AFTER_LETTER = re.compile(r"! | (?:\||[A-Z]{2,20} +\[|\[)")  # Telegraf, etcd, mongod, GlusterFS
_MNEMONIC = re.compile(r"%[A-Z][A-Z0-9_]{1,40}(?:-[A-Z0-9_]{1,20}){0,3}-([0-7])-[A-Z0-9_]{2,40}:?", re.ASCII)
"""Name of a message of Cisco's systems, with its severity."""
_DIGIT = re.compile(r"[0-9]")
_NUMBERED = re.compile(r"([A-Za-z]+)[+-]?\d{1,2}")

_REDIS: Final = {".": "DEBUG", "-": "DEBUG", "*": "INFO", "#": "WARN"}


def level_of(value: object, key: str = "level") -> str | None:
    """Return the level that a value denotes, or None.

    Args:
        value: a word or a number.
        key: key of the value; it selects the numbers of Python's logging, OpenTelemetry and Nextcloud.
    """
    if isinstance(value, str):
        level = WORDS.get(value)
        if level is not None:
            return level
        name = value.strip().upper()
        if len(name) <= 3 and name.isascii() and name.isdigit():
            return level_of(int(name), key)
        level = _WORDS.get(name)
        if level is None:
            numbered = _NUMBERED.fullmatch(name)  # such as slog's ERROR+2 and OpenTelemetry's ERROR2
            level = _WORDS.get(numbered[1]) if numbered is not None else None
        return level
    if isinstance(value, int) and not isinstance(value, bool):
        if key.endswith("levelno"):
            return _PYTHON.get(value)
        if key.endswith(("severityNumber", "SeverityNumber")):
            return _OTLP[(value - 1) // 4] if 0 < value < 25 else None
        if key.startswith("nextcloud"):
            return LEVELS[value] if 0 <= value < 5 else None
        # Syslog severities are 0 to 7; pino and bunyan use multiples of ten.
        return SYSLOG[value] if 0 <= value < 8 else _PINO.get(value)
    return None


def find(
    text: str, start: int = 0, *, has_time: bool = False, stop: int | None = None
) -> tuple[str, int] | None:
    """Find the level in the header of a text.

    Args:
        text: one or more lines.
        start: position from which to search: the end of the timestamp, if there is one before it.
        has_time: there is a timestamp before ``start``.
        stop: position at which to end the search; None for the end of the first line.

    Returns:
        The level, and the end of the word; None if there is none.
    """
    if stop is None:
        stop = text.find("\n")
        if stop < 0:
            stop = len(text)
    position = start
    skipped = ""
    for _ in range(_MAX_TOKENS):
        match = _LEVEL.match(text, position, stop)
        assert match is not None
        position = match.start(1)
        word = match[2]
        found = None
        if word is not None and word.upper() in _WORDS:
            found = _accept(text, match, stop, has_time=has_time, skipped=skipped)
        if found is None and (word is None or text[match.end() : match.end() + 1] in ":["):
            channel = _CHANNEL.match(text, position, stop)
            if channel is not None:
                match = _LEVEL.match(text, channel.end(), stop)
                if match is not None and match[2] is not None:
                    found = _accept(text, match, stop, has_time=has_time, skipped=channel[0])
        if found is not None:
            return found
        token = _SKIPPED.match(text, position, stop)
        if token is None and has_time:
            token = _COLUMN.match(text, position, stop)  # such as the process in SQL Server's log
        if token is None:
            break
        skipped = token[0]
        if skipped[0] == "%" and (mnemonic := _MNEMONIC.fullmatch(skipped)) is not None:
            return SYSLOG[int(mnemonic[1])], token.end()
        position = token.end()
    return find_pair(text, stop)


def find_pair(text: str, stop: int) -> tuple[str, int] | None:
    """Find a level after its name, such as ``level=``, near the start of a text.

    Args:
        text: one or more lines.
        stop: position at which to end the search.

    Returns:
        The level, and the end of the word; None if there is none.
    """
    head = text[: min(stop, _KEY_CHARACTERS)]
    # Every search costs something, and nearly no text passes the first ones.
    if "=" not in head and ":" not in head:
        return None
    if "eve" not in head and "lvl" not in head and "EVE" not in head and "LVL" not in head:
        return None
    if not any(key in head for key in _KEYS):
        return None
    lowered = head.lower()
    for pair in _PAIR.finditer(lowered):
        level = _WORDS.get(pair[1].upper())
        before = lowered[pair.start() - 1 : pair.start()]
        if level is not None and not (before.isalnum() or before == "_"):
            return level, pair.end()
    return None


def _accept(
    text: str, match: re.Match[str], stop: int, *, has_time: bool, skipped: str
) -> tuple[str, int] | None:
    """Return the level that a match of ``_LEVEL`` denotes, and the end of its word."""
    opening, word = match.groups()
    name = word.upper()
    level = _WORDS.get(name)
    if level is None:
        return None
    end = match.end()
    following = text[end : min(end + 2, stop)]
    is_marked = following[:1] in ':|]),>\t}"' or following in ("  ", " :")
    if len(word) == 1:
        # Initials are ordinary words too: they count in brackets, or after a number such as a thread's.
        in_brackets = bool(opening) and is_marked
        in_header = has_time and (bool(_DIGIT.search(skipped)) or _AFTER_LETTER.match(text, end) is not None)
        accepted = word == name and (in_brackets or in_header or following[:1] == "/")
    elif following[:1] == "/" and word != name:
        accepted = False  # a path
    elif word == name and len(word) > 2:
        accepted = is_marked or has_time or name not in _ORDINARY
    elif is_marked:
        accepted = len(word) > 2
    else:
        accepted = has_time and not skipped and not opening and len(word) > 2 and name not in _ORDINARY
    return (level, end) if accepted else None


def of_redis(text: str, end: int) -> str | None:
    """Return the level of the mark after a timestamp of Redis, or None."""
    return _REDIS.get(text[end + 1 : end + 2]) if text[end : end + 1] == " " else None
