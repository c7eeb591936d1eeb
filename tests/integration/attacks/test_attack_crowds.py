"""More clients than a relay can admit, or than are well-behaved: established sessions stay."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from tickertape.contracts.messages import Bye

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, claims, count, exchange, get, upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, FeedClient, follow, run
from tests.support.clients.honest_client import Honest
from tests.support.patience import undisturbed
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

RATE = 2
"""Requests per second of one address; the burst is ten seconds' worth."""

DESCRIPTORS = 200
FIT = 104
"""Number of clients that the relay reports for this descriptor limit."""


@pytest.fixture
def relay(nats: NatsServer, prefix: str, request: pytest.FixtureRequest) -> Iterator[Relay]:
    """Run a relay with the options of a test."""
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "HS256",
        "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode(),
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
    }
    one = Relay(nats.url, "--auth", "jwt", *request.param.split(), **env)
    one.descriptors = DESCRIPTORS
    with one as running:
        yield running


@pytest.fixture
def honest(relay: Relay, prefix: str) -> Iterator[Honest]:
    """Connect an honest client with a valid token before all others."""
    with Honest(relay, forge.token("HS256", claims(sub="honest")), f"{prefix}.") as client:
        yield client


@pytest.fixture
def good() -> str:
    """Return another client's token."""
    return forge.token("HS256", claims(sub="crowd", tickertape={"subjects": ["log.>"], "connections": 1000}))


async def alive(feeds: list[FeedClient]) -> None:
    """Check that each client is still connected."""
    for number, feed in enumerate(feeds):
        await feed.send_message(type="ping", id=number)
        await feed.until(lambda: feed.messages[-1].type == "pong")  # noqa: B023
        assert only(feed.messages, Bye) == []


def full(relay: Relay, *requests: bytes, source: str = "127.0.0.2") -> bool:
    """Return whether each request is rejected because the relay is full, with a Retry-After."""
    answers = [exchange(relay, request, source=source) for request in requests]
    received = {(answer.status, answer.code, answer.headers["retry-after"]) for answer in answers}
    return received == {(503, "unavailable", "5")}


@pytest.mark.parametrize("relay", ["--max-connections 6"], indirect=True)
def test_a_full_relay_rejects_new_clients(relay: Relay, good: str) -> None:
    """A full relay answers every request from any address with 503 and ``Retry-After``, until a client
    disconnects.
    """

    async def check() -> None:
        async with AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url, token=good)) for _ in range(5)]
            protocols = f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{good}"
            for source in ("127.0.0.1", "127.0.0.2"):
                assert full(
                    relay, upgrade("/ws", bearer(good)), upgrade("/ws", protocols), get("/"), source=source
                )
            assert count(relay, "rejected_total", limit="connections") == 6
            await alive(feeds)
            await feeds[0].socket.close()
            async with follow(relay.ws_url, token=good) as late:
                await alive([*feeds[1:], late])

    run(check())


@pytest.mark.parametrize("relay", [f"--address-rate {RATE}"], indirect=True)
def test_an_address_that_only_fails_has_to_wait(relay: Relay, good: str) -> None:
    """Rejected tokens exhaust an address's rate ten times as fast; then everything is 429."""
    forged = upgrade("/ws", bearer("x.y.z"))
    sources: list[str] = []

    def scenario(run: int) -> None:
        source = f"127.0.4.{run + 1}"
        statuses = [exchange(relay, forged, source=source).status for _ in range(8)]
        assert statuses == [401] * 2 + [429] * 6
        for request in (forged, upgrade("/ws", bearer(good)), get("/health")):
            answer = exchange(relay, request, source=source)
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many", "5")
        sources.append(source)

    undisturbed(scenario, 1.0)
    again = upgrade("/ws?level=LOUD", bearer(good))
    eventually(lambda: exchange(relay, again, source=sources[-1]).status == 400, "it is let in again")
    assert count(relay, "rejected_total", limit="address_rate") >= 3
    assert exchange(relay, get("/health"), source="127.0.0.3").status == 200
    # Exempt addresses have no such limit, and valid requests do not count ten times.
    assert {exchange(relay, forged).status for _ in range(20)} == {401}
    assert {exchange(relay, get("/health"), source="127.0.0.3").status for _ in range(8)} == {200}


@pytest.mark.parametrize("relay", ["--connection-rate 4"], indirect=True)
def test_a_storm_is_admitted_at_a_rate(relay: Relay, good: str) -> None:
    """A burst of ten seconds' worth is admitted, then any address gets 503 until the rate allows more."""
    sources = [f"127.0.2.{number + 1}" for number in range(200)]
    began = time.monotonic()
    statuses = [exchange(relay, get("/health"), source=source).status for source in sources]
    assert 30 <= statuses.count(200) <= 40 + 4 * (time.monotonic() - began) + 1
    assert set(statuses) == {200, 503}
    eventually(lambda: exchange(relay, upgrade("/ws", bearer("x.y.z"))).status == 401, "room again")
    assert count(relay, "rejected_total", limit="connection_rate") >= 20


@pytest.mark.parametrize("relay", [""], indirect=True)
def test_sessions_survive_a_lack_of_descriptors(relay: Relay, good: str) -> None:
    """Short of descriptors, the relay rejects new clients, keeps sessions and its ops port, and recovers."""
    relay.until_logged(f"{DESCRIPTORS} file descriptors allow up to {FIT} clients")

    async def check() -> None:
        async with AsyncExitStack() as stack:
            feeds = [
                await stack.enter_async_context(follow(relay.ws_url, token=good)) for _ in range(FIT - 1)
            ]
            assert await asyncio.to_thread(full, relay, upgrade("/ws", bearer(good)), get("/"))
            with ExitStack() as silent:
                for number in range(400):
                    link = socket.create_connection(
                        relay.host_port, PATIENCE, (f"127.0.3.{number % 200 + 1}", 0)
                    )
                    silent.enter_context(link)
                # While they are silent and occupy what is reserved for others:
                assert await asyncio.to_thread(count, relay, "connections") == FIT
                await alive(feeds)
            await alive(feeds)
            for feed in feeds[:10]:
                await feed.socket.close()
            async with AsyncExitStack() as more:
                fresh = [await more.enter_async_context(follow(relay.ws_url, token=good)) for _ in range(10)]
                await alive([*feeds[10:], *fresh])

    run(check())
    assert not any("Too many open files" in line for line in relay.log)
