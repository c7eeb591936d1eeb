"""Private keys in text, of which every line may be a line of the log."""

import re
from typing import Final

SUSPECT: Final = rb"PRIVATE KEY"
"""Expression for the first line of a private key."""

PRIVATE_KEY: Final = (
    rb"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?"
    rb"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)"
)
KEY_BEGIN: Final = "-----BEGIN PRIVATE KEY-----\n"
"""Prefix that makes the redactor treat a text as the inside of a private key."""


def opens_key(text: str) -> bool:
    """Return whether a text ends within a private key."""
    start = text.rfind("-----BEGIN ")
    return start >= 0 and "PRIVATE KEY" in text[start:] and "-----END " not in text[start:]


def is_in_key(text: str) -> bool:
    """Return whether a line can be part of a private key that started in an earlier line."""
    bare = text.strip(" \t|>\"'+,-\\)")
    if "-----END " in text or text.startswith(("Proc-Type:", "DEK-Info:", "Version:", "Comment:")):
        return True
    return (
        bare.replace("+", "").replace("/", "").replace("=", "").replace("\\n", "").isalnum()
        and bare.isascii()
    )


class PrefixedKeyLines:
    """Lines of a private key that each have a prefix, as in the logs of containers and of syslog.

    A line belongs to the key if it has the prefix of the key's first line, in which numbers may differ, and
    then nothing but Base64 and what ends the line, such as the rest of a JSON object. Lines of other writers
    may come between them.
    """

    def __init__(self) -> None:
        self._line: re.Pattern[str] | None = None  # of the latest key, which a reset opens again
        self._is_open = False
        self._others = 0

    @property
    def is_open(self) -> bool:
        """Whether a key has begun and not ended."""
        return self._is_open

    def reset(self) -> None:
        """Open the latest key again, because its lines may follow."""
        self._is_open = self._line is not None
        self._others = 0

    def redact(self, text: str) -> str:
        """Redact the next line if it is part of a key, except for the first line of a key."""
        if opens_key(text):
            prefix, _, rest = text.partition("-----BEGIN ")
            if prefix.strip() or _SUFFIX.search(rest):
                self._line = re.compile(_expression(prefix[-_MAX_PREFIX:]))
                self._is_open = True
                self._others = 0
            return text
        if not self._is_open or self._line is None:
            return text
        match = self._line.match(text)
        if match is None:
            self._others += 1
            self._is_open = self._others <= _MAX_OTHERS
            return text
        if "-----END " in match[2]:
            self._is_open = False
        return f"{match[1]}{_PLACEHOLDER}{text[match.end() :]}"


_MAX_PREFIX: Final = 256
"""Characters of a prefix that are compared."""

_MAX_OTHERS: Final = 50
"""Lines of other writers after which a key without an end is given up."""

_PLACEHOLDER: Final = "[redacted:private_key]"
_SUFFIX: Final = re.compile(r"KEY(?: BLOCK)?-----\S")
_DIGITS: Final = re.compile(r"[0-9]+")


def _expression(prefix: str) -> str:
    numbers = r"[0-9]+".join(re.escape(part) for part in _DIGITS.split(prefix))
    # Containers mark complete lines with F and parts of lines with P.
    numbers = re.sub(r"(std(?:out|err)\\ )[PF](?=\\ )", r"\1[PF]", numbers)
    before = r".*?" if len(prefix) == _MAX_PREFIX else ""
    return (
        rf"({before}{numbers})((?:[A-Za-z0-9+/]{{4}})*[A-Za-z0-9+/]{{2,4}}={{0,2}}"
        r"|-----END [^\"\\]*-----|(?:Proc-Type|DEK-Info): [^\"\\]*)(?=\s*(?:\\[nr]|[\"',}\]]|$))"
    )
