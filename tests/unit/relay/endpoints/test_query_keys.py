"""The project's own clients and documents use only query keys that the relay knows."""

import os
import re
from urllib.parse import parse_qsl, urlsplit

import pytest
from tickertape.contracts.client_messages import Subscribe
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.session.subscription import QUERY_KEYS, Request, Since, parse_query
from tickertape.relay.endpoints.history import PAGE_KEYS

from tests.support.paths import ROOT
from tickertape.cli.tail.settings import TailSettings, build_url

QUERY_ADDRESS = re.compile(r"/(ws|events)\?([^\s'\"`<)]+)")
SOURCES = (
    "*.md",
    "deploy/**/*",
    "contracts/typescript/**/*.md",
    "contracts/typescript/src/*.ts",
    "relay/**/*.js",
)
LITERAL = re.compile(r"(?:readPage|fetchPage|URLSearchParams)\(\{([^}]*)\}")


def test_query_keys_are_the_fields_of_subscribe() -> None:
    """Query keys are the fields of ``subscribe``, since the TypeScript client converts between the two."""
    assert set(QUERY_KEYS) == set(Subscribe.model_fields) - {"type"}


def test_written_addresses_have_known_keys() -> None:
    """Addresses in documents and in the code of clients have only known query keys."""
    addresses = [
        (path.name, *address)
        for pattern in SOURCES
        for path in ROOT.glob(pattern)
        if path.is_file() and "node_modules" not in path.parts and "vendor" not in path.parts
        for address in QUERY_ADDRESS.findall(path.read_text(errors="replace"))
    ]
    assert len(addresses) >= 4
    for name, page, query in addresses:
        legal = {*QUERY_KEYS, *(PAGE_KEYS if page == "events" else ())}
        keys = {key for key, _ in parse_qsl(query.split("$")[0].replace("…", "x"))}
        assert keys <= legal, (name, query)


def test_the_dashboard_uses_known_keys() -> None:
    """The dashboard builds history queries only from known keys; values spread into them are filters."""
    keys = {
        part.partition(":")[0].strip()
        for path in (ROOT / "relay" / "dashboard").glob("*.js")
        for literal in LITERAL.findall(path.read_text())
        for part in literal.split(",")
        if part.strip() and not part.strip().startswith("...")
    }
    assert {"subjects", "order", "limit", "until", "cursor"} <= keys
    assert keys <= {*QUERY_KEYS, *PAGE_KEYS}


def test_tail_uses_known_keys() -> None:
    """The address that ``tail`` builds from all of its options is a valid query."""
    settings = TailSettings(
        url="ws://127.0.0.1:8080/ws", subjects="log.>,gateway.>", level="WARN", mode="complete", since="10m"
    )
    request = parse_query(urlsplit(build_url(settings)).query)
    assert request == Request(("log.>", "gateway.>"), "WARN", "complete", since=Since(ago=600.0))


def test_tail_names_bytes_that_are_no_text() -> None:
    """An argument that is not UTF-8 is an error before ``tail`` connects, and at a relay that gets it."""
    with pytest.raises(ValueError, match="query: 'utf-8'"):
        TailSettings(subjects=os.fsdecode(b"log.\xff"))
    with pytest.raises(ProtocolError, match="query: 'utf-8'"):
        parse_query("subjects=log.%FF")
