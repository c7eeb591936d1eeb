"""Examples in docs/sources: each block of lines, and the events that the block after it shows."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts
from tickertape.producers.shipper.settings import ShipSettings

from tests.support.documents.markdown import blocks, documents

NOW = datetime(2026, 3, 3, tzinfo=UTC).timestamp()
PAGES = [name for name in documents() if name.startswith("docs/sources/") and blocks(name)]


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


FILES = {
    "docs/sources/kubernetes.md": f"/var/log/containers/orders-7d4b9c6f5-x2x9k_trading_app-{'0a' * 32}.log"
}
"""Files of which the examples of a page are; by default ``app.log``."""


def read(text: str, path: str) -> list[dict[str, Any]]:
    """Return the events of the lines of a file."""
    settings = ShipSettings(paths=[path])
    parser = Parser(settings.parse_settings(path), settings.source_of(path), ParserCounts())
    lines = text.encode().splitlines()
    events = [*parser.feed(lines, list(range(1, len(lines) + 1)), NOW), *parser.flush(NOW)]
    bodies = [json.loads(event.encode()) for event in events]
    for body in bodies:
        assert body.pop("event_type") == "system_log"
    return bodies


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_are_true(page: str) -> None:
    """The events of each block of lines are those of the block after it."""
    found = [block for block in blocks(page) if block.language in ("log", "jsonl")]
    assert [block.language for block in found] == ["log", "jsonl"] * (len(found) // 2)
    for lines, events in zip(found[::2], found[1::2], strict=True):
        assert read(lines.text, FILES.get(page, "/l/app.log")) == [
            json.loads(line) for line in events.text.splitlines()
        ], lines.line
