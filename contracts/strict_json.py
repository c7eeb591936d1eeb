"""What a JSON text tells and its parsed value does not: keys that came twice, depth, where a value stands.

Every function takes a text that a strict parser has accepted. All run in time linear in the text, since a
hostile producer chooses it, and cost next to nothing for the events that are common.
"""

import json
import re
from typing import Any, Final

import orjson

# A string, with the colon that makes it a key, or a bracket: all that tells where in the text one is.
_TOKEN: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")([ \t\r\n]*:)?|[{\[]|[}\]]')


def duplicate_key(text: bytes, value: Any) -> str | None:
    """Return a key that stands twice in one object, at any depth; None when there is none.

    Args:
        text: not nested so deep that ``json`` gives up; ask ``is_deeper`` first.
        value: what a parser made of it, of which it kept one of the two.
    """
    # Every pair has one colon outside of strings: the value written anew has as many, unless a pair was
    # dropped. An escaped colon would upset the count, hence the second test. The exact answer costs more.
    if text.count(b":") == orjson.dumps(value).count(b":") and b"\\u" not in text:
        return None
    found: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                found.append(key)
            seen.add(key)

    json.loads(text, object_pairs_hook=check)
    return found[0] if found else None


def is_deeper(text: bytes, limit: int) -> bool:
    """Tell whether more than ``limit`` objects and arrays lie within each other."""
    # Counting is cheap, and most events have far fewer brackets than may lie within each other.
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif mark in b"}]":
            depth -= 1
    return False


def replace_string(text: bytes, key: str, wanted: str) -> bytes:
    """Replace the string that the outermost object has under ``key``; all other bytes stay.

    Args:
        text: an object that has the key, once, with a string as its value.
        key: the unescaped key; the text may write it with escapes.
        wanted: the new value.
    """
    depth = 0
    current = None
    for token in _TOKEN.finditer(text):
        mark = text[token.start()]
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        elif depth == 1 and token[2]:
            current = orjson.loads(token[1])
        elif depth == 1 and current == key:
            return text[: token.start(1)] + orjson.dumps(wanted) + text[token.end(1) :]
    raise KeyError(key)
