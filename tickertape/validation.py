"""Field types shared by settings and events, and the text of validation errors."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field, ValidationError

Port = Annotated[int, Field(ge=0, le=65_535)]


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Validate a field with a function that raises ``ValueError``; its return value is ignored."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def describe_first_error(error: ValidationError) -> str:
    """Describe the first validation error in one line: the field and the reason, without the input."""
    # The input may be a secret.
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
