"""The logging handler with a real server: outages, forks, dictConfig, structlog, loguru, interpreter exit."""

import asyncio
import contextlib
import logging
import logging.config
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import loguru
import pytest
import structlog
from nats.aio.client import Client
from tickertape.producers.sdk.logging_handler import NOT_SHIPPED, TickertapeHandler

from tests.integration.sdk.test_publisher import stored, with_client
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import streams


@pytest.fixture
def url(nats_server: NatsServer) -> str:
    """Return the URL of a server with streams."""

    async def make(client: Client) -> None:
        await streams.provision(client, Names())

    asyncio.run(with_client(nats_server.url, make))
    return nats_server.url


def events(url: str, subject: str = "log.*.app") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = asyncio.run(with_client(url, lambda client: stored(client, subject)))
    return found


def until(url: str, subject: str, number: int) -> list[dict[str, Any]]:
    """Wait until the stream has ``number`` events of a subject."""
    deadline = time.monotonic() + PATIENCE
    while len(found := events(url, subject)) < number and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """Return a logger for the test; afterwards remove its handlers and check that no thread remains."""
    logger = logging.getLogger("app.test")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        if isinstance(handler, TickertapeHandler):  # pytest adds handlers of its own
            logger.removeHandler(handler)
            handler.close()
    logger.propagate = True
    assert not [thread for thread in threading.enumerate() if thread.name.endswith(": log")]


def test_records_become_events_in_order(url: str, log: logging.Logger) -> None:
    """After a flush, all records are in the stream in order, with logger, extra fields and exception."""
    handler = TickertapeHandler(url, source="app", level="INFO")
    log.addHandler(handler)
    log.debug("not this")
    for number in range(500):
        log.info("line %d", number, extra={"number": number})
    try:
        raise ValueError("no price")
    except ValueError:
        log.exception("failed")
    handler.flush()
    found = events(url, "log.info.app")
    assert [event["message"] for event in found] == [f"line {number}" for number in range(500)]
    assert found[7]["metadata"]["number"] == 7
    assert found[7]["metadata"]["logger"] == "app.test"
    (failed,) = events(url, "log.error.app")
    assert failed["message"] == "failed"
    assert "no price" in failed["metadata"]["exception"]
    assert handler.dropped == 0
    assert repr(handler) == "<TickertapeHandler app (INFO)>"


def test_a_formatter_determines_the_message(
    url: str, log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A formatter determines the message, and a record that cannot be formatted goes to ``handleError``."""
    handler = TickertapeHandler(url, source="app")
    handler.setFormatter(logging.Formatter("%(name)s| %(message)s"))
    log.addHandler(handler)
    reported: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", reported.append)
    handler.handle(logging.LogRecord("app", logging.INFO, "app.py", 1, "%d", ("x",), None))
    log.info("one")
    handler.flush()
    assert [event["message"] for event in events(url)] == ["app.test| one"]
    assert len(reported) == 1


def test_the_oldest_records_are_dropped_and_reported(
    nats_server: NatsServer, url: str, log: logging.Logger
) -> None:
    """During an outage logging never blocks; then the newest records arrive, and an event counts the rest."""
    handler = TickertapeHandler(url, source="app", capacity=100, flush_timeout=0.2)
    log.addHandler(handler)
    log.info("before")
    nats_server.stop()
    for number in range(1000):
        log.info("%d", number)
    handler.flush()
    deadline = time.monotonic() + PATIENCE
    while handler.dropped < 900 and time.monotonic() < deadline:
        time.sleep(0.01)
    lost = handler.dropped
    assert 900 <= lost <= 901
    nats_server.start()
    reported = until(url, "log.warn.app", 1)
    assert [event["metadata"]["dropped"] for event in reported] == [lost]
    assert "dropped while NATS was unreachable" in reported[0]["message"]
    handler.flush_timeout = PATIENCE
    handler.flush()
    numbers = [event["message"] for event in events(url, "log.info.app") if event["message"] != "before"]
    assert numbers == [str(number) for number in range(900, 1000)]
    assert len(events(url, "log.warn.app")) == 1


def test_the_handlers_own_records_are_not_shipped(nats_server: NatsServer, url: str) -> None:
    """The handler's own log records are not shipped, even on the root logger at DEBUG during an outage."""
    handler = TickertapeHandler(url, source="app", capacity=5, flush_timeout=0.2)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    names = [*NOT_SHIPPED, "nats.aio.client", "asyncio"]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.DEBUG)
        for name in names[:-1]:
            logging.getLogger(name).error("not shipped")
        nats_server.stop()
        for number in range(20):
            logging.getLogger("app").info("%d", number)
        handler.flush()
        nats_server.start()
        until(url, "log.warn.app", 1)
        handler.flush_timeout = PATIENCE
        handler.flush()
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name, value in levels.items():
            logging.getLogger(name).setLevel(value)
        handler.close()
    found = events(url)
    # asyncio also logs in this thread when the test reads the stream; those records belong to the program.
    threads = {event["metadata"].get("thread") for event in found if "dropped" not in event["metadata"]}
    assert threads == {"MainThread"}
    ours = [event["message"] for event in found if event["metadata"].get("logger") == "app"]
    assert set(ours) <= {str(number) for number in range(20)}
    assert "not shipped" not in {event["message"] for event in found}


def test_a_closed_handler_counts_late_records(url: str, log: logging.Logger) -> None:
    """A closed handler counts late records as dropped, without an error or a new thread."""
    handler = TickertapeHandler(url, source="app")
    log.addHandler(handler)
    log.info("one")
    handler.close()
    log.info("two")
    handler.flush()
    handler.close()
    assert handler.dropped == 1
    assert [event["message"] for event in events(url)] == ["one"]


def test_a_flush_is_bounded(nats_server: NatsServer, log: logging.Logger) -> None:
    """Without NATS a flush ends after its timeout, and records lost at the close are counted."""
    nats_server.stop()
    handler = TickertapeHandler(nats_server.url, source="app", flush_timeout=0.1)
    log.addHandler(handler)
    log.info("lost")
    handler.flush()
    handler.close()
    assert handler.dropped == 1


def test_missing_credentials_are_logged(
    url: str, log: logging.Logger, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Missing credentials are not retried but logged once through the program's other handlers."""
    handler = TickertapeHandler(url, source="app", access={"creds": str(tmp_path / "none.creds")})
    log.addHandler(handler)
    log.info("lost")
    handler.flush()
    deadline = time.monotonic() + PATIENCE
    while not handler.dropped and time.monotonic() < deadline:
        time.sleep(0.01)
    handler.close()
    (reported,) = [record.getMessage() for record in caplog.records if record.name == "tickertape"]
    assert "none.creds does not exist" in reported


@pytest.mark.parametrize(
    ("arguments", "message"), [({"source": ""}, "source"), ({"capacity": 0}, "capacity")]
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    """The constructor validates its arguments; an error in the background thread would come too late."""
    with pytest.raises(ValueError, match=message):
        TickertapeHandler(**{"source": "app", **arguments})


def test_dict_config_creates_the_handler(url: str) -> None:
    """``dictConfig`` can create the handler by its public name, with arguments."""
    with restored_root():
        logging.config.dictConfig(
            {
                "version": 1,
                "disable_existing_loggers": False,
                "handlers": {
                    "events": {
                        "class": "tickertape.TickertapeHandler",
                        "url": url,
                        "source": "app",
                        "level": "WARNING",
                    }
                },
                "loggers": {"app.configured": {"handlers": ["events"], "level": "INFO", "propagate": False}},
            }
        )
        logger = logging.getLogger("app.configured")
        logger.info("not this")
        logger.warning("this")
        (handler,) = [each for each in logger.handlers if isinstance(each, TickertapeHandler)]
        logger.removeHandler(handler)
        handler.close()
    assert [(event["level"], event["message"]) for event in events(url)] == [("WARN", "this")]


@contextlib.contextmanager
def restored_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize("integration", ["wrap", "kwargs"])
def test_structlogs_fields_arrive(url: str, log: logging.Logger, integration: str) -> None:
    """structlog's fields and exceptions arrive with both of its standard library integrations."""
    handler = TickertapeHandler(url, source="app")
    log.addHandler(handler)
    last: Any = {
        "wrap": structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        "kwargs": structlog.stdlib.render_to_log_kwargs,
    }[integration]
    try:
        structlog.configure(
            processors=[structlog.contextvars.merge_contextvars, last],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=False,
        )
        logger = structlog.get_logger(log.name).bind(desk="fx")
        logger.info("filled", order=7)
        try:
            raise ValueError("no price")
        except ValueError:
            logger.exception("failed", order=8)
        if integration == "wrap":
            formatter = structlog.stdlib.ProcessorFormatter(
                processor=structlog.processors.KeyValueRenderer(key_order=["event"])
            )
            handler.setFormatter(formatter)
            logger.info("formatted", order=9)
    finally:
        structlog.reset_defaults()
    handler.flush()
    filled, *more = events(url, "log.info.app")
    (failed,) = events(url, "log.error.app")
    assert filled["message"] == "filled"
    assert filled["metadata"] | {"order": 7, "desk": "fx", "logger": "app.test"} == filled["metadata"]
    assert failed["message"] == "failed"
    assert failed["metadata"]["order"] == 8
    assert failed["metadata"]["exception"].count("ValueError: no price") == 1
    assert "exc_info" not in failed["metadata"]
    if integration == "wrap":
        assert more[0]["message"].startswith("event='formatted'")
        assert more[0]["metadata"]["order"] == 9


def test_logurus_fields_arrive(url: str) -> None:
    """loguru's bound values are top-level metadata, and an exception appears once, outside of the message."""
    handler = TickertapeHandler(url, source="app")
    number = loguru.logger.add(handler, format="{message}", level="INFO")
    try:
        loguru.logger.bind(order=7).info("filled {}", 3)
        try:
            raise ValueError("no price")
        except ValueError:
            loguru.logger.bind(order=8).exception("failed")
    finally:
        loguru.logger.remove(number)
    (filled,) = events(url, "log.info.app")
    (failed,) = events(url, "log.error.app")
    assert (filled["message"], filled["metadata"]["order"]) == ("filled 3", 7)
    assert filled["metadata"]["function"] == "test_logurus_fields_arrive"
    assert (failed["message"], failed["metadata"]["order"]) == ("failed", 8)
    assert failed["metadata"]["exception"].count("Traceback") == 1
    assert failed["metadata"]["exception"].endswith("ValueError: no price")


def child(number: int) -> None:
    logging.getLogger("app.test").info("child %d", number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_children_ship_their_own(url: str, log: logging.Logger) -> None:
    """Forked children ship their own records through their own thread, and none of the parent's."""
    handler = TickertapeHandler(url, source="app")
    log.addHandler(handler)
    for number in range(100):
        log.info("parent %d", number)
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=child, args=(number,)) for number in range(3)]
    for process in children:
        process.start()
    for process in children:
        process.join(PATIENCE)
        assert process.exitcode == 0
        process.close()
    log.info("parent again")
    handler.flush()
    found = sorted(event["message"] for event in events(url))
    expected = [f"parent {number}" for number in range(100)] + [f"child {number}" for number in range(3)]
    assert found == sorted([*expected, "parent again"])


PROGRAM = """
import logging, sys
from tickertape import TickertapeHandler
root = logging.getLogger()
root.addHandler(TickertapeHandler(sys.argv[1], source="app", flush_timeout=float(sys.argv[2])))
root.error("the last words")
"""


@pytest.mark.parametrize("outage", [False, True])
def test_records_are_flushed_at_interpreter_exit(nats_server: NatsServer, url: str, outage: bool) -> None:
    """Records are flushed at interpreter exit; without NATS the program still exits."""
    if outage:
        nats_server.stop()
    named = url.replace("127.0.0.1", "localhost")  # tests that a name can still be resolved at exit
    argv = [sys.executable, "-c", PROGRAM, named, "0.3" if outage else "30"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    if not outage:
        assert [event["message"] for event in events(url)] == ["the last words"]
