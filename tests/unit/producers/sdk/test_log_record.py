"""What a log record becomes, without a server."""

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


def made(message: Any = "hello", *args: Any, exc_info: Any = None, **extra: Any) -> logging.LogRecord:
    logger = logging.getLogger("app.orders")
    place = ("/app/orders.py", 7)
    return logger.makeRecord(logger.name, logging.INFO, *place, message, args, exc_info, "fill", extra)


def event_of(record: logging.LogRecord, formatter: logging.Formatter | None = None) -> dict[str, Any]:
    """The event, which is checked against the contract, too."""
    payload = encode_record(record, "orders", formatter)
    event: dict[str, Any] = orjson.loads(payload)
    found = decode(f"log.{event['level'].lower()}.orders", payload)
    assert isinstance(found, Event), found
    return event


def raised(error: BaseException) -> Any:
    try:
        raise error
    except BaseException:
        return sys.exc_info()


def test_a_record_keeps_its_place() -> None:
    """Logger, module, function, line, process and thread are in the metadata, and the record's own time."""
    record = made("filled %d of %s", 3, "EURUSD")
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
    """Numbers between the levels belong to the lower one."""
    assert [level_name(number) for number in (0, 5, 10, 20, 25, 30, 35, 40, 49, 50, 99)] == (
        ["DEBUG"] * 3 + ["INFO"] * 2 + ["WARN"] * 2 + ["ERROR"] * 2 + ["CRITICAL"] * 2
    )


def test_extras_become_json() -> None:
    """Anything has a text; numbers that JSON lacks are texts, too."""

    class Colour(IntEnum):
        RED = 1

    class Bad:
        def __str__(self) -> str:
            raise KeyError("no")

    again: dict[str, Any] = {}
    again["self"] = again
    event = event_of(
        made(
            order=7, price=1.5, nothing=None, yes=True, nan=float("nan"), inf=float("-inf"), huge=2**70,
            colour=Colour.RED, bad=Bad(), parts={"b": (1, {2})}, raw=b"x", keys={1: "a", None: "b"},
            again=again, half="\ud800",
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
    """Neither their number nor their size runs away, and the event says that something is missing."""
    event = event_of(made(**extra))
    assert event["metadata"]["truncated"] is True
    assert len(orjson.dumps(event)) < MAX_METADATA + 2000
    assert len(event["metadata"]) <= MAX_VALUES + 10


@pytest.mark.parametrize("letter", ["x", "ü", "€", "😀", "\x01", '"'])
def test_a_long_message_is_cut(letter: str) -> None:
    """At 64 KiB, between characters; and the event fits in spite of escapes."""
    event = event_of(made(letter * 100_000, exc_info=raised(ValueError("\x02" * 100_000)), a="\x03" * 9000))
    assert 8_000 < len(event["message"].encode()) <= MAX_MESSAGE
    assert set(event["message"]) == {letter}
    assert event["metadata"]["truncated"] is True
    assert "truncated" not in event_of(made("x" * MAX_MESSAGE))["metadata"]


def test_an_exception_is_in_the_metadata_alone() -> None:
    """With and without a formatter; of a long one the end is kept."""
    record = made("failed", exc_info=raised(ValueError("no price")))
    plain = event_of(record)
    assert plain["message"] == "failed"
    assert plain["metadata"]["exception"].endswith("ValueError: no price")
    formatted = event_of(record, logging.Formatter("%(name)s: %(message)s"))
    assert formatted["message"] == "app.orders: failed"
    assert formatted["metadata"]["exception"] == plain["metadata"]["exception"]
    assert record.exc_text is None
    long = event_of(made("failed", exc_info=raised(ValueError("y" * 100_000))))
    assert len(long["metadata"]["exception"]) == MAX_EXCEPTION + 3
    assert long["metadata"]["truncated"] is True
    assert "exception" not in event_of(made("x", exc_info=(None, None, None)))["metadata"]


def test_loguru_appends_what_is_taken_off() -> None:
    """loguru hands over the message with its own traceback, marked in exc_text."""
    exc_info = raised(ValueError("no price"))
    record = made(
        "failed\nTraceback (most recent call last):\n  ...\nValueError: no price\n", exc_info=exc_info
    )
    record.exc_text = "\n"
    record.__dict__["extra"] = {"order": 7}
    event = event_of(record)
    assert event["message"] == "failed"
    assert event["metadata"]["order"] == 7
    assert event["metadata"]["exception"].count("Traceback") == 1
    record = made(
        "failed\nValueError: never raised\n", exc_info=(ValueError, ValueError("never raised"), None)
    )
    record.exc_text = "\n"
    assert event_of(record)["message"] == "failed"


def test_structlogs_fields_are_metadata() -> None:
    """A dictionary from wrap_for_formatter is unfolded; a plain one is the program's message."""
    event = event_of(made({"event": "filled", "order": 7, "exc_info": None}, _logger=None, _name="info"))
    assert event["message"] == "filled"
    assert event["metadata"]["order"] == 7
    assert not {"_logger", "_name", "event", "exc_info"} & set(event["metadata"])
    assert event_of(made({"a": 1}))["message"] == "{'a': 1}"


def test_a_formatting_error_is_the_programs() -> None:
    """It is raised, for handleError."""
    with pytest.raises(TypeError):
        encode_record(made("%d", "x"), "orders", None)
