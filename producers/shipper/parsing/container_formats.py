"""Formats in which container runtimes write the lines of a program.

Understood are CRI (Kubernetes), the json-file driver of Docker, and the output of Docker Compose.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

MARKERS: Final = (" stdout ", " stderr ", '{"log":', "  | ")
"""What every line of these kinds contains."""

_CRI = re.compile(r"(\d{4}-\d\d-\d\dT\S{9,40}) (stdout|stderr) ([FP])(?::\S{1,20})?(?: |$)", re.ASCII)
# Elsewhere a word before a bar may be the cell of a table.
_COMPOSE = re.compile(
    r"([A-Za-z0-9][\w.-]{0,62})"
    r"(?:(?<=[-_]\d)|(?<=[-_]\d\d)|(?= +\| (?:\{\"|(?:time|ts|level)=|\d{4}-\d\d-\d\d[T ]\d\d:)))"
    r" {2,40}\| ",
    re.ASCII,
)


_STREAM_FIELDS: Final[dict[str, Mapping[str, Any]]] = {
    name: {"stream": name} for name in ("stdout", "stderr")
}


_NO_FIELDS: Final[Mapping[str, Any]] = {}


@dataclass(slots=True)
class ContainerLine:
    """Line without what the runtime wrote before it.

    Attributes:
        stream: name of the stream, which is that of its joiner.
        text: the line itself.
        is_partial: the line continues in the next one of its stream.
        time: time that the runtime wrote, or None.
        source: name of the container, or None.
        metadata: further fields that the runtime wrote.
        level: level that the runtime wrote, or None.
    """

    stream: str
    text: str
    is_partial: bool
    time: str | None
    source: str | None
    metadata: Mapping[str, Any]
    level: str | None = None


def unwrap(text: str) -> ContainerLine:
    """Return a line without what the runtime wrote before it."""
    if text.startswith('{"log":'):
        line = _read_docker(text)
        return line if line is not None else plain_line(text)
    match = _CRI.match(text)
    if match is not None:
        time, name, tag = match.groups()
        return ContainerLine(name, text[match.end() :], tag == "P", time, None, _STREAM_FIELDS[name])
    match = _COMPOSE.match(text)
    if match is not None:
        name = match[1]
        return ContainerLine(f"| {name}", text[match.end() :], False, None, name, _NO_FIELDS)
    return plain_line(text)


def plain_line(text: str) -> ContainerLine:
    """Return a line that no runtime wrote."""
    return ContainerLine("", text, False, None, None, _NO_FIELDS)


def _read_docker(text: str) -> ContainerLine | None:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    log, name, time = body.pop("log", None), body.pop("stream", None), body.pop("time", None)
    if not (isinstance(log, str) and name in ("stdout", "stderr") and isinstance(time, str)):
        return None
    line = log.removesuffix("\n").removesuffix("\r")
    metadata = {"stream": name, **body} if body else _STREAM_FIELDS[name]
    return ContainerLine(name, line, not log.endswith("\n"), time, None, metadata)
