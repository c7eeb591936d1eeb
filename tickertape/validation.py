"""Field types shared by settings and events, and the text of validation errors."""

from collections.abc import Callable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

ENV_PREFIX: Final = "TICKERTAPE_"
"""Prefix of the environment variables of all settings."""

Port = Annotated[int, Field(ge=0, le=65_535)]


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Validate a field with a function that raises ``ValueError``; its return value is ignored."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)


def _reject_empty(value: Any) -> Any:
    if value == "":
        raise ValueError("empty, which would drop a restriction; give a value, or do not set it")
    return value


NOT_EMPTY: Final = BeforeValidator(_reject_empty)
"""Validator of optional restrictions: an unset shell variable must not count as none."""


def describe_first_error(error: ValidationError) -> str:
    """Describe the first validation error in one line: the field and the reason, without the input."""
    # The input may be a secret.
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def is_setting(variable: str) -> bool:
    """Return whether an environment variable is meant for Tickertape, misspelt or not."""
    return variable.upper().startswith(ENV_PREFIX.rstrip("_"))
