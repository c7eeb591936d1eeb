"""What a record of the standard ``logging`` becomes: a ``system_log`` event, whatever it holds.

Invariants:

1. Every record gives a valid event within the contract's size, or its formatting error is raised.
2. No object of the program outlives this call: everything is text, numbers, and lists and objects of these.
3. An exception's text stands in ``metadata.exception`` and nowhere else.

Besides plain records: those of structlog (``wrap_for_formatter``, ``render_to_log_kwargs``) and loguru.
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
"""Bytes of a message; what is longer is cut."""

MAX_EXCEPTION: Final = 32 * 1024
"""Characters of a traceback; of a longer one the end is kept, which says what happened."""

MAX_TEXT: Final = 8 * 1024
"""Characters of a text among the extras."""

MAX_DEPTH: Final = 6
MAX_VALUES: Final = 500
"""Values among the extras, those within others included."""

MAX_METADATA: Final = 64 * 1024
"""Bytes of all extras together."""

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message", "asctime", "taskName",
    "_logger", "_name",  # structlog's
}  # fmt: skip
_LOGURU_MARK: Final = "\n"
_TRACEBACK: Final = re.compile(r"\n[ |+]*(?:Exception Group )?Traceback \(most recent call last\):")
_PLAIN: Final = frozenset({str, bool, type(None)})
_FORMATTER: Final = logging.Formatter()


def level_of(number: int) -> str:
    """Name of a level of ours for a number of logging's."""
    if number >= logging.CRITICAL:
        return "CRITICAL"
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    return "INFO" if number >= logging.INFO else "DEBUG"


def payload_of(record: logging.LogRecord, source: str, formatter: logging.Formatter | None) -> bytes:
    """Make the payload of a record's event.

    Args:
        record: stays as it is.
        source: of the event.
        formatter: makes the message; None takes the record's own.

    Raises:
        Exception: what the formatting of the program's message raises.
    """
    fields = _extras(record)
    exc_info = record.exc_info
    message: str
    if "_logger" in record.__dict__ and isinstance(record.msg, dict):  # structlog's wrap_for_formatter
        event = dict(record.msg)
        message = str(event.pop("event", ""))
        given = event.pop("exc_info", None)
        exc_info = exc_info or _exc_info(given)
        fields |= event
    else:
        message = record.getMessage()
    if formatter is not None:
        bare = copy.copy(record)
        bare.exc_info = bare.exc_text = bare.stack_info = None
        message = formatter.format(bare)
    text = record.exc_text
    if text == _LOGURU_MARK:  # loguru's: the message has the traceback, too, unless a formatter made another
        text = None
        if formatter is None and exc_info:
            message = _without_traceback(message, exc_info)
    if exc_info and exc_info[1] is not None and not text:
        text = _FORMATTER.formatException(exc_info)

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
        extras: dict[str, Any] = plain(fields, budget)
        if budget[0] < 0 or len(_dumps(extras)) > MAX_METADATA:
            extras, truncated = _within(extras), True
        metadata |= extras
    if text:
        if len(text) > MAX_EXCEPTION:
            text, truncated = f"...{text[-MAX_EXCEPTION:]}", True
        metadata["exception"] = text
    if record.stack_info:
        metadata["stack"] = str(record.stack_info)[-MAX_TEXT:]
    if len(message) > MAX_MESSAGE // 4:
        whole = message.encode("utf-8", "replace")
        if len(whole) > MAX_MESSAGE:
            message, truncated = whole[:MAX_MESSAGE].decode("utf-8", "ignore"), True
    if truncated:
        metadata["truncated"] = True
    return _payload(record, source, message, metadata)


def plain(value: Any, budget: list[int], depth: int = 0) -> Any:
    """Make a value that JSON can hold.

    Args:
        value: anything; what JSON does not know becomes its text.
        budget: how many values there may be still, in a list of one; below zero when some were left out.
        depth: of containers around it.
    """
    budget[0] -= 1
    if budget[0] < 0:
        return None
    kind = type(value)
    if kind is str:
        return value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}..."
    if kind in _PLAIN:
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
                    _key(key): plain(item, budget, depth + 1) for key, item in _first(value.items(), budget)
                }
            return [plain(item, budget, depth + 1) for item in _first(value, budget)]
        except RuntimeError:
            return _text(value)  # another thread changes it meanwhile
    return _text(value)


def _first(items: Any, budget: list[int]) -> Any:
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
    # Not of a subclass of str, whose methods are the program's.
    return str.__str__(text) if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    values = record.__dict__
    if len(values) <= _COUNT:
        return {}
    fields = {key: value for key, value in values.items() if key not in _OWN}
    if type(inner := fields.get("extra")) is dict:  # loguru's
        del fields["extra"]
        fields |= inner
    return fields


_COUNT: Final = len(logging.makeLogRecord({}).__dict__)


def _exc_info(given: object) -> Any:
    """What structlog's ``exc_info`` means: True, an exception, or logging's own triple."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    if isinstance(given, tuple) and len(given) == 3:
        return given
    return sys.exc_info() if given else None


def _without_traceback(message: str, exc_info: Any) -> str:
    found = _TRACEBACK.search(message)
    if found:
        return message[: found.start()]
    # An exception that was never raised has no traceback: its last line alone was appended.
    name = getattr(exc_info[0], "__name__", "")
    head, mark, tail = message.rstrip("\n").rpartition("\n")
    return head if mark and name and name in tail else message


def _within(extras: dict[str, Any]) -> dict[str, Any]:
    """The first of the extras that fit."""
    kept: dict[str, Any] = {}
    left = MAX_METADATA
    for key, value in extras.items():
        left -= len(_dumps({key: value}))
        if left < 0:
            break
        kept[key] = value
    return kept


def _payload(record: logging.LogRecord, source: str, message: str, metadata: dict[str, Any]) -> bytes:
    event = {
        "event_type": "system_log",
        "timestamp": format_time(record.created),
        "level": level_of(record.levelno),
        "message": message,
        "source": source,
        "metadata": metadata,
    }
    payload = _dumps(event)
    if len(payload) > MAX_EVENT_BYTES:
        # Control characters take six bytes each in JSON.
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
        # Half of a surrogate pair, which UTF-8 cannot write.
        return orjson.dumps(_mended(value))


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_mended(str(key)): _mended(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_mended(item) for item in value]
    return value
