"""Options, variables and commands of 0.1.0: each still exists, or its use states the new name."""

import re

import pytest

from tests.support.compatibility.fixture_0_1_0 import options
from tests.support.programs.relay_process import expect_rejection
from tickertape.cli.main import main

OPTIONS = options()


@pytest.mark.parametrize("command", OPTIONS)
def test_each_option_exists_or_states_its_new_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An option of 0.1.0 is in the help, or is rejected with one line that contains one that is."""
    if main([command, "--help"]) != 0:
        assert "unknown command 'bench'; run 'make bench' in a clone" in capsys.readouterr().err
        return
    existing = set(re.findall(r"--[a-z][a-z0-9-]*", capsys.readouterr().out))
    for option in OPTIONS[command]:
        # argparse accepts the negation of each flag, which the help does not list.
        if option in existing or f"--{option.removeprefix('--no-')}" in existing:
            continue
        done = expect_rejection(command, option, "1")
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        (now,) = re.findall(rf"option {option} is now (--[a-z-]+)$", done.stderr.strip())
        assert now in existing
        variable = f"TICKERTAPE_{option[2:].replace('-', '_').upper()}"
        done = expect_rejection(command, **{variable: "1"})
        assert done.returncode == 2
        assert f"{variable} is now TICKERTAPE_{now[2:].replace('-', '_').upper()}" in done.stderr


def test_a_value_is_no_option() -> None:
    """The earlier name of an option may be a value, or follow ``--``."""
    done = expect_rejection("monitor", "silence", "--for", "x", "--", "--why")
    assert "is now" not in done.stderr
