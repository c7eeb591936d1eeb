"""The help of a command, from the settings model of its options.

Every option has a line: its name, a word for its value, or its choices, what it does, and its default.
Options stand in groups, which are the same for all commands.
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
"""The group of options that belong to one command alone."""

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
"""Options by patterns of their names; the first group that fits has it."""

METAVARS: Final = (
    ("URL", ("url", "*_url")),
    ("DIR", ("*_dir",)),
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
"""Words for the values of options, by patterns of their names; the first that fits a value's type counts."""

INDENT: Final = 2
COLUMN: Final = 28
"""Where descriptions begin."""

MAX_WIDTH: Final = 100


def format_help(name: str, does: str, model: type[BaseSettings], examples: tuple[str, ...] = ()) -> str:
    """Return the help of a command.

    Args:
        name: of the command.
        does: what it does, in a line.
        model: of its options.
        examples: command lines, without the program.
    """
    width = min(MAX_WIDTH, shutil.get_terminal_size().columns)
    fields = list(iter_options(model))
    arguments = [one for one in fields if one.positional]
    usage = " ".join([f"usage: tickertape {name} [OPTIONS]", *(one.usage for one in arguments)])
    parts = [usage, textwrap.fill(f"{does[0].upper()}{does[1:]}.", width)]
    if arguments:
        parts.append("\n".join(["Arguments:", *(one.line(width) for one in arguments)]))
    groups = [DEFAULT_GROUP, *(group for group, _ in GROUPS)]
    for group in groups:
        lines = [one.line(width) for one in fields if one.group == group and not one.positional]
        if group == DEFAULT_GROUP:
            lines.append(_format_line("-h, --help", "show this help", width))
        if lines:
            parts.append("\n".join([f"{group}:", *lines]))
    prefix = model.model_config.get("env_prefix", "")
    parts.append(f"Each option is also an environment variable: --like-this is {prefix}LIKE_THIS.")
    if examples:
        parts.append("\n".join(["Examples:", *(f"  tickertape {one}" for one in examples)]))
    return "\n\n".join(parts)


class Option:
    """An option, or an argument without a name, as the help shows it.

    Args:
        name: of the field.
        field: its type, default and description.
    """

    def __init__(self, name: str, field: FieldInfo) -> None:
        self.name = field.alias or name
        self.positional = _POSITIONAL in field.metadata
        self.description = _normalize(field.description or "")
        self._kind, self._many = _value_type(field.annotation)
        self._default = None if field.is_required() else field.get_default(call_default_factory=True)
        self._required = field.is_required()
        self.group = next(
            (group for group, patterns in GROUPS if any(fnmatchcase(self.name, one) for one in patterns)),
            DEFAULT_GROUP,
        )

    @property
    def flag(self) -> bool:
        """True when it takes no value."""
        return self._kind is bool

    @property
    def metavar(self) -> str:
        """The word that stands for its value, or the choices that there are."""
        if get_origin(self._kind) is Literal:
            return "|".join(str(one) for one in get_args(self._kind))
        for word, patterns in METAVARS:
            if word == "LEVEL=N" and not self._many:
                continue  # a token's rate is a number
            if any(fnmatchcase(self.name, one) for one in patterns):
                return word
        if self._kind is Path:
            return "FILE"
        return "N" if self._kind in (int, float) else "TEXT"

    @property
    def usage(self) -> str:
        """As the line of usage has it, for one without a name."""
        word = self.metavar if get_origin(self._kind) is Literal else self.name.upper()
        word += " ..." if self._many else ""
        return word if self._required else f"[{word}]"

    def line(self, width: int) -> str:
        """Its lines in the help.

        Args:
            width: of the terminal, in columns.
        """
        if self.positional:
            head = self.usage
        else:
            head = f"--{self.name.replace('_', '-')}" + ("" if self.flag else f" {self.metavar}")
        text = self.description
        if self._default not in (None, "", False, [], ()) and not self.positional:
            text += f" [default: {self._default}]"
        return _format_line(head, text, width)


def iter_options(model: type[BaseSettings]) -> Iterator[Option]:
    """Yield the options and arguments of a settings model, in the order of its fields."""
    for name, field in model.model_fields.items():
        yield Option(name, field)


def _normalize(text: str) -> str:
    """Return a description as all of them stand in the help: no full stop, and no capital to begin with."""
    words = text.split()
    if words and (words[0][1:].islower() or words[0] == "A"):
        words[0] = words[0].lower()
    return " ".join(words).removesuffix(".")


def _value_type(annotation: Any) -> tuple[Any, bool]:
    """Return the type of a value without what stands around it, and whether there may be several."""
    if get_origin(annotation) is Annotated:
        return _value_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return _value_type(next(one for one in get_args(annotation) if one is not type(None)))
    if get_origin(annotation) is list:
        return _value_type(get_args(annotation)[0])[0], True
    return annotation, False


def _format_line(head: str, text: str, width: int) -> str:
    indent = " " * COLUMN
    wrapped = textwrap.wrap(text, max(30, width - COLUMN), break_on_hyphens=False, break_long_words=False)
    first = " " * INDENT + head
    if len(first) + 2 > COLUMN:
        return "\n".join([first, *(indent + one for one in wrapped)])
    wrapped = wrapped or [""]
    return "\n".join([f"{first:<{COLUMN}}{wrapped[0]}".rstrip(), *(indent + one for one in wrapped[1:])])


__all__ = ["GROUPS", "Option", "format_help", "iter_options"]
