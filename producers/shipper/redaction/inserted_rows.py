"""Rows of SQL's INSERT: the name of a secret is in the list of columns, and the secret in that of values.

Invariant: time is linear in the size of the text.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

from tickertape.producers.shipper.redaction.expressions import REDACTED, compile_bytes
from tickertape.producers.shipper.redaction.names import WORDS, is_secret, kind_of_key

MAX_COLUMNS: Final = 200
"""Columns that are examined."""

TRIGGER: Final = rb"(?i:\b(?:insert|replace)(?:[ \t]|\\t)+into[^\n;]*%s)" % WORDS
"""Expression for a line that may have such a row."""

_INSERT: Final = compile_bytes(
    rb"(?i)\b(?:insert|replace)[ \t]+(?:ignore[ \t]+)?into[ \t]+[^\s(]{1,200}[ \t]*\(([^()]+)\)\s*values?\s*"
)
_ROW: Final = re.compile(rb"\s*,?\s*\(")
_VALUE: Final = re.compile(
    rb"\s*(N?'(?:[^'\\]|\\.|''){0,4096}'|\"(?:[^\"\\]|\\.){0,4096}\"|[^,()'\"]{0,4096})\s*([,)]?)", re.DOTALL
)


def replace(text: bytes, placeholder: Callable[[str], bytes]) -> bytes:
    """Replace the values of columns whose name denotes a secret."""
    parts = []
    position = 0
    for insert in _INSERT.finditer(text):
        names = insert.group(1).split(b",")[:MAX_COLUMNS]
        kinds = [kind_of_key(name.strip(b' \t\r\n`"[]\\').decode("utf-8", "replace")) for name in names]
        for kind, start, end in _rows(text, insert.end(), kinds) if any(kinds) else ():
            parts += [text[position:start], placeholder(kind)]
            position = end
    return b"".join((*parts, text[position:])) if parts else text


def _rows(text: bytes, at: int, kinds: list[str | None]) -> Iterator[tuple[str, int, int]]:
    """Yield the secrets of rows, with their kinds and positions."""
    while (row := _ROW.match(text, at)) is not None:
        at = row.end()
        for kind in kinds:
            value = _VALUE.match(text, at)
            assert value is not None
            at = value.end()
            quoted = value[1].rstrip()
            if kind not in (None, "card") and quoted[-1:] in (b"'", b'"') and len(quoted) > 2:
                start = value.start(1) + quoted.index(quoted[-1:]) + 1
                end = value.start(1) + len(quoted) - 1
                secret = text[start:end]
                if is_secret(secret, str(kind)) and not REDACTED.match(secret):
                    yield str(kind), start, end
            if value[2] != b",":
                break
        if text[at - 1 : at] != b")":
            return
