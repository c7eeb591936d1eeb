"""Reads the monitor's file: YAML that is checked whole before any of it is used.

Invariants:

1. A file that is refused is refused with all its faults at once, each with its line and what to do.
2. Neither its size nor what it refers to can cost more than a file of the same length should.
"""

import os
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from tickertape.producers.monitor.config.models import MonitorConfig

from tickertape.errors import ConfigurationError

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""A file larger than this is a mistake, not a configuration."""

MAX_NODES: Final = 500_000
"""Settings in a file once every alias is written out; a few lines of aliases can mean billions."""


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


class MonitorFileError(ConfigurationError):
    """A monitor's file cannot be used.

    Args:
        problems: all that is wrong with it, at least one.
    """

    def __init__(self, problems: list[Problem]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}", f"'tickertape check {problems[0].path}' lists every problem")
        self.problems = problems


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
        MonitorFileError: it cannot be read, is no YAML, or breaks the rules of its settings.
    """
    return read(path).config


def read(path: Path) -> Source:
    """Like ``load``, and remember where each setting stands."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MonitorFileError([Problem(path, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise MonitorFileError([Problem(path, 0, "", f"{len(data)} bytes; at most {MAX_FILE_BYTES}")])
    try:
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        if root is None:
            raise MonitorFileError([Problem(path, 0, "", "is empty; it needs a list of 'gateways'")])
        if _size(root, {}) > MAX_NODES:
            what = f"its aliases stand for more than {MAX_NODES} settings; write out what is meant"
            raise MonitorFileError([Problem(path, 1, "", what)])
        if twice := _duplicate_keys(path, root, ""):
            raise MonitorFileError(twice)
        body = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise MonitorFileError([Problem(path, line, "", f"is no YAML: {error.problem}")]) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MonitorFileError([Problem(path, 0, "", f"is no YAML: {first}")]) from None
    if not isinstance(body, dict):
        raise MonitorFileError([Problem(path, 1, "", "holds no settings; it needs a list of 'gateways'")])
    try:
        config = MonitorConfig.model_validate(body)
    except ValidationError as error:
        raise MonitorFileError(_problems(path, root, error)) from None
    if faults := [*_duplicate_ids(path, root, config), *_unknown_exchanges(path, root, config)]:
        raise MonitorFileError(sorted(faults, key=lambda problem: problem.line))
    return Source(path, config, root)


def stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file does; None while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _problems(path: Path, root: yaml.Node, error: ValidationError) -> list[Problem]:
    problems = []
    for fault in error.errors(include_url=False):
        place, kind = fault["loc"], fault["type"]
        message = str(fault["ctx"]["error"]) if kind == "value_error" else fault["msg"]
        if kind == "extra_forbidden":
            message = "is no setting; check its spelling, or take it out"
        elif kind == "missing":
            message = "is missing; add it"
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


def _unknown_exchanges(path: Path, root: yaml.Node, config: MonitorConfig) -> list[Problem]:
    known = ", ".join(config.exchanges) or "none"
    return [
        Problem(
            path,
            _line(root, ("gateways", index, "session")),
            f"gateways[{index}].session",
            f"exchange {gateway.session!r} is not in 'exchanges'; there: {known}",
        )
        for index, gateway in enumerate(config.gateways)
        if gateway.session is not None and gateway.session not in config.exchanges
    ]


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Settings below a node, those behind an alias counted each time; more than the bound is not counted."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = MAX_NODES + 1  # a node within itself has no end
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_size(item, known) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_size(key, known) + _size(item, known) for key, item in node.value)
    known[id(node)] = size
    return size


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
