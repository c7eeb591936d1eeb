"""Reader of YAML files that keeps the line of each setting.

Invariants:

1. The cost of a file is bounded by its length, whatever its aliases expand to, and the length is bounded.
2. Each error has a line and is written for operators; no text of the YAML parser is shown.
"""

import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from tickertape.producers.monitor.config.problems import MonitorFileError, Problem, field_path
from tickertape.producers.monitor.config.syntax import (
    HALF_CHARACTER,
    UNREADABLE_VALUE,
    describe_syntax,
    path_at,
)

MAX_FILE_BYTES: Final = 4 * 1024 * 1024
"""Maximum size; a larger file is a mistake, not a configuration."""

MAX_NODES: Final = 500_000
"""Maximum YAML nodes with every alias expanded; a few lines of nested aliases can expand to billions."""

MAX_DEPTH: Final = 50
"""Maximum nesting; a file of the monitor has fewer than ten levels."""

MAX_BITS: Final = 64
"""Maximum size of a number; Python cannot even print one with thousands of digits."""

_UNUSED_TAGS: Final = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value")
"""Types that YAML sees in plain text: dates stay text, as all settings with dates are, and so does '='."""


class _Loader(yaml.SafeLoader):
    """Loader that reports a value that cannot be converted with its line."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Convert a node to its value."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, int) and value.bit_length() > MAX_BITS:
                raise ValueError
            if isinstance(value, str) and not value.isascii():
                # JSON has two escapes for a character beyond U+FFFF; one of them alone is none.
                value = value.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeError:
            raise yaml.constructor.ConstructorError(None, None, HALF_CHARACTER, node.start_mark) from None
        # Of a tag such as !!int, or of a number with thousands of digits.
        except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError):
            raise yaml.constructor.ConstructorError(None, None, UNREADABLE_VALUE, node.start_mark) from None
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, expression) for tag, expression in resolvers if tag not in _UNUSED_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


@dataclass(frozen=True, slots=True)
class Document:
    """Parsed file.

    Attributes:
        root: its nodes, which have lines.
        body: its value.
    """

    root: yaml.Node
    body: dict[Any, Any]

    def line(self, location: tuple[int | str, ...]) -> int:
        """Return the line number of a setting, or of the nearest enclosing setting in the file, from 1."""
        node = self.root
        line: int = node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                # The last one counts: what a mapping merges (<<) comes before what it replaces.
                entries = reversed(node.value)
                entry = next(((key, item) for key, item in entries if key.value == str(part)), None)
                if entry is None:
                    break
                line, node = entry[0].start_mark.line + 1, entry[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
            else:
                break
        return line


def read_document(path: Path) -> Document:
    """Read and parse a file, whose top level is a mapping.

    Raises:
        MonitorFileError: the file cannot be read, or is not YAML with a mapping.
    """
    text = _decode(path, _read(path))
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
            hint = "add a list of 'gateways', as in deploy/gateways.example.yaml"
            raise MonitorFileError([Problem(path, 1, "gateways", "is missing: the file is empty", hint)])
        if _count_nodes(root, {}, 0) > MAX_NODES:
            message = f"has aliases that expand to more than {MAX_NODES} settings"
            raise MonitorFileError([Problem(path, _first_alias(text), "", message, "use fewer aliases")])
        if duplicates := _find_duplicate_keys(path, root, ()):
            raise MonitorFileError(duplicates)
        body = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        line, message, hint = describe_syntax(error, text)
        field = field_path(path_at(text, error.problem_mark))
        raise MonitorFileError([Problem(path, line, field, message, hint)]) from None
    # Deep nesting exhausts the recursion of the YAML parser before it can be measured.
    except RecursionError:
        hint = f"use at most {MAX_DEPTH} levels"
        raise MonitorFileError([Problem(path, 1, "", "is nested too deeply", hint)]) from None
    finally:
        loader.dispose()
    if not isinstance(body, dict):
        kind = "a list" if isinstance(body, list) else "a single value"
        hint = "begin the file with 'gateways:' and put the gateways below it, indented"
        line = root.start_mark.line + 1
        raise MonitorFileError([Problem(path, line, "gateways", f"is missing: the file is {kind}", hint)])
    return Document(root, body)


def _read(path: Path) -> bytes:
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise MonitorFileError([Problem(path, 0, "", "is a folder", "give the path of a file in it")])
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        hint = "check the path, and the working directory of the monitor"
        raise MonitorFileError([Problem(path, 0, "", "does not exist", hint)]) from None
    except PermissionError:
        hint = "let the user that runs the monitor read it, and its folder"
        raise MonitorFileError([Problem(path, 0, "", "may not be read by this user", hint)]) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or "not a path").lower()
        hint = "check the path, and the disk that it is on"
        raise MonitorFileError([Problem(path, 0, "", f"cannot be read: {reason}", hint)]) from None
    if len(data) > MAX_FILE_BYTES:
        message = f"is larger than {MAX_FILE_BYTES} bytes"
        raise MonitorFileError([Problem(path, 0, "", message, "split it, one file for each monitor")])
    return data


def _decode(path: Path, data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        message = f"has bytes that are not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'}"
        raise MonitorFileError([Problem(path, line, "", message, "save the file as UTF-8")]) from None
    if (found := yaml.reader.Reader.NON_PRINTABLE.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        message = f"has the control character U+{ord(found[0]):04X}"
        hint = "remove it, or save the file as UTF-8 if it has another encoding"
        raise MonitorFileError([Problem(path, line, "", message, hint)])
    return text


def _first_alias(text: str) -> int:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent) and event.start_mark is not None:
            return event.start_mark.line + 1
    return 1


def _count_nodes(node: yaml.Node, counted: dict[int, int], depth: int) -> int:
    """Count a node and those below it, with aliases expanded; a node within itself exceeds the limit.

    Raises:
        RecursionError: the nesting is too deep.
    """
    if depth > MAX_DEPTH:
        raise RecursionError
    if id(node) in counted:
        return counted[id(node)]
    counted[id(node)] = MAX_NODES + 1  # expanding a node within itself would not end
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_count_nodes(item, counted, depth + 1) for item in node.value)
    elif isinstance(node, yaml.MappingNode):
        for key, item in node.value:
            size += _count_nodes(key, counted, depth + 1) + _count_nodes(item, counted, depth + 1)
    counted[id(node)] = size
    return size


def _find_duplicate_keys(path: Path, node: yaml.Node, location: tuple[int | str, ...]) -> list[Problem]:
    problems: list[Problem] = []
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            problems += _find_duplicate_keys(path, item, (*location, index))
    elif isinstance(node, yaml.MappingNode):
        lines: dict[Hashable, int] = {}
        for key, item in node.value:
            if not isinstance(key.value, str):
                continue
            line = key.start_mark.line + 1
            if key.value in lines:
                message = f"is also on line {lines[key.value]}: a key can occur once in a mapping"
                hint = "remove one, or begin the next item of the list with '-'"
                problems.append(Problem(path, line, field_path((*location, key.value)), message, hint))
            lines.setdefault(key.value, line)
            problems += _find_duplicate_keys(path, item, (*location, key.value))
    return problems
