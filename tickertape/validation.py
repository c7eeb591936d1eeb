"""Checks of settings and events: types that several programs have, and what their errors say."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

Port = Annotated[int, Field(ge=0, le=65_535)]


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Validate a setting with a function that raises ``ValueError``; what it returns does not count."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def first_fault(error: ValidationError) -> str:
    """Say in one line which field is wrong, and why; what was given is left out."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
