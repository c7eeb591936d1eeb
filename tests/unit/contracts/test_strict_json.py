"""Checks of JSON texts that a parsed value does not allow, compared with slow and simple oracles."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.strict_json import find_duplicate_key, is_deeper, replace_string

# Few keys make repeats common; colons and escapes challenge the quick check.
_words = st.sampled_from(["a", "b", ":", "a:b", "\\", '"', "::", "u003a", "\\u003a", "é", ""])
_numbers = st.integers(-5, 5)


def _written(word: str, escaped: bool) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" for c in word) + '"' if escaped else json.dumps(word)


_strings = st.builds(_written, _words, st.booleans())


def _objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(_strings, values), max_size=4)
    return pairs.map(lambda found: "{" + ",".join(f"{key}:{value}" for key, value in found) + "}")


_texts = st.recursive(
    st.one_of(_strings, _numbers.map(str), st.just("null")),
    lambda values: st.one_of(
        _objects(values), st.lists(values, max_size=3).map(lambda v: "[" + ",".join(v) + "]")
    ),
    max_leaves=12,
)


def _has_duplicate(text: str) -> bool:
    found = []

    def check_pairs(pairs: list[tuple[str, Any]]) -> None:
        found.append(len({key for key, _ in pairs}) < len(pairs))

    json.loads(text, object_pairs_hook=check_pairs)
    return any(found)


@given(_objects(_texts))
def test_every_duplicate_is_found(text: str) -> None:
    """The quick and the exact check agree with a comparison of all keys."""
    payload = text.encode()
    assert (find_duplicate_key(payload, orjson.loads(payload)) is not None) == _has_duplicate(text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"m":{"x":[{"a":1,"b":2,"a":1}]}}', "a"),
        (b'{"a":1,"\\u0061":2}', "a"),
        (b'{"a":":","a":1}', "a"),
        (b'{"a:":1,"a:":":"}', "a:"),
        (b'{"a":{"b":1,"b":2},"a":1}', "b"),
        (b'{"a":1,"b":"\\u003a"}', None),
        (b'{"a":1,"b":"\\\\u003a"}', None),
        (b'{"a":1,"b":{"a":1}}', None),
        (b'[1,":"]', None),
        (b'":"', None),
        (b"1", None),
    ],
)
def test_the_duplicate_key_is_reported(text: bytes, key: str | None) -> None:
    """The reported key is the repeated one of the first object to close."""
    assert find_duplicate_key(text, orjson.loads(text)) == key


def _depth(value: Any) -> int:
    children = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if children is None else 1 + max(map(_depth, children), default=0)


@given(_texts, st.integers(0, 6))
def test_depth_is_counted(text: str, limit: int) -> None:
    """A text is deeper than the limit exactly when its value is, whatever its strings contain."""
    value = json.loads(text, object_pairs_hook=lambda pairs: [value for _, value in pairs])
    assert is_deeper(text.encode(), limit) == (_depth(value) > limit)


def test_brackets_in_strings_have_no_depth() -> None:
    """Only nested brackets of the JSON count, not those in strings."""
    assert not is_deeper(b'["[[[[", "\\"[[["]', 1)
    assert not is_deeper(b"[[],[],[],[]]", 2)
    assert is_deeper(b"[[],[[]]]", 2)


@given(_objects(_texts), st.integers(0, 3), _words)
def test_one_string_is_replaced(text: str, blanks: int, expected: str) -> None:
    """Only the value of the outermost key changes, and all bytes around it are kept."""
    before = text[:-1] + ("," if len(text) > 2 else "") + '"\\u006bey"' + " " * blanks + ":" + " " * blanks
    after = ' , "z":"key"}'
    changed = replace_string(f'{before}"old"{after}'.encode(), "key", expected)
    assert changed == before.encode() + orjson.dumps(expected) + after.encode()


def test_a_missing_key_is_an_error() -> None:
    """Keys of nested objects are not replaced."""
    with pytest.raises(KeyError):
        replace_string(b'{"m":{"level":"x"},"n":["level"],"s":"level"}', "level", "y")
