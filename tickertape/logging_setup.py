"""The relay's own log: JSON lines for log collectors, or text for terminals.

Invariants:

1. A record is one line without control characters, whatever a client put into it; only the traceback of a
   text record spans several lines.
2. No line is logged per event, and above ``debug`` none per client.
3. A line about a session has the session's id in ``session``; the client received this id in ``welcome``.
"""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator

from tickertape.errors import ConfigurationError
from tickertape.text import escape_surrogates, printable, printable_json, printable_lines

ROOT_LOGGER: Final = "tickertape"
"""Parent of all Tickertape loggers."""

LIBRARIES: Final = ("uvicorn", "websockets", "nats", "asyncio")
"""Loggers of libraries, which log errors only, in the same format."""

TEXT_FORMAT: Final = "%(asctime)s %(levelname)-7s %(message)s"
LEVELS: Final = ("debug", "info", "warning", "error")
MAX_LEVEL_FILE_BYTES: Final = 1_000
"""Bytes read from a log level file; a valid one is much shorter."""

_STANDARD_FIELDS: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _lowercase(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Format = Annotated[Literal["auto", "json", "text"], BeforeValidator(_lowercase)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lowercase)]


class LogLevelError(ConfigurationError):
    """Error in a log level file."""


class JsonFormatter(logging.Formatter):
    """Formatter that writes a record as one JSON object: time, level, logger, message, extras, exception.

    Args:
        slot: slot of this worker process; None without workers.
    """

    def __init__(self, slot: int | None = None) -> None:
        super().__init__()
        self._slot_field: dict[str, Any] = {} if slot is None else {"slot": slot}

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one line of JSON."""
        created = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": f"{created:%Y-%m-%dT%H:%M:%S}.{created.microsecond // 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": escape_surrogates(record.getMessage()),
        }
        line |= self._slot_field
        if record.exc_info:
            line["exception"] = escape_surrogates(self.formatException(record.exc_info))
        extras = {name: value for name, value in record.__dict__.items() if name not in _STANDARD_FIELDS}
        try:
            return _dumps(line | extras)
        except TypeError:
            # orjson rejects integers over 64 bits and lone surrogates; log such extras as text.
            return _dumps(line | {name: _to_text(value) for name, value in extras.items()})


class TextFormatter(logging.Formatter):
    """Formatter that writes a record as text; it omits extras, which the message already contains.

    Args:
        slot: slot of this worker process; None without workers.
    """

    def __init__(self, slot: int | None = None) -> None:
        super().__init__(TEXT_FORMAT if slot is None else f"%(asctime)s %(levelname)-7s [{slot}] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format a record as one line, even if an untrusted client chose a part of its text."""
        return printable(super().formatMessage(record))

    def formatException(self, *arguments: Any) -> str:
        """Format a traceback, whose exception may contain untrusted text."""
        return printable_lines(super().formatException(*arguments))

    def formatStack(self, stack_info: str) -> str:
        """Format a stack, whose lines of source may contain any text."""
        return printable_lines(super().formatStack(stack_info))


def configure(log_format: Format, level: Level, slot: int | None = None) -> None:
    """Configure logging of this process to standard error.

    Args:
        log_format: ``auto`` selects text on a terminal, else JSON.
        level: minimum level of Tickertape's own loggers.
        slot: slot of this worker process; None without workers.
    """
    handler = logging.StreamHandler()
    text = log_format == "text" or (log_format == "auto" and handler.stream.isatty())
    handler.setFormatter(TextFormatter(slot) if text else JsonFormatter(slot))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    set_level(level)


def set_level(level: Level) -> None:
    """Set the minimum level of Tickertape's own loggers."""
    logging.getLogger(ROOT_LOGGER).setLevel(level.upper())


def read_level(path: Path) -> Level:
    """Read the log level from a file that contains one word.

    Raises:
        LogLevelError: the file cannot be read, or does not contain a level.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LEVEL_FILE_BYTES).decode("utf-8", "replace").strip().lower()
    except OSError as error:
        raise LogLevelError(
            f"log level file {path} cannot be read: {error.strerror}", "create it, or remove the setting"
        ) from None
    for level in LEVELS:
        if content == level:
            return level
    raise LogLevelError(
        f"log level file {path} contains {ascii(content)[:40]}", f"use one of {', '.join(LEVELS)}"
    )


HandlerFactory = Callable[[str], logging.Handler]
"""Function that makes a handler which publishes log records to NATS, given the URL of NATS."""


def _dumps(record: dict[str, Any]) -> str:
    return printable_json(orjson.dumps(record, default=_to_text, option=orjson.OPT_NON_STR_KEYS).decode())


def _to_text(value: Any) -> str:
    return escape_surrogates(str(value))
