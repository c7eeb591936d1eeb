"""Tokens of conditions: CEL as the specification defines it, without bytes and unsigned integers."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from tickertape.errors import TickertapeError

_TOKEN: Final = re.compile(
    r"""
      (?P<space> [ \t\n\f\r]+ | //[^\n]* )
    | (?P<double> (?: \d+\.\d+ | \.\d+ ) (?:[eE][+-]?\d+)? | \d+[eE][+-]?\d+ )
    | (?P<int> 0x[0-9a-fA-F]+ | \d+ )
    | (?P<raw> [rR] (?: \"{3} .*? \"{3} | '{3} .*? '{3} | "[^"\r\n]*" | '[^'\r\n]*' ) )
    | (?P<string> \"{3} (?:[^\\]|\\.)*? \"{3} | '{3} (?:[^\\]|\\.)*? '{3}
                | "(?:[^"\\\r\n]|\\.)*" | '(?:[^'\\\r\n]|\\.)*' )
    | (?P<name> [A-Za-z_]\w* )
    | (?P<operator> && | \|\| | [=!<>]= | [<>!?:.,()\[\]{}+\-*/%] )
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)

_ESCAPE: Final = re.compile(
    r"""\\ (?: [xX]([0-9a-fA-F]{2}) | u([0-9a-fA-F]{4}) | U([0-9a-fA-F]{8}) | ([0-3][0-7]{2}) | (.) )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_SIMPLE_ESCAPES: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", "?": "?", '"': '"', "'": "'", "`": "`",
}  # fmt: skip

END: Final = "end"
"""Kind of the token after the last one."""


class WhereError(TickertapeError):
    """Error in a condition.

    Args:
        problem: what is wrong, and what is valid.
        position: number of the character at which it is found, from 1.
    """

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(problem, position)
        self.problem = problem
        self.position = position

    def __str__(self) -> str:
        return f"{self.problem}, at position {self.position}"


class Token(NamedTuple):
    """Token of a condition.

    Attributes:
        kind: ``int``, ``double``, ``string``, ``name``, ``operator`` or ``end``.
        value: text of a name or an operator; decoded text of a string; text of a number.
        position: number of its first character, from 1.
    """

    kind: str
    value: str
    position: int

    def __str__(self) -> str:
        return "the end" if self.kind == END else repr(self.value[:40])


def tokenize(source: str) -> Iterator[Token]:
    """Return the tokens of a condition one by one, the last of which is ``END``.

    Raises:
        WhereError: a character or a string is not valid.
    """
    index = 0
    while index < len(source):
        match = _TOKEN.match(source, index)
        if match is None or match.lastgroup is None:
            if source[index] in "\"'":
                raise WhereError("the string is not terminated", index + 1)
            raise WhereError(f"unexpected character {source[index]!a}", index + 1)
        kind, text, position = match.lastgroup, match[0], index + 1
        index = match.end()
        if kind in ("int", "double"):
            if source[index : index + 1] in ("u", "U"):
                raise WhereError("unsigned integers are not supported; omit the 'u'", index + 1)
            if re.match(r"\w", source[index : index + 1], re.ASCII):
                raise WhereError(f"the number {text[:40]} is followed by {source[index]!a}", index + 1)
        elif kind == "raw":
            kind, text = "string", _unquote(text[1:])
        elif kind == "string":
            text = _unescape(_unquote(text), position)
        elif kind == "name" and text in ("b", "B", "rb", "br") and source[index : index + 1] in ('"', "'"):
            raise WhereError("bytes are not supported; use a string", position)
        if kind != "space":
            yield Token(kind, text, position)
    yield Token(END, "", len(source) + 1)


def _unquote(text: str) -> str:
    quotes = 3 if text[:3] in ('"""', "'''") and len(text) >= 6 else 1
    return text[quotes:-quotes]


def _unescape(text: str, position: int) -> str:
    def replace(escape: re.Match[str]) -> str:
        *digits, simple = escape.groups()
        if simple is not None:
            if simple not in _SIMPLE_ESCAPES:
                raise WhereError(f"the string has an unknown escape \\{simple!a}", position)
            return _SIMPLE_ESCAPES[simple]
        octal = digits.pop()
        code = int(octal, 8) if octal else int("".join(filter(None, digits)), 16)
        if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
            raise WhereError(f"the string has an escape of no character, {escape[0]}", position)
        return chr(code)

    return _ESCAPE.sub(replace, text) if "\\" in text else text
