"""Types of settings that several programs have, and how a function becomes a check of one."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, Field

Port = Annotated[int, Field(ge=0, le=65_535)]


def checked_by(check: Callable[[Any], object]) -> AfterValidator:
    """Validate a setting with a function that raises ``ValueError``; what it returns does not count."""

    def validate(value: Any) -> Any:
        check(value)
        return value

    return AfterValidator(validate)
