"""Loader of the monitor's file, which is YAML and is validated completely before it is used.

Invariant: a rejected file is reported with all its problems, each with its line and what to do.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml
from pydantic import ValidationError
from tickertape.producers.monitor.config.model_errors import to_problems
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.config.problems import MonitorFileError, Problem, field_path
from tickertape.producers.monitor.config.yaml_file import Document, read_document
from tickertape.producers.monitor.probes.settings import ProbeSettings

from tickertape.config.names import closest

_VARIABLE: Final = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::?[-=?+][^{}]*)?\}")
_FREE_TEXTS: Final = ("command", "send", "expect", "body", "json")
"""Settings that may have any text."""


@dataclass(frozen=True, slots=True)
class Source:
    """Loaded file: its settings and the line of each."""

    path: Path
    config: MonitorConfig
    document: Document

    def problem(self, location: tuple[int | str, ...], message: str, hint: str) -> Problem:
        """Return a problem of a setting."""
        return Problem(self.path, self.document.line(location), field_path(location), message, hint)


def load(path: Path) -> MonitorConfig:
    """Load and validate a monitor's file.

    Raises:
        MonitorFileError: the file cannot be read, is not YAML, or has invalid settings.
    """
    return load_source(path).config


def load_source(path: Path) -> Source:
    """Load and validate a monitor's file like ``load``, and keep the line of each setting."""
    document = read_document(path)
    variables = list(_find_variables(path, document.root, ()))
    try:
        config = MonitorConfig.model_validate(document.body)
    except ValidationError as error:
        lines = {problem.line for problem in variables}
        problems = to_problems(path, document, MonitorConfig, error)
        problems = [problem for problem in problems if problem.line not in lines] + variables
        raise MonitorFileError(sorted(problems, key=lambda problem: problem.line)) from None
    if variables:
        raise MonitorFileError(variables)
    source = Source(path, config, document)
    if problems := [
        *_find_duplicate_ids(source),
        *_find_unknown_exchanges(source),
        *_find_shared_sessions(source),
    ]:
        raise MonitorFileError(sorted(problems, key=lambda problem: problem.line))
    return source


def file_version(path: Path) -> tuple[int, int, int] | None:
    """Return a value that differs whenever the file has changed; None if there is no file."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _find_variables(path: Path, node: yaml.Node, location: tuple[int | str, ...]) -> Iterator[Problem]:
    """Yield the values that name a variable of a shell, such as ``${HOST}``, which nothing replaces."""
    if isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            if key.value not in _FREE_TEXTS and not str(key.value).startswith("x-"):
                yield from _find_variables(path, item, (*location, str(key.value)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _find_variables(path, item, (*location, index))
    elif (found := _VARIABLE.search(node.value)) is not None:
        message = f"has {found[0]}, but variables are not replaced in this file"
        hint = "write the value, or create the file with a program such as envsubst"
        yield Problem(path, node.start_mark.line + 1, field_path(location), message, hint)


def _find_duplicate_ids(source: Source) -> list[Problem]:
    seen: dict[str, int] = {}
    problems = []
    for index, gateway in enumerate(source.config.gateways):
        location = ("gateways", index, "id")
        if gateway.id in seen:
            message = f"{gateway.id!r} is also the id on line {seen[gateway.id]}"
            problems.append(source.problem(location, message, "rename one"))
        seen.setdefault(gateway.id, source.document.line(location))
    return problems


def _find_unknown_exchanges(source: Source) -> list[Problem]:
    known = source.config.exchanges
    problems = []
    for index, gateway in enumerate(source.config.gateways):
        if gateway.session is None or gateway.session in known:
            continue
        message = f"exchange {gateway.session!r} is not in 'exchanges'"
        other = closest(gateway.session, known)
        names = f"use one of {', '.join(known)}, or add it" if known else "add 'exchanges' with its hours"
        hint = f"did you mean {other!r}?" if other is not None else names
        problems.append(source.problem(("gateways", index, "session"), message, hint))
    return problems


def _find_shared_sessions(source: Source) -> list[Problem]:
    config = source.config
    lists: list[tuple[tuple[int | str, ...], list[ProbeSettings]]] = [
        (("gateways", index, "probes"), gateway.probes) for index, gateway in enumerate(config.gateways)
    ]
    if config.connectivity is not None:
        lists.insert(0, (("connectivity", "probes"), config.connectivity.probes))
    seen: dict[str, int] = {}
    problems = []
    for location, probes in lists:
        for index, probe in enumerate(probes):
            place = (*location, index, probe.target)
            for name in sorted(probe.exclusive & seen.keys()):
                message = f"the probe on line {seen[name]} uses {name} as well"
                problems.append(source.problem(place, message, "give each a comp id of its own"))
            seen.update(dict.fromkeys(probe.exclusive, source.document.line(place)))
    return problems
