"""Values of settings: precedence, lists, credentials, and one error for every mistake in every source."""

import os
from pathlib import Path
from typing import Any

import pytest
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.relay.settings import RelaySettings, ServeSettings

from tickertape.cli.check.command import CheckSettings
from tickertape.cli.main import all_names
from tickertape.cli.monitor import MonitorSettings
from tickertape.cli.streams import StreamsSettings
from tickertape.config.model import Settings
from tickertape.config.resolve import SettingsError, Sources, find_values, load
from tickertape.nats.settings import NatsSettings


def config(folder: Path, text: str) -> dict[str, str]:
    """Write a configuration file, and return the environment that names it."""
    (folder / "t.toml").write_text(text)
    return {"TICKERTAPE_CONFIG": str(folder / "t.toml")}


def credentials(folder: Path, **files: str) -> dict[str, str]:
    """Write credentials as systemd does, and return the environment that names their folder."""
    folder = folder / "credentials"
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o400)
    folder.chmod(0o500)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def read(
    model: type[Settings], environment: dict[str, str], **options: Any
) -> dict[str, tuple[Any, str, str]]:
    """Return value, kind and origin of a model's settings except ``config``, without the folder of a file."""
    found = find_values(model, options, Sources(environment, all_names))
    return {
        name: (value.value, value.kind, value.origin.rpartition("/")[2])
        for name, value in found.items()
        if name != "config"
    }


SOURCES = (
    ("option", "--nats-user"),
    ("variable", "TICKERTAPE_SERVE_NATS_USER"),
    ("variable", "TICKERTAPE_NATS_USER"),
    ("file", "t.toml:3"),
    ("file", "t.toml:1"),
)


@pytest.mark.parametrize("count", range(len(SOURCES)))
def test_precedence(count: int, tmp_path: Path) -> None:
    """Option, variable with and without the command, table, shared setting: each overrides those after it."""
    text = 'nats_user = "4"\n[serve]\n' + ('nats_user = "3"\n' if count <= 3 else "")
    environment = config(tmp_path, text)
    environment |= {"TICKERTAPE_NATS_USER": "2"} if count <= 2 else {}
    environment |= {"TICKERTAPE_SERVE_NATS_USER": "1"} if count <= 1 else {}
    options = {"nats_user": "0"} if count == 0 else {}
    assert read(ServeSettings, environment, **options) == {"nats_user": (str(count), *SOURCES[count])}


def test_a_secret_and_its_file_are_one_setting(tmp_path: Path) -> None:
    """A secret from one source replaces the file with it from another, and the reverse."""
    environment = config(tmp_path, 'nats_user = "u"\nnats_password = "file"\njwt_key_file = "/key"\n')
    environment |= credentials(tmp_path, nats_password="credential\n", jwt_key="k", tls_key="t", other="x")
    folder = tmp_path / "credentials"
    assert read(ServeSettings, environment) == {
        "nats_user": ("u", "file", "t.toml:1"),
        "nats_password_file": (str(folder / "nats_password"), "credential", "credential nats_password"),
        "jwt_key_file": (str(folder / "jwt_key"), "credential", "credential jwt_key"),
        "tls_key": (str(folder / "tls_key"), "credential", "credential tls_key"),
    }
    settings = load(NatsSettings, {}, Sources(environment))
    assert settings.access().read_secret() == "credential"
    with_variable = read(ServeSettings, environment | {"TICKERTAPE_NATS_PASSWORD": "v"})
    assert with_variable["nats_password"] == ("v", "variable", "TICKERTAPE_NATS_PASSWORD")
    assert "nats_password_file" not in with_variable


def test_both_forms_of_a_secret_in_one_source_contradict_each_other() -> None:
    """Setting a secret and its file in the same source is an error."""
    environment = {f"TICKERTAPE_NATS_{name}": "x" for name in ("USER", "PASSWORD", "PASSWORD_FILE")}
    with pytest.raises(SettingsError, match="both set"):
        load(ServeSettings, {}, Sources(environment))


def test_a_credential_may_name_the_command(tmp_path: Path) -> None:
    """A credential with the command's name applies to that command, in preference to one without."""
    environment = credentials(tmp_path, nats_token="all", serve_nats_token="serve")
    assert read(ServeSettings, environment)["nats_token_file"][2] == "credential serve_nats_token"
    assert read(MonitorSettings, environment)["nats_token_file"][2] == "credential nats_token"


@pytest.mark.parametrize(
    ("model", "name", "variable", "toml", "value"),
    [
        (ShipSettings, "root", "/a, /b\\,c", '["/a", "/b,c"]', ["/a", "/b,c"]),
        (ShipSettings, "rate", "INFO=1,WARN=2", '"INFO=1, WARN=2"', ["INFO=1", "WARN=2"]),
        (ShipSettings, "paths", "/a/*.log,/b", '["/a/*.log", "/b"]', ["/a/*.log", "/b"]),
        (ShipSettings, "redact", "k=x{1,2}\nl=y", '["k=x{1,2}", "l=y"]', ["k=x{1,2}", "l=y"]),
        (StreamsSettings, "max_bytes", "EVENTS=1GiB,LATEST=8MiB", '["EVENTS=1GiB", "LATEST=8MiB"]',
         ["EVENTS=1GiB", "LATEST=8MiB"]),
        (ServeSettings, "trusted_proxies", "10.0.0.1,::1", '["10.0.0.1", "::1"]', "10.0.0.1,::1"),
        (ServeSettings, "nats_url", "nats://a,nats://b", '["nats://a", "nats://b"]', "nats://a,nats://b"),
    ],
)  # fmt: skip
def test_lists(
    model: type[Settings], name: str, variable: str, toml: str, value: object, tmp_path: Path
) -> None:
    """A list is separated by commas, which a backslash keeps in a value, or an array."""
    assert read(model, {f"TICKERTAPE_{name.upper()}": variable})[name][0] == value
    table = f"[{'streams' if model is StreamsSettings else model.section}]\n{name} = {toml}\n"
    assert read(model, config(tmp_path, table))[name][0] == value


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("nats-url = 'x'", ":1: nats-url: unknown setting; did you mean nats_url?"),
        ("\nNATS_URL = 'x'", ":2: NATS_URL: unknown setting; did you mean nats_url?"),
        ("zzz = 1", ":1: zzz: unknown setting; correct or remove it"),
        ("[serve]\nprot = 1", ":2: serve.prot: unknown setting; did you mean port?"),
        ("[srve]\nport = 1", ":1: srve: no command is called srve; did you mean serve?"),
        ("[nats]\nurl = 'x'", ":1: nats: no command is called nats; write nats_url before the first table"),
        ("[[serve]]\nport = 1", ":1: serve: has double brackets; write [serve]"),
        ("serve = 1", ":1: serve: unknown setting"),
        ("host = 'x'", ":1: host: means different things to serve and ship; use host in [serve] or host in"),
        ("config = 'x'", ":1: config: unknown setting"),
        ("[serve]\nconfig = 'x'", ":2: serve.config: unknown setting"),
        ("[serve]\naction = 'x'", ":2: serve.action: unknown setting"),
        ("[serve]\nport = '1'", ":2: serve.port: expected an integer, found a string"),
        ("port = true", ":1: port: expected an integer, found a boolean"),
        ("port = 1.0", ":1: port: expected an integer, found a number"),
        ("[serve.port]\nx = 1", ":1: serve.port: expected an integer, found a table"),
        ("client_rate = '1'", ":1: client_rate: expected a number, found a string"),
        ("insecure = 'yes'", ":1: insecure: expected true or false, found a string"),
        ("insecure = 1", ":1: insecure: expected true or false, found an integer"),
        ("log_level = 1", ":1: log_level: expected a string, found an integer"),
        ("data_dir = ['/a']", ":1: data_dir: expected a string, found a list"),
        ("data_dir = 2026-01-01", ":1: data_dir: expected a string, found a date or time"),
        ('data_dir = "a\\u0000b"', ":1: data_dir: contains a null character"),
        ("trusted_proxies = [1]", ":1: trusted_proxies: expected a string or a list of strings, found an"),
        ("nats_password = 7", ":1: nats_password: expected a string, found an integer"),
        ("port = 70000", ":1: port: Input should be less than or equal to 65535"),
        ("auth = 'jtw'", ":1: auth: Input should be 'none', 'jwt' or 'certificate'; did you mean jwt?"),
        ("client_rate = inf", ":1: client_rate: Input should be a finite number"),
    ],
)  # fmt: skip
def test_mistakes_in_files(text: str, error: str, tmp_path: Path) -> None:
    """Each mistake is an error with the file, the line, the key and, if one is close, the name to use."""
    with pytest.raises(SettingsError) as caught:
        load(ServeSettings, {}, Sources(config(tmp_path, text), all_names))
    assert str(caught.value).startswith(f"{tmp_path / 't.toml'}{error}")


def test_a_file_serves_all_commands(tmp_path: Path) -> None:
    """A command ignores the tables of others, and shared settings that it does not have."""
    text = "metrics_port = 9466\n[serve]\nport = 1\n[ship]\nhost = 'web1'\nno_such = 1\n[monitor]\nid = 'm'\n"
    environment = config(tmp_path, text)
    assert read(ServeSettings, environment) == {"port": (1, "file", "t.toml:3")}
    assert read(CheckSettings, environment) == {"port": (1, "file", "t.toml:3")}
    assert set(read(MonitorSettings, environment)) == {"metrics_port", "id"}


def test_a_mounted_relay_accepts_names_of_its_host(tmp_path: Path) -> None:
    """Without the names of other commands, only names that resemble a setting are errors."""
    environment = config(tmp_path, "metrics_port = 9466\n") | {"TICKERTAPE_OF_THE_HOST": "x"}
    assert load(RelaySettings, {"client_rate": 3}, Sources(environment)).client_rate == 3
    with pytest.raises(SettingsError, match="did you mean nats_url"):
        load(RelaySettings, {}, Sources(config(tmp_path, "nats_uri = 'x'\n")))


@pytest.mark.parametrize(
    ("environment", "error"),
    [
        ({"TICKERTAPE_PROT": "1"}, "TICKERTAPE_PROT is not a setting, but resembles TICKERTAPE_PORT"),
        ({"TICKERTAPE_HOST": "x"}, "use TICKERTAPE_SERVE_HOST or TICKERTAPE_SHIP_HOST"),
        ({"TICKERTAPE_SERVE_HOTS": "x"}, "resembles TICKERTAPE_SERVE_HOST"),
        ({"TICKERTAPE_AUDIENCE": "x"}, "resembles TICKERTAPE_JWT_AUDIENCE"),
        ({"TICKERTAPE_PORT": "x"}, "TICKERTAPE_PORT: Input should be a valid integer"),
        ({"TICKERTAPE_SERVE_PORT": "-1"}, "TICKERTAPE_SERVE_PORT: Input should be greater than"),
        ({"TICKERTAPE_INSECURE": "perhaps"}, "TICKERTAPE_INSECURE: Input should be a valid boolean"),
        ({"TICKERTAPE_CONFIG": ""}, "TICKERTAPE_CONFIG: empty; give the path of a file, or do not set it"),
        ({"TICKERTAPE_CONFIG": "/no/such.toml"}, "/no/such.toml cannot be read: No such file"),
        ({"CREDENTIALS_DIRECTORY": "/no/such"}, "CREDENTIALS_DIRECTORY: /no/such cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_in_the_environment(environment: dict[str, str], error: str) -> None:
    """Each mistake is an error with the variable and, if one is close, the name to use."""
    with pytest.raises(SettingsError) as caught:
        load(ServeSettings, {}, Sources(environment, all_names))
    assert error in str(caught.value)


def test_a_misspelt_credential_is_an_error(tmp_path: Path) -> None:
    """A credential that resembles a setting is an error; others may be for another program."""
    with pytest.raises(SettingsError, match="credential nats_pasword is not a setting, but resembles nats_p"):
        load(ServeSettings, {}, Sources(credentials(tmp_path, nats_pasword="x")))


@pytest.mark.parametrize("variable", ["TICKERTAPE_PORT", "TICKERTAPE_SERVE_PORT", "TICKERTAPE_OPS_PORT"])
def test_links_of_kubernetes_are_explained(variable: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A port that Kubernetes has set to the URL of a Service is ignored, with a line that says so."""
    settings = load(ServeSettings, {}, Sources({variable: "tcp://10.0.0.1:8080"}, all_names))
    assert (settings.port, settings.ops_port) == (8080, 9464)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tickertape: {variable}=tcp://10.0.0.1:8080 is ignored: Kubernetes sets it")
    assert "enableServiceLinks: false" in line


def test_variables_may_be_in_lower_case() -> None:
    """A variable may be in any case; one in upper case takes precedence."""
    found = read(
        ServeSettings, {"tickertape_Log_Level": "error", "tickertape_port": "1", "TICKERTAPE_PORT": "2"}
    )
    assert {name: value for name, (value, _, _) in found.items()} == {"log_level": "error", "port": "2"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file(tmp_path: Path) -> None:
    """A file that may not be read is an error."""
    environment = config(tmp_path, "port = 1\n")
    (tmp_path / "t.toml").chmod(0)
    with pytest.raises(SettingsError, match="cannot be read: Permission denied"):
        load(ServeSettings, {}, Sources(environment))
