"""Fields that a reader returns, and their mapping from the keys of a structured line.

Invariants:

1. A field is taken from the first key with a usable value; all other keys stay in metadata.
2. A returned source can always be part of a subject.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from tickertape.contracts import subjects
from tickertape.contracts.subjects import SubjectError
from tickertape.producers.shipper.parsing.levels import level_of
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

Fields = tuple[str | None, str, str | None, str | None, dict[str, Any]]
"""Level, message, source, timestamp and metadata; None where the line does not contain the field."""

Sanitizer = Callable[[Any], Any]
"""Function that cleans and redacts a value, recursively."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Keys of a structured line in order of preference; a dot descends into an object."""

    level: tuple[str, ...] = (
        "level", "severity", "levelname", "lvl", "log.level", "loglevel", "severity_text", "levelno",
    )  # fmt: skip
    message: tuple[str, ...] = ("message", "msg", "event", "text", "log")
    timestamp: tuple[str, ...] = ("timestamp", "@timestamp", "time", "ts", "asctime", "datetime")
    source: tuple[str, ...] = ("source", "logger", "service", "component", "service.name")


DEFAULT_FIELDS: Final = FieldNames()

_Names = tuple[tuple[str, tuple[str, ...]], ...]


class FieldMapping:
    """Mapping from the keys of a structured line to the fields of an event.

    Args:
        names: keys of each field.
        timestamps: parser of timestamps.
    """

    def __init__(self, names: FieldNames, timestamps: TimestampParser) -> None:
        self._level = _paths(names.level)
        self._message = _paths(names.message)
        self._timestamp = _paths(names.timestamp)
        self._source = _paths(names.source)
        self._timestamps = timestamps

    def take(self, body: dict[str, Any]) -> tuple[str | None, str | None, str | None, str | None]:
        """Remove level, message, source and timestamp from a body, and return them."""
        level = _take(body, self._level, level_of)
        message = _take(body, self._message, _message)
        timestamp = _take(body, self._timestamp, self._time)
        source = _take(body, self._source, _source)
        return level, message, source, timestamp

    def _time(self, value: object, _: str) -> str | None:
        return self._timestamps.parse_value(value)


def _paths(names: tuple[str, ...]) -> _Names:
    return tuple((name, tuple(name.split(".")) if "." in name else ()) for name in names)


def _take(body: dict[str, Any], names: _Names, read: Callable[[Any, str], str | None]) -> str | None:
    for name, path in names:
        if name in body:
            value = read(body[name], name)
            if value is not None:
                del body[name]
                return value
        elif path:
            holder: Any = body
            for step in path[:-1]:
                holder = holder.get(step) if isinstance(holder, dict) else None
            if isinstance(holder, dict) and path[-1] in holder:
                value = read(holder[path[-1]], name)
                if value is not None:
                    return value
    return None


def _message(value: object, _: str) -> str | None:
    return value if isinstance(value, str) else None


def _source(value: object, _: str) -> str | None:
    return legal_source(value) if isinstance(value, str) else None


@lru_cache(maxsize=4096)
def legal_source(text: str) -> str | None:
    """Strip a text; return None if it cannot be part of a subject."""
    text = text.strip()
    try:
        subjects.escape(text)
    except SubjectError:
        return None
    return text
