"""Checks of settings."""

from typing import Annotated

import pytest
from pydantic import TypeAdapter, ValidationError

from tickertape.validation import Port, checked_by


def test_a_function_becomes_a_check() -> None:
    """The value stays as it was given; the error's text is the function's."""
    number = TypeAdapter(Annotated[str, checked_by(int)])
    assert number.validate_python(" 7") == " 7"
    with pytest.raises(ValidationError, match="invalid literal for int"):
        number.validate_python("x")


@pytest.mark.parametrize(("port", "good"), [(0, True), (65_535, True), (-1, False), (65_536, False)])
def test_ports(port: int, good: bool) -> None:
    """0 is one that the system chooses."""
    adapter = TypeAdapter[int](Port)
    if good:
        assert adapter.validate_python(port) == port
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(port)
