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
from tickertape.producers.shipper.encodings.text_decoder import decode_text
from tickertape.producers.shipper.parsing.levels import WORDS, level_of
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

Fields = tuple[str | None, str, str | None, str | None, dict[str, Any]]
"""Level, message, source, timestamp and metadata; None where the line does not contain the field."""

Sanitizer = Callable[[Any], Any]
"""Function that cleans and redacts a value, recursively."""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Keys of a structured line in order of preference; a dot descends into an object."""

    level: tuple[str, ...] = (
        "level", "severity", "levelname", "lvl", "log.level", "loglevel", "log_level", "severity_text",
        "levelno", "severityText", "severityNumber", "Level", "@l", "PRIORITY", "Severity", "SeverityText",
        "@fields.lvl", "fields.level", "s",
    )  # fmt: skip
    message: tuple[str, ...] = (
        "message", "msg", "event", "text", "log", "@m", "@mt", "RenderedMessage", "MessageTemplate",
        "MESSAGE", "textPayload", "jsonPayload.message", "jsonPayload.msg", "body", "Body", "fields.message",
        "@fields.msg", "short_message",
    )  # fmt: skip
    timestamp: tuple[str, ...] = (
        "timestamp", "@timestamp", "time", "ts", "asctime", "datetime", "t", "@t", "Timestamp", "instant",
        "timeUnixNano", "observedTimeUnixNano", "__REALTIME_TIMESTAMP", "timeMillis", "date", "eventTime",
        "receiveTimestamp", "started_at", "StartUTC", "EdgeStartTimestamp", "stageTimestamp",
        "eventtime", "timestamp_ns",
    )  # fmt: skip
    source: tuple[str, ...] = (
        "source", "logger", "service", "component", "service.name", "log.logger", "logger_name",
        "loggerName", "SourceContext", "Properties.SourceContext", "SYSLOG_IDENTIFIER", "_SYSTEMD_UNIT",
        "target", "c",
    )  # fmt: skip


DEFAULT_FIELDS: Final = FieldNames()

_DATED: Final = frozenset({"date", "time"})
_ZONES: Final = ("tz", "timezone")
"""Keys of the time zone of a separate date and time."""

_CACHED_PLANS: Final = 256
"""Sets of keys whose fields are known; the cache is cleared when it is full."""

_Path = tuple[str, ...]
_Candidates = tuple[tuple[str, _Path], ...]
SPECIAL: Final = frozenset({"event_type", "metadata", "@mt", "MessageTemplate", "resourceLogs"})
"""Keys of objects that need more than their fields taken."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Keys from which the fields of a body are taken.

    Attributes:
        levels: keys of the level in order of preference, with the path of those within another key.
        messages: keys of the message.
        timestamps: keys of the timestamp.
        sources: keys of the source.
        is_special: the body has a key of ``SPECIAL``.
        is_dated: the date and the time are two keys.
    """

    levels: _Candidates
    messages: _Candidates
    timestamps: _Candidates
    sources: _Candidates
    is_special: bool
    is_dated: bool


class FieldMapping:
    """Mapping from the keys of a structured line to the fields of an event.

    Args:
        names: keys of each field.
        timestamps: parser of timestamps.
    """

    def __init__(self, names: FieldNames, timestamps: TimestampParser) -> None:
        self._names = tuple(
            _paths(each) for each in (names.level, names.message, names.timestamp, names.source)
        )
        self._timestamps = timestamps
        # The lines of a file have few sets of keys, so the keys to take are looked up once for each.
        self._plans: dict[_Path, Plan] = {}
        self._text = ""

    def take(
        self, body: dict[str, Any], text: str = "", plan: Plan | None = None
    ) -> tuple[str | None, str | None, str | None, str | None]:
        """Remove level, message, source and timestamp from a body, and return them.

        Args:
            body: the fields of the line; it is unchanged if there is no message.
            text: the line, from which digits are read that a double does not hold.
            plan: the keys of the body, if they are known.
        """
        self._text = text
        if plan is None:
            plan = self.plan(body)
        message = None
        if plan.messages:
            # Nearly always it is a text under the first key.
            name = plan.messages[0][0]
            value = body.get(name)
            if value.__class__ is str:
                message = value
                del body[name]
            else:
                message = _take(body, plan.messages, _message)
        if message is None:
            # Fields within are read, but every key stays.
            body = body.copy()
        level = None
        if plan.levels:
            # Nearly always it is a word under the first key.
            name = plan.levels[0][0]
            value = body.get(name)
            level = WORDS.get(value) if value.__class__ is str else None
            if level is not None:
                del body[name]
            else:
                level = _take(body, plan.levels, level_of)
        timestamp = self._take_time(body, plan.timestamps) if plan.timestamps else None
        if timestamp is None and plan.is_dated:
            timestamp = self._take_dated(body)
        return level, message, _take(body, plan.sources, _source) if plan.sources else None, timestamp

    def _take_time(self, body: dict[str, Any], candidates: _Candidates) -> str | None:
        # Nearly always it is a text under the first key.
        name = candidates[0][0]
        value = body.get(name)
        if value.__class__ is not str:
            return _take(body, candidates, self._time)
        timestamp = self._timestamps.parse_text(value)
        if timestamp is None:
            return _take(body, candidates[1:], self._time)
        del body[name]
        return timestamp

    def _take_dated(self, body: dict[str, Any]) -> str | None:
        """Remove date, time and time zone, which firewalls write as separate keys."""
        zone = next((body[key] for key in _ZONES if isinstance(body.get(key), str)), "")
        timestamp = self._timestamps.parse_text(f"{body['date']}T{body['time']}{zone}")
        if timestamp is not None:
            for key in ("date", "time", *_ZONES):
                body.pop(key, None)
        return timestamp

    def find_time(self, message: str) -> str | None:
        """Return the time in the header of a message, for a body without one."""
        found = self._timestamps.find(message)
        return found[2] if found is not None else None

    def plan(self, body: dict[str, Any]) -> Plan:
        """Return the keys of a body from which its fields are taken."""
        plan = self._plans.get(tuple(body))
        return self._plan(body) if plan is None else plan

    def _plan(self, body: dict[str, Any]) -> Plan:
        if len(self._plans) >= _CACHED_PLANS:
            self._plans.clear()
        found = [
            tuple((name, path) for name, path in names if name in body or (path and path[0] in body))
            for names in self._names
        ]
        # One letter is a level only among the fields of mongod.
        if "c" not in body or "t" not in body:
            found[0] = tuple(each for each in found[0] if each[0] != "s")
            found[3] = tuple(each for each in found[3] if each[0] != "c")
        if "reqId" in body and "app" in body:
            found[0] = (("nextcloud.level", ("level",)),)
        # Bunyan's name is that of the logger; elsewhere it may be anything.
        if "hostname" in body and "pid" in body and "name" in body:
            found[3] = (*found[3], ("name", ()))
        plan = Plan(
            found[0], found[1], found[2], found[3], not SPECIAL.isdisjoint(body), body.keys() >= _DATED
        )
        self._plans[tuple(body)] = plan
        return plan

    def _time(self, value: object, _: str) -> str | None:
        if isinstance(value, str):
            return self._timestamps.parse_text(value)
        if isinstance(value, dict):
            if "$date" in value:
                return self._time(value["$date"], "")
            seconds = value.get("epochSecond", value.get("seconds"))
            nanoseconds = value.get("nanoOfSecond", value.get("nanos", 0))
            if isinstance(seconds, int) and isinstance(nanoseconds, int) and 0 <= nanoseconds < 10**9:
                return self._timestamps.parse_text(f"{seconds}.{nanoseconds:09}")
            return None
        return self._timestamps.parse_value(value, self._text)


# There is a mapping for each file, and the names are the same.
@lru_cache(maxsize=64)
def _paths(names: tuple[str, ...]) -> _Candidates:
    return tuple((name, tuple(name.split(".")) if "." in name else ()) for name in names)


def _take(
    body: dict[str, Any], candidates: _Candidates, read: Callable[[Any, str], str | None]
) -> str | None:
    for name, path in candidates:
        if name in body:
            value = read(body[name], name)
            if value is not None:
                del body[name]
                return value
        elif path:
            holder: Any = body
            for step in path[:-1]:
                holder = holder.get(step) if isinstance(holder, dict) else None
            value = read(holder[path[-1]], name) if isinstance(holder, dict) and path[-1] in holder else None
            if value is not None:
                return value
    return None


def _message(value: object, _: str) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):  # OpenTelemetry
        text = value.get("stringValue")
        return text if isinstance(text, str) else None
    # systemd writes a message that is not UTF-8 as a list of its bytes.
    if isinstance(value, list) and value and all(type(byte) is int and 0 <= byte < 256 for byte in value):
        return decode_text(bytes(value))
    return None


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
