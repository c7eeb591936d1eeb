"""Help of a command, generated from the settings model of its options.

Every option is listed with its name, a metavar or its choices, a description, and its default. The option
groups are the same for all commands.
"""

import shutil
import textwrap
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from tickertape.config.model import AMBIGUOUS, Setting, Settings
from tickertape.validation import ENV_PREFIX

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
    ("FILE", ("*_file", "*_cert", "*_key", "*_ca", "*_creds", "ca", "config", "gateways")),
    ("HOST", ("host", "*_host")),
    ("PORT", ("port", "*_port")),
    ("SECONDS", ("drain", "drain_delay", "jwt_leeway", "deadline", "health_interval", "seconds")),
    ("STREAM=SIZE", ("max_bytes", "streams_max_bytes")),
    ("BYTES", ("*_bytes",)),
    ("MIB", ("spool_size",)),
    ("PATTERNS", ("subjects", "deny")),
    ("PATTERN", ("states",)),
    ("PREFIX", ("*_prefix",)),
    ("NETWORKS", ("trusted_proxies", "unlimited_addresses")),
    ("ORIGINS", ("allowed_origins",)),
    ("ORIGIN", ("origin",)),
    ("MODE", ("mode",)),
    ("CURSOR", ("cursor",)),
    ("PASSWORD", ("nats_password",)),
    ("TOKEN", ("token", "nats_token")),
    ("DURATION", ("expires", "for", "half_line_after", "forget_after")),
    ("TIME", ("since", "until", "not_before")),
    ("LEVEL", ("level", "log_level")),
    ("SOURCE=LEVEL", ("level_of",)),
    ("LEVEL=N", ("rate",)),
    ("NAME=KEY", ("field",)),
    ("KIND=PATTERN", ("redact",)),
    ("PATTERN", ("multiline",)),
    ("ZONE", ("zone",)),
    ("ENCODING", ("encoding",)),
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


def format_help(name: str, summary: str, model: type[Settings], examples: tuple[str, ...] = ()) -> str:
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
    parts.append(textwrap.fill(_sources_lines(model, all_options), width, break_on_hyphens=False))
    if examples:
        parts.append("\n".join(["Examples:", *(f"  tickertape {example}" for example in examples)]))
    return "\n\n".join(parts)


def _sources_lines(model: type[Settings], options: list["Option"]) -> str:
    """Return the lines about the other sources of settings."""
    configurable = [option for option in options if option.keys and not option.positional]
    example = max(configurable, key=lambda option: option.name in AMBIGUOUS)
    which = "Each option" if all(option.keys or option.positional for option in options) else "An option"
    return (
        f"{which} is also an environment variable: {example.option} is "
        f"{ENV_PREFIX}{example.keys[-1].upper()}; the file of --config has the same names."
    )


class Option(Setting):
    """Option or positional argument, as shown in the help."""

    def __init__(self, model: type[Settings], attribute: str, field: FieldInfo) -> None:
        super().__init__(model, attribute, field)
        self.description = _normalize(field.description or "")
        self._default = None if field.is_required() else field.get_default(call_default_factory=True)
        self.group = next(
            (
                group
                for group, patterns in GROUPS
                if any(fnmatchcase(self.name, pattern) for pattern in patterns)
            ),
            DEFAULT_GROUP,
        )

    @property
    def metavar(self) -> str:
        """Placeholder for the value, or the list of choices."""
        if get_origin(self.type) is Literal:
            return "|".join(str(choice) for choice in get_args(self.type))
        for word, patterns in METAVARS:
            if word == "LEVEL=N" and not self.is_list:
                continue  # the rate of a token is a single number
            if any(fnmatchcase(self.name, pattern) for pattern in patterns):
                return word
        if self.type is Path:
            return "FILE"
        return "N" if self.type in (int, float) else "TEXT"

    @property
    def usage(self) -> str:
        """Form of a positional argument in the usage line."""
        word = self.metavar if get_origin(self.type) is Literal else self.name.upper()
        word += " ..." if self.is_list else ""
        return word if self.field.is_required() else f"[{word}]"

    def format(self, width: int) -> str:
        """Return the lines of the option in the help.

        Args:
            width: columns of the terminal.
        """
        value = "" if self.flag else f" {self.metavar}"
        head = self.usage if self.positional else self.option + value
        text = self.description
        if self._default not in (None, "", False, [], ()) and not self.positional:
            text += f" [default: {self._default}]"
        return _format_line(head, text, width)


def iter_options(model: type[Settings]) -> Iterator[Option]:
    """Yield the options and arguments of a settings model in the order of its fields."""
    for name, field in model.model_fields.items():
        yield Option(model, name, field)


def _normalize(text: str) -> str:
    """Return a description in the style of the help: starting in lower case, without a full stop."""
    words = text.split()
    # Names and abbreviations, which have further capitals, keep their case.
    if words and (words[0][1:].islower() or words[0] == "A"):
        words[0] = words[0].lower()
    return " ".join(words).removesuffix(".")


def _format_line(head: str, text: str, width: int) -> str:
    indent = " " * COLUMN
    wrapped = textwrap.wrap(text, max(30, width - COLUMN), break_on_hyphens=False, break_long_words=False)
    first = " " * INDENT + head
    if len(first) + 2 > COLUMN:
        return "\n".join([first, *(indent + line for line in wrapped)])
    wrapped = wrapped or [""]
    return "\n".join([f"{first:<{COLUMN}}{wrapped[0]}".rstrip(), *(indent + line for line in wrapped[1:])])


__all__ = ["GROUPS", "Option", "format_help", "iter_options"]
