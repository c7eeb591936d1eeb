"""``tickertape completion``: print the script with which a shell completes command lines.

The script is static: completing does not start Python. Print it again after an upgrade.
"""

import argparse
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from tickertape.cli.command_line.arguments import add_option, choices
from tickertape.cli.command_line.help import iter_options
from tickertape.cli.main import COMMANDS, load_model
from tickertape.config.model import Positional, Settings
from tickertape.process.console import print_lines


class CompletionSettings(Settings):
    """Settings of ``tickertape completion``."""

    section: ClassVar[str] = "completion"

    shell: Positional[Literal["bash", "zsh", "fish", "tcsh"]] = Field(description="shell of the script")


def run(settings: CompletionSettings) -> int:
    """Print the script; commands whose packages are not installed have no options in it.

    Returns:
        0.
    """
    import shtab

    parser = argparse.ArgumentParser(prog="tickertape")
    parser.add_argument("--version", action="store_true", help="print the version")
    commands = parser.add_subparsers()
    for name, command in COMMANDS.items():
        summary = command.summary.replace("%", "%%")
        command_parser = commands.add_parser(name, help=summary, description=summary)
        try:
            options = list(iter_options(load_model(name)))
        except ModuleNotFoundError:
            continue
        for option in options:
            action = add_option(command_parser, option)
            action.choices = choices(option) or None
            if option.type is Path or option.name == "paths":
                directory = option.metavar == "DIR"
                action.complete = shtab.DIRECTORY if directory else shtab.FILE  # type: ignore[attr-defined]
    print_lines(shtab.complete(parser, settings.shell))
    return 0
