"""Options of ``tickertape ship``."""

import os
import socket
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_settings import CliPositionalArg
from tickertape.contracts import subjects
from tickertape.contracts.messages import LevelName
from tickertape.producers.shipper.parsing.parser import (
    DEFAULT_FIELDS,
    FORMATS,
    FieldNames,
    Parser,
    ParserCounts,
    ParseSettings,
    level_of,
)
from tickertape.producers.shipper.throttle import ThrottleSettings

from tickertape.nats.settings import NatsSettings
from tickertape.validation import Port, checked_by

STANDARD_INPUT: Final = "-"


def _level(value: object) -> object:
    return level_of(value) or value


def _zone(text: str | None) -> str | None:
    if text is not None:
        try:
            ZoneInfo(text)
        except (OSError, ValueError, KeyError):
            raise ValueError(f"{text!r} is no zone; write one such as Asia/Shanghai") from None
    return text


def _format(text: str) -> str:
    if text not in FORMATS:
        raise ValueError(f"{text!r} is none of {', '.join(FORMATS)}")
    return text


def _state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tickertape"


def _pairs(texts: list[str]) -> list[tuple[str, str]]:
    pairs = [(name.strip(), value) for name, _, value in (text.partition("=") for text in texts)]
    for text, (name, value) in zip(texts, pairs, strict=True):
        if not name or not value:
            raise ValueError(f"{text!r} is not NAME=VALUE")
    return pairs


class ShipSettings(NatsSettings):
    """Ship the lines of files, or of standard input, as log events; each exactly once."""

    paths: CliPositionalArg[list[str]] = Field(default=[])
    """Files and globs, or - for standard input."""
    source: Annotated[str, checked_by(subjects.escape)] | None = None
    """Source of lines that name none; else the file's name without its ending."""
    host: Annotated[str, Field(min_length=1), checked_by(subjects.escape)] = Field(
        default_factory=socket.gethostname
    )
    """Name of this host in checkpoints and health; two shippers of one file on two hosts need two."""
    state_dir: Path = Field(default_factory=_state_dir)
    """Folder for what must be kept on this host."""
    level: Annotated[LevelName, BeforeValidator(_level)] = "DEBUG"
    """Least level that is shipped."""
    level_of: list[str] = Field(default=[])
    """SOURCE=LEVEL: least level of one source; may be repeated."""
    rate: list[str] = Field(default=[])
    """LEVEL=N: at most N events of a level each second of each file; the rest is counted. Repeatable."""
    format: Annotated[str, AfterValidator(_format)] = "auto"
    """Of the lines: auto, json, logfmt, python, loguru, glog, syslog or plain."""
    field: list[str] = Field(default=[])
    """level=KEY, message=KEY, timestamp=KEY or source=KEY of JSON and logfmt lines; repeatable."""
    zone: Annotated[str | None, AfterValidator(_zone)] = None
    """IANA zone of times that name none; else this host's."""
    multiline: str = "auto"
    """auto joins tracebacks and indented lines, off nothing; else a pattern with which events begin."""
    redact: list[str] = Field(default=[])
    """KIND=PATTERN: more secrets that must not leave this host; repeatable."""
    once: bool = False
    """Ship what is there, and end."""
    from_start: bool = False
    """At the very first run, ship what the files hold already, as is the default."""
    from_end: bool = False
    """At the very first run, skip what the files hold already."""
    dry_run: bool = False
    """Write the events that would be shipped to standard output; NATS and the state stay as they are."""
    status: bool = False
    """Show how far the shipper of this host is with each file."""
    spool_size: Annotated[int, Field(ge=1)] = 64
    """MiB of standard input that may wait on disk."""
    health_interval: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two events on the shipper's own health."""
    metrics_host: str = "127.0.0.1"
    """Where /metrics listens."""
    metrics_port: Port = 0
    """Port of /metrics; 0 means none."""

    @model_validator(mode="after")
    def _fits_together(self) -> "ShipSettings":
        if not self.paths and not self.status:
            raise ValueError("which files? Give paths and globs, or - for standard input")
        if STANDARD_INPUT in self.paths and len(self.paths) > 1:
            raise ValueError("'-' stands alone: ship standard input or files, not both")
        if self.from_start and self.from_end:
            raise ValueError("--from-start and --from-end exclude each other")
        self.throttle_settings()
        Parser(self.parse_settings(), "", ParserCounts())  # it compiles the patterns
        return self

    def throttle_settings(self) -> ThrottleSettings:
        """What is let through."""
        min_level_by_source = {source: _known_level(level) for source, level in _pairs(self.level_of)}
        rates = {}
        for level, number in _pairs(self.rate):
            name = _known_level(level)
            try:
                rates[name] = rate = float(number)
            except ValueError:
                raise ValueError(f"{level}={number}: a rate is a level and a number, as INFO=100") from None
            if not 0 < rate < float("inf"):
                raise ValueError(f"{level}={number}: a rate is above zero")
        return ThrottleSettings(self.level, min_level_by_source, rates)

    def parse_settings(self) -> ParseSettings:
        """How lines are read."""
        names = {name: getattr(DEFAULT_FIELDS, name) for name in ("level", "message", "timestamp", "source")}
        for name, key in _pairs(self.field):
            if name not in names:
                raise ValueError(f"{name}={key}: fields are {', '.join(names)}")
            names[name] = (key, *names[name])
        zone = ZoneInfo(self.zone) if self.zone else None
        return ParseSettings(
            self.format, FieldNames(**names), zone, self.multiline, tuple(_pairs(self.redact))
        )


def _known_level(text: str) -> str:
    level = level_of(text)
    if level is None:
        raise ValueError(f"{text!r} is no level")
    return level
