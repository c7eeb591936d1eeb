"""Untrusted text in log lines, errors and the output of commands."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.deceptive import INVISIBLE, MARKUP, SURROGATES, TEXT, deceptive
from tickertape.text import MIB, count, join_lines, mib, printable, printable_json, printable_lines, truncate


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("行情 up — 'ok'", "行情 up — 'ok'"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202eleft", r"\u202eleft"),
        ("half \ud800", r"half \ud800"),
        ("a\u200bb\u3164", r"a\u200bb\u3164"),
        ("disk ⚠\ufe0f", "disk ⚠\ufe0f"),
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


def test_every_deceptive_character_is_escaped() -> None:
    """Control, format, private-use and invisible characters are escaped, one by one; markup is kept."""
    for character in TEXT.removesuffix(f"{MARKUP}行情") + INVISIBLE + SURROGATES:
        if ord(character) not in (0x1B, *range(0x20, 0x7F)):
            assert deceptive(printable(character)) == set()
            assert printable(character) == ascii(character)[1:-1]
    assert printable(TEXT).endswith(f"{MARKUP}行情")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_keeps_its_value(text: str) -> None:
    """A JSON document without deceptive characters has the same value, with and without indentation."""
    for indent in (None, 2):
        document = json.dumps({text: [text, TEXT]}, ensure_ascii=False, indent=indent)
        assert json.loads(printable_json(document)) == {text: [text, TEXT]}
        assert deceptive(printable_json(document)) == set()


def test_the_line_feeds_of_a_text_are_kept() -> None:
    """Only the line feeds of a text of several lines are kept."""
    assert printable_lines("a\n\x1bb\r\n") == "a\n\\x1bb\\r\n"


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


@pytest.mark.parametrize(
    ("size", "digits", "text"),
    [(0, 0, "0 MiB"), (1536 * MIB, 0, "1,536 MiB"), (MIB // 2, 1, "0.5 MiB"), (5, 1, "0.0 MiB")],
)
def test_bytes_are_written_as_mebibytes(size: int, digits: int, text: str) -> None:
    """Sizes are rounded, with as many decimal places as the caller chooses."""
    assert mib(size, digits) == text
