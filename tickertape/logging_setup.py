"""The relay's own log: one line for each thing that matters, as JSON for programs or as text for people.

Invariants:

1. One record is one line, whatever a client put into it; only a traceback has more, and only as text.
2. There is no line per event, and below ``debug`` none per client.
3. A line about a session has its id in ``session``, which its client was told in ``welcome``.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator

from tickertape.errors import ConfigurationError
from tickertape.text import printable

ROOT: Final = "tickertape"
"""Logger above all of ours."""

LIBRARIES: Final = ("uvicorn", "websockets", "nats", "asyncio")
"""They speak up from errors on, in the same form."""

TEXT_FORM: Final = "%(asctime)s %(levelname)-7s %(message)s"
LEVELS: Final = ("debug", "info", "warning", "error")
MAX_LEVEL_FILE: Final = 1_000
"""Bytes that are read of a file with a level."""

_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


Format = Annotated[Literal["auto", "json", "text"], BeforeValidator(_lower)]
Level = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]


class LogLevelError(ConfigurationError):
    """A file does not say a level."""


class JsonLines(logging.Formatter):
    """Makes one JSON object of a record: time, level, logger, message, its extras, and an exception.

    Args:
        slot: of the worker that speaks.
    """

    def __init__(self, slot: int | None = None) -> None:
        super().__init__()
        self._whose: dict[str, Any] = {} if slot is None else {"slot": slot}

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        when = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "time": f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": _printable(record.getMessage()),
        }
        line |= self._whose
        if record.exc_info:
            line["exception"] = _printable(self.formatException(record.exc_info))
        extras = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        try:
            return _dumps(line | extras)
        except TypeError:
            # A number too large for JSON's readers, or text that is no Unicode: as words, it is told.
            return _dumps(line | {name: _plain(value) for name, value in extras.items()})


class TextLines(logging.Formatter):
    """Makes a line for people; extras stand in the message already.

    Args:
        slot: of the worker that speaks.
    """

    def __init__(self, slot: int | None = None) -> None:
        super().__init__(TEXT_FORM if slot is None else f"%(asctime)s %(levelname)-7s [{slot}] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """One line, also when a stranger chose a part of it."""
        return printable(super().formatMessage(record))


def set_up(form: Format, level: Level, slot: int | None = None) -> None:
    """Write all that is logged in this process to standard error.

    Args:
        form: ``auto`` is text on a terminal, else JSON.
        level: least level of ours.
        slot: of the worker that this process is.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = form == "text" or (form == "auto" and _terminal())
    handler.setFormatter(TextLines(slot) if text else JsonLines(slot))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for library in LIBRARIES:
        logging.getLogger(library).setLevel(logging.ERROR)
    set_level(level)


def set_level(level: Level) -> None:
    """Let lines of ours pass from this level on."""
    logging.getLogger(ROOT).setLevel(level.upper())


def level_in(path: Path) -> Level:
    """Read the level that a file holds: one word.

    Raises:
        LogLevelError: it cannot be read, or says something else.
    """
    try:
        with path.open("rb") as file:
            word = file.read(MAX_LEVEL_FILE).decode("utf-8", "replace").strip().lower()
    except OSError as error:
        raise LogLevelError(
            f"the log level file {path} cannot be read: {error.strerror}", "make it, or leave the setting out"
        ) from None
    for level in LEVELS:
        if word == level:
            return level
    raise LogLevelError(
        f"the log level file {path} says {ascii(word)[:40]}", f"write one of {', '.join(LEVELS)}"
    )


Shipping = Callable[[str], logging.Handler]
"""Makes the handler that also publishes what is logged, from the address of NATS."""


def _terminal() -> bool:
    return sys.stderr.isatty()


def _printable(text: str) -> str:
    # What is no Unicode, such as a file's odd name, is no JSON either.
    return text.encode("utf-8", "backslashreplace").decode()


def _dumps(line: dict[str, Any]) -> str:
    return orjson.dumps(line, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode()


def _plain(value: Any) -> str:
    return _printable(str(value))
