"""Validators of settings."""

from typing import Annotated

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from tickertape.validation import Port, checked_by, describe_first_error


def test_a_function_becomes_a_check() -> None:
    """The validator keeps the value unchanged and reports the function's error."""
    number = TypeAdapter(Annotated[str, checked_by(int)])
    assert number.validate_python(" 7") == " 7"
    with pytest.raises(ValidationError, match="invalid literal for int"):
        number.validate_python("x")


@pytest.mark.parametrize(("port", "good"), [(0, True), (65_535, True), (-1, False), (65_536, False)])
def test_ports(port: int, good: bool) -> None:
    """Port 0 lets the system choose."""
    adapter = TypeAdapter[int](Port)
    if good:
        assert adapter.validate_python(port) == port
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(port)


def test_a_fault_names_its_field() -> None:
    """The error names the field by its path and does not show the input."""

    class Inner(BaseModel):
        ports: list[int]

    class Outer(BaseModel):
        inner: Inner

    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"inner": {"ports": [1, "hunter2"]}})
    assert describe_first_error(caught.value).startswith("inner.ports.1: Input should be a valid integer")
    assert "hunter2" not in describe_first_error(caught.value)
