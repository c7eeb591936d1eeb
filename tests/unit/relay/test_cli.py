"""The command line: the overview, and every mistake in one line."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from relay import cli
from relay.cli import COMMANDS, Command, main
from relay.config import ServeSettings


@dataclass
class Ran:
    """What a command was run with, and what it does."""

    settings: list[ServeSettings] = field(default_factory=list)
    result: Any = 0

    async def work(self) -> int:
        """The command itself, when it is a coroutine."""
        if isinstance(self.result, BaseException):
            raise self.result
        return int(self.result)


ran = Ran()


def fake_run(settings: ServeSettings) -> Any:
    """Stands for a command."""
    ran.settings.append(settings)
    return ran.work()


def fake_run_plain(settings: ServeSettings) -> None:
    """Stands for a command that is no coroutine and returns nothing."""
    ran.settings.append(settings)


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    global ran
    ran = Ran()
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)
    monkeypatch.setitem(
        cli.COMMANDS, "serve", Command("x", "relay.config:ServeSettings", f"{__name__}:fake_run")
    )
    monkeypatch.setitem(
        cli.COMMANDS, "plain", Command("x", "relay.config:ServeSettings", f"{__name__}:fake_run_plain")
    )


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_lists_all_commands(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each, on standard output."""
    assert main([argument]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out


def test_no_command_shows_the_overview_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """A script that forgot it must not go on."""
    assert main([]) == 2
    assert "tickertape COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["-V", "--version"])
def test_the_version_is_told(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else."""
    assert main([argument]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_arguments_come_from_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """When none are given."""
    monkeypatch.setattr("sys.argv", ["tickertape", "--version"])
    assert main() == 0
    assert capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """With those that there are."""
    assert main(["srve"]) == 2
    err = capsys.readouterr().err
    assert "'srve'" in err
    assert "serve" in err
    assert err.count("\n") == 1


def test_options_reach_the_command() -> None:
    """Flags in kebab case, with or without a value."""
    assert main(["serve", "--client-rate", "5", "--insecure", "--host=0.0.0.0", "--data-dir", "/tmp/x"]) == 0
    (settings,) = ran.settings
    assert (settings.client_rate, settings.insecure, settings.host) == (5.0, True, "0.0.0.0")
    assert settings.data_dir == Path("/tmp/x")


def test_the_environment_reaches_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag wins over a variable."""
    monkeypatch.setenv("TICKERTAPE_PORT", "1234")
    monkeypatch.setenv("TICKERTAPE_OPS_PORT", "1235")
    assert main(["serve", "--port", "99"]) == 0
    assert (ran.settings[0].port, ran.settings[0].ops_port) == (99, 1235)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--port", "abc"], "--port: "),
        (["--port"], "--port"),
        (["--no-such"], "--no-such"),
        (["stray"], "stray"),
        (["--auth", "maybe"], "--auth: "),
        (["--host", "0.0.0.0"], "--insecure"),
        (["--log-size", "0"], "--log-size: "),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, with exit code 2, and the command does not run."""
    assert main(["serve", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tickertape serve: ")
    assert named in err
    assert err.count("\n") == 1
    assert ran.settings == []


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_commands_result_is_the_exit_code(code: int) -> None:
    """As it returns it."""
    ran.result = code
    assert main(["serve"]) == code


def test_a_command_need_not_be_a_coroutine() -> None:
    """Nothing returned is success."""
    assert main(["plain"]) == 0
    assert len(ran.settings) == 1


def test_what_the_system_refuses_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1, and no traceback."""
    ran.result = FileNotFoundError(2, "No such file", "/nowhere.creds")
    assert main(["serve"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tickertape serve: ")
    assert "/nowhere.creds" in err
    assert err.count("\n") == 1


def test_an_interrupt_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is the shell's."""
    ran.result = KeyboardInterrupt()
    assert main(["serve"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_help_of_a_command_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    """With what they mean."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    for option in ("--nats-url", "--client-rate", "--data-dir", "--insecure"):
        assert option in out
    assert "tickertape serve" in out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_loaded(name: str) -> None:
    """The table names what exists."""
    command = COMMANDS[name]
    for path in filter(None, (command.settings, command.run)):
        assert callable(cli._load(path))
