"""Field types shared by settings and events, and the text of validation errors."""

import re
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

ENV_PREFIX: Final = "TICKERTAPE_"
"""Prefix of the environment variables of all settings."""

_SERVICE_LINK: Final = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets for a service whose name begins with ``tickertape``."""

_OTHER: Final = frozenset({"GATEWAY_ID", "GATEWAY_TYPE", "ATTEMPT", "LOGS"})
"""Variables of recovery commands, which may call Tickertape, and of ``compose.yaml``."""

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


def find_misspelt_variable(
    variables: Iterable[str], known: Collection[str], *, resembling: bool = False
) -> str | None:
    """Find an environment variable that is meant for a setting but does not exist.

    Ignoring it could drop a restriction, such as the audience of tokens.

    Args:
        variables: names of all environment variables.
        known: names of the settings, in upper case and without the prefix.
        resembling: whether to find only names that resemble a setting.

    Returns:
        an error that names the variable and the closest setting, or None.
    """
    for variable in sorted(variables):
        name = variable.upper().removeprefix(ENV_PREFIX)
        if not is_setting(variable):
            if (setting := _setting_with_misspelt_prefix(name, known)) is not None:
                return (
                    f"environment variable {variable} is not a setting, but resembles {ENV_PREFIX}{setting}"
                )
            continue
        if name in known or name in _OTHER:
            continue
        if _SERVICE_LINK.fullmatch(name):
            continue
        # Not lower if variables of other programs may be among them: LEVEL is like LOG_LEVEL, to 0.71.
        cutoff = 0.8 if resembling else 0.6
        closest = get_close_matches(name.removeprefix(ENV_PREFIX.rstrip("_")).strip("_-"), known, 1, cutoff)
        if closest:
            return f"environment variable {variable} is not a setting, but resembles {ENV_PREFIX}{closest[0]}"
        if not resembling:
            return f"environment variable {variable} is not a setting"
    return None


def _setting_with_misspelt_prefix(name: str, known: Collection[str]) -> str | None:
    """Return the setting that a variable of another prefix is meant for, or None."""
    found = (
        setting
        for setting in known
        if name.endswith(setting)
        and not _SERVICE_LINK.fullmatch(setting)
        and get_close_matches(name.removesuffix(setting), [ENV_PREFIX], 1, 0.85)
    )
    return max(found, key=len, default=None)
