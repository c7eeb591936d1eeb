"""Helpers that make untrusted text safe for one line of a log, a terminal, a header or a close reason."""

import re
from typing import Final

MIB: Final = 1024 * 1024

_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0d\uffa0\U000e0000-\U000e0fff]"
)
"""Characters that count as printable but show nothing, so that two texts which differ look the same.

The variation selectors U+FE0E and U+FE0F are not among them: they are part of common emoji.
"""


def printable(text: str) -> str:
    """Escape unprintable characters, such as line breaks, terminal control codes and lone surrogates.

    Direction overrides, invisible characters, private-use characters and unassigned ones are escaped as well,
    because with them a terminal shows something other than what the text contains.
    """
    if is_printable(text):
        return text
    return "".join(character if is_printable(character) else ascii(character)[1:-1] for character in text)


def escape_surrogates(text: str) -> str:
    """Escape lone surrogates, as in undecodable file names, which JSON and UTF-8 cannot contain."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable_lines(text: str) -> str:
    """Escape unprintable characters of a text except for its line feeds."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(document: str) -> str:
    r"""Escape unprintable characters in a JSON document as ``\uXXXX``; its value stays the same.

    Args:
        document: one valid JSON document; line feeds between its tokens are kept.
    """
    if is_printable(document):
        return document
    return "".join(
        character if character == "\n" or is_printable(character) else escape_json(character)
        for character in document
    )


def is_printable(text: str) -> bool:
    """Return whether a terminal shows every character of a text, and nothing but these characters."""
    return text.isprintable() and (text.isascii() or not _INVISIBLE.search(text))


def join_lines(text: str) -> str:
    """Join the lines of a text with spaces."""
    return " ".join(text.splitlines())


def count(number: int, noun: str) -> str:
    """Return a number and a noun, with ``s`` unless the number is 1."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def mib(size: int, digits: int = 0) -> str:
    """Return a number of bytes as MiB, with a number of decimal places."""
    return f"{size / MIB:,.{digits}f} MiB"


def truncate(text: str, max_bytes: int) -> str:
    """Truncate a text to ``max_bytes`` of UTF-8 without splitting a character."""
    return text.encode()[:max_bytes].decode(errors="ignore")


def escape_json(character: str) -> str:
    """Return the escape of a character in JSON."""
    # Characters beyond U+FFFF become two escapes, a surrogate pair.
    return re.sub("(....)", r"\\u\1", character.encode("utf-16-be", "surrogatepass").hex())
