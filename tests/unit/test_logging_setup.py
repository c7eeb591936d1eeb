"""The relay's own log: every record becomes one readable line."""

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deceptive import SURROGATES, TEXT, deceptive
from tickertape import logging_setup as logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", logs.ROOT_LOGGER, *logs.LIBRARIES)]
    before = [(logger.level, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers = handlers


def record(message: str, *values: object, **extra: object) -> logging.LogRecord:
    """Return a record as one of our modules creates it."""
    made = logging.LogRecord("tickertape.ingest", logging.WARNING, "x.py", 1, message, values, None)
    made.created = 1_750_761_045.123_9
    made.__dict__ |= extra
    return made


def parsed(made: logging.LogRecord) -> dict[str, Any]:
    """Parse a formatted line."""
    text = logs.JsonFormatter().format(made)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_has_its_fields_and_its_extras() -> None:
    """The fields come first, then the extras."""
    found = parsed(record("session %s ended", "abc", session="abc", code=4401))
    assert list(found.items()) == [
        ("time", "2025-06-24T10:30:45.123Z"),
        ("level", "WARNING"),
        ("logger", "tickertape.ingest"),
        ("message", "session abc ended"),
        ("session", "abc"),
        ("code", 4401),
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Path("/x"), "/x"),
        ({1: "a"}, {"1": "a"}),
        ("a\nb", "a\nb"),
        ("\udce4", "\\udce4"),
        (object, "<class 'object'>"),
        (2**70, str(2**70)),
    ],
)
def test_any_extra_can_be_written(value: object, shown: object) -> None:
    """An extra that JSON cannot represent does not lose the line."""
    assert parsed(record("x", value=value))["value"] == shown


def test_an_unusual_message_is_logged() -> None:
    """A message with invalid Unicode, such as a file name, can be formatted."""
    assert parsed(record("cannot read %s", "\udce4.pem"))["message"] == "cannot read \\udce4.pem"


def test_a_traceback_is_a_field() -> None:
    """A traceback is a field of the same line."""
    made = record("x")
    try:
        raise ValueError("broken")
    except ValueError:
        made.exc_info = sys.exc_info()
    found = parsed(made)
    assert found["exception"].startswith("Traceback")
    assert found["exception"].endswith("ValueError: broken")


def test_untrusted_text_cannot_forge_a_log_line() -> None:
    """Characters that end a line or control a terminal are escaped."""
    text = logs.TextFormatter().format(record("no feed at %s", "/a\n2026 ERROR all is lost\x1b[2J\u2028"))
    assert text.endswith(" WARNING no feed at /a\\n2026 ERROR all is lost\\x1b[2J\\u2028")
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize("formatter", [logs.TextFormatter(), logs.JsonFormatter()])
def test_a_record_deceives_no_terminal(formatter: logging.Formatter) -> None:
    """The message, the extras, the traceback and the stack contain no deceptive character."""
    made = record("%s", TEXT + SURROGATES, extra={TEXT: [TEXT]})
    made.stack_info = TEXT
    try:
        raise ValueError(TEXT + SURROGATES)
    except ValueError:
        made.exc_info = sys.exc_info()
    text = formatter.format(made)
    assert deceptive(text) == set()
    assert deceptive(formatter.format(record("x", extra=TEXT + SURROGATES))) == set()
    if isinstance(formatter, logs.JsonFormatter):
        assert json.loads(text)["message"].startswith(TEXT)
        assert json.loads(text)["extra"] == {TEXT: [TEXT]}


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("form", "stream", "is_json"),
    [
        ("auto", Terminal(), False),
        ("auto", io.StringIO(), True),
        ("json", Terminal(), True),
        ("text", io.StringIO(), False),
    ],
)
def test_the_format_follows_the_destination(
    form: logs.Format, stream: io.StringIO, is_json: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format is text on a terminal and JSON otherwise, unless configured; libraries use the same
    format.
    """
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(form, "info")
    logging.getLogger("tickertape.ingest").info("ours")
    logging.getLogger("tickertape.ingest").debug("not said")
    logging.getLogger("uvicorn.error").error("theirs")
    logging.getLogger("uvicorn.error").info("not said")
    logging.getLogger("nats.aio").warning("not said")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert [text.startswith("{") for text in lines] == [is_json] * 2
    if is_json:
        assert [json.loads(text)["message"] for text in lines] == ["ours", "theirs"]
        assert json.loads(lines[1])["logger"] == "uvicorn.error"


def test_a_file_sets_the_level(tmp_path: Path) -> None:
    """A level file is accepted in any case, with or without a line end."""
    path = tmp_path / "level"
    for text in ("debug", "DEBUG\n", "  Debug\r\n"):
        path.write_text(text)
        assert logs.read_level(path) == "debug"
    for text in ("", "trace", "debug info", "\xff" * 5_000):
        path.write_text(text)
        with pytest.raises(logs.LogLevelError, match="use one of debug, info, warning, error"):
            logs.read_level(path)
    with pytest.raises(logs.LogLevelError, match="cannot be read"):
        logs.read_level(tmp_path / "none")
