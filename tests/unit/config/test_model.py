"""Settings models: the names that a setting has in each source."""

import pytest
from pydantic import SecretStr
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.relay.settings import ServeSettings

from tickertape.cli.check.command import CheckSettings
from tickertape.cli.main import COMMANDS, _load
from tickertape.cli.streams import StreamsSettings
from tickertape.config.config_file import SECRETS
from tickertape.config.model import Mark, Setting, Settings, iter_settings


def setting(model: type[Settings], name: str) -> Setting:
    """Return a setting of a model."""
    return next(found for found in iter_settings(model) if found.name == name)


@pytest.mark.parametrize(
    ("model", "name", "keys"),
    [
        (ServeSettings, "nats_url", ["serve_nats_url", "nats_url"]),
        (ServeSettings, "host", ["serve_host"]),
        (ServeSettings, "workers", ["serve_workers", "workers"]),
        (ShipSettings, "host", ["ship_host"]),
        (ShipSettings, "paths", ["ship_paths", "paths"]),
        (CheckSettings, "host", ["serve_host"]),
        (CheckSettings, "nats_url", ["serve_nats_url", "nats_url"]),
        (CheckSettings, "origin", ["check_origin", "origin"]),
        (CheckSettings, "file", []),
        (StreamsSettings, "max_bytes", ["max_bytes"]),
        (StreamsSettings, "action", []),
    ],
)
def test_names(model: type[Settings], name: str, keys: list[str]) -> None:
    """A setting has the name of its command or not; ``check`` reads those of ``serve``."""
    assert setting(model, name).keys == keys


def test_marks_are_found_in_optional_types() -> None:
    """A list in a text may be optional."""
    found = setting(ServeSettings, "nats_url")
    assert (found.marks, found.repeatable, found.is_list) == ({Mark.COMMAS}, True, False)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_secret_has_a_file(command: str) -> None:
    """Each secret can be in a file, as which credentials of systemd are read."""
    names = {found.name for found in iter_settings(_load(COMMANDS[command].settings))}
    secrets = {found.name for found in iter_settings(_load(COMMANDS[command].settings)) if found.secret}
    assert {f"{name}_file" for name in secrets} <= names


def test_the_secrets_of_a_file_are_those_of_all_commands() -> None:
    """A readable file is reported for each secret, even one of a command that is not installed."""
    models = [_load(command.settings) for command in COMMANDS.values()]
    assert {found.name for model in models for found in iter_settings(model) if found.secret} == SECRETS


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_no_text_is_a_secret_in_disguise(command: str) -> None:
    """Settings whose name says that they are secret are hidden, unless they are files."""
    for found in iter_settings(_load(COMMANDS[command].settings)):
        if found.name.endswith(("password", "token", "secret", "seed")) and not found.positional:
            assert found.type is SecretStr or found.type is int, found.name
