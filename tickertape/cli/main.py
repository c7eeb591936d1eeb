"""Command line: parses the arguments and runs a command.

Each command has one settings model for its options and environment variables. Every error becomes one line on
standard error and an exit code: 2 for usage errors, 77 for permissions that NATS denies, 1 for other
failures, including missing packages, and 128 plus the number of a signal that ended a command before it was
done.
"""

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from tickertape.errors import EXIT_FAILURE, TickertapeError, exit_code
from tickertape.process import shutdown
from tickertape.process.console import (
    ensure_utf8,
    escape_tracebacks,
    escape_unencodable,
    flush,
    print_error,
    print_line,
    print_lines,
    print_notice,
)
from tickertape.process.standard_streams import OutputError, ReaderGone

EXIT_USAGE: Final = 2


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
        ("monitor --gateways gateways.yaml", "monitor silence ctp/main --for 2h --reason maintenance"),
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
    "report": Command(
        "report the availability and the incidents of gateways",
        "tickertape.cli.report.settings:ReportSettings",
        "tickertape.cli.report.command:run",
        "relay",
        ("report", "report --since 30d --csv > month.csv", "report --since 7d --json"),
    ),
    "publish": Command(
        "publish one event, or one event per line of standard input",
        "tickertape.cli.publish:PublishSettings",
        "tickertape.cli.publish:run",
        "relay",
        ("""publish log.info.me '{"message": "hello"}'""", "publish log.info.me < events.jsonl"),
    ),
    "streams": Command(
        "show the streams, create or update them, list rejected events, back them up or restore them",
        "tickertape.cli.streams:StreamsSettings",
        "tickertape.cli.streams:run",
        "relay",
        (
            "streams",
            "streams apply --max-bytes EVENTS=256MiB",
            "streams rejected --replay 17",
            "streams backup /backup/2026-01-31",
            "streams restore /backup/2026-01-31",
            "streams purge --states 'system.health.app.>'",
        ),
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
    "config": Command(
        "show the settings of a command, and where each comes from",
        "tickertape.cli.config:ConfigSettings",
        "tickertape.cli.config:run",
        "relay",
        ("config show serve", "config show serve --config tickertape.toml --port 80", "config show --json"),
        "tickertape.cli.config:fast_path",
    ),
    "completion": Command(
        "print a script for the completion of command lines",
        "tickertape.cli.completion:CompletionSettings",
        "tickertape.cli.completion:run",
        "completion",
        ("completion bash >> ~/.bash_completion",),
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
        ensure_utf8()
        escape_tracebacks()
        escape_unencodable()
    try:
        code = _main(sys.argv[1:] if argv is None else argv)
        # Here rather than at the exit of the interpreter, so that a failure is noticed in this block.
        flush()
        return code
    except ReaderGone:
        # As in `tickertape tail | head`: not worth a message.
        return shutdown.interrupted_code()
    except OutputError as error:
        print_error(f"tickertape: {error}")
        return EXIT_FAILURE
    finally:
        shutdown.begin()


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
        from tickertape.cli import renamed
        from tickertape.config.names import did_you_mean

        hint = did_you_mean(name, COMMANDS) or f"; choose from {', '.join(COMMANDS)}"
        hint = f"; {renamed.COMMANDS[name]}" if name in renamed.COMMANDS else hint
        return _print_usage_error(f"unknown command {name!r}{hint}")
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
        from tickertape.cli.command_line.help import format_help

        print_lines(format_help(name, command.summary, model, command.examples))
        return 0
    from tickertape.cli.renamed import find_renamed
    from tickertape.config.resolve import SettingsError

    if (problem := find_renamed(name, arguments, os.environ)) is not None:
        return _print_usage_error(f"{name}: {problem}")
    try:
        settings = parse(model, arguments)
    except SettingsError as error:
        return _print_usage_error(f"{name}: {error}")
    from tickertape import logging_setup as logs

    logs.configure("text", "info")
    return _run(name, _load(command.run), settings)


def _run(name: str, function: Callable[[Any], Any], settings: Any) -> int:
    import asyncio

    from tickertape.process.event_loop import run_async

    try:
        result = function(settings)
        if not asyncio.iscoroutine(result):
            return int(result or 0)
        return run_async(result)
    except KeyboardInterrupt:
        return shutdown.EXIT_SIGNAL + signal.SIGINT
    except OutputError:
        raise
    except (TickertapeError, OSError) as error:
        print_notice(name, str(error))
        return exit_code(error)


def parse(model: type[Any], arguments: list[str]) -> Any:
    """Return the settings of a command.

    Args:
        model: settings model of the command.
        arguments: command line after the name of the command.

    Raises:
        SettingsError: an option or a setting is invalid.
    """
    from tickertape.cli.command_line import arguments as command_line
    from tickertape.config.resolve import Sources, load

    return load(model, command_line.parse(model, arguments), Sources(os.environ, all_names))


def all_names() -> tuple[set[str], bool]:
    """Return the names of the settings of all commands, and whether all could be loaded."""
    from tickertape.config.names import names_of

    names: set[str] = set()
    complete = True
    for command in COMMANDS.values():
        try:
            names |= names_of(_load(command.settings))
        except ModuleNotFoundError:
            complete = False  # its extra is not installed, so that its names are unknown
    return names, complete


def load_model(name: str) -> Any:
    """Return the settings model of a command."""
    return _load(COMMANDS[name].settings)


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _overview() -> str:
    lines = ["usage: tickertape COMMAND [OPTIONS]", ""]
    lines += [f"  {name:<11} {command.summary}" for name, command in COMMANDS.items()]
    lines += ["", "'tickertape COMMAND --help' lists the options of a command."]
    lines += ["'tickertape --version' prints the version."]
    return "\n".join(lines)


def _print_usage_error(message: str) -> int:
    print_error(f"tickertape {message}")
    return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
