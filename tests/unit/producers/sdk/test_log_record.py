"""Conversion of log records to events, without a server."""

import logging
import sys
from enum import IntEnum
from typing import Any

import orjson
import pytest
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.producers.sdk.log_record import (
    MAX_EXCEPTION,
    MAX_MESSAGE,
    MAX_METADATA,
    MAX_VALUES,
    encode_record,
    level_name,
)


def make_record(message: Any = "hello", *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("app.orders")
    location = ("/app/orders.py", 7)
    return logger.makeRecord(logger.name, logging.INFO, *location, message, args, exc_info, "fill", extra)


def event_of(record: logging.LogRecord, formatter: logging.Formatter | None = None) -> dict[str, Any]:
    """Convert a record to an event, and check that it is valid."""
    payload = encode_record(record, "orders", formatter)
    event: dict[str, Any] = orjson.loads(payload)
    found = decode(f"log.{event['level'].lower()}.orders", payload)
    assert isinstance(found, Event), found
    return event


def exception_info(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_a_record_keeps_its_location() -> None:
    """An event has the time of the record; its metadata has the logger, code location, process and thread."""
    record = make_record("filled %d of %s", 3, "EURUSD")
    record.created = 1750761045.123
    event = event_of(record)
    assert event == {
        "event_type": "system_log",
        "timestamp": "2025-06-24T10:30:45.123Z",
        "level": "INFO",
        "message": "filled 3 of EURUSD",
        "source": "orders",
        "metadata": {
            "logger": "app.orders",
            "module": "orders",
            "function": "fill",
            "line": 7,
            "process": record.process,
            "thread": "MainThread",
        },
    }


def test_every_level_has_a_name() -> None:
    """A level number between two levels is mapped to the lower one."""
    assert [level_name(number) for number in (0, 5, 10, 20, 25, 30, 35, 40, 49, 50, 99)] == (
        ["DEBUG"] * 3 + ["INFO"] * 2 + ["WARN"] * 2 + ["ERROR"] * 2 + ["CRITICAL"] * 2
    )


def test_extras_become_json() -> None:
    """Extra fields are converted to JSON; values without a JSON form become text."""

    class Colour(IntEnum):
        RED = 1

    class Bad:
        def __str__(self) -> str:
            raise KeyError("no")

    recursive: dict[str, Any] = {}
    recursive["self"] = recursive
    event = event_of(
        make_record(
            order=7, price=1.5, nothing=None, yes=True, nan=float("nan"), inf=float("-inf"), huge=2**70,
            colour=Colour.RED, bad=Bad(), parts={"b": (1, {2})}, raw=b"x", keys={1: "a", None: "b"},
            recursive=recursive, half="\ud800",
        )
    )  # fmt: skip
    metadata = event["metadata"]
    assert metadata["order"] == 7
    assert metadata["price"] == 1.5
    assert metadata["nothing"] is None
    assert metadata["yes"] is True
    assert (metadata["nan"], metadata["inf"]) == ("nan", "-inf")
    assert metadata["huge"] == str(2**70)
    assert metadata["colour"] == "1"
    assert metadata["bad"] == "<Bad whose str() raised KeyError>"
    assert metadata["parts"] == {"b": [1, [2]]}
    assert metadata["raw"] == "b'x'"
    assert metadata["keys"] == {"1": "a", "None": "b"}
    assert metadata["half"] == "?"
    assert "truncated" not in metadata


@pytest.mark.parametrize(
    "extra",
    [{"many": list(range(100_000))}, {"long": ["x" * 8000] * 100}, {f"k{n}": n for n in range(2000)}],
)
def test_extras_are_bounded(extra: dict[str, Any]) -> None:
    """Number and size of extra fields are limited, and an event that lacks some is marked as truncated."""
    event = event_of(make_record(**extra))
    assert event["metadata"]["truncated"] is True
    assert len(orjson.dumps(event)) < MAX_METADATA + 2000
    assert len(event["metadata"]) <= MAX_VALUES + 10


@pytest.mark.parametrize("letter", ["x", "ü", "€", "😀", "\x01", '"'])
def test_a_long_message_is_cut(letter: str) -> None:
    """A message is cut at 64 KiB between characters, and JSON escapes do not enlarge the event beyond its
    limit.
    """
    event = event_of(
        make_record(letter * 100_000, exc_info=exception_info(ValueError("\x02" * 100_000)), a="\x03" * 9000)
    )
    assert 8_000 < len(event["message"].encode()) <= MAX_MESSAGE
    assert set(event["message"]) == {letter}
    assert event["metadata"]["truncated"] is True
    assert "truncated" not in event_of(make_record("x" * MAX_MESSAGE))["metadata"]


def test_an_exception_is_only_in_the_metadata() -> None:
    """The traceback is only in the metadata, with and without a formatter; a long one keeps its end."""
    record = make_record("failed", exc_info=exception_info(ValueError("no price")))
    plain = event_of(record)
    assert plain["message"] == "failed"
    assert plain["metadata"]["exception"].endswith("ValueError: no price")
    formatted = event_of(record, logging.Formatter("%(name)s: %(message)s"))
    assert formatted["message"] == "app.orders: failed"
    assert formatted["metadata"]["exception"] == plain["metadata"]["exception"]
    assert record.exc_text is None
    long = event_of(make_record("failed", exc_info=exception_info(ValueError("y" * 100_000))))
    assert len(long["metadata"]["exception"]) == MAX_EXCEPTION + 3
    assert long["metadata"]["truncated"] is True
    assert "exception" not in event_of(make_record("x", exc_info=(None, None, None)))["metadata"]


def test_the_traceback_that_loguru_appends_is_removed() -> None:
    """The traceback that loguru appends to the message and marks in exc_text is removed from it."""
    exc_info = exception_info(ValueError("no price"))
    record = make_record(
        "failed\nTraceback (most recent call last):\n  ...\nValueError: no price\n", exc_info=exc_info
    )
    record.exc_text = "\n"
    record.__dict__["extra"] = {"order": 7}
    event = event_of(record)
    assert event["message"] == "failed"
    assert event["metadata"]["order"] == 7
    assert event["metadata"]["exception"].count("Traceback") == 1
    record = make_record(
        "failed\nValueError: never raised\n", exc_info=(ValueError, ValueError("never raised"), None)
    )
    record.exc_text = "\n"
    assert event_of(record)["message"] == "failed"


def test_fields_of_structlog_are_metadata() -> None:
    """A dictionary from wrap_for_formatter becomes message and metadata; any other one is the message."""
    event = event_of(
        make_record({"event": "filled", "order": 7, "exc_info": None}, _logger=None, _name="info")
    )
    assert event["message"] == "filled"
    assert event["metadata"]["order"] == 7
    assert not {"_logger", "_name", "event", "exc_info"} & set(event["metadata"])
    assert event_of(make_record({"a": 1}))["message"] == "{'a': 1}"


def test_a_formatting_error_is_raised() -> None:
    """A formatting error is raised, so that the handler passes it to handleError."""
    with pytest.raises(TypeError):
        encode_record(make_record("%d", "x"), "orders", None)
