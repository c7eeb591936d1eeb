"""A relay answers any query and keeps running: times at the ends of the calendar, any text."""

import asyncio
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.clients.attacker import upgrade
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

ENDS: Final = (
    "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59Z",
    "9999-12-31T24:00:00Z", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z", "0000-12-31T23:59:59-23:59", "10000-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z",
    "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000001Z", "1677-09-21T00:12:43Z", "2262-04-11T23:47:17Z",
    "2016-12-31T23:59:60Z", "2038-01-19T03:14:08Z", "2024-02-30T00:00:00Z", "999999999d", "999999999h", "0s",
    "999999999ms", "earliest", "",
)  # fmt: skip
CURSORS: Final = (
    "0-0", "e-18446744073709551615", "e-18446744073709551616", "ffffffffffffffff-1", "-1", "1-", "a-01",
    "\u0660-\u0661", "z-18446744073709551614",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Generate any text that UTF-8 can encode."""
    return st.text(st.characters(codec="utf-8"), max_size=40)


def times() -> st.SearchStrategy[str]:
    """Generate texts that look like times."""
    return st.builds(
        "{:04d}-{:02d}-{:02d}{}{:02d}:{:02d}:{:02d}{}{}".format,
        st.sampled_from([0, 1, 1677, 1969, 1970, 2026, 2262, 2263, 9998, 9999]),
        st.integers(0, 13),
        st.integers(0, 32),
        st.sampled_from(["T", "t", " "]),
        st.integers(0, 25),
        st.integers(0, 60),
        st.integers(0, 61),
        st.sampled_from(["", ".9", ".999999999999", ".0"]),
        st.sampled_from(["Z", "z", "", "+00:00", "-23:59", "+23:59", "+24:00", "-00:00"]),
    )


def values(epoch: str) -> dict[str, st.SearchStrategy[str]]:
    """Generate values for each parameter."""
    numbers = st.integers(-(2**70), 2**70).map(str)
    sequences = st.integers(0, 2**65).map(lambda seq: f"{epoch}-{seq}")
    durations = st.builds(
        "{}{}".format, st.integers(0, 10**10), st.sampled_from(["ms", "s", "m", "h", "d", "w"])
    )
    return {
        "since": st.sampled_from(ENDS) | times() | durations | texts(),
        "cursor": st.sampled_from(CURSORS) | sequences | texts(),
        "until": st.sampled_from(CURSORS) | sequences | texts(),
        "interval_ms": numbers | texts(),
        "level": st.sampled_from(["DEBUG", "critical", "\u0131nfo", ""]) | texts(),
        "mode": st.sampled_from(["live", "complete", "latest"]) | texts(),
        "subjects": st.sampled_from([">", "*", "log.>", "a..b", "=41", ",", "log.info.=2E"]) | texts(),
        "limit": numbers,
        "order": st.sampled_from(["oldest", "newest"]) | texts(),
    }


def queries(epoch: str) -> st.SearchStrategy[str]:
    """Generate queries with one to three parameters, occasionally malformed."""
    known = values(epoch)
    pair = st.sampled_from(sorted(known)).flatmap(lambda key: known[key].map(lambda value: (key, value)))
    complete = st.lists(pair, min_size=1, max_size=3, unique_by=lambda one: one[0]).map(urlencode)
    return (
        complete
        | complete.map(lambda text: text.replace("%", "%%", 1))
        | texts().map(lambda text: quote(text, "=&"))
    )


def ask_feed(relay: Relay, query: str) -> str:
    """Return how a handshake ends: a status, or the type of the decisive message."""
    with socket.create_connection(relay.host_port, PATIENCE) as plug:
        plug.sendall(upgrade(f"/ws?{query}"))
        received = b""
        while True:
            more = plug.recv(65_536)
            received += more
            assert b'"code":1011' not in received, query
            if b'"type":"subscribed"' in received:
                return "subscribed"
            if b'"type":"bye"' in received:
                return "bye"
            if not received.startswith(b"HTTP/1.1 101 ") and b"}" in received:
                assert set(orjson.loads(received.partition(b"\r\n\r\n")[2])) == {"code", "message"}
                return received[9:12].decode()
            assert more, (query, received)


def ask_history(relay: Relay, query: str) -> str:
    """Return the status of a page of history; its body must be JSON."""
    connection = HTTPConnection(*relay.host_port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/events?{query}")
        answer = connection.getresponse()
        body = orjson.loads(answer.read())
    finally:
        connection.close()
    assert answer.headers["content-type"] == "application/json", query
    if answer.status != 200:
        assert set(body) == {"code", "message"}, query
    return str(answer.status)


def internal_errors(relay: Relay) -> float:
    """Return the number of internal errors in sessions and requests."""
    with urlopen(f"{relay.ops_url}/metrics", timeout=PATIENCE) as metrics:
        lines = metrics.read().decode().splitlines()
    return sum(float(one.split()[-1]) for one in lines if one.startswith("tickertape_internal_errors_total{"))


@pytest.fixture(scope="module", params=["empty stream", "stream that was filled before"])
def relay(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay with an empty event log, or with one that is smaller than its stream."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        if "filled" in request.param:
            with Relay(server.url):
                run(fill(server.url, 50))
        with Relay(server.url, "--log-size", "10", "--address-rate", "0", "--connection-rate", "0") as made:
            yield made
            assert internal_errors(made) == 0
            assert made.stop() == 0


async def fill(url: str, count: int) -> None:
    """Publish lines."""
    async with jetstream(url) as js:
        for number in range(count):
            await publish(js, line(f"{number}"))


@pytest.mark.parametrize("since", ENDS)
def test_a_time_at_the_end_of_the_calendar(since: str, relay: Relay) -> None:
    """A time at the end of the calendar is accepted or rejected; one after the last event starts at the
    head.
    """
    query = urlencode({"since": since})
    feed, history = ask_feed(relay, query), ask_history(relay, query)
    assert (feed, history) in (("subscribed", "200"), ("400", "400"))
    assert internal_errors(relay) == 0
    if feed == "subscribed" and since[:5] in ("9999-", "2262-"):
        with urlopen(f"{relay.url}/events?{query}", timeout=PATIENCE) as page:
            assert orjson.loads(page.read())["events"] == []


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_query_is_answered(data: st.DataObject, relay: Relay) -> None:
    """Any query results in a session or in a rejection with a code, never in an internal error."""
    with urlopen(f"{relay.url}/events?limit=1", timeout=PATIENCE) as page:
        epoch = orjson.loads(page.read())["cursor"].partition("-")[0]
    query = data.draw(queries(epoch))
    assert ask_feed(relay, query) in ("subscribed", "400")
    assert ask_history(relay, query) in ("200", "400")


def test_times_while_the_memory_is_filled(tmp_path: Path) -> None:
    """Positions are requested from the stream while the relay still loads the stream's tail."""

    async def burst(url: str) -> None:
        async with jetstream(url) as js:
            event = line("x" * 500)
            for _ in range(40):
                await asyncio.gather(*(js.publish(event.subject, event.encode()) for _ in range(500)))

    with NatsServer(tmp_path) as server:
        with Relay(server.url):
            run(burst(server.url), 4 * PATIENCE)
        for since in ENDS[:3]:
            with Relay(server.url) as made:
                requested = ask_feed(made, urlencode({"since": since}))
                assert (requested, ask_history(made, urlencode({"since": since}))) == ("subscribed", "200")
                assert internal_errors(made) == 0
                assert made.stop() == 0


def test_an_event_of_the_year_1_has_no_age(tmp_path: Path) -> None:
    """An event of the year 1 is delivered but counted separately, so that it does not distort the sum of
    ages.
    """

    async def part(relay: Relay) -> None:
        async with follow(relay.ws_url) as client, jetstream(relay.nats_url) as js:
            for stamp in ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"):
                body: dict[str, Any] = {**line("old").model_dump(mode="json"), "timestamp": stamp}
                await js.publish("log.info.x", orjson.dumps(body))
                assert (await client.events(len(client.seqs()) + 1))[-1]["timestamp"] == stamp
            await publish(js, line("new"))
            await client.events(4)

    def value(relay: Relay, name: str) -> float:
        with urlopen(f"{relay.ops_url}/metrics", timeout=PATIENCE) as metrics:
            lines = metrics.read().decode().splitlines()
        return next(float(one.split()[-1]) for one in lines if one.startswith(f"tickertape_{name} "))

    with NatsServer(tmp_path) as server, Relay(server.url) as relay:
        run(part(relay))
        assert value(relay, 'event_age_outliers_total{reason="past"}') == 2
        assert value(relay, 'event_age_outliers_total{reason="future"}') == 1
        assert value(relay, "event_age_seconds_count") == 1
        assert value(relay, "event_age_seconds_sum") < 3_600
        assert relay.stop() == 0
