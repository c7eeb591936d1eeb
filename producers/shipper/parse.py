"""A line of a log becomes an event: plain text or JSON, whatever its bytes are.

Invariants:

1. Every line becomes a legal event, at worst with the line as its message.
2. No control character and no terminal escape reaches an event, in its message, its source or its metadata.
3. What a JSON line says beyond level, message, time and source is kept in ``metadata``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson

from contracts import subjects
from contracts.events import format_time, parse_time
from contracts.subjects import SubjectError

MAX_LINE_BYTES: Final = 64 * 1024
"""Bytes of a line that travel; the rest is cut, and ``metadata.truncated`` says so. Quoting can double it,
and bytes that are no UTF-8 treble it: either way an event stays within its 256 KiB."""

LEVEL_SEARCH_CHARACTERS: Final = 200
"""A level stands at the beginning of a line; further on the same word is a part of the message."""

DEFAULT_LEVEL: Final = "INFO"

_LEVELS: Final = {
    "TRACE": "DEBUG",
    "VERBOSE": "DEBUG",
    "DBG": "DEBUG",
    "DEBUG": "DEBUG",
    "INF": "INFO",
    "INFO": "INFO",
    "INFORMATION": "INFO",
    "NOTICE": "INFO",
    "WRN": "WARN",
    "WARN": "WARN",
    "WARNING": "WARN",
    "ERR": "ERROR",
    "ERROR": "ERROR",
    "SEVERE": "ERROR",
    "CRIT": "CRITICAL",
    "CRITICAL": "CRITICAL",
    "FATAL": "CRITICAL",
    "ALERT": "CRITICAL",
    "EMERG": "CRITICAL",
    "PANIC": "CRITICAL",
}
_WORDS = "|".join(sorted(_LEVELS, key=len, reverse=True))
# Upper case anywhere; any case only where it is marked as a level, since 'info' and 'error' are common words.
_LEVEL_IN_TEXT = re.compile(
    rf"(?<![A-Za-z0-9_])(?:(?P<upper>{_WORDS})(?![A-Za-z0-9_])"
    rf"|(?i:[\[<(](?P<bracket>{_WORDS})[\])>])"
    rf"|(?i:(?:level|lvl|severity)[=:]\s*\"?(?P<pair>{_WORDS})(?![a-z0-9_])))"
)
_TIME_AT_START = re.compile(
    r"[\[(]?(?P<day>\d{4}-\d\d-\d\d)[T ](?P<time>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r" ?(?P<zone>Z|UTC|[+-]\d\d:?\d\d)?(?!\d)"
)
_ANSI = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])"
    r"|\x9b[0-?]*[ -/]*[@-~]"
)
# A line break stands in the message of a JSON line with a traceback; it and the tab are text.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_PINO: Final = {10: "DEBUG", 20: "DEBUG", 30: "INFO", 40: "WARN", 50: "ERROR", 60: "CRITICAL"}
_SYSLOG: Final = dict(
    enumerate(("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG"))
)


@dataclass(frozen=True, slots=True)
class FieldNames:
    """Keys of a JSON line that are looked for, the first that is there counts; dots lead into objects."""

    level: tuple[str, ...] = ("level", "severity", "levelname", "lvl", "log.level", "loglevel")
    message: tuple[str, ...] = ("message", "msg", "event", "text", "log")
    timestamp: tuple[str, ...] = ("timestamp", "@timestamp", "time", "ts", "asctime", "datetime")
    source: tuple[str, ...] = ("source", "logger", "service", "component", "service.name")


DEFAULT_FIELDS: Final = FieldNames()


@dataclass(frozen=True, slots=True)
class Parsed:
    """A line, ready to be an event.

    Attributes:
        timestamp: RFC 3339.
    """

    level: str
    message: str
    source: str
    timestamp: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        """Where it goes, without the deployment's prefix."""
        return subjects.log(self.level, self.source)

    def encode(self) -> bytes:
        """Write it as the payload of a message."""
        body = {
            "event_type": "system_log",
            "timestamp": self.timestamp,
            "level": self.level,
            "message": self.message,
            "source": self.source,
            "metadata": self.metadata,
        }
        return orjson.dumps(body)


def parse(
    line: bytes, *, source: str, now: float, fields: FieldNames = DEFAULT_FIELDS, cut: bool = False
) -> Parsed:
    """Read a line, without its line break.

    Args:
        line: any bytes.
        source: for a line that names none.
        now: UNIX seconds, for a line that says no time.
        fields: keys to look for in a JSON line.
        cut: the line was longer than its limit.
    """
    if len(line) > MAX_LINE_BYTES:
        line, cut = line[:MAX_LINE_BYTES], True
    text = line.decode("utf-8", "replace").strip()
    body = _json(text) if text.startswith("{") else None
    parsed = _from_json(body, source, now, fields) if body is not None else _from_text(text, source, now)
    if cut:
        parsed.metadata["truncated"] = True
    return parsed


def clean(text: str) -> str:
    """Take terminal escapes and control characters out, but for tabs and line breaks."""
    if _CONTROL.search(text) is None:
        return text
    return _CONTROL.sub("", _ANSI.sub("", text).replace("\r\n", "\n"))


def level_of(value: object, key: str = "level") -> str | None:
    """Level that a JSON value means; None when it means none."""
    if isinstance(value, str):
        name = value.strip().upper()
        if name.isdigit() and len(name) <= 3:
            return level_of(int(name), key)
        return _LEVELS.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        # Syslog counts severities from 0 to 7, pino and bunyan count levels in tens.
        return _SYSLOG.get(value) if value < 8 else _PINO.get(value)
    return None


def _json(text: str) -> dict[str, Any] | None:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _from_json(body: dict[str, Any], source: str, now: float, fields: FieldNames) -> Parsed:
    rest: dict[str, Any] = dict(body)
    if rest.get("event_type") == "system_log":
        del rest["event_type"]
    level = _take(rest, fields.level, level_of) or DEFAULT_LEVEL
    message = _take(rest, fields.message, lambda value, _: value if isinstance(value, str) else None)
    timestamp = _take(rest, fields.timestamp, lambda value, _: _time_of(value))
    own_source = _take(rest, fields.source, lambda value, _: _legal_source(value))
    nested = rest.pop("metadata", {})
    if isinstance(nested, dict):
        rest = {**nested, **rest}
    elif nested is not None:
        rest["metadata"] = nested
    return Parsed(
        level,
        # A line without a message is shown whole, so that nobody sees an empty line.
        clean(message) if message is not None else clean(orjson.dumps(body).decode()),
        own_source or source,
        timestamp or format_time(now),
        _cleaned(rest) if message is not None else {},
    )


def _from_text(text: str, source: str, now: float) -> Parsed:
    message = clean(text)
    found = _LEVEL_IN_TEXT.search(message, 0, LEVEL_SEARCH_CHARACTERS)
    level = DEFAULT_LEVEL
    if found is not None:
        level = _LEVELS[(found["upper"] or found["bracket"] or found["pair"]).upper()]
    start = _TIME_AT_START.match(message)
    timestamp = _time_text(start) if start is not None else None
    if start is not None and timestamp is not None:
        message = _without_head(message, start.end(), found)
    return Parsed(level, message, source, timestamp or format_time(now))


def _without_head(message: str, end: int, level: re.Match[str] | None) -> str:
    """The message without the time and the level behind it, which the event says in fields of its own."""
    if level is not None and not message[end : level.start()].strip(" \t|[]-"):
        end = level.end()
    return message[end:].lstrip(" \t|]:-") or message


def _take(rest: dict[str, Any], keys: tuple[str, ...], read: Any) -> Any:
    """Take the first key whose value can be read out of the mapping; leave the others in it."""
    for key in keys:
        holder: Any = rest
        name = key
        if name not in holder and "." in name:
            *outer, name = key.split(".")
            for step in outer:
                holder = holder.get(step) if isinstance(holder, Mapping) else None
        if isinstance(holder, dict) and name in holder:
            value = read(holder[name], key)
            if value is not None:
                if holder is rest:
                    del rest[name]
                return value
    return None


def _legal_source(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    text = clean(value).strip()
    try:
        subjects.escape(text)
    except SubjectError:
        return None
    return text


def _time_of(value: object) -> str | None:
    if isinstance(value, str):
        try:
            parse_time(value)
        except (ValueError, OverflowError):
            found = _TIME_AT_START.match(value)
            return _time_text(found) if found is not None else None
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # Seconds, milliseconds, microseconds or nanoseconds of UNIX time: each is 1 000 times the one before.
        for unit in (1.0, 1e3, 1e6, 1e9):
            if 1e8 <= value / unit < 1e10:
                return format_time(value / unit)
    return None


def _time_text(found: re.Match[str]) -> str | None:
    """Time at the start of a line; without a zone it is this host's local time, as loggers write it."""
    zone = {"Z": "+00:00", "UTC": "+00:00", None: ""}.get(found["zone"], found["zone"])
    fraction = f".{found['fraction'][:6]:0<6}" if found["fraction"] else ""
    try:
        moment = datetime.fromisoformat(f"{found['day']}T{found['time']}{fraction}{zone}")
        return format_time(moment.timestamp())
    except (ValueError, OverflowError, OSError):
        return None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    return value
