"""Help of a command, generated from the settings model of its options.

Every option is listed with its name, a metavar or its choices, a description, and its default. The option
groups are the same for all commands.
"""

import shutil
import textwrap
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, CliPositionalArg

_POSITIONAL: Final = get_args(CliPositionalArg[str])[1]

DEFAULT_GROUP: Final = "Options"
"""Group of options that match no pattern in ``GROUPS``; most are specific to one command."""

GROUPS: Final = (
    ("Embedded NATS", ("data_dir", "nats_port")),
    ("NATS", ("nats_*", "subject_prefix", "streams_max_bytes")),
    ("Tokens", ("auth", "jwt_*")),
    ("TLS", ("tls_*",)),
    ("Limits", ("max_*connections", "max_unauthenticated", "*_rate", "unlimited_addresses")),
    ("Memory", ("log_size", "log_bytes", "max_catch_up")),
    ("Shutdown", ("drain", "drain_*")),
    ("Logging", ("log_*",)),
    ("Metrics and health", ("ops_*", "metrics_*", "health_interval")),
)
"""Option groups with patterns of option names; the first matching group counts."""

METAVARS: Final = (
    ("URL", ("url", "*_url")),
    ("DIR", ("*_dir", "root")),
    ("KEY", ("jwt_key",)),
    ("FILE", ("*_file", "*_cert", "*_key", "*_ca", "*_creds", "ca", "config")),
    ("HOST", ("host", "*_host")),
    ("PORT", ("port", "*_port")),
    ("SECONDS", ("drain", "drain_delay", "jwt_leeway", "deadline", "health_interval", "seconds")),
    ("STREAM=SIZE", ("max_bytes", "streams_max_bytes")),
    ("BYTES", ("*_bytes",)),
    ("MIB", ("spool_size",)),
    ("PATTERNS", ("subjects", "deny")),
    ("PREFIX", ("*_prefix",)),
    ("NETWORKS", ("trusted_proxies", "unlimited_addresses")),
    ("ORIGINS", ("allowed_origins",)),
    ("ORIGIN", ("origin",)),
    ("MODE", ("mode",)),
    ("CURSOR", ("cursor",)),
    ("PASSWORD", ("nats_password",)),
    ("TOKEN", ("token", "nats_token")),
    ("DURATION", ("expires", "for")),
    ("TIME", ("since", "not_before")),
    ("LEVEL", ("level", "log_level")),
    ("SOURCE=LEVEL", ("level_of",)),
    ("LEVEL=N", ("rate",)),
    ("NAME=KEY", ("field",)),
    ("KIND=PATTERN", ("redact",)),
    ("PATTERN", ("multiline",)),
    ("ZONE", ("zone",)),
    ("SUBJECT", ("subject",)),
    ("NAME", ("source", "log_ship", "id", "kid", "nats_user")),
    ("PATH", ("paths",)),
)
"""Metavars with patterns of option names; the first match counts."""

INDENT: Final = 2
"""Columns before the name of an option."""

COLUMN: Final = 28
"""Column at which descriptions start."""

MAX_WIDTH: Final = 100
"""Maximum columns of the help; narrower terminals use their own width."""


def format_help(name: str, summary: str, model: type[BaseSettings], examples: tuple[str, ...] = ()) -> str:
    """Return the help of a command.

    Args:
        name: name of the command.
        summary: one line that describes the command.
        model: settings model of its options.
        examples: command lines, without the name of the program.
    """
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    all_options = list(iter_options(model))
    arguments = [option for option in all_options if option.positional]
    usage = " ".join([f"usage: tickertape {name} [OPTIONS]", *(argument.usage for argument in arguments)])
    parts = [usage, textwrap.fill(f"{summary[0].upper()}{summary[1:]}.", width)]
    if arguments:
        parts.append("\n".join(["Arguments:", *(argument.format(width) for argument in arguments)]))
    groups = [DEFAULT_GROUP, *(group for group, _ in GROUPS)]
    for group in groups:
        lines = [
            option.format(width) for option in all_options if option.group == group and not option.positional
        ]
        if group == DEFAULT_GROUP:
            lines.append(_format_line("-h, --help", "show this help and exit", width))
        if lines:
            parts.append("\n".join([f"{group}:", *lines]))
    parts += _variables_lines(model, all_options)
    if examples:
        parts.append("\n".join(["Examples:", *(f"  tickertape {example}" for example in examples)]))
    return "\n\n".join(parts)


def _variables_lines(model: type[BaseSettings], options: list["Option"]) -> list[str]:
    """Return the line about the environment variables of a command; empty without options."""
    pattern = getattr(model, "variables", "*")
    names = [option.name for option in options if not option.positional and fnmatchcase(option.name, pattern)]
    if not names:
        return []
    which = "Each option" if pattern == "*" else f"Each option {_flag(pattern)}"
    example = "some_option" if pattern == "*" else names[0]
    variable = f"{model.model_config.get('env_prefix', '')}{example.upper()}"
    return [f"{which} is also an environment variable: {_flag(example)} is {variable}."]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


class Option:
    """Option or positional argument, as shown in the help.

    Args:
        name: name of the field.
        field: type, default and description of the field.
    """

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.name = field.alias or name
        self.positional = _POSITIONAL in field.metadata
        self.description = _normalize(field.description or "")
        self._type, self._repeatable = _value_type(field.annotation)
        self._default = None if field.is_required() else field.get_default(call_default_factory=True)
        self._required = field.is_required()
        self.group = next(
            (
                group
                for group, patterns in GROUPS
                if any(fnmatchcase(self.name, pattern) for pattern in patterns)
            ),
            DEFAULT_GROUP,
        )

    @property
    def flag(self) -> bool:
        """Whether the option takes no value."""
        return self._type is bool

    @property
    def metavar(self) -> str:
        """Placeholder for the value, or the list of choices."""
        if get_origin(self._type) is Literal:
            return "|".join(str(choice) for choice in get_args(self._type))
        for word, patterns in METAVARS:
            if word == "LEVEL=N" and not self._repeatable:
                continue  # the rate of a token is a single number
            if any(fnmatchcase(self.name, pattern) for pattern in patterns):
                return word
        if self._type is Path:
            return "FILE"
        return "N" if self._type in (int, float) else "TEXT"

    @property
    def usage(self) -> str:
        """Form of a positional argument in the usage line."""
        word = self.metavar if get_origin(self._type) is Literal else self.name.upper()
        word += " ..." if self._repeatable else ""
        return word if self._required else f"[{word}]"

    def format(self, width: int) -> str:
        """Return the lines of the option in the help.

        Args:
            width: columns of the terminal.
        """
        value = "" if self.flag else f" {self.metavar}"
        head = self.usage if self.positional else _flag(self.name) + value
        text = self.description
        if self._default not in (None, "", False, [], ()) and not self.positional:
            text += f" [default: {self._default}]"
        return _format_line(head, text, width)


def iter_options(model: type[BaseSettings]) -> Iterator[Option]:
    """Yield the options and arguments of a settings model in the order of its fields."""
    for name, field in model.model_fields.items():
        yield Option(name, field)


def _normalize(text: str) -> str:
    """Return a description in the style of the help: starting in lower case, without a full stop."""
    words = text.split()
    # Names and abbreviations, which have further capitals, keep their case.
    if words and (words[0][1:].islower() or words[0] == "A"):
        words[0] = words[0].lower()
    return " ".join(words).removesuffix(".")


def _value_type(annotation: Any) -> tuple[Any, bool]:
    """Return the bare type of a value, and whether the option accepts several values."""
    if get_origin(annotation) is Annotated:
        return _value_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _value_type(next(member for member in get_args(annotation) if member is not type(None)))
    if get_origin(annotation) is list:
        return _value_type(get_args(annotation)[0])[0], True
    return annotation, False


def _format_line(head: str, text: str, width: int) -> str:
    indent = " " * COLUMN
    wrapped = textwrap.wrap(text, max(30, width - COLUMN), break_on_hyphens=False, break_long_words=False)
    first = " " * INDENT + head
    if len(first) + 2 > COLUMN:
        return "\n".join([first, *(indent + line for line in wrapped)])
    wrapped = wrapped or [""]
    return "\n".join([f"{first:<{COLUMN}}{wrapped[0]}".rstrip(), *(indent + line for line in wrapped[1:])])


__all__ = ["GROUPS", "Option", "format_help", "iter_options"]
