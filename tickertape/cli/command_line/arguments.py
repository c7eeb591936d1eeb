"""Command lines: parsed by argparse, with suggestions for unknown options.

The parser is built from the settings model of the command; shell completion uses the same one. It only
collects texts, which the model validates together with the values of all other sources.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, get_args, get_origin

from tickertape.cli.command_line.help import Option, iter_options
from tickertape.config.model import Settings
from tickertape.config.names import did_you_mean
from tickertape.config.resolve import SettingsError


class Parser(argparse.ArgumentParser):
    """Parser that raises ``SettingsError`` instead of exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the error."""
        raise SettingsError(re.sub(r"^argument (\S+):", r"\1:", message))


def parse(model: type[Settings], arguments: Sequence[str]) -> dict[str, Any]:
    """Return the values that a command line contains, by attribute.

    Options may be before, between and after positional arguments.

    Raises:
        SettingsError: an option is unknown or lacks its value, or there are too many arguments.
    """
    options = list(iter_options(model))
    parser = Parser(add_help=False, allow_abbrev=False, usage="")
    for option in options:
        add_option(parser, option)
    # What follows ``--`` are positional arguments, which argparse mixes up with options otherwise.
    collect = parser.parse_known_args if "--" in arguments else parser.parse_known_intermixed_args
    found, rest = collect(list(arguments))
    for argument in rest:
        if argument.startswith("-") and argument != "-":
            name = argument.partition("=")[0]
            known = [option.option for option in options if not option.positional]
            known += [f"--no-{option.option[2:]}" for option in options if option.flag]
            raise SettingsError(f"unknown option {name}{did_you_mean(name, [*known, '--help'])}")
        raise SettingsError(f"unexpected argument {argument!r}")
    # argparse sets a positional argument that accepts any number of values also if there is none.
    return {name: value for name, value in vars(found).items() if value != []}


def add_option(parser: argparse.ArgumentParser, option: Option) -> argparse.Action:
    """Add an option or argument to a parser."""
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": option.description.replace("%", "%%")}
    if option.positional:
        return parser.add_argument(option.attribute, nargs="*" if option.is_list else "?", **keywords)
    keywords |= {"dest": option.attribute}
    if option.flag:
        return parser.add_argument(option.option, action=argparse.BooleanOptionalAction, **keywords)
    keywords |= {"action": "append" if option.repeatable else "store", "metavar": option.metavar}
    return parser.add_argument(option.option, **keywords)


def choices(option: Option) -> list[str]:
    """Return the values that an option accepts; empty if there are too many to list."""
    return [str(choice) for choice in get_args(option.type)] if get_origin(option.type) is Literal else []
