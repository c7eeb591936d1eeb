"""The monitor's file (PROTOCOL.md section 7): read, checked whole, and resolved into gateways ready to run.

Invariants:

1. A file that is accepted can be run: every probe has a complete schedule, every id makes a legal subject.
2. A file that is refused is refused with all its faults at once, each with its line and what to do.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from contracts import subjects

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""A file larger than this is a mistake, not a configuration."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)")


def parse_duration(value: object) -> float:
    """Read a number with a unit (``ms s m h``) into seconds.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"{value!r} is no duration; write a number with a unit, as in 500ms, 5s or 2m")
    return float(found[1]) * _UNITS[found[2]]


def parse_address(text: str) -> tuple[str, int]:
    """Read ``host:port``; an IPv6 address stands in brackets.

    Raises:
        ValueError: it is none.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or (":" in host and not text.startswith("[")):
        raise ValueError(f"{text!r} is no address; write host:port, as in 127.0.0.1:41205 or [::1]:41205")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError(f"port {port!r} of {text!r} is out of range; it is a number from 1 to 65535")
    return host, int(port)


def _address(text: str) -> str:
    parse_address(text)
    return text


def _url(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(f"{text!r} is no http or https address")
    try:
        port = url.port
    except ValueError:
        port = 0
    if port == 0:
        raise ValueError(f"the port of {text!r} is out of range; it is a number from 1 to 65535")
    if url.username is not None:
        raise ValueError("a user in the address would be shown in events; take it out")
    if not text.isascii() or any(character <= " " for character in text):
        raise ValueError(f"{text!r} has characters that must be percent-encoded")
    return text


def _id(text: str) -> str:
    subjects.escape(text)
    return text


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


Id = Annotated[str, AfterValidator(_id)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[float, BeforeValidator(parse_duration), AfterValidator(_positive)]
Count = Annotated[int, Field(ge=1, le=1000, strict=True)]


class Settings(BaseModel):
    """A mapping of the file; a key that nobody knows is a typing mistake."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(Settings):
    """When to probe, and what to make of it; None is taken from the next level up."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None
    unhealthy_after: Count | None = None
    healthy_after: Count | None = None


class TcpProbe(Schedule):
    """Connects, then must stay connected for ``hold`` without the peer closing."""

    kind: Literal["tcp"]
    address: Annotated[str, AfterValidator(_address)]
    hold: Duration = 0.0

    @property
    def name(self) -> str:
        """What events and logs call this probe."""
        return f"tcp {self.address}"


class HttpProbe(Schedule):
    """Asks for ``url`` and wants ``status``; slower than ``degraded_above`` is degraded."""

    kind: Literal["http"]
    url: Annotated[str, AfterValidator(_url)]
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    status: Annotated[int, Field(ge=100, le=599, strict=True)] = 200
    degraded_above: PositiveDuration | None = None

    @property
    def name(self) -> str:
        """What events and logs call this probe."""
        return f"http {self.url}"


Probe = TcpProbe | HttpProbe


class GatewaySettings(Schedule):
    """A gateway as it stands in the file."""

    id: Id
    type: Id
    group: str | None = None
    labels: dict[str, str] = {}
    probes: Annotated[list[Annotated[Probe, Field(discriminator="kind")]], Field(min_length=1)]


class MonitorConfig(Settings):
    """The whole file."""

    defaults: Schedule = Schedule()
    gateways: Annotated[list[GatewaySettings], Field(min_length=1)]

    def resolved(self) -> list["Gateway"]:
        """The gateways, each probe with the nearest setting of its schedule."""
        return [
            Gateway(
                id=gateway.id,
                type=gateway.type,
                group=gateway.group,
                labels=gateway.labels,
                checks=tuple(_check(probe, gateway, self.defaults) for probe in gateway.probes),
            )
            for gateway in self.gateways
        ]


@dataclass(frozen=True, slots=True)
class Check:
    """A probe with its complete schedule; times in seconds."""

    probe: Probe
    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway ready to run."""

    id: str
    type: str
    group: str | None
    labels: dict[str, str]
    checks: tuple[Check, ...]

    @property
    def subject(self) -> str:
        """Where its status goes, without the deployment's prefix."""
        return subjects.gateway_status(self.type, self.id)


BUILT_IN: Final = Schedule(interval="5s", timeout="2s", unhealthy_after=3, healthy_after=2)
"""The schedule where the file says nothing."""


def _check(probe: Probe, *wider: Schedule) -> Check:
    def nearest(setting: str) -> Any:
        levels = (probe, *wider, BUILT_IN)
        return next(value for level in levels if (value := getattr(level, setting)) is not None)

    return Check(
        probe,
        nearest("interval"),
        nearest("timeout"),
        nearest("unhealthy_after"),
        nearest("healthy_after"),
    )


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a file.

    Attributes:
        line: counted from 1; 0 when the whole file is meant.
        field: path of the setting, such as ``gateways[0].probes[1].url``; may be empty.
        what: what is wrong and what would be right.
    """

    path: Path
    line: int
    field: str
    what: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.field}: {self.what}" if self.field else f"{place}: {self.what}"


class ConfigError(Exception):
    """A monitor's file cannot be used.

    Args:
        problems: all that is wrong with it, at least one.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        more = len(self.problems) - 1
        return f"{self.problems[0]}" + (f" (and {more} more; 'tickertape check' lists all)" if more else "")


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read: its settings, and where each stands."""

    path: Path
    config: MonitorConfig
    root: yaml.Node

    def line(self, *place: int | str) -> int:
        """Line of a setting, counted from 1."""
        return _line(self.root, place)


def load(path: Path) -> MonitorConfig:
    """Read and check a monitor's file.

    Raises:
        ConfigError: it cannot be read, is no YAML, or breaks the rules of its settings.
    """
    return read(path).config


def read(path: Path) -> Source:
    """Like ``load``, and remember where each setting stands."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError([Problem(path, 0, "", f"{len(data)} bytes; at most {MAX_FILE_BYTES}")])
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigError([Problem(path, 0, "", "is empty; it needs a list of 'gateways'")])
        if twice := _duplicate_keys(path, root, ""):
            raise ConfigError(twice)
        body = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise ConfigError([Problem(path, line, "", f"is no YAML: {error.problem}")]) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError([Problem(path, 0, "", f"is no YAML: {first}")]) from None
    if not isinstance(body, dict):
        raise ConfigError([Problem(path, 1, "", "holds no settings; it needs a list of 'gateways'")])
    try:
        config = MonitorConfig.model_validate(body)
    except ValidationError as error:
        raise ConfigError(_problems(path, root, error)) from None
    if repeats := _duplicate_ids(path, root, config):
        raise ConfigError(repeats)
    return Source(path, config, root)


def _problems(path: Path, root: yaml.Node, error: ValidationError) -> list[Problem]:
    problems = []
    for fault in error.errors(include_url=False):
        # The name of the union's member stands in the place, but not in the file.
        place = tuple(part for part in fault["loc"] if part not in ("tcp", "http"))
        kind, message = fault["type"], fault["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            message = "is no setting; check its spelling, or take it out"
        elif kind == "missing":
            message = "is missing; add it"
        elif kind == "union_tag_invalid":
            message = f"kind {fault['input'].get('kind')!r} is none of tcp, http"
        elif kind == "union_tag_not_found":
            message = "has no 'kind'; one of tcp, http"
        problems.append(Problem(path, _line(root, place), _field(place), message))
    return sorted(problems, key=lambda problem: problem.line)


def _duplicate_ids(path: Path, root: yaml.Node, config: MonitorConfig) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, gateway in enumerate(config.gateways):
        line = _line(root, ("gateways", index, "id"))
        if gateway.id in seen:
            what = f"{gateway.id!r} stands in line {seen[gateway.id]} too; ids are unique, rename one"
            problems.append(Problem(path, line, f"gateways[{index}].id", what))
        seen.setdefault(gateway.id, line)
    return problems


def _duplicate_keys(path: Path, node: yaml.Node, field: str) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            problems += _duplicate_keys(path, item, f"{field}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, item in node.value:
            name = f"{field}.{key.value}".removeprefix(".")
            if isinstance(key.value, str):
                if key.value in seen:
                    what = "stands twice in one mapping; take one out"
                    problems.append(Problem(path, key.start_mark.line + 1, name, what))
                seen.add(key.value)
            problems += _duplicate_keys(path, item, name)
    return problems


def _field(place: tuple[int | str, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _line(node: yaml.Node, place: tuple[int | str, ...]) -> int:
    """Line of a place in the file, or of the nearest thing around it."""
    line: int = node.start_mark.line + 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, item) for key, item in node.value if key.value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
