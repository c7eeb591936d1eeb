"""Pairs of a name and a value, such as ``password=...`` and ``"token": "..."``.

Invariants:

1. Of several pairs without a space between them each is examined, as in the body of a form or a connection
   string.
2. Time is linear in the size of the text.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from tickertape.producers.shipper.redaction import patterns
from tickertape.producers.shipper.redaction.expressions import REDACTED, compile_bytes
from tickertape.producers.shipper.redaction.names import is_filter, is_secret, is_unlike_a_word, kind_of

Placeholder = Callable[[str], bytes]
"""Function that counts a secret of a kind and returns its replacement."""

Secret = tuple[str, int, int]
"""Kind of a secret, and where it begins and ends in the text."""

MAX_RESTARTS: Final = 10
"""Searches of a text that begin within an earlier match, each of which can cost as much as the first."""

_OPENING: Final = re.compile(rb"[bBuUrR]?\\*[\"']")
_BRACKET: Final = re.compile(rb"\w*[\[{(]")
# End of an unquoted value: a quote, or a separator before the next pair.
_VALUE_END: Final = re.compile(
    rb"\"|%22|'(?![A-Za-z0-9])|[,;&|](?=\\*[\"']?[A-Za-z_][\w.-]*\\*[\"']?(?:[=:]|%3[aAdD]))"
)
_UNEXPECTED: Final = re.compile(rb"(?:unexpected|near|illegal|stray) [\w'\"]{0,12}\Z", re.IGNORECASE)
_NAME_OF: Final = re.compile(rb"\b(?:arn|urn):[^\s\"']*\Z")
"""Start of a name of a resource, in which 'secret' is a type."""

_RESULT: Final = re.compile(rb"[0-9.,/]+(?:ms|s|us|ns|m|h|%)?|tests?[_./].*|.*\.(?:py|js|ts|go|rs)")
_SEPARATOR: Final = re.compile(rb"[,;&|]")
_QUOTED: Final = re.compile(rb"[=:][ \t]*\\*[\"']")
_PAIR: Final = compile_bytes(patterns.PAIR)


def replace(text: bytes, placeholder: Placeholder) -> bytes:
    """Replace the values of pairs whose name denotes a secret."""
    parts = []
    position = 0
    for kind, start, end in _find(text):
        # A bracket before the value can be that of a placeholder.
        if start >= position and not REDACTED.match(text, max(0, start - 1)):
            parts += [text[position:start], placeholder(kind)]
            position = end
    return b"".join((*parts, text[position:])) if parts else text


def _find(text: bytes) -> Iterator[Secret]:
    position = restarts = 0
    while (match := _PAIR.search(text, position)) is not None:
        if (found := _pair(match)) is not None:
            yield found
        position = match.end()
        # A value without quotes ends at the next space, so that it can contain further pairs.
        value_start, value_end = match.span(2)
        value = text[value_start:value_end]
        stop = _VALUE_END.search(value) if not _OPENING.match(value) and not _BRACKET.match(value) else None
        if stop is None:
            continue
        rest = value_start + stop.start()
        marks = [mark.start() for mark in _SEPARATOR.finditer(text, rest, position)]
        for start, end in zip([rest, *marks], [*marks, position], strict=True):
            # A quoted value can extend beyond this match.
            if restarts < MAX_RESTARTS and _QUOTED.search(text, start, end):
                restarts += 1
                position = start
                break
            for inner in _PAIR.finditer(text, start, end):
                if (found := _pair(inner)) is not None:
                    yield found


def _pair(match: Any) -> Secret | None:
    # A slice costs a third of a group.
    text = match.string
    head_start, head_end = match.span(1)
    start, end = match.span(2)
    head, value = text[head_start:head_end], text[start:end]
    opening = _OPENING.match(value)
    # A pair such as a header and its value; in JSON, the text after a comma can also be the next key.
    if head.rstrip().endswith(b",") and (opening is None or text[end : end + 2].lstrip()[:1] == b":"):
        return None
    if opening is not None:
        quote = opening[0].lstrip(b"bBuUrR")
        start = min(start + len(opening[0]), end)
        secret = value[len(opening[0]) :]
        if secret.endswith(quote):
            secret = secret[: -len(quote)]
    else:
        secret = value
        if _BRACKET.match(value) is None:
            stop = _VALUE_END.search(value)
            secret = value[: stop.start()] if stop is not None else value
            secret = secret.rstrip(b",;.)]}>\\'`")
    kind = kind_of(head)
    if (
        REDACTED.fullmatch(secret.rstrip(b",;."))
        or b"[redacted:" in secret[1:]
        or not is_secret(secret, kind, head)
    ):
        return None
    begin = match.start()
    before = text[max(0, begin - 100) : begin]
    if is_filter(before, head) or (kind == "token" and _UNEXPECTED.search(before)) or _NAME_OF.search(before):
        return None
    # '/etc/passwd: not found' is about a file, and 'pass: 12' about a test.
    name = head.lower()
    if name.startswith(b"passwd") and before.endswith(b"/"):
        return None
    if name.startswith(b"pass:") and not (is_unlike_a_word(secret) and not _RESULT.fullmatch(secret)):
        return None
    return kind, start, start + len(secret)
