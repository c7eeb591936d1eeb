"""``tickertape config show``: show each setting of a command, its value and where that comes from.

No output contains a secret, nor the password in a URL.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, NamedTuple

import orjson
from pydantic import Field

from tickertape.cli.command_line import arguments as command_line
from tickertape.cli.main import COMMANDS, all_names, load_model
from tickertape.config.config_file import read_config
from tickertape.config.model import Positional, Setting, Settings, iter_settings
from tickertape.config.names import did_you_mean
from tickertape.config.resolve import SettingsError, Sources, Value, find_invalid, find_values
from tickertape.process.console import print_error, print_json, print_line, print_notice
from tickertape.urls import redact_url

PROGRAM: Final = "config"
HIDDEN: Final = "(hidden)"
"""Shown in place of a secret."""


class ConfigSettings(Settings):
    """Settings of ``tickertape config``."""

    section: ClassVar[str] = "config"

    action: Positional[Literal["show"]] = Field(description="show the settings with their origin")
    command: Positional[str | None] = Field(
        None, description="command whose settings are shown, followed by its options; all by default"
    )
    json_: bool = Field(False, alias="json", description="print a JSON list")


class Row(NamedTuple):
    """Setting as it is shown."""

    command: str
    setting: str
    value: Any
    kind: str
    origin: str


def fast_path(arguments: Sequence[str]) -> int | None:
    """Run the command; its parser does not know the options of the command whose settings are shown.

    Returns:
        the exit code, or None for a command line that is to be parsed, such as one with ``--help``.
    """
    words = [word for word in arguments if word != "--json"]
    if words[:1] != ["show"] or "-h" in words or "--help" in words:
        return None
    name = words[1] if len(words) > 1 and not words[1].startswith("-") else None
    try:
        if name is not None and name not in COMMANDS:
            raise SettingsError(f"unknown command {name!r}{did_you_mean(name, COMMANDS)}")
        rows = list(_rows([name] if name else list(COMMANDS), words[2 if name else 1 :]))
    except SettingsError as error:
        print_error(f"tickertape {PROGRAM}: {error}")
        return 2
    _print(rows, as_json="--json" in arguments)
    return 0


def run(settings: ConfigSettings) -> int:
    """Run the command with its options before its action."""
    line = ["show", *filter(None, [settings.command]), *(["--json"] if settings.json_ else [])]
    line += [] if settings.config is None else ["--config", str(settings.config)]
    return fast_path(line) or 0


def _rows(names: Sequence[str], options: Sequence[str]) -> Iterator[Row]:
    config: Path | None = None
    for name in names:
        try:
            model = load_model(name)
        except ModuleNotFoundError as error:
            print_notice(PROGRAM, f"{name} is not shown: {error.name} is not installed")
            continue
        given = command_line.parse(model, options)
        values = find_values(model, given, Sources(os.environ, all_names))
        if (problem := find_invalid(model, values)) is not None:
            raise SettingsError(f"{name}: {problem}")
        if "config" in values:
            config = Path(values["config"].value)
        for setting in iter_settings(model):
            if not setting.positional or setting.is_list:
                yield _row(name, setting, values.get(setting.attribute))
    if config is not None and (exposure := read_config(config).exposure()) is not None:
        print_notice(PROGRAM, f"{exposure}; chmod 600 {config}")


def _row(command: str, setting: Setting, found: Value | None) -> Row:
    if found is None:
        value = setting.field.get_default(call_default_factory=True)
        return Row(command, setting.name, _shown(setting, value), "default", "default")
    return Row(command, setting.name, _shown(setting, found.value), found.kind, found.origin)


def _shown(setting: Setting, value: Any) -> Any:
    """Return a value without secrets, as a JSON value."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if setting.secret:
        return HIDDEN
    if isinstance(value, list):
        return [_shown(setting, item) for item in value]
    text = str(value)
    is_url = "://" in text and (setting.name.endswith("url") or "@" in text)
    return redact_url(text) if is_url else text


def _print(rows: Sequence[Row], *, as_json: bool) -> None:
    if as_json:
        # Undecodable bytes of the command line have no form in JSON.
        documents = [{name: _encodable(value) for name, value in row._asdict().items()} for row in rows]
        print_json(orjson.dumps(documents, option=orjson.OPT_INDENT_2))
        return
    shown = [(row, _text(row.value)) for row in rows]
    width = max((len(row.setting) for row in rows), default=0)
    middle = min(40, max((len(text) for _, text in shown), default=0))
    command = ""
    for row, text in shown:
        if row.command != command:
            command = row.command
            print_line(f"[{command}]")
        print_line(f"{row.setting:<{width}}  {text:<{middle}}  {row.origin}")


def _text(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(value) if isinstance(value, list) else str(value)


def _encodable(value: Any) -> Any:
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
