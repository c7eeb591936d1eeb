"""Conditions at a real relay: the feed, history, streams over HTTP, and ``tickertape tail``."""

import subprocess
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import urlopen

import orjson
import pytest
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import SystemLog
from tickertape.contracts.messages import Error, Snapshot, Subscribed

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, publish, run, status
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.servers.nats_server import NatsServer

ACCOUNTS = 10
MEMORY = 20
TOTAL = 60

ACCOUNT = 'event.level == "ERROR" && event.metadata.account == 7'
SEVENTH = list(range(7, TOTAL + 1, ACCOUNTS))
"""Sequences of the events of account 7; the state has the last sequence."""


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay whose stream has more events than its memory; the last event is a state."""

    async def fill() -> None:
        async with jetstream(server.url) as js:
            for number in range(1, TOTAL):
                await publish(js, order(number))
            await publish(js, status())

    with (
        NatsServer(tmp_path_factory.mktemp("where") / "nats") as server,
        Relay(server.url, "--log-size", str(MEMORY), "--client-rate", "0") as relay,
    ):
        run(fill())
        eventually(lambda: seqs(relay, limit=1000)[-1:] == [TOTAL], "the relay has read the stream")
        yield relay


def order(number: int) -> SystemLog:
    """Return the event with a number."""
    metadata = {"account": number % ACCOUNTS, "order": {"id": f"a-{number}"}}
    return SystemLog(level="ERROR", message=f"margin call {number}", source="risk", metadata=metadata)


def seqs(relay: Relay, **query: object) -> list[int]:
    """Return the sequences of a page."""
    with urlopen(f"{relay.url}/events?{urlencode({'since': 'earliest', **query})}", timeout=PATIENCE) as page:
        return [item["seq"] for item in orjson.loads(page.read())["events"]]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (ACCOUNT, [*SEVENTH, TOTAL]),
        ('event.message.contains("call 5") && event.metadata.account in [1, 2]', [51, 52, 60]),
        ('event.text.matches("order.id=a-3[0-4]\\\\b")', [30, 31, 32, 33, 34, 60]),
        ("event.metadata.absent == 1 || !has(event.metadata.account)", [60]),
        ('timestamp(event.timestamp) < timestamp("2020-01-01T00:00:00Z")', [60]),
    ],
)
def test_history_is_selected_in_memory_and_in_the_stream(
    relay: Relay, where: str, expected: list[int]
) -> None:
    """A page has the matching events, and the states."""
    assert seqs(relay, where=where) == expected
    assert seqs(relay, where=where, order="newest") == expected


@pytest.mark.parametrize("mode", ["live", "complete"])
def test_a_feed_is_selected_from_the_stream_to_the_newest_event(relay: Relay, mode: str) -> None:
    """A client that starts in the past receives the matching events, then those that follow."""

    async def check() -> None:
        async with follow(relay.ws_url, since="earliest", mode=mode, where=ACCOUNT) as client:
            [subscribed] = only(client.messages, Subscribed)
            assert subscribed.where == ACCOUNT
            await client.until(lambda: client.seqs()[-1:] == [TOTAL])
            assert client.seqs() == [*SEVENTH, TOTAL]
            assert only(client.messages, Snapshot)

    run(check())


def test_subscribe_changes_the_condition(relay: Relay) -> None:
    """A long condition is sent with ``subscribe``; an invalid one ends the session."""

    async def check() -> None:
        async with follow(relay.ws_url) as client:
            long = " || ".join(f"event.metadata.account == {n} " for n in range(10, 60)) + "|| " + ACCOUNT
            await client.send_message(type="subscribe", since="earliest", where=long)
            assert (await client.one(Subscribed)).where == long
            await client.until(lambda: client.seqs()[-1:] == [TOTAL])
            assert client.seqs() == [*SEVENTH, TOTAL]
            await client.send_message(type="subscribe", where="event.level == ")
            assert await client.closed() == CloseCode.BAD_FILTER
            [error] = only(client.messages, Error)
            assert (error.code, error.ref) == (ErrorCode.BAD_WHERE, "subscribe")
            assert error.message == "where: expected a value before the end, at position 16"

    run(check())


def test_an_invalid_condition_is_an_http_error(relay: Relay) -> None:
    """Over HTTP, the response is a 400 with the same code."""
    for query in ("where=event.level+%3D+1", f"where={'x' * 3_000}", "where=" + quote("(" * 900)):
        with pytest.raises(HTTPError) as caught:
            urlopen(f"{relay.url}/events?{query}", timeout=PATIENCE)
        with caught.value as response:
            assert response.code == 400
            assert orjson.loads(response.read())["code"] == "bad_where"


def test_tail_passes_the_condition_on(relay: Relay) -> None:
    """``tail --where`` prints the matching events; an invalid condition is reported before it connects."""
    arguments = ["tail", "--url", relay.ws_url, "--since", "earliest", "--json", "--where", ACCOUNT]
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        found = [orjson.loads(process.stdout.readline())["seq"] for _ in range(len(SEVENTH) + 1)]
        process.terminate()
        process.stdout.read()
    assert sorted(found) == [*SEVENTH, TOTAL]
    failed = subprocess.run(
        command("tail", "--url", relay.ws_url, "--where", "event.level == "),
        capture_output=True, text=True, env=environment(), timeout=PATIENCE,
    )  # fmt: skip
    assert failed.returncode == 2
    assert "where: expected a value before the end, at position 16" in failed.stderr
