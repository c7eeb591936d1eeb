"""``GET /events``: pages of history, from memory and from the stream, complete and in order."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import EventModel, format_time, parse_time

from tests.support.clients.feed_client import (
    PATIENCE,
    connection,
    follow,
    jetstream,
    line,
    publish,
    run,
    status,
)
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

TOTAL: Final = 6_000
MEMORY: Final = 500


def events() -> list[EventModel]:
    """Return the events to publish in order; sequence 1 is the first."""
    return [line("info"), line("error", "ERROR"), status("a"), line("debug", "DEBUG", "y")]


INFO = list(range(1, TOTAL + 1, 4))
ERRORS = list(range(2, TOTAL + 1, 4))
STATES = list(range(3, TOTAL + 1, 4))


def get(relay: Relay, **query: object) -> dict[str, Any]:
    """Request a page of history."""
    with urlopen(f"{relay.url}/events?{urlencode(query)}", timeout=PATIENCE) as page:
        assert page.headers["content-type"] == "application/json"
        found = orjson.loads(page.read())
    assert [name for name in found if name != "gap"] == ["events", "cursor", "more"]
    return dict(found)


def rejected(relay: Relay, query: str) -> tuple[int, dict[str, str]]:
    """Return status and body of a rejected request."""
    try:
        with urlopen(f"{relay.url}/events?{query}", timeout=PATIENCE) as page:
            raise AssertionError(f"{query!r} is answered with {page.status}")
    except HTTPError as error:
        with error:
            return error.code, orjson.loads(error.read())


def seqs(page: dict[str, Any]) -> list[int]:
    """Return the sequences on a page."""
    return [item["seq"] for item in page["events"]]


def forward(relay: Relay, limit: int, **query: object) -> list[int]:
    """Request all pages, oldest first."""
    found: list[int] = []
    page = get(relay, since="earliest", limit=limit, **query)
    while True:
        found += seqs(page)
        assert len(seqs(page)) <= limit
        if not page["more"]:
            return found
        page = get(relay, cursor=page["cursor"], limit=limit, **query)


def backward(relay: Relay, limit: int, **query: object) -> list[int]:
    """Request all pages, newest first; return the events in stream order."""
    found: list[int] = []
    page = get(relay, order="newest", limit=limit, **query)
    while True:
        found = seqs(page) + found
        assert len(seqs(page)) <= limit
        if not page["more"]:
            return found
        page = get(relay, order="newest", until=page["cursor"], limit=limit, **query)


@pytest.fixture(scope="module")
def nats_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a server whose stream holds all the events."""

    async def fill() -> None:
        async with connection(server.url) as nc:
            made = events()
            for number in range(TOTAL):
                event = made[number % len(made)]
                await nc.publish(event.subject, event.encode())
                if number % 500 == 0:
                    await nc.flush()
            await nc.flush()

    with NatsServer(tmp_path_factory.mktemp("history") / "nats") as server:
        with Relay(server.url):
            run(fill())
        yield server


@pytest.fixture(scope="module", params=[100_000, MEMORY], ids=["memory", "stream"])
def relay(nats_of_all: NatsServer, request: pytest.FixtureRequest) -> Iterator[Relay]:
    """Run a relay that holds all events in memory, or a twelfth of them."""
    with Relay(nats_of_all.url, "--log-size", str(request.param)) as running:
        eventually(lambda: seqs(get(running, order="newest", limit=1)) == [TOTAL], "all is taken in")
        yield running


@pytest.mark.parametrize("limit", [1_000, 777])
def test_paging_gives_each_once_in_order(relay: Relay, limit: int) -> None:
    """Paging in either direction returns each event once and in order."""
    assert forward(relay, limit) == list(range(1, TOTAL + 1))
    assert backward(relay, limit) == list(range(1, TOTAL + 1))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"subjects": "log.info.>"}, INFO),
        ({"subjects": "gateway.>,log.error.x"}, sorted(ERRORS + STATES)),
        ({"level": "ERROR"}, sorted(ERRORS + STATES)),
        ({"level": "INFO", "subjects": "log.>"}, sorted(INFO + ERRORS)),
        ({"subjects": "log.*.nobody"}, []),
    ],
)
def test_filter_and_level(relay: Relay, query: dict[str, str], expected: list[int]) -> None:
    """A filtered page contains all matching events and no others, in either direction."""
    assert forward(relay, 400, **query) == expected
    assert backward(relay, 400, **query) == expected


def test_a_page_between_two_places(relay: Relay) -> None:
    """A page starts after ``cursor`` and ends at ``until``, inclusive, in either direction."""
    epoch = parse_cursor(get(relay, limit=1)["cursor"])[0]
    for begin, end in ((10, 15), (4_090, 4_100), (TOTAL - 20, TOTAL - 10), (TOTAL - 505, TOTAL - 495)):
        query = {"cursor": f"{epoch}-{begin}", "until": f"{epoch}-{end}"}
        page = get(relay, **query)
        assert (seqs(page), page["more"]) == (list(range(begin + 1, end + 1)), False)
        page = get(relay, **query, order="newest")
        assert (seqs(page), page["more"]) == (list(range(begin + 1, end + 1)), False)
        page = get(relay, **query, limit=3)
        assert (seqs(page), page["more"]) == ([begin + 1, begin + 2, begin + 3], True)
        assert parse_cursor(page["cursor"])[:2] == (epoch, begin + 3)
        page = get(relay, **query, limit=3, order="newest")
        assert (seqs(page), page["more"]) == ([end - 2, end - 1, end], True)
        assert parse_cursor(page["cursor"])[:2] == (epoch, end - 3)
    # There is nothing between adjacent positions or beyond the end.
    for begin, end in ((15, 10), (15, 15), (TOTAL, TOTAL), (TOTAL + 7, TOTAL + 9)):
        for order in ("oldest", "newest"):
            page = get(relay, cursor=f"{epoch}-{begin}", until=f"{epoch}-{end}", order=order)
            assert (page["events"], page["more"]) == ([], False)


def test_items_are_those_of_the_feed(relay: Relay) -> None:
    """Items have the subject, sequence and body that a client of the feed receives."""

    async def feed() -> list[dict[str, Any]]:
        async with follow(relay.ws_url, since="earliest", mode="complete") as client:
            await client.events(200)
            return [
                item.model_dump()
                for message in client.messages
                if message.type == "events"
                for item in message.events
            ][:200]

    assert get(relay, since="earliest", limit=200)["events"] == run(feed())


def test_without_a_start_it_begins_with_the_earliest(relay: Relay) -> None:
    """By default a page contains a hundred events from the earliest on."""
    page = get(relay)
    assert (seqs(page), page["more"]) == (list(range(1, 101)), True)
    assert seqs(get(relay, since="1h", limit=3)) == [1, 2, 3]
    assert seqs(get(relay, since="0s")) == []
    assert seqs(get(relay, since="2099-01-01T00:00:00Z")) == []


@pytest.mark.parametrize("options", [(), ("--log-size", "5")], ids=["memory", "stream"])
def test_since_a_time(nats_server: NatsServer, options: tuple[str, ...]) -> None:
    """``since`` starts at the first event stored at or after that time."""

    async def fill(relay: Relay) -> float:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            for _ in range(20):
                await publish(js, line("old"))
            await asyncio.sleep(0.3)
            message = await publish(js, line("marker"))
            reply = await js._nc.request("$JS.API.STREAM.MSG.GET.EVENTS", orjson.dumps({"seq": message}))
            for _ in range(20):
                await publish(js, line("new"))
            await feed.events(41)
            return parse_time(orjson.loads(reply.data)["message"]["time"]).timestamp()

    with Relay(nats_server.url, "--client-rate", "0", *options) as relay:
        moment = run(fill(relay))
        assert seqs(get(relay, since=format_time(moment - 0.1))) == list(range(21, 42))
        assert seqs(get(relay, since=format_time(moment - 0.1), order="newest", limit=4)) == [38, 39, 40, 41]


def test_history_starts_at_the_earliest_retained_event(nats_server: NatsServer) -> None:
    """History starts at the earliest retained event, in either direction."""

    async def fill() -> None:
        async with jetstream(nats_server.url) as js:
            for _ in range(100):
                await publish(js, line("x"))
            await js.purge_stream("EVENTS", keep=30)

    with Relay(nats_server.url, "--log-size", "10") as relay:
        run(fill())
        eventually(lambda: seqs(get(relay, order="newest", limit=1)) == [100], "all is taken in")
        assert forward(relay, 7) == list(range(71, 101))
        assert backward(relay, 7) == list(range(71, 101))
        epoch = parse_cursor(get(relay, limit=1)["cursor"])[0]
        page = get(relay, cursor=f"{epoch}-5", limit=1)
        assert (seqs(page), page["gap"]["to"]) == ([71], f"{epoch}-70")


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", "bad_query"),
        ("limit=1001", "bad_query"),
        ("limit=-1", "bad_query"),
        ("limit=1.5", "bad_query"),
        ("limit=%D9%A3", "bad_query"),
        ("limit=" + "1" * 5_000, "bad_query"),
        ("limit=1&limit=2", "bad_query"),
        ("order=up", "bad_query"),
        ("order=", "bad_query"),
        ("level=%FF", "bad_query"),
        ("until=x", "bad_cursor"),
        ("until=", "bad_cursor"),
        ("until=other-5", "bad_cursor"),
        ("cursor=x", "bad_cursor"),
        ("cursor=other-5", "bad_cursor"),
        ("cursor=e-5&since=1h", "bad_cursor"),
        ("since=yesterday", "bad_since"),
        ("subjects=log..x", "bad_subjects"),
        ("subjects=log.>.x", "bad_subjects"),
        ("subjects=", "bad_subjects"),
        ("level=loud", "bad_level"),
        ("mode=fast", "bad_mode"),
        ("interval_ms=0", "bad_interval"),
    ],
)
def test_bad_values_are_rejected(relay: Relay, query: str, code: str) -> None:
    """An invalid value is 400 with a code and a sentence, without a traceback in the log."""
    status, body = rejected(relay, query)
    assert (status, body["code"], list(body)) == (400, code, ["code", "message"])
    assert body["message"]
    assert "Traceback" not in "".join(relay.log)


def test_nats_unreachable(nats_server: NatsServer, tmp_path: Path) -> None:
    """While NATS is unreachable, events older than memory are 503, to be retried."""

    async def fill() -> None:
        async with jetstream(nats_server.url) as js:
            for _ in range(50):
                await publish(js, line("x"))

    with Relay(nats_server.url, "--log-size", "10") as relay:
        run(fill())
        eventually(lambda: seqs(get(relay, order="newest", limit=1)) == [50], "all is taken in")
        nats_server.kill()
        relay.until_logged("unreachable, retrying")
        status, body = rejected(relay, "since=earliest")
        assert (status, body["code"]) == (503, "unavailable")
        nats_server.start()
        eventually(lambda: well(relay), "history is served again")
        assert forward(relay, 20) == list(range(1, 51))


def well(relay: Relay) -> bool:
    """Return whether all of the history is served."""
    try:
        return bool(seqs(get(relay, since="earliest")))
    except HTTPError as error:
        error.close()
        return False
