"""Names of earlier versions that no longer exist: using one is an error that states the new name."""

from collections.abc import Mapping, Sequence
from typing import Final

OPTIONS: Final = {"serve": {"drain-notice": "drain-delay"}, "monitor": {"why": "reason"}}
"""New names of options by command and earlier name."""

COMMANDS: Final = {"bench": "run 'make bench' in a clone"}
"""Replacements of commands."""


def find_renamed(command: str, arguments: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Return an error that states the new name of an option or environment variable in use, or None.

    Args:
        command: name of the command.
        arguments: its arguments.
        environment: environment variables.
    """
    from tickertape.validation import ENV_PREFIX  # imports pydantic, which the fast path does without

    # ``check`` has the options of ``serve``.
    renamed = OPTIONS.get("serve" if command == "check" else command, {})
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    for before, now in renamed.items():
        if any(argument.partition("=")[0] == f"--{before}" for argument in options):
            return f"option --{before} is now --{now}"
        variable = f"{ENV_PREFIX}{before.replace('-', '_').upper()}"
        if variable in environment:
            return f"environment variable {variable} is now {ENV_PREFIX}{now.replace('-', '_').upper()}"
    return None


__all__ = ["COMMANDS", "find_renamed"]
