"""Untrusted text in log lines and errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.text import count, join_lines, printable, truncate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("行情 up — 'ok'", "行情 up — 'ok'"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eleft", r"\u202eleft"),
        ("half \ud800", r"half \ud800"),
    ],
)
def test_what_cannot_be_printed_is_escaped(text: str, expected: str) -> None:
    """Unprintable characters are escaped; everything else is unchanged."""
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(0, "0 events"), (1, "1 event"), (2, "2 events"), (1_000, "1000 events")]
)
def test_a_noun_agrees_with_its_number(number: int, expected: str) -> None:
    """Only the number 1 has a singular noun."""
    assert count(number, "event") == expected


@given(st.text(st.characters()))
def test_no_output_controls_a_terminal(text: str) -> None:
    """No output can control a terminal."""
    assert printable(text).isprintable()
    printable(text).encode()  # it has no lone surrogate


def test_lines_are_joined() -> None:
    """Every kind of line break is joined."""
    assert join_lines("a\nb\r\nc\u2028d") == "a b c d"
    assert join_lines("") == ""


@pytest.mark.parametrize(
    ("text", "size", "expected"), [("abc", 5, "abc"), ("abc", 2, "ab"), ("情情", 5, "情"), ("情", 2, "")]
)
def test_a_text_is_cut_between_characters(text: str, size: int, expected: str) -> None:
    """Text is truncated between characters, to a size in bytes."""
    assert truncate(text, size) == expected
