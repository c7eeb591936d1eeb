"""What we ship ourselves asks a relay only for what it knows."""

import re
from urllib.parse import parse_qsl, urlsplit

from tickertape.contracts.messages import Subscribe
from tickertape.relay.core.session.subscription import QUERY_KEYS, Request, Since, parse_query
from tickertape.relay.endpoints.history import PAGE_KEYS

from tests.support.paths import ROOT
from tickertape.cli.tail.command import TailSettings, build_url

ADDRESS = re.compile(r"/(ws|events)\?([^\s'\"`<)]+)")
PLACES = (
    "*.md",
    "deploy/**/*",
    "contracts/typescript/**/*.md",
    "contracts/typescript/src/*.ts",
    "relay/**/*.js",
)
LITERAL = re.compile(r"readPage\(\{([^}]*)\}|URLSearchParams\(\{([^}]*)\}")


def test_a_query_has_what_a_subscribe_has() -> None:
    """The client in TypeScript puts the one into the other."""
    assert set(QUERY_KEYS) == set(Subscribe.model_fields) - {"type"}


def test_addresses_that_are_written_somewhere_are_legal() -> None:
    """In documentation, and in the page's own code."""
    found = [
        (path.name, *address)
        for place in PLACES
        for path in ROOT.glob(place)
        if path.is_file() and "node_modules" not in path.parts and "vendor" not in path.parts
        for address in ADDRESS.findall(path.read_text(errors="replace"))
    ]
    assert len(found) >= 4
    for name, page, query in found:
        legal = {*QUERY_KEYS, *(PAGE_KEYS if page == "events" else ())}
        keys = {key for key, _ in parse_qsl(query.split("$")[0].replace("…", "x"))}
        assert keys <= legal, (name, query)


def test_the_page_asks_for_what_history_knows() -> None:
    """Wherever it builds a query; what it spreads into one is a filter."""
    keys = {
        part.partition(":")[0].strip()
        for path in (ROOT / "relay" / "dashboard").glob("*.js")
        for groups in LITERAL.findall(path.read_text())
        for part in "".join(groups).split(",")
        if part.strip() and not part.strip().startswith("...")
    }
    assert {"subjects", "order", "limit", "until", "cursor"} <= keys
    assert keys <= {*QUERY_KEYS, *PAGE_KEYS}


def test_tail_asks_for_what_the_feed_knows() -> None:
    """With every option that it has."""
    settings = TailSettings(
        url="ws://127.0.0.1:8080/ws", subjects="log.>,gateway.>", level="WARN", mode="complete", since="10m"
    )
    asked = parse_query(urlsplit(build_url(settings)).query)
    assert asked == Request(("log.>", "gateway.>"), "WARN", "complete", since=Since(ago=600.0))
