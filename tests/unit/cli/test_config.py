"""``tickertape config show``: values, origins, and no secret."""

import json
from pathlib import Path

import pytest

from tests.support.deceptive import SURROGATES, TEXT, deceptive
from tests.support.documents.markdown import blocks
from tickertape.cli.main import COMMANDS, main

FILE = """
nats_url = "nats://relay:hunter2@nats:4222,nats://b:4222"
[serve]
port = 81
jwt_key = "hunter2"
trusted_proxies = ["10.0.0.1", "10.0.0.2"]
[ship]
paths = ["/var/log/*.log"]
redact = ["pin=[0-9]{4,6}"]
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration file with secrets, readable by its owner."""
    monkeypatch.setenv("TICKERTAPE_OPS_PORT", "9000")
    monkeypatch.setenv("TICKERTAPE_NATS_TOKEN", "hunter2")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "tls_key").write_text("hunter2")
    path = tmp_path / "t.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return path


def test_each_origin(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each setting is shown with its value and its origin; secrets are hidden."""
    line = ["config", "show", "serve", "--json", "--config", str(path), "--log-level", "debug", "--insecure"]
    assert main(line) == 0
    out, err = capsys.readouterr()
    rows = {row["setting"]: row for row in json.loads(out)}
    assert {name: (row["value"], row["kind"], row["origin"]) for name, row in rows.items()} | {
        "config": (str(path), "option", "--config"),
        "nats_url": ("nats://***@nats:4222,nats://b:4222", "file", f"{path}:2"),
        "port": (81, "file", f"{path}:4"),
        "jwt_key": ("(hidden)", "file", f"{path}:5"),
        "trusted_proxies": ("10.0.0.1,10.0.0.2", "file", f"{path}:6"),
        "ops_port": ("9000", "variable", "TICKERTAPE_OPS_PORT"),
        "nats_token": ("(hidden)", "variable", "TICKERTAPE_NATS_TOKEN"),
        "tls_key": (str(path.parent / "credentials" / "tls_key"), "credential", "credential tls_key"),
        "log_level": ("debug", "option", "--log-level"),
        "insecure": (True, "option", "--insecure"),
        "host": ("127.0.0.1", "default", "default"),
        "tls_cert": (None, "default", "default"),
    } == {name: (row["value"], row["kind"], row["origin"]) for name, row in rows.items()}
    assert "hunter2" not in out + err
    assert err == ""


def test_all_commands_as_text(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a command, the settings of all commands are shown, one per line."""
    assert main(["config", "show", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("[")] == [f"[{name}]" for name in COMMANDS]
    lines = [line.split() for line in out.splitlines()]
    assert ["nats_token", "(hidden)", "TICKERTAPE_NATS_TOKEN"] in lines
    assert ["paths", "/var/log/*.log", f"{path}:8"] in lines
    assert ["redact", "pin=[0-9]{4,6}", f"{path}:9"] in lines
    assert "hunter2" not in out


def test_the_example_of_the_readme(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The configuration file of the README is valid, and sets what it says."""
    (example,) = (block for block in blocks("README.md") if block.language == "toml")
    path = tmp_path / "tickertape.toml"
    path.write_text(example.text)
    assert main(["config", "show", "--json", "--config", str(path)]) == 0
    rows = json.loads(capsys.readouterr().out)
    found = {(row["command"], row["setting"]): row["value"] for row in rows if row["kind"] == "file"}
    assert found["monitor", "nats_url"] == "nats://nats-1:4222,nats://nats-2:4222"
    assert (found["serve", "host"], found["ship", "host"]) == ("0.0.0.0", "web1")
    assert found["ship", "paths"] == ["/var/log/app/*.log"]


def test_readable_secrets_are_reported(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file with secrets that other users can read is reported."""
    path.chmod(0o644)
    assert main(["config", "show", "serve", "--config", str(path)]) == 0
    error = f"{path} contains jwt_key, nats_url and is readable by other users; chmod 600 {path}"
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("show srve", "unknown command 'srve'; did you mean serve?"),
        ("show serve --prot 1", "unknown option --prot; did you mean --port?"),
        ("show serve --port x", "serve: --port: Input should be a valid integer"),
        ("show serve --config /no/such", "configuration file /no/such cannot be read"),
        ("sohw", "did you mean show?"),
        ("", "ACTION: Field required"),
    ],
)
def test_mistakes(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is one line with exit code 2."""
    assert main(["config", *line.split()]) == 2
    out, err = capsys.readouterr()
    assert text in err
    assert (out, err.count("\n")) == ("", 1)


def test_incomplete_settings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings with which the command would not run are shown: that is what ``check`` reports."""
    assert main(["config", "show", "serve", "--host", "0.0.0.0"]) == 0
    assert main(["config", "--json", "show", "ship"]) == 0
    assert "0.0.0.0" in capsys.readouterr().out


def test_values_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """No value controls the terminal."""
    bad = TEXT.replace("\0", "") + SURROGATES
    for more in ([], ["--json"]):
        assert main(["config", "show", "tail", *more, "--cursor", bad, "--state-file", bad]) == 0
    out, err = capsys.readouterr()
    assert deceptive(out + err) == set()
