"""The command line: the overview, and a one-line error for every mistake."""

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from tickertape.relay.settings import ServeSettings

from tests.support.deceptive import SURROGATES, TEXT, UNDECODABLE, deceptive
from tests.support.patience import PATIENCE
from tickertape.cli import main as cli
from tickertape.cli.command_line.help import GROUPS, iter_options
from tickertape.cli.main import COMMANDS, Command, main
from tickertape.config.resolve import Sources, find_values
from tickertape.errors import OperatorError

ORIGINAL = dict(COMMANDS)


@dataclass
class Ran:
    """Record of a command's settings, and its result."""

    settings: list[ServeSettings] = field(default_factory=list)
    result: Any = 0

    async def work(self) -> int:
        """Run the command as a coroutine."""
        if isinstance(self.result, BaseException):
            raise self.result
        return int(self.result)


ran = Ran()


def fake_run(settings: ServeSettings) -> Any:
    """Replace a command."""
    ran.settings.append(settings)
    return ran.work()


def fake_run_plain(settings: ServeSettings) -> None:
    """Replace a command that is not a coroutine and returns nothing."""
    ran.settings.append(settings)


@pytest.fixture(autouse=True)
def _commands(monkeypatch: pytest.MonkeyPatch) -> None:
    global ran
    ran = Ran()
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"TICKERTAPE_{name.upper()}", raising=False)
    monkeypatch.setitem(
        cli.COMMANDS, "serve", Command("x", "tickertape.relay.settings:ServeSettings", f"{__name__}:fake_run")
    )
    monkeypatch.setitem(
        cli.COMMANDS,
        "plain",
        Command("x", "tickertape.relay.settings:ServeSettings", f"{__name__}:fake_run_plain"),
    )


@pytest.mark.parametrize("argument", ["-h", "--help"])
def test_help_lists_all_commands(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists one line per command on standard output."""
    assert main([argument]) == 0
    out = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n  {name} " in out


def test_no_command_shows_the_overview_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """A missing command prints the overview and is an error, so that a script does not continue."""
    assert main([]) == 2
    assert "tickertape COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("argument", ["-V", "--version"])
def test_the_version_is_printed(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The version is printed alone."""
    assert main([argument]) == 0
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_arguments_come_from_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments default to those of the process."""
    monkeypatch.setattr("sys.argv", ["tickertape", "--version"])
    assert main() == 0
    assert capsys.readouterr().out


def test_an_unknown_command_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown command is named in the error, with the known ones."""
    assert main(["srve"]) == 2
    err = capsys.readouterr().err
    assert "'srve'" in err
    assert "serve" in err
    assert err.count("\n") == 1


def test_options_reach_the_command() -> None:
    """Options are in kebab case, with or without a value."""
    assert main(["serve", "--client-rate", "5", "--insecure", "--host=0.0.0.0", "--data-dir", "/tmp/x"]) == 0
    (settings,) = ran.settings
    assert (settings.client_rate, settings.insecure, settings.host) == (5.0, True, "0.0.0.0")
    assert settings.data_dir == Path("/tmp/x")


def test_the_environment_reaches_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option takes precedence over an environment variable."""
    monkeypatch.setenv("TICKERTAPE_PORT", "1234")
    monkeypatch.setenv("TICKERTAPE_OPS_PORT", "1235")
    assert main(["serve", "--port", "99"]) == 0
    assert (ran.settings[0].port, ran.settings[0].ops_port) == (99, 1235)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_read_from_its_own_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of an option has the prefix, and a variable without it has no effect."""
    model = cli._load(ORIGINAL[name].settings)
    settings = [setting for setting in iter_options(model) if setting.configurable and setting.in_files]
    bare = dict.fromkeys([setting.name for setting in settings], "bare")
    own = {f"TICKERTAPE_{setting.keys[-1].upper()}": "own" for setting in settings}
    found = find_values(
        model, {}, Sources(bare | {name.upper(): value for name, value in bare.items()} | own)
    )
    assert set(found) == {setting.attribute for setting in settings}
    assert {str(value.value).strip("[']") for value in found.values()} <= {"own"}


def test_help_promises_only_variables_that_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a token grants has no variable; an example has the command in its name if that is required."""
    monkeypatch.setitem(cli.COMMANDS, "serve", ORIGINAL["serve"])
    also, lines = "is also an environment variable:", {}
    for name in ("serve", "token", "schema"):
        main([name, "--help"])
        lines[name] = re.findall(f".*{also} --.* is.TICKERTAPE_[A-Z_]+", capsys.readouterr().out, re.DOTALL)
    assert [line.rpartition("\n\n")[2].split() for (line,) in lines.values()] == [
        f"Each option {also} --host is TICKERTAPE_SERVE_HOST".split(),
        f"An option {also} --config is TICKERTAPE_CONFIG".split(),
        f"Each option {also} --config is TICKERTAPE_CONFIG".split(),
    ]


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
    """A mistake is one line on standard error with exit code 2, and the command does not run."""
    assert main(["serve", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("tickertape serve: ")
    assert named in err
    assert err.count("\n") == 1
    assert ran.settings == []


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_arguments_and_variables_are_escaped(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Errors and help of every command escape the names and values of options and variables."""
    command = ORIGINAL[name]
    monkeypatch.setitem(cli.COMMANDS, name, Command("x", command.settings, f"{__name__}:fake_run_plain"))
    options = [option for option in iter_options(cli._load(command.settings)) if not option.positional]
    bad = TEXT.replace("\0", "") + UNDECODABLE
    for arguments in ([f"--{bad}"], [f"--{bad}=1"], [f"--no-such={bad}"], [bad, bad, bad], ["-" + bad]):
        main([name, *arguments])  # argparse takes an option with a space for an argument
    with monkeypatch.context() as patch:
        for variable in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
            patch.setenv(variable, str(tmp_path / bad))
        patch.setattr("socket.gethostname", lambda: bad)
        assert main([name, "--help"]) == 0
    for option in options[::3]:
        main([name, f"--{option.name.replace('_', '-')}={bad}"])
        with monkeypatch.context() as patch:
            patch.setenv(f"TICKERTAPE_{option.name.upper()}", bad)
            main([name])
    out, err = capsys.readouterr()
    assert deceptive(out + err) == set()


def test_an_unknown_command_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of an unknown command is escaped, and so is an error of a command."""
    assert main([TEXT + SURROGATES]) == 2
    for error in (OSError(2, TEXT, TEXT + SURROGATES), OperatorError(TEXT + SURROGATES, TEXT)):
        ran.result = error
        assert main(["serve"]) == 1
    err = capsys.readouterr().err
    assert deceptive(err) == set()
    assert err.count("\n") == 3


@pytest.mark.parametrize("name", ["serve", "monitor", "ship", "check", "streams"])
def test_a_misspelt_variable_is_a_mistake(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No command starts with a variable that is no setting of any command, such as a misspelt restriction."""
    monkeypatch.setenv("TICKERTAPE_JWT_AUDIANCE", "me")
    assert main([name]) == 2
    error = capsys.readouterr().err
    assert "TICKERTAPE_JWT_AUDIANCE is not a setting, but resembles TICKERTAPE_JWT_AUDIENCE" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_commands_result_is_the_exit_code(code: int) -> None:
    """The command's result is the exit code."""
    ran.result = code
    assert main(["serve"]) == code


def test_a_command_need_not_be_a_coroutine() -> None:
    """A command that is not a coroutine and returns nothing succeeds."""
    assert main(["plain"]) == 0
    assert len(ran.settings) == 1


def test_an_oserror_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """An OSError is one line with exit code 1, without a traceback."""
    ran.result = FileNotFoundError(2, "No such file", "/nowhere.creds")
    assert main(["serve"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tickertape serve: ")
    assert "/nowhere.creds" in err
    assert err.count("\n") == 1


def test_an_interrupt_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt has the shell's exit code."""
    ran.result = KeyboardInterrupt()
    assert main(["serve"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("argument", ["-h", "--help"])
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_describes_every_option(
    name: str, argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every option has a metavar, a description and a group, and every command has examples."""
    command = ORIGINAL[name]
    model = cli._load(command.settings)
    monkeypatch.setitem(cli.COMMANDS, name, command)
    assert main([name, argument]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: tickertape {name} [OPTIONS]")
    for option in iter_options(model):
        assert option.description, option.name
        assert option.flag or re.fullmatch(r"[A-Z=]+|[\w|]+", option.metavar), option.name
        assert option.positional or f"\n  --{option.name.replace('_', '-')}" in out
    assert all(f"\n  tickertape {example}\n" in out for example in command.examples)
    assert command.examples
    assert max(map(len, out.splitlines())) <= 100


def test_help_has_groups(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Groups are the same for all commands and appear only if they have options."""
    monkeypatch.setitem(cli.COMMANDS, "serve", ORIGINAL["serve"])
    main(["serve", "--help"])
    out = capsys.readouterr().out
    for group in ("Options", *(group for group, _ in GROUPS), "Examples"):
        assert f"\n{group}:\n" in out
    main(["schema", "--help"])
    assert "NATS" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["schema", "asyncapi"]])
def test_closed_output_causes_no_traceback(arguments: list[str]) -> None:
    """Closing the output early, as ``| head`` does, causes no traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tickertape", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait(PATIENCE) == 1


def test_examples_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example is valid for its command, parsed like a shell does."""
    monkeypatch.chdir(tmp_path)
    for name, command in ORIGINAL.items():
        for example in command.examples:
            words = shlex.split(re.sub(r" (?:<|>>?) [\w./~-]+$", "", example))
            assert words[0] == name
            if name == "config":  # which parses the options of other commands
                (tmp_path / "tickertape.toml").write_text("port = 1")
                assert main(words) == 0
                continue
            assert isinstance(cli.parse(cli._load(command.settings), words[1:]), BaseModel)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_loaded(name: str) -> None:
    """Every command in the table exists."""
    command = COMMANDS[name]
    for path in filter(None, (command.settings, command.run)):
        assert callable(cli._load(path))
