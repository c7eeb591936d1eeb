"""Loader of the monitor's file, which is YAML and is validated completely before it is used.

Invariants:

1. A rejected file is reported with all its problems, each with its line and what to do.
2. The cost of loading a file is bounded by its length, whatever its aliases expand to.
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
"""Maximum size; a larger file is a mistake, not a configuration."""

MAX_NODES: Final = 500_000
"""Maximum YAML nodes with every alias expanded; a few lines of nested aliases can expand to billions."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem in a file.

    Attributes:
        line: line number from 1; 0 for a problem of the whole file.
        field: path of the setting, such as ``gateways[0].probes[1].url``; may be empty.
        message: what is wrong, and what to do.
    """

    path: Path
    line: int
    field: str
    message: str

    def __str__(self) -> str:
        location = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{location}: {self.field}: {self.message}" if self.field else f"{location}: {self.message}"


class MonitorFileError(ConfigurationError):
    """Error in a monitor's file.

    Args:
        problems: all problems of the file, at least one.
    """

    def __init__(self, problems: list[Problem]) -> None:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            f"{problems[0]}{others}", f"'tickertape check {problems[0].path}' lists every problem"
        )
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Source:
    """Loaded file: its settings and the line of each."""

    path: Path
    config: MonitorConfig
    root: yaml.Node

    def line(self, *location: int | str) -> int:
        """Return the line number of a setting, from 1."""
        return _line(self.root, location)


def load(path: Path) -> MonitorConfig:
    """Load and validate a monitor's file.

    Raises:
        MonitorFileError: the file cannot be read, is not YAML, or has invalid settings.
    """
    return load_source(path).config


def load_source(path: Path) -> Source:
    """Load and validate a monitor's file like ``load``, and keep the line of each setting."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MonitorFileError([Problem(path, 0, "", f"cannot be read: {error.strerror or error}")]) from None
    if len(data) > MAX_FILE_BYTES:
        raise MonitorFileError([Problem(path, 0, "", f"{len(data)} bytes; the maximum is {MAX_FILE_BYTES}")])
    try:
        # Composed before it is loaded: the nodes have line numbers, and they reveal aliases that expand
        # without bound, and duplicate keys, of which loading keeps only the last.
        root = yaml.compose(data, Loader=yaml.SafeLoader)
        if root is None:
            raise MonitorFileError([Problem(path, 0, "", "is empty; add a list of 'gateways'")])
        if _count_nodes(root, {}) > MAX_NODES:
            message = f"aliases expand to more than {MAX_NODES} settings; use fewer aliases"
            raise MonitorFileError([Problem(path, 1, "", message)])
        if duplicates := _find_duplicate_keys(path, root, ""):
            raise MonitorFileError(duplicates)
        body = yaml.safe_load(data)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise MonitorFileError([Problem(path, line, "", f"is not YAML: {error.problem}")]) from None
    # Nesting of thousands of levels exhausts the recursion of the YAML parser.
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MonitorFileError([Problem(path, 0, "", f"is not YAML: {first_line}")]) from None
    if not isinstance(body, dict):
        raise MonitorFileError([Problem(path, 1, "", "is not a mapping; add a list of 'gateways'")])
    try:
        config = MonitorConfig.model_validate(body)
    except ValidationError as error:
        raise MonitorFileError(_to_problems(path, root, error)) from None
    if problems := [*_find_duplicate_ids(path, root, config), *_find_unknown_exchanges(path, root, config)]:
        raise MonitorFileError(sorted(problems, key=lambda problem: problem.line))
    return Source(path, config, root)


def file_version(path: Path) -> tuple[int, int, int] | None:
    """Return a value that differs whenever the file has changed; None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _to_problems(path: Path, root: yaml.Node, error: ValidationError) -> list[Problem]:
    problems = []
    for detail in error.errors(include_url=False):
        location, kind = detail["loc"], detail["type"]
        message = str(detail["ctx"]["error"]) if kind == "value_error" else detail["msg"]
        if kind == "extra_forbidden":
            message = "is not a setting; check its spelling, or remove it"
        elif kind == "missing":
            message = "is missing; add it"
        problems.append(Problem(path, _line(root, location), _field_path(location), message))
    return sorted(problems, key=lambda problem: problem.line)


def _find_duplicate_ids(path: Path, root: yaml.Node, config: MonitorConfig) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, gateway in enumerate(config.gateways):
        line = _line(root, ("gateways", index, "id"))
        if gateway.id in seen:
            message = f"{gateway.id!r} is also the id on line {seen[gateway.id]}; rename one"
            problems.append(Problem(path, line, f"gateways[{index}].id", message))
        seen.setdefault(gateway.id, line)
    return problems


def _find_unknown_exchanges(path: Path, root: yaml.Node, config: MonitorConfig) -> list[Problem]:
    known = ", ".join(config.exchanges) or "none"
    return [
        Problem(
            path,
            _line(root, ("gateways", index, "session")),
            f"gateways[{index}].session",
            f"exchange {gateway.session!r} is not in 'exchanges'; defined there: {known}",
        )
        for index, gateway in enumerate(config.gateways)
        if gateway.session is not None and gateway.session not in config.exchanges
    ]


def _count_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """Count a node and those below it, with aliases expanded; a node within itself exceeds the limit."""
    if id(node) in counted:
        return counted[id(node)]
    counted[id(node)] = MAX_NODES + 1  # expanding a node within itself would not end
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_count_nodes(item, counted) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        size += sum(_count_nodes(key, counted) + _count_nodes(item, counted) for key, item in node.value)
    counted[id(node)] = size
    return size


def _find_duplicate_keys(path: Path, node: yaml.Node, field: str) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            problems += _find_duplicate_keys(path, item, f"{field}[{index}]")
    elif isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key, item in node.value:
            name = f"{field}.{key.value}".removeprefix(".")
            if isinstance(key.value, str):
                if key.value in seen:
                    message = "is a duplicate key in this mapping; remove one"
                    problems.append(Problem(path, key.start_mark.line + 1, name, message))
                seen.add(key.value)
            problems += _find_duplicate_keys(path, item, name)
    return problems


def _field_path(location: tuple[int | str, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _line(node: yaml.Node, location: tuple[int | str, ...]) -> int:
    """Return the line number of a setting, or of the nearest enclosing setting in the file."""
    line: int = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, item) for key, item in node.value if key.value == part), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
