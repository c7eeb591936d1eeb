"""Values of settings, from five sources.

Precedence, highest first: option, environment variable, credential file of systemd, configuration file,
default. A secret and the file with it (``nats_password``, ``nats_password_file``) are one setting in this
respect: the source with the highest precedence that has either counts.
"""

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, time
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from tickertape.config.config_file import SECRETS, ConfigFile, read_config
from tickertape.config.model import AMBIGUOUS, Mark, Setting, Settings, iter_settings
from tickertape.config.names import (
    ambiguity,
    closest,
    did_you_mean,
    find_unknown_table,
    find_unknown_variable,
    is_service_link,
    names_of,
)
from tickertape.errors import ConfigurationError, TickertapeError
from tickertape.process.console import print_error
from tickertape.validation import ENV_PREFIX

Kind = Literal["option", "variable", "credential", "file", "default"]

CREDENTIALS: Final = "CREDENTIALS_DIRECTORY"
"""Environment variable in which systemd names the folder of a unit's credentials."""

_COMMA: Final = re.compile(r"(?<!\\),")
_TYPE_NAMES: Final = {
    bool: "true or false", int: "an integer", float: "a number", str: "a string", list: "a list",
    dict: "a table",
}  # fmt: skip

S = TypeVar("S", bound=Settings)
Names = Callable[[], tuple[set[str], bool]]
"""Function that returns the names of the settings of all commands, and whether all could be loaded."""


class SettingsError(TickertapeError, ValueError):
    """Invalid option, variable, credential or configuration file; its text is one line."""


@dataclass(frozen=True, slots=True)
class Value:
    """Value of a setting that is not its default.

    Attributes:
        value: the value before its validation.
        kind: kind of its source.
        name: name of the option, variable or credential, or of table and key.
        file: the file that contains it.
    """

    value: Any
    kind: Kind
    name: str
    file: ConfigFile | None = None

    @property
    def origin(self) -> str:
        """Name of the option, variable or credential, or path and line of the file."""
        if self.file is not None:
            return self.file.locate(*self.name.split("."))
        return f"credential {self.name}" if self.kind == "credential" else self.name


@dataclass(frozen=True, slots=True)
class Sources:
    """Sources of the settings of a process, beside its options.

    Attributes:
        environment: environment variables.
        names: names of the settings of all commands; None knows those of the command only, and accepts other
            names unless they resemble one of them, because they may be another program's.
    """

    environment: Mapping[str, str]
    names: Names | None = None


def load(model: type[S], options: Mapping[str, Any], sources: Sources | None = None) -> S:
    """Read the settings of a command.

    Args:
        model: settings model of the command.
        options: values that were given directly, by attribute.
        sources: where other values come from; None uses the environment of the process.

    Raises:
        SettingsError: a value is invalid, or a name is unknown.
    """
    return build(model, find_values(model, options, sources or Sources(os.environ)))


def build(model: type[S], values: Mapping[str, Value]) -> S:
    """Validate values.

    Raises:
        SettingsError: a value is invalid.
    """
    try:
        return _validate(model, values)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        raise SettingsError(_describe(details, model, values)) from None


def find_invalid(model: type[Settings], values: Mapping[str, Value]) -> str | None:
    """Return an error if a single value is invalid; settings that contradict each other are accepted."""
    try:
        _validate(model, values)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            if details["loc"] and details["type"] != "missing":
                return _describe(details, model, values)
    return None


def _validate(model: type[S], values: Mapping[str, Value]) -> S:
    settings = {setting.attribute: setting for setting in iter_settings(model)}
    return model(**{settings[name].name: found.value for name, found in values.items()})


def find_values(model: type[Settings], options: Mapping[str, Any], sources: Sources) -> dict[str, Value]:
    """Find the values of all settings that are not left at their default, by attribute.

    Raises:
        SettingsError: a name is unknown, or a value has the wrong type.
    """
    settings = list(iter_settings(model))
    # Like most programs that read variables in either case, but one in upper case takes precedence.
    environment = {name.upper(): value for name, value in sorted(sources.environment.items(), reverse=True)}
    known = names_of(model)
    all_names: Collection[str] | None = None

    def every() -> tuple[Collection[str], bool]:
        nonlocal all_names
        names, complete = (known, False) if sources.names is None else sources.names()
        all_names = names | known
        return all_names, complete

    if find_unknown_variable(sources.environment, known) is not None:
        names, complete = every()
        problem = find_unknown_variable(sources.environment, names, resembling=not complete)
        if problem is not None:
            raise SettingsError(f"{problem}; rename or unset it")
    found: dict[str, Value] = {}
    given = {name: Value(value, "option", "") for name, value in options.items()}
    layers: list[Iterator[tuple[Setting, Value]]] = [
        ((setting, given[setting.attribute]) for setting in settings if setting.attribute in given),
        _variables(settings, environment),
        _credentials(settings, environment.get(CREDENTIALS, "")),
    ]
    for layer in layers:
        _add(found, layer)
    if (path := found.get("config")) is not None:
        if not str(path.value):
            raise SettingsError(f"{path.origin}: empty; give the path of a file, or do not set it")
        try:
            file = read_config(Path(path.value))
            _check_names(file, model, every)
            _add(found, _file_values(settings, file))
        except ConfigurationError as error:
            raise SettingsError(str(error)) from None
    return found


def _add(found: dict[str, Value], layer: Iterator[tuple[Setting, Value]]) -> None:
    """Add the values of a source with a lower precedence than that of the values found before."""
    taken = set(found)
    for setting, value in layer:
        name = setting.attribute
        other = name.removesuffix("_file") if name.endswith("_file") else f"{name}_file"
        if name in taken or (other in taken and min(name, other, key=len) in SECRETS):
            continue
        found[name] = replace(value, value=_normalize(setting, value), name=value.name or setting.option)


def _variables(settings: list[Setting], environment: Mapping[str, str]) -> Iterator[tuple[Setting, Value]]:
    for setting in settings:
        for key in setting.keys:
            variable = f"{ENV_PREFIX}{key.upper()}"
            value = environment.get(variable)
            if value is None:
                continue
            if is_service_link(variable, value):
                print_error(
                    f"tickertape: {variable}={value} is ignored: Kubernetes sets it for a Service. To avoid "
                    f"it, set enableServiceLinks: false; to set the port, use {setting.option}"
                )
                continue
            yield setting, Value(value, "variable", variable)
            break


def _credentials(settings: list[Setting], folder: str) -> Iterator[tuple[Setting, Value]]:
    """Yield the settings that credentials of systemd set, as the paths of these.

    A credential with the name of a secret sets the file of that secret, so that it is read like one.
    """
    try:
        present = set(os.listdir(folder)) if folder else set()
    except OSError as error:
        raise SettingsError(f"{CREDENTIALS}: {folder} cannot be read: {error.strerror}") from None
    if not present:
        return
    by_name = {setting.attribute: setting for setting in settings}
    targets = {
        key: by_name[f"{setting.attribute}_file"] if setting.secret else setting
        for setting in settings
        if setting.secret or _is_secret_file(setting)
        for key in reversed(setting.keys)
    }
    for name in sorted(present - targets.keys()):
        if (match := closest(name, targets, 0.85)) is not None:
            raise SettingsError(f"credential {name} is not a setting, but resembles {match}; rename it")
    for key, setting in targets.items():
        if key in present:
            yield setting, Value(str(Path(folder, key)), "credential", key)


def _is_secret_file(setting: Setting) -> bool:
    # Everything that is a file and not a folder; a certificate is often stored beside its key.
    return setting.type is Path and setting.name.endswith(
        ("_file", "_cert", "_key", "_ca", "_creds", "cert", "key")
    )


def _check_names(
    file: ConfigFile, model: type[Settings], every: Callable[[], tuple[Collection[str], bool]]
) -> None:
    """Check the names of a configuration file, except for those in the tables of other commands.

    Raises:
        ConfigurationError: a name is not one of a setting or command.
    """
    settings = [setting for setting in iter_settings(model) if setting.in_files]
    known = {setting.name for setting in settings if setting.name not in AMBIGUOUS}
    for table, keys in file.tables.items():
        if (problem := find_unknown_table(table, keys, known)) is not None:
            raise file.error(problem, table)
        own = {setting.name for setting in settings if setting.section == table}
        for key in keys if own else ():
            if key not in own:
                raise file.error(f"unknown setting{did_you_mean(key, own)}", table, key)
    for key, value in file.shared.items():
        if key in AMBIGUOUS or key in known:
            if (problem := ambiguity(key)) is not None:
                raise file.error(problem, key)
            if key in known:
                continue
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            raise file.error(f"has double brackets; write [{key}]", key)
        names, complete = every()
        if key == "config" or (key not in names and (complete or closest(key, names, 0.8))):
            raise file.error(f"unknown setting{did_you_mean(key, names)}", key)


def _file_values(settings: list[Setting], file: ConfigFile) -> Iterator[tuple[Setting, Value]]:
    for setting in settings:
        if not setting.in_files:
            continue
        for table, values in ((setting.section, file.tables.get(setting.section, {})), ("", file.shared)):
            if setting.name not in values or (not table and setting.name in AMBIGUOUS):
                continue
            parts = (table, setting.name) if table else (setting.name,)
            value = values[setting.name]
            if (expected := _type_error(setting, value)) is not None:
                raise file.error(expected, *parts)
            yield setting, Value(value, "file", ".".join(parts), file)
            break


def _type_error(setting: Setting, value: object) -> str | None:
    """Return an error if a value of a configuration file has the wrong type, or None."""
    expected = setting.type if setting.type in (bool, int, float) else str
    for item in value if isinstance(value, list) and setting.repeatable else [value]:
        right = type(item) is expected or (expected is float and type(item) is int)
        if not right:
            text = _TYPE_NAMES[expected] + (" or a list of strings" if setting.repeatable else "")
            kind = "a date or time" if isinstance(item, date | time) else _TYPE_NAMES[type(item)]
            return f"expected {text}, found {'a boolean' if kind.startswith('true') else kind}"
        if isinstance(item, str) and "\0" in item:
            return "contains a null character"
    return None


def _normalize(setting: Setting, found: Value) -> Any:
    """Return a value in the form of its field: a list for lists, one text for lists in a text."""
    value = found.value
    if Mark.COMMAS in setting.marks:
        return ",".join(value) if isinstance(value, list) else value
    if not setting.is_list or (found.kind == "file" and isinstance(value, list)):
        return value
    texts: list[str] = value if isinstance(value, list) else [value]
    if Mark.WHOLE in setting.marks:
        # A variable has one value only, in which lines separate the texts.
        return [line for text in texts for line in text.splitlines()] if found.kind == "variable" else texts
    if setting.positional and found.kind == "option":
        return texts
    return [part.strip().replace("\\,", ",") for text in texts for part in _COMMA.split(text) if part.strip()]


def _describe(details: Any, model: type[Settings], values: Mapping[str, Value]) -> str:
    """Describe a validation error, with the origin of the value."""
    message = str(details["ctx"]["error"] if details["type"] == "value_error" else details["msg"])
    if not details["loc"]:
        return message
    name = str(details["loc"][0])
    setting = next(setting for setting in iter_settings(model) if name in (setting.name, setting.attribute))
    found = values.get(setting.attribute)
    if found is None:
        return f"{setting.option}: {message}"
    if details["type"] == "literal_error" and isinstance(found.value, str):
        message += did_you_mean(found.value, re.findall(r"'([^']*)'", details["ctx"]["expected"]))
    return (
        f"{found.origin}: {setting.name}: {message}" if found.kind == "file" else f"{found.origin}: {message}"
    )
