"""Durations: one format for settings, files and queries."""

import pytest

from tickertape.durations import is_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("500ms", 0.5), ("5s", 5), ("1.5h", 5400), ("30m", 1800), ("7d", 604_800)],
)
def test_a_number_with_a_unit_is_seconds(text: str, seconds: float) -> None:
    """Whole numbers and fractions are accepted with every unit."""
    assert is_duration(text)
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "s",
        "5w",
        "1e3s",
        "5 s",
        " 5s",
        "5s\n",
        "5S",
        "-5s",
        ".5s",
        "5.s",
        "1h30m",
        "٥s",
        "1" * 10 + "s",
    ],
)
def test_anything_else_is_rejected(text: str) -> None:
    """Spaces, signs, other digits, several units and overlong numbers are rejected."""
    assert not is_duration(text)
    with pytest.raises(ValueError, match="is not a duration; use a number with a unit"):
        parse_duration(text)


def test_the_error_quotes_no_more_than_a_part() -> None:
    """The error quotes a prefix only, since the input can be of any length, or not a text at all."""
    with pytest.raises(ValueError, match=r"^'9{39} is not"):
        parse_duration("9" * 1000)
    with pytest.raises(ValueError, match=r"^5 is not a duration"):
        parse_duration(5)
