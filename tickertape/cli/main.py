"""Command line: parses the arguments and runs a command.

Each command has one settings model for its options and environment variables. Every error becomes one line on
standard error and an exit code: 2 for usage errors, 1 for failures, including missing packages.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from tickertape.process.console import (
    escape_tracebacks,
    escape_unencodable,
    flush,
    print_error,
    print_line,
    print_lines,
    print_notice,
)

EXIT_USAGE: Final = 2
EXIT_FAILURE: Final = 1
EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Command:
    """Command of the program.

    Attributes:
        summary: one line for the overview.
        settings: ``module:class`` of the options.
        run: ``module:function`` that receives the options and returns the exit code.
        extra: extra of the package that the command requires.
        examples: command lines for the help, without the name of the program.
        fast_path: ``module:function`` that receives the arguments before they are parsed, for commands that
            must start fast; it returns the exit code, or None to continue.
    """

    summary: str
    settings: str
    run: str
    extra: str = "relay"
    examples: tuple[str, ...] = ()
    fast_path: str = ""


COMMANDS: Final = {
    "demo": Command(
        "run the complete system on this machine, with simulated gateways and logs",
        "tickertape.demo.settings:DemoSettings",
        "tickertape.demo.run:run",
        "all",
        ("demo", "demo --seconds 60 --seed 1"),
    ),
    "serve": Command(
        "run the relay: NATS in, WebSocket feeds out",
        "tickertape.relay.settings:ServeSettings",
        "tickertape.cli.serve:run",
        "relay",
        (
            "serve --nats-url nats://nats.example.com:4222",
            "serve --host 0.0.0.0 --auth jwt --jwt-algorithm ES256 --jwt-key-file public.pem",
        ),
    ),
    "monitor": Command(
        "monitor gateways and publish their status changes, or silence a gateway",
        "tickertape.cli.monitor:MonitorSettings",
        "tickertape.cli.monitor:run",
        "monitor",
        ("monitor --config gateways.yaml", "monitor silence ctp/main --for 2h --reason maintenance"),
    ),
    "ship": Command(
        "ship lines of files or standard input as log events, exactly once",
        "tickertape.producers.shipper.settings:ShipSettings",
        "tickertape.cli.ship:run",
        "ship",
        ("ship '/var/log/app/*.log'", "ship app.log --dry-run", "ship - --source app < app.log"),
    ),
    "tail": Command(
        "show a live feed in the terminal",
        "tickertape.cli.tail.settings:TailSettings",
        "tickertape.cli.tail.command:run",
        "relay",
        ("tail", "tail --subjects 'gateway.>,log.error.>' --since 10m", "tail --json"),
    ),
    "publish": Command(
        "publish one event, or one event per line of standard input",
        "tickertape.cli.publish:PublishSettings",
        "tickertape.cli.publish:run",
        "relay",
        ("""publish log.info.me '{"message": "hello"}'""", "publish log.info.me < events.jsonl"),
    ),
    "streams": Command(
        "show the streams, create or update them, or list rejected events",
        "tickertape.cli.streams:StreamsSettings",
        "tickertape.cli.streams:run",
        "relay",
        ("streams", "streams apply --max-bytes EVENTS=256MiB", "streams rejected --replay 17"),
    ),
    "token": Command(
        "mint or inspect a token, or generate a key",
        "tickertape.cli.tokens:TokenCommandSettings",
        "tickertape.cli.tokens:run",
        "relay",
        (
            "token keygen --jwt-algorithm ES256 --public-file public.pem > private.pem",
            "token mint --jwt-algorithm ES256 --key-file private.pem --subject alice --subjects '>'",
        ),
    ),
    "check": Command(
        "check a configuration and its environment",
        "tickertape.cli.check.command:CheckSettings",
        "tickertape.cli.check.command:run",
        "relay",
        ("check", "check gateways.yaml", "check --json"),
        "tickertape.cli.check.health_probe:fast_path",
    ),
    "schema": Command(
        "print the contract as JSON Schema, AsyncAPI or TypeScript",
        "tickertape.cli.schema:SchemaSettings",
        "tickertape.cli.schema:run",
        "relay",
        ("schema events", "schema typescript"),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run ``tickertape``.

    Args:
        argv: arguments without the name of the program; None uses those of the process.

    Returns:
        the exit code.
    """
    if argv is None:
        escape_tracebacks()
        escape_unencodable()
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        # Here rather than at the exit of the interpreter, so that a closed pipe is noticed in this block.
        flush()
        return code
    except BrokenPipeError:
        # The reader of the output has exited, as in `tickertape tail | head`. os._exit discards the buffered
        # output; flushing it at interpreter exit would print a traceback.
        os._exit(EXIT_FAILURE)


def _main(arguments: list[str]) -> int:
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("", "-h", "--help"):
        print_lines(_overview())
        return 0 if name else EXIT_USAGE
    if name in ("-V", "--version"):
        from importlib.metadata import version

        print_line(version("tickertape"))
        return 0
    command = COMMANDS.get(name)
    if command is None:
        return _print_usage_error(f"unknown command {name!r}; choose from {', '.join(COMMANDS)}")
    try:
        return _command(name, command, rest)
    except ModuleNotFoundError as error:
        # A missing module of Tickertape itself is a defect, which no extra can fix.
        if error.name is None or error.name.partition(".")[0] == "tickertape":
            raise
        print_notice(name, f"{error.name} is not installed; pip install 'tickertape[{command.extra}]'")
        return EXIT_FAILURE


def _command(name: str, command: Command, arguments: list[str]) -> int:
    if command.fast_path and (code := _load(command.fast_path)(arguments)) is not None:
        return int(code)
    model = _load(command.settings)
    if "-h" in arguments or "--help" in arguments:
        from tickertape.cli.help import format_help

        print_lines(format_help(name, command.summary, model, command.examples))
        return 0
    if (problem := _find_misspelt_variable(model)) is not None:
        return _print_usage_error(f"{name}: {problem}; rename or unset it")
    try:
        settings = _parse(name, model, arguments)
    except _UsageError as error:
        return _print_usage_error(f"{name}: {error}")
    from tickertape import logging_setup as logs

    logs.configure("text", "info")
    return _run(name, _load(command.run), settings)


def _run(name: str, function: Callable[[Any], Any], settings: Any) -> int:
    import asyncio

    from tickertape.errors import TickertapeError
    from tickertape.process.event_loop import run_async

    try:
        result = function(settings)
        if not asyncio.iscoroutine(result):
            return int(result or 0)
        return run_async(result)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    # It is an OSError, but ``main`` handles it.
    except BrokenPipeError:
        raise
    except (TickertapeError, OSError) as error:
        print_notice(name, str(error))
        return EXIT_FAILURE


class _UsageError(Exception):
    """Invalid command line or environment variable; its text is one line."""


def _find_misspelt_variable(model: type[Any]) -> str | None:
    """Return an error for an environment variable with the prefix that is not a setting of any command."""
    from tickertape.validation import find_misspelt_variable

    known = _variables(model)
    if find_misspelt_variable(os.environ, known) is None:
        return None
    # Only now: the settings of all commands take a while to import.
    complete = True
    for command in COMMANDS.values():
        try:
            known |= _variables(_load(command.settings))
        except ModuleNotFoundError:
            complete = False  # its extra is not installed, so that its variables are unknown
    return find_misspelt_variable(os.environ, known, resembling=not complete)


def _variables(model: type[Any]) -> set[str]:
    prefix = str(model.model_config.get("env_prefix", "")).upper().removeprefix("TICKERTAPE_")
    return {prefix + (field.alias or name).upper() for name, field in model.model_fields.items()}


def _parse(name: str, model: type[Any], arguments: list[str]) -> Any:
    from pydantic import ValidationError
    from pydantic_settings import CliApp, CliSettingsSource, SettingsError

    source = CliSettingsSource[Any](
        model,
        cli_prog_name=f"tickertape {name}",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        cli_exit_on_error=False,
        cli_enforce_required=False,
        # Allows options before, between and after positional arguments.
        parse_args_method=ArgumentParser.parse_intermixed_args,
    )
    try:
        return CliApp.run(model, cli_args=arguments, cli_settings_source=source)
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        message = details["ctx"]["error"] if details["type"] == "value_error" else details["msg"]
        option = "".join(f"--{part}: ".replace("_", "-") for part in details["loc"][:1])
        raise _UsageError(f"{option}{message}") from None
    except SettingsError as error:
        raise _UsageError(str(error).removeprefix("error parsing CLI: ")) from None


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _overview() -> str:
    lines = ["usage: tickertape COMMAND [OPTIONS]", ""]
    lines += [f"  {name:<9} {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "'tickertape COMMAND --help' lists the options of a command."]
    lines += ["'tickertape --version' prints the version."]
    return "\n".join(lines)


def _print_usage_error(message: str) -> int:
    print_error(f"tickertape {message}")
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
