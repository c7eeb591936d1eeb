"""The command line: parses, calls, nothing else.

Each command has one settings model for its flags and the environment; this file maps names to them and
turns every mistake into one line and an exit code: 2 for usage, 1 for what could not be done.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

USAGE: Final = 2
FAILURE: Final = 1
INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        does: a line for the overview.
        settings: ``module:class`` of its options; empty when it reads its arguments itself.
        run: ``module:function`` that takes them; what it returns is the exit code.
        early: ``module:function`` that sees the arguments first, for what must be fast: it returns the exit
            code, or None to go on.
    """

    does: str
    settings: str
    run: str
    early: str = ""


COMMANDS: Final = {
    "demo": Command(
        "everything on one machine, with gateways that fail and recover and a log that is written",
        "relay.demo.settings:DemoSettings",
        "relay.demo.run:run",
    ),
    "serve": Command(
        "the relay: NATS in, WebSocket feeds out", "relay.config:ServeSettings", "relay.serve_command:run"
    ),
    "monitor": Command(
        "watch gateways, publish what changes",
        "producers.monitor.run:MonitorSettings",
        "producers.monitor.run:run",
    ),
    "ship": Command(
        "ship log files, or standard input",
        "producers.shipper.ship:ShipSettings",
        "producers.shipper.ship:run",
    ),
    "tail": Command("a live feed in the terminal", "relay.tail:TailSettings", "relay.tail:run"),
    "publish": Command(
        "publish one event, or one per line of standard input",
        "producers.publish_command:PublishSettings",
        "producers.publish_command:run",
    ),
    "streams": Command(
        "show the streams, or apply what the contract wants",
        "relay.streams_command:StreamsSettings",
        "relay.streams_command:run",
    ),
    "token": Command(
        "mint or inspect a token", "relay.token_command:TokenCommandSettings", "relay.token_command:run"
    ),
    "check": Command(
        "validate configuration and what it points at",
        "relay.check:CheckSettings",
        "relay.check:run",
        "relay.doctor.alive:early",
    ),
    "bench": Command(
        "measure this installation beside its peers",
        "",
        "relay.bench_command:run",
    ),
    "schema": Command(
        "print the contract: JSON Schema, AsyncAPI, TypeScript",
        "relay.schema_command:SchemaSettings",
        "relay.schema_command:run",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run ``tickertape``.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Returns:
        the exit code.
    """
    arguments = sys.argv[1:] if argv is None else argv
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name in ("", "-h", "--help"):
        print(_overview())
        return 0 if name else USAGE
    if name in ("-V", "--version"):
        from relay.metrics import package_version

        print(package_version())
        return 0
    command = COMMANDS.get(name)
    if command is None:
        return _usage(f"there is no command {name!r}; one of {', '.join(COMMANDS)}")
    if command.early and (code := _load(command.early)(rest)) is not None:
        return int(code)
    try:
        settings = _parse(name, _load(command.settings), rest) if command.settings else rest
    except _UsageError as error:
        return _usage(f"{name}: {error}")
    from relay import logs

    logs.set_up("text", "info")
    return _run(name, _load(command.run), settings)


def _run(name: str, function: Callable[[Any], Any], settings: Any) -> int:
    import asyncio

    from relay.process import run_async

    try:
        result = function(settings)
        if not asyncio.iscoroutine(result):
            return int(result or 0)
        return run_async(result)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output is gone, as with `tickertape tail | head`.
        sys.stderr.close()
        return FAILURE
    except OSError as error:
        print(f"tickertape {name}: {error}", file=sys.stderr)
        return FAILURE


class _UsageError(Exception):
    """The command line or the environment has a mistake; its text is one line."""


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
        # Options may stand before, between and behind what has no name.
        parse_args_method=ArgumentParser.parse_intermixed_args,
    )
    try:
        return CliApp.run(model, cli_args=arguments, cli_settings_source=source)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        where = "".join(f"--{part}: ".replace("_", "-") for part in first["loc"][:1])
        raise _UsageError(f"{where}{message}") from None
    except SettingsError as error:
        raise _UsageError(str(error).removeprefix("error parsing CLI: ")) from None


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def _overview() -> str:
    lines = ["tickertape COMMAND [OPTIONS]", ""]
    lines += [f"  {name:<9} {command.does}" for name, command in COMMANDS.items()]
    lines += ["", "Each option is also an environment variable, TICKERTAPE_<NAME>."]
    lines += ["'tickertape COMMAND --help' lists them."]
    return "\n".join(lines)


def _usage(message: str) -> int:
    print(f"tickertape {message}", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
