"""Encoding of a record of the standard ``logging`` as a ``system_log`` event, whatever its fields contain.

Invariants:

1. Every record becomes a valid event within the contract's size limit, or its formatting error is raised.
2. No object of the program outlives the call: the event holds only text, numbers, lists and JSON objects.
3. The text of an exception is in ``metadata.exception`` and nowhere else.

Besides plain records, it supports those of structlog (``wrap_for_formatter``, ``render_to_log_kwargs``) and
loguru.
"""

import copy
import logging
import math
import re
import sys
from typing import Any, Final

import orjson
from tickertape.contracts.events import MAX_EVENT_BYTES, format_time

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of a message; a longer one is truncated."""

MAX_EXCEPTION: Final = 32 * 1024
"""Characters of a traceback; a longer one keeps its end, which names the exception."""

MAX_TEXT: Final = 8 * 1024
"""Characters of a string in the extra fields."""

MAX_DEPTH: Final = 6
"""Nesting of containers in the extra fields; deeper ones become text."""

MAX_VALUES: Final = 500
"""Values in the extra fields, including nested ones."""

MAX_METADATA: Final = 64 * 1024
"""Total bytes of the extra fields."""

_STANDARD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName",
    "_logger", "_name",  # added by structlog
}  # fmt: skip
_LOGURU_MARK: Final = "\n"
_TRACEBACK: Final = re.compile(r"\n[ |+]*(?:Exception Group )?Traceback \(most recent call last\):")
_JSON_TYPES: Final = frozenset({str, bool, type(None)})
_FORMATTER: Final = logging.Formatter()


def level_name(number: int) -> str:
    """Return the contract's level for a numeric level of ``logging``."""
    if number >= logging.CRITICAL:
        return "CRITICAL"
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    return "INFO" if number >= logging.INFO else "DEBUG"


def encode_record(record: logging.LogRecord, source: str, formatter: logging.Formatter | None) -> bytes:
    """Return the payload of a record's event.

    Args:
        record: log record; it is not modified.
        source: source of the event.
        formatter: formatter of the message; None uses the record's own message.

    Raises:
        Exception: any error raised while the program's message is formatted.
    """
    fields = _extra_fields(record)
    exc_info = record.exc_info
    message: str
    if "_logger" in record.__dict__ and isinstance(record.msg, dict):  # structlog's wrap_for_formatter
        event = dict(record.msg)
        message = str(event.pop("event", ""))
        structlog_exc_info = event.pop("exc_info", None)
        exc_info = exc_info or _exc_info(structlog_exc_info)
        fields |= event
    else:
        message = record.getMessage()
    if formatter is not None:
        # Without these a formatter would append the traceback and the stack to the message.
        bare = copy.copy(record)
        bare.exc_info = bare.exc_text = bare.stack_info = None
        message = formatter.format(bare)
    traceback = record.exc_text
    if traceback == _LOGURU_MARK:
        # loguru has appended the traceback to the message, unless a formatter replaced the message.
        traceback = None
        if formatter is None and exc_info:
            message = _without_traceback(message, exc_info)
    if exc_info and exc_info[1] is not None and not traceback:
        traceback = _FORMATTER.formatException(exc_info)

    metadata: dict[str, Any] = {
        "logger": record.name,
        "module": record.module,
        "function": record.funcName,
        "line": record.lineno,
        "process": record.process,
        "thread": record.threadName,
    }
    truncated = False
    if fields:
        budget = [MAX_VALUES]
        extras: dict[str, Any] = to_json_value(fields, budget)
        if budget[0] < 0 or len(_dumps(extras)) > MAX_METADATA:
            extras, truncated = _first_that_fit(extras), True
        metadata |= extras
    if traceback:
        if len(traceback) > MAX_EXCEPTION:
            traceback, truncated = f"...{traceback[-MAX_EXCEPTION:]}", True
        metadata["exception"] = traceback
    if record.stack_info:
        metadata["stack"] = str(record.stack_info)[-MAX_TEXT:]
    if len(message) > MAX_MESSAGE // 4:  # a character has at most four bytes
        encoded = message.encode("utf-8", "replace")
        if len(encoded) > MAX_MESSAGE:
            message, truncated = encoded[:MAX_MESSAGE].decode("utf-8", "ignore"), True
    if truncated:
        metadata["truncated"] = True
    return _payload(record, source, message, metadata)


def to_json_value(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Return an equivalent of a value that JSON can represent.

    Args:
        value: any object; one that JSON cannot represent becomes its ``str()``.
        budget: remaining number of values, in a list of length one; negative if values were left out.
        depth: number of containers around the value.
    """
    budget[0] -= 1
    if budget[0] < 0:
        return None
    kind = type(value)
    if kind is str:
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}..."
    if kind in _JSON_TYPES:
        return value
    if kind is int:
        return value if -(2**63) <= value < 2**63 else _text(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, dict | list | tuple | set | frozenset):
        if depth >= MAX_DEPTH:
            return _text(value)
        try:
            if isinstance(value, dict):
                return {
                    _key(key): to_json_value(item, budget, depth + 1)
                    for key, item in _take_within(value.items(), budget)
                }
            return [to_json_value(item, budget, depth + 1) for item in _take_within(value, budget)]
        except RuntimeError:
            return _text(value)  # another thread changed the container during iteration
    return _text(value)


def _take_within(items: Any, budget: list[int]) -> Any:
    for item in items:
        if budget[0] <= 0:
            budget[0] = -1
            return
        yield item


def _key(key: object) -> str:
    return key if type(key) is str and len(key) <= MAX_TEXT else _text(key)


def _text(value: object) -> str:
    try:
        text = str(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose str() raised {type(error).__name__}>"
    # str() may return a subclass of str, whose methods belong to the program.
    return str.__str__(text) if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _extra_fields(record: logging.LogRecord) -> dict[str, Any]:
    values = record.__dict__
    if len(values) <= _STANDARD_COUNT:
        return {}
    fields = {key: value for key, value in values.items() if key not in _STANDARD_FIELDS}
    if type(inner := fields.get("extra")) is dict:  # loguru nests its extra fields
        del fields["extra"]
        fields |= inner
    return fields


_STANDARD_COUNT: Final = len(logging.makeLogRecord({}).__dict__)


def _exc_info(value: object) -> Any:
    """Return the triple for structlog's ``exc_info``: True, an exception, or the triple itself."""
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    if isinstance(value, tuple) and len(value) == 3:
        return value
    return sys.exc_info() if value else None


def _without_traceback(message: str, exc_info: Any) -> str:
    match = _TRACEBACK.search(message)
    if match:
        return message[: match.start()]
    # For an exception that was never raised, loguru appends only the line that names it.
    name = getattr(exc_info[0], "__name__", "")
    head, newline, tail = message.rstrip("\n").rpartition("\n")
    return head if newline and name and name in tail else message


def _first_that_fit(extras: dict[str, Any]) -> dict[str, Any]:
    """Return the first extra fields that fit into ``MAX_METADATA``."""
    kept: dict[str, Any] = {}
    remaining = MAX_METADATA
    for key, value in extras.items():
        remaining -= len(_dumps({key: value}))
        if remaining < 0:
            break
        kept[key] = value
    return kept


def _payload(record: logging.LogRecord, source: str, message: str, metadata: dict[str, Any]) -> bytes:
    event = {
        "event_type": "system_log",
        "timestamp": format_time(record.created),
        "level": level_name(record.levelno),
        "message": message,
        "source": source,
        "metadata": metadata,
    }
    payload = _dumps(event)
    if len(payload) > MAX_EVENT_BYTES:
        # A control character takes six bytes in JSON, so a message within its limit can exceed the event's.
        metadata["truncated"] = True
        event["message"] = message[: MAX_MESSAGE // 6]
        if "exception" in metadata:
            metadata["exception"] = metadata["exception"][-MAX_TEXT:]
        payload = _dumps(event)
    return payload


def _dumps(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # orjson rejects lone surrogates, which UTF-8 cannot encode.
        return orjson.dumps(_without_surrogates(value))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(str(key)): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
