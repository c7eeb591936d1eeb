"""Names that operators write: suggestions for unknown ones, and variables that are meant for no setting."""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Final

from tickertape.config.model import AMBIGUOUS, COMMANDS, Settings, iter_settings
from tickertape.validation import ENV_PREFIX, is_setting

_SERVICE_LINK: Final = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Variables that Kubernetes sets for a Service whose name begins with ``tickertape``."""

_LINK_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://\S+:\d+", re.IGNORECASE)
"""Value of the variable ``…_PORT`` of a Service, whose name may be that of a setting."""

_OTHER: Final = frozenset({"GATEWAY_ID", "GATEWAY_TYPE", "ATTEMPT", "LOGS"})
"""Variables of recovery commands, which may call Tickertape, and of ``compose.yaml``."""


def closest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like a name, or None."""
    plain = {other.replace("-", "_").lower(): other for other in known}
    name = name.replace("-", "_").lower()
    # Swapped letters are the most common mistake, of which difflib has no notion.
    swapped = (other for other in plain if sorted(other) == sorted(name))
    found = next(swapped, None) or next(iter(get_close_matches(name, plain, 1, cutoff)), None)
    return None if found is None else plain[found]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the known name that is most like it, if any."""
    match = closest(name, known)
    return "" if match is None else f"; did you mean {match}?"


def names_of(model: type[Settings]) -> set[str]:
    """Return all names under which the settings of a model can be set by variables and credentials."""
    return {key for setting in iter_settings(model) for key in setting.keys}


def is_service_link(variable: str, value: str) -> bool:
    """Return whether a variable is one that Kubernetes sets in each container for a Service."""
    name = variable.upper()
    return _SERVICE_LINK.fullmatch(name) is not None or (
        name.endswith("PORT") and _LINK_ADDRESS.fullmatch(value) is not None
    )


def ambiguity(name: str, prefix: str = "") -> str | None:
    """Return how to write a name that is ambiguous among commands; None if it is not."""
    commands = AMBIGUOUS.get(name, ())
    if not commands:
        return None
    if prefix:
        forms = [f"{prefix}{command}_{name}".upper() for command in commands]
    else:
        forms = [f"{name} in [{command}]" for command in commands]
    return f"means different things to {_join(commands, 'and')}; use {_join(forms, 'or')}"


def find_unknown_variable(
    environment: Mapping[str, str], known: Collection[str], *, resembling: bool = False
) -> str | None:
    """Find an environment variable that is meant for a setting but does not exist.

    Ignoring it could drop a restriction, such as the audience of tokens.

    Args:
        environment: all environment variables.
        known: names of the settings.
        resembling: whether to find only names that resemble a setting.

    Returns:
        an error that names the variable and the closest setting, or None.
    """
    for variable, value in sorted(environment.items()):
        name = variable.upper().removeprefix(ENV_PREFIX)
        if not is_setting(variable):
            if (setting := _setting_with_misspelt_prefix(name, known)) is not None:
                return (
                    f"environment variable {variable} is not a setting, but resembles {ENV_PREFIX}{setting}"
                )
            continue
        if name.lower() in known or name in _OTHER or is_service_link(name, value):
            continue
        if (problem := ambiguity(name.lower(), ENV_PREFIX)) is not None:
            return f"environment variable {variable} {problem}"
        # Not lower if variables of other programs may be among them: LEVEL is like LOG_LEVEL, to 0.71.
        cutoff = 0.8 if resembling else 0.6
        match = closest(name.removeprefix(ENV_PREFIX.rstrip("_")).strip("_-"), known, cutoff)
        if match is not None:
            return (
                f"environment variable {variable} is not a setting, but resembles {ENV_PREFIX}{match.upper()}"
            )
        if not resembling:
            return f"environment variable {variable} is not a setting"
    return None


def find_unknown_table(table: str, keys: Collection[str], known: Collection[str]) -> str | None:
    """Return an error if a table of a configuration file is not one of a command; None if it is.

    Args:
        table: name of the table.
        keys: keys in it.
        known: names of the settings.
    """
    if table in COMMANDS:
        return None
    flat = [f"{table}_{key}" for key in keys if f"{table}_{key}" in known]
    if flat:
        return f"no command is called {table}; write {flat[0]} before the first table"
    return f"no command is called {table}{did_you_mean(table, COMMANDS)}"


def _setting_with_misspelt_prefix(name: str, known: Collection[str]) -> str | None:
    """Return the setting that a variable of another prefix is meant for, or None."""
    found = (
        setting
        for setting in map(str.upper, known)
        if name.endswith(setting)
        and setting != "PORT"
        and get_close_matches(name.removesuffix(setting), [ENV_PREFIX], 1, 0.85)
    )
    return max(found, key=len, default=None)


def _join(words: Collection[str], conjunction: str) -> str:
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last
