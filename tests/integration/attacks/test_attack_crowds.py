"""More clients than a relay has room for, or than come in good order: whoever is in stays in."""

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
"""Requests per second of one address; ten seconds' worth at once."""

DESCRIPTORS = 200
FIT = 104
"""Clients for which the relay says there is room with so many."""


@pytest.fixture
def relay(nats: NatsServer, prefix: str, request: pytest.FixtureRequest) -> Iterator[Relay]:
    """A relay with the options of a test."""
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
    """With a good token, before all others."""
    with Honest(relay, forge.token("HS256", claims(sub="honest")), f"{prefix}.") as client:
        yield client


@pytest.fixture
def good() -> str:
    """Another's token."""
    return forge.token("HS256", claims(sub="crowd", tickertape={"subjects": ["log.>"], "connections": 1000}))


async def alive(feeds: list[FeedClient]) -> None:
    """Ask each client whether it is still there."""
    for number, feed in enumerate(feeds):
        await feed.say(type="ping", id=number)
        await feed.until(lambda: feed.messages[-1].type == "pong")  # noqa: B023
        assert only(feed.messages, Bye) == []


def full(relay: Relay, *requests: bytes, source: str = "127.0.0.2") -> bool:
    """Tell whether each request is refused because the relay is full, with a time to come back."""
    answers = [exchange(relay, request, source=source) for request in requests]
    told = {(answer.status, answer.code, answer.headers["retry-after"]) for answer in answers}
    return told == {(503, "unavailable", "5")}


@pytest.mark.parametrize("relay", ["--max-connections 6"], indirect=True)
def test_a_full_relay_refuses_more(relay: Relay, good: str) -> None:
    """503 with ``Retry-After`` to whatever is asked, from any address; a close makes room."""

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
    """Refused tokens use up its allowance ten times as fast; then 429, whatever it asks."""
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
    # Addresses with many behind them have no limit of their own, nor does anybody for what is good.
    assert {exchange(relay, forged).status for _ in range(20)} == {401}
    assert {exchange(relay, get("/health"), source="127.0.0.3").status for _ in range(8)} == {200}


@pytest.mark.parametrize("relay", ["--connection-rate 4"], indirect=True)
def test_a_storm_is_let_in_at_a_rate(relay: Relay, good: str) -> None:
    """Ten seconds' worth at once, then 503 to the others, of any address; soon there is room again."""
    sources = [f"127.0.2.{number + 1}" for number in range(200)]
    began = time.monotonic()
    statuses = [exchange(relay, get("/health"), source=source).status for source in sources]
    assert 30 <= statuses.count(200) <= 40 + 4 * (time.monotonic() - began) + 1
    assert set(statuses) == {200, 503}
    eventually(lambda: exchange(relay, upgrade("/ws", bearer("x.y.z"))).status == 401, "room again")
    assert count(relay, "rejected_total", limit="connection_rate") >= 20


@pytest.mark.parametrize("relay", [""], indirect=True)
def test_without_descriptors_nobody_who_is_in_is_lost(relay: Relay, good: str) -> None:
    """It says how many fit, refuses more, goes on being asked by its operator, and takes new ones after."""
    relay.until_logged(f"{DESCRIPTORS} descriptors: up to {FIT} clients")

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
                # While they say nothing, and could hold what is kept for others:
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
