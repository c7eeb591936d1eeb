"""Which loggers the handler publishes; it connects with the first record only."""

import logging

import pytest
from tickertape.producers.sdk.logging_handler import TickertapeHandler


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("app", True),
        ("relay", True),
        ("producers.kafka", True),
        ("contracts", True),
        ("tickertapes", True),
        ("tickertape", False),
        ("tickertape.relay.server", False),
        ("nats.aio.client", False),
    ],
)
def test_only_loggers_that_publishing_uses_are_excluded(name: str, published: bool) -> None:
    """Only loggers that log during publishing are excluded, since they would feed themselves."""
    handler = TickertapeHandler("nats://127.0.0.1:1", source="test")
    record = logging.LogRecord(name, logging.INFO, __file__, 1, "text", None, None)
    assert bool(handler.filter(record)) is published
    handler.close()
