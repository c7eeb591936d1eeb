"""Checks and edits of JSON text for which its parsed value is not enough: duplicate keys, depth, replacement.

Every function expects text that a strict parser has accepted. All run in time linear in the length of any
text, because a hostile producer can choose it, and cost next to nothing for common events.
"""

import json
import re
from typing import Any, Final

import orjson

# A string, with the colon that makes it a key, or a bracket: enough to track the position in the text. A
# string without an end is one up to the end of the text, or each of its quotes would be tried as the start.
_TOKEN: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z))([ \t\r\n]*:)?|[{\[]|[}\]]', re.DOTALL)


def find_duplicate_key(text: bytes, value: Any) -> str | None:
    """Return a key that occurs twice in an object, at any depth; None if there is none.

    Args:
        text: JSON text; check ``is_deeper`` first, since ``json`` raises on deep nesting.
        value: value parsed from the text, in which one pair of each duplicate is lost.
    """
    serialized = orjson.dumps(value)
    # Fast checks before the exact one: most producers write what this writes, and every pair has one colon
    # outside of strings, so the serialized value has as many colons as the text, unless a pair was lost. An
    # escaped colon would distort the count.
    if serialized == text or (text.count(b":") == serialized.count(b":") and b"\\u" not in text):
        return None
    # The exact check costs ten times the parse, so only texts that fail the fast one reach it.
    duplicates: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                duplicates.append(key)
            seen.add(key)

    json.loads(text, object_pairs_hook=check)
    return duplicates[0] if duplicates else None


def is_deeper(text: bytes, limit: int) -> bool:
    """Return whether objects and arrays are nested more than ``limit`` deep."""
    # Counting is cheap, and most events have fewer brackets than the limit.
    if text.count(b"{") + text.count(b"[") <= limit:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        first_byte = text[token.start()]
        if first_byte in b"{[":
            depth += 1
            if depth > limit:
                return True
        elif first_byte in b"}]":
            depth -= 1
    return False


def replace_string(text: bytes, key: str, value: str) -> bytes:
    """Replace the string under ``key`` in the outermost object, and leave all other bytes unchanged.

    Args:
        text: a JSON object that has the key exactly once, with a string as its value.
        key: unescaped key; the text may escape it.
        value: new string.
    """
    depth = 0
    current_key = None
    for token in _TOKEN.finditer(text):
        first_byte = text[token.start()]
        if first_byte in b"{[":
            depth += 1
        elif first_byte in b"}]":
            depth -= 1
        # In the outermost object, a string with a colon is a key, and the next string its value.
        elif depth == 1 and token[2]:
            current_key = orjson.loads(token[1])
        elif depth == 1 and current_key == key:
            return text[: token.start(1)] + orjson.dumps(value) + text[token.end(1) :]
    raise KeyError(key)
