"""Silences: what may be a reason."""

import pytest
from tickertape.contracts.silences import MAX_SILENCE_TEXT, find_reason_error


@pytest.mark.parametrize("reason", ["", "moving racks", "交易所测试", "x" * MAX_SILENCE_TEXT])
def test_printable_reasons_are_accepted(reason: str) -> None:
    """A reason may be any text of one line."""
    assert find_reason_error(reason) is None


@pytest.mark.parametrize(
    "character", ["\n", "\r", "\t", "\0", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\ud800"]
)
def test_other_reasons_are_rejected(character: str) -> None:
    """Line breaks, control codes, invisible characters and lone surrogates are named in the error."""
    assert ascii(character) in (find_reason_error(f"a{character}b") or "")


def test_a_reason_is_bounded() -> None:
    """A longer reason is rejected instead of shortened."""
    assert "501 characters; use at most 500" in (find_reason_error("x" * 501) or "")
