"""Options of ``tickertape ship``."""

import os
import socket
from pathlib import Path
from typing import Annotated, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from tickertape.contracts import subjects
from tickertape.contracts.messages import LevelName
from tickertape.producers.shipper.absence import DEFAULT_FORGET_AFTER
from tickertape.producers.shipper.encodings.names import parse_encoding
from tickertape.producers.shipper.files.rotation import source_of
from tickertape.producers.shipper.format_file.loader import load_formats, select_formats
from tickertape.producers.shipper.journal.journal_reader import JournalSettings
from tickertape.producers.shipper.otlp.address import OtlpAddress
from tickertape.producers.shipper.otlp.address import parse_address as parse_otlp_address
from tickertape.producers.shipper.parsing.container_paths import container_names
from tickertape.producers.shipper.parsing.own_formats.own_format import OwnFormat
from tickertape.producers.shipper.parsing.parser import (
    DEFAULT_FIELDS,
    FORMATS,
    FieldNames,
    Parser,
    ParserCounts,
    ParseSettings,
    level_of,
)
from tickertape.producers.shipper.syslog.addresses import SyslogAddress, parse_address
from tickertape.producers.shipper.throttle import ThrottleSettings
from tickertape.producers.shipper.timing import HALF_LINE_AFTER

from tickertape.config.model import Mark, Positional
from tickertape.durations import parse_duration
from tickertape.errors import ConfigurationError
from tickertape.nats.settings import ProducerSettings
from tickertape.process.files import state_folder
from tickertape.text import escape_surrogates
from tickertape.time_zones import parse_zone
from tickertape.validation import checked_by

STANDARD_INPUT: Final = "-"


def _normalize_level(value: object) -> object:
    return level_of(value) or value


def _check_zone(text: str | None) -> str | None:
    if text is not None:
        parse_zone(text)
    return text


def _check_format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(f"{text!r} is not a format; use one of {', '.join(FORMATS)}")
    return text


def _split_pairs(texts: list[str]) -> list[tuple[str, str]]:
    pairs = [(name.strip(), value) for name, _, value in (text.partition("=") for text in texts)]
    for text, (name, value) in zip(texts, pairs, strict=True):
        if not name or not value:
            raise ValueError(f"{text!r} is not of the form NAME=VALUE")
    return pairs


class ShipSettings(ProducerSettings):
    """Ship the lines of files or of standard input as log events, each exactly once."""

    model_config = ConfigDict(serialize_by_alias=True)
    section: ClassVar[str] = "ship"
    only_options: ClassVar[frozenset[str]] = frozenset({"json_"})

    paths: Positional[list[str]] = Field(default=[])
    """Paths and globs of files, or - for standard input."""
    journal: bool = False
    """Ship the journal of systemd, with or without files."""
    unit: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    """Unit, or pattern of units, whose entries in the journal are shipped; repeatable; default: all."""
    journal_dir: Path | None = None
    """Folder of the journal's files; default: the journal of this host."""
    syslog: list[Annotated[str, checked_by(parse_address)]] = Field(default=[])
    """Address on which syslog is received: udp://, tcp://, tls:// or relp://HOST:PORT; repeatable."""
    otlp: Annotated[str, checked_by(parse_otlp_address)] | None = None
    """Address (HOST:PORT) on which logs of OpenTelemetry are received: OTLP/HTTP."""
    syslog_cert: Path | None = None
    """Certificate for tls:// addresses (PEM file with its chain)."""
    syslog_key: Path | None = None
    """Private key of that certificate (PEM file, not encrypted); default: it is in the same file."""
    syslog_client_ca: Path | None = None
    """Authorities of which each sender over tls:// must have a certificate (PEM file)."""
    root: list[Annotated[str, Field(min_length=1)]] = Field(default=[])
    """Folder to which symbolic links may lead, beside that of each path or glob; repeatable."""
    source: Annotated[str, checked_by(subjects.escape)] | None = None
    """Source of lines that do not name one; default: the container in Kubernetes, else the file's name."""
    host: Annotated[str, Field(min_length=1), checked_by(subjects.escape)] = Field(
        default_factory=socket.gethostname
    )
    """Name of this host in checkpoints and health events; must be unique."""
    state_dir: Path = Field(default_factory=state_folder)
    """Folder for the lock, the spool of standard input, and local checkpoints."""
    level: Annotated[LevelName, BeforeValidator(_normalize_level)] = "DEBUG"
    """Minimum level of events to ship."""
    level_of: list[str] = Field(default=[])
    """Minimum level of events from one source; repeatable."""
    rate: list[str] = Field(default=[])
    """Maximum events per second of a level in each file; the rest are counted and reported; repeatable."""
    format: Annotated[str, AfterValidator(_check_format)] = "auto"
    """Format of the lines: auto, json, logfmt, python, loguru, glog, syslog or plain."""
    format_file: Path | None = None
    """TOML file with own formats, which are tried before the built-in ones; see docs/log-formats.md."""
    field: list[str] = Field(default=[])
    """Key of level, message, timestamp or source in JSON and logfmt lines; repeatable."""
    zone: Annotated[str | None, AfterValidator(_check_zone)] = None
    """IANA time zone of timestamps that do not name one; default: the zone of this host."""
    encoding: Annotated[str, AfterValidator(parse_encoding)] = "auto"
    """Encoding of files: auto (detected for each), utf-8, utf-16, latin-1, gb18030, shift_jis or another."""
    multiline: str = "auto"
    """Line joining: auto (tracebacks, indented lines), off, or a regular expression for first lines."""
    access_levels: bool = False
    """Level of lines in access logs by status: WARN for 4xx, ERROR for 5xx; else INFO for all."""
    redact: Annotated[list[str], Mark.WHOLE] = Field(default=[])
    """Regular expression for additional secrets to redact; repeatable."""
    once: bool = False
    """Ship the existing content and exit."""
    from_start: bool = False
    """On the very first run, ship the existing content of files (the default)."""
    from_end: bool = False
    """On the very first run, skip the existing content of files."""
    dry_run: bool = False
    """Ship nothing; report formats, times, levels and secrets at the start of files, with --once in all."""
    json_: bool = Field(default=False, alias="json")
    """With --dry-run, print every event as one line of JSON instead of the report."""
    status: bool = False
    """Show the lag of this host's shipper for each file and exit."""
    half_line_after: Annotated[str, checked_by(parse_duration)] = f"{HALF_LINE_AFTER:.0f}s"
    """Time without growth after which a line without a line break is shipped as it is."""
    forget_after: Annotated[str, checked_by(parse_duration)] = f"{DEFAULT_FORGET_AFTER / 86_400:.0f}d"
    """Time without a file of a name, in a readable folder, after which its position is forgotten."""
    spool_size: Annotated[int, Field(ge=1)] = 64
    """Maximum size of spooled standard input on disk."""

    # Read once, so that the file can be replaced while the shipper runs.
    _own_formats: tuple[OwnFormat, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _validate_combination(self) -> "ShipSettings":
        if not (self.paths or self.journal or self.syslog or self.otlp or self.status):
            raise ValueError(
                "no files given; pass paths or globs, - for standard input, --journal, --syslog, or --otlp"
            )
        if self.otlp and (self.once or self.dry_run):
            raise ValueError("--otlp has no end; use it without --once and --dry-run")
        if self.otlp and self.is_piped:
            raise ValueError("'-' cannot be combined with --otlp; use one of them")
        addresses = self.syslog_addresses()
        if addresses and (self.once or self.dry_run):
            raise ValueError("--syslog has no end; use it without --once and --dry-run")
        if addresses and self.is_piped:
            raise ValueError("'-' cannot be combined with --syslog; use one of them")
        if any(address.transport == "tls" for address in addresses) != (self.syslog_cert is not None):
            raise ValueError("a tls:// address needs --syslog-cert, which nothing else uses")
        if (self.syslog_key or self.syslog_client_ca) and self.syslog_cert is None:
            raise ValueError("--syslog-key and --syslog-client-ca need --syslog-cert")
        if STANDARD_INPUT in self.paths and self.journal:
            raise ValueError(
                "'-' cannot be combined with --journal; ship either standard input or the journal"
            )
        if (self.unit or self.journal_dir is not None) and not self.journal:
            raise ValueError("--unit and --journal-dir need --journal")
        if STANDARD_INPUT in self.paths and len(self.paths) > 1:
            raise ValueError("'-' cannot be combined with files; ship either standard input or files")
        if self.from_start and self.from_end:
            raise ValueError("--from-start and --from-end are mutually exclusive; use one of them")
        if self.json_ and not self.dry_run:
            raise ValueError("--json prints the events of a dry run; add --dry-run")
        if self.dry_run and self.journal and not self.json_:
            raise ValueError("--dry-run reports on files only; add --json to print entries of the journal")
        self.throttle_settings()
        if self.format_file is not None:
            try:
                self._own_formats = load_formats(self.format_file)
            except ConfigurationError as error:
                # The path may have undecodable bytes, which pydantic does not accept.
                raise ValueError(escape_surrogates(str(error))) from None
        Parser(self.parse_settings(), "", ParserCounts())  # validates the patterns
        return self

    def absolute_paths(self) -> list[str]:
        """Return the absolute paths and globs of the files to ship, without accessing the disk."""
        return [os.path.abspath(path) for path in self.paths]

    def journal_settings(self) -> JournalSettings | None:
        """Return which journal is read; None for none."""
        if not self.journal:
            return None
        folder = None if self.journal_dir is None else os.path.abspath(self.journal_dir)
        return JournalSettings(tuple(self.unit), folder, follow=not self.once, from_end=self.from_end)

    def syslog_addresses(self) -> list[SyslogAddress]:
        """Return the addresses on which syslog is received."""
        return [parse_address(text) for text in self.syslog]

    def otlp_address(self) -> OtlpAddress | None:
        """Return the address on which logs of OpenTelemetry are received; None for none."""
        return None if self.otlp is None else parse_otlp_address(self.otlp)

    @property
    def is_piped(self) -> bool:
        """Whether standard input is shipped."""
        return self.paths == [STANDARD_INPUT]

    @property
    def inputs(self) -> list[str]:
        """Absolute paths and globs, the journal and addresses: what one shipper at a time may ship."""
        journal = self.journal_settings()
        otlp = [] if self.otlp is None else [f"otlp://{self.otlp}"]
        return [*self.absolute_paths(), *([] if journal is None else [journal.name]), *self.syslog, *otlp]

    def source_of(self, path: str) -> str:
        """Return the source of lines that name none, in the file of an absolute path or ``-``."""
        if self.source is not None:
            return self.source
        if path == STANDARD_INPUT:
            return "stdin"
        names = container_names(path)
        return source_of(path) if names is None else names.container

    def throttle_settings(self) -> ThrottleSettings:
        """Build the settings of the throttle; raise ValueError if an option is invalid."""
        min_level_by_source = {source: _parse_level(level) for source, level in _split_pairs(self.level_of)}
        rates = {}
        for level, text in _split_pairs(self.rate):
            name = _parse_level(level)
            try:
                rates[name] = rate = float(text)
            except ValueError:
                raise ValueError(
                    f"{level}={text}: a rate is a level and a number, such as INFO=100"
                ) from None
            if not 0 < rate < float("inf"):
                raise ValueError(f"{level}={text}: a rate must be positive")
        return ThrottleSettings(self.level, min_level_by_source, rates)

    def parse_settings(self, path: str | None = None) -> ParseSettings:
        """Build the settings of a parser; raise ValueError if an option is invalid.

        Args:
            path: absolute path of its file, which selects own formats and may name a container; ``-`` for
                standard input, and None for all own formats.
        """
        formats = self._own_formats if path is None else select_formats(self._own_formats, path)
        names = {name: getattr(DEFAULT_FIELDS, name) for name in ("level", "message", "timestamp", "source")}
        for name, key in _split_pairs(self.field):
            if name not in names:
                raise ValueError(f"{name}={key}: unknown field; use one of {', '.join(names)}")
            # Before the usual keys, which still apply to lines without this one.
            names[name] = (key, *names[name])
        zone = parse_zone(self.zone) if self.zone else None
        return ParseSettings(
            self.format,
            FieldNames(**names),
            zone,
            self.multiline,
            tuple(_split_pairs(self.redact)),
            self.access_levels,
            formats,
            self.encoding,
            container_names(path) if path is not None else None,
        )


def _parse_level(text: str) -> str:
    level = level_of(text)
    if level is None:
        raise ValueError(f"{text!r} is not a level; use one of {', '.join(subjects.LEVELS)}")
    return level
