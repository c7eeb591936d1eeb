"""Suggestions for unknown names, and variables that are meant for no setting."""

from collections import defaultdict

import pytest
from tickertape.relay.auth.settings import TokenSettings

from tickertape.cli.main import COMMANDS, _load, all_names
from tickertape.cli.tokens import TokenCommandSettings
from tickertape.config.model import AMBIGUOUS, Settings, iter_settings
from tickertape.config.model import COMMANDS as TABLES
from tickertape.config.names import did_you_mean, find_unknown_variable

KNOWN = {"auth", "jwt_audience", "jwt_revoked_file", "log_level", "port", "serve_host", "serve_port"}


@pytest.mark.parametrize(
    ("variable", "closest"),
    [
        ("TICKERTAPE_JWT_AUDIANCE", "TICKERTAPE_JWT_AUDIENCE"),
        ("TICKERTAPE_JWT_REVOKED", "TICKERTAPE_JWT_REVOKED_FILE"),
        ("TICKERTAPE_JWT_REVOCED_FILE", "TICKERTAPE_JWT_REVOKED_FILE"),
        ("TICKERTAPE__AUTH", "TICKERTAPE_AUTH"),
        ("TICKERTAPE_AUTH_", "TICKERTAPE_AUTH"),
        ("TICKERTAPEAUTH", "TICKERTAPE_AUTH"),
        ("Tickertape_Auhth", "TICKERTAPE_AUTH"),
        ("tickertape-auth", "TICKERTAPE_AUTH"),
        ("TICKERTAP_AUTH", "TICKERTAPE_AUTH"),
        ("TICKER_TAPE_JWT_AUDIENCE", "TICKERTAPE_JWT_AUDIENCE"),
        ("Tikertape_Jwt_Revoked_File", "TICKERTAPE_JWT_REVOKED_FILE"),
        (" TICKERTAPE_AUTH", "TICKERTAPE_AUTH"),
    ],
)
@pytest.mark.parametrize("resembling", [True, False])
def test_a_misspelt_variable_is_found(variable: str, closest: str, resembling: bool) -> None:
    """A misspelt variable is named with the setting that it resembles."""
    variables = {"PATH": "/bin", "TICKERTAPE_AUTH": "jwt", variable: "x"}
    assert find_unknown_variable(variables, KNOWN, resembling=resembling) == (
        f"environment variable {variable} is not a setting, but resembles {closest}"
    )


def test_other_variables_are_accepted() -> None:
    """Settings in any case, and variables of recovery commands and of other programs, are accepted."""
    variables = (
        "PATH", "TICKER", "tickertape_auth", "Tickertape_Jwt_Audience", "TICKERTAPE_GATEWAY_ID",
        "TICKER_TAPE_PORT", "TICKER_AUTH",
    )  # fmt: skip
    assert find_unknown_variable(dict.fromkeys(variables, "1"), KNOWN) is None
    assert find_unknown_variable({"TICKERTAPE_COLOUR": "1"}, KNOWN, resembling=True) is None
    assert find_unknown_variable({"TICKERTAPE_COLOUR": "1"}, KNOWN) is not None


def service_links(service: str) -> dict[str, str]:
    """Return the variables that Kubernetes sets for a Service with a port named feed."""
    name, address = service.upper().replace("-", "_"), "tcp://10.0.171.239:8080"
    return {
        f"{name}_SERVICE_HOST": "10.0.171.239",
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_FEED": "8080",
        f"{name}_PORT": address,
        f"{name}_PORT_8080_TCP": address,
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": "10.0.171.239",
    }


@pytest.mark.parametrize(
    "service",
    ["tickertape", *(f"tickertape-{name}" for name in ("relay", "metrics", "ops", "nats", *COMMANDS))],
)
def test_links_of_services_are_accepted(service: str) -> None:
    """The variables that Kubernetes sets for a Service are accepted, whatever its name."""
    assert find_unknown_variable(service_links(service), KNOWN) is None


def test_a_misspelt_port_is_not_a_link() -> None:
    """A variable that ends in PORT is a link only if its value is one."""
    assert "TICKERTAPE_OPPS_PORT" in str(
        find_unknown_variable({"TICKERTAPE_OPPS_PORT": "9464"}, {"ops_port"})
    )


@pytest.mark.parametrize("name", list(AMBIGUOUS))
def test_an_ambiguous_variable_names_its_successors(name: str) -> None:
    """The variable of an ambiguous name, which used to exist, is an error with the names to use."""
    variable = f"TICKERTAPE_{name.upper()}"
    text = str(find_unknown_variable({variable: "x"}, all_names()[0]))
    for command in AMBIGUOUS[name]:
        assert f"TICKERTAPE_{command.upper()}_{name.upper()}" in text


@pytest.mark.parametrize(
    ("name", "known", "text"),
    [
        ("srve", COMMANDS, "; did you mean serve?"),
        ("--nats_url", ["--nats-url", "--nats-user"], "; did you mean --nats-url?"),
        ("natsUrl", ["nats_url", "nats_user"], "; did you mean nats_url?"),
        ("completely-different", ["host", "port"], ""),
    ],
)
def test_suggestions(name: str, known: list[str], text: str) -> None:
    """The closest known name is suggested, if any is close."""
    assert did_you_mean(name, known) == text


SAME = {
    "config": "every command has it",
    "data_dir": "the demo runs a relay",
    "json": "JSON instead of text",
    "ops_port": "the demo runs a relay",
    "port": "the demo runs a relay",
    "token_file": "the token of a client",
}
"""Names that several commands declare, with one meaning."""


def declarations() -> dict[str, dict[str, type[Settings]]]:
    """Return for each name the commands that have it, and the class that declares it first."""
    found: dict[str, dict[str, type[Settings]]] = defaultdict(dict)
    for command, entry in COMMANDS.items():
        model = _load(entry.settings)
        for setting in iter_settings(model):
            if setting.configurable:
                base = next(
                    base
                    for base in reversed(model.__mro__)
                    if issubclass(base, Settings) and setting.attribute in base.model_fields
                )
                found[setting.name][command] = base
    return found


def test_every_name_has_one_meaning() -> None:
    """A name that two commands declare separately is ambiguous, unless both mean the same."""
    ambiguous = {
        name: tuple(dict.fromkeys(base.section for base in bases.values()))
        for name, bases in declarations().items()
        if len(set(bases.values())) > 1 and name not in SAME
    }
    assert ambiguous == AMBIGUOUS


def test_what_a_token_grants_has_no_variable() -> None:
    """What a token grants depends on options only, and so does the deletion of streams."""
    own = set(TokenCommandSettings.model_fields) - set(TokenSettings.model_fields) - {"action", "token"}
    assert own == TokenCommandSettings.only_options
    assert {"token_subjects", "streams_yes", "yes", "states"} & all_names()[0] == set()


def test_no_name_with_a_command_is_another_setting() -> None:
    """The name of a command and that of its setting do not form the name of another setting."""
    owners: dict[str, set[str]] = defaultdict(set)
    for entry in COMMANDS.values():
        for setting in iter_settings(_load(entry.settings)):
            for key in setting.keys:
                owners[key].add(setting.name)
    assert {key: names for key, names in owners.items() if len(names) > 1} == {}


def test_each_command_has_a_table() -> None:
    """The tables of a configuration file are those of the commands."""
    assert set(TABLES) == set(COMMANDS) - {"config", "completion"}
