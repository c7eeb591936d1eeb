"""Attacks by a producer with its own user: headers that have a meaning to NATS.

Each attack takes place beside an honest client, which must receive the next honest event.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import Status, SystemHealth
from tickertape.contracts.messages import Gap, Snapshot

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, line, run, status
from tests.support.programs.relay_process import Relay
from tests.support.servers.deployed_nats import SHIPPER, Deployed, ask, deployed
from tickertape.nats import streams

FORGED = line("forged").encode()
SOURCE = "EVENTS 1 gateway.status.> > gateway.status.ctp.a"


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """Run the deployment's server with its streams."""
    with deployed(tmp_path_factory.mktemp("deployed")) as found:
        found.apply()
        yield found


@pytest.fixture(scope="module")
def relay(nats: Deployed) -> Iterator[Relay]:
    """Run a relay on it."""
    with Relay(nats.url, *nats.options("relay")) as found:
        yield found


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[Deployed]:
    """Run a separate server with empty streams."""
    with deployed(tmp_path) as found:
        found.apply()
        yield found


@pytest.fixture
def own_relay(own_nats: Deployed) -> Iterator[Relay]:
    """Run a relay on that server, to be killed."""
    with Relay(own_nats.url, *own_nats.options("relay")) as found:
        yield found


def attacked(
    nats: Deployed, relay: Relay, user: str, attack: Callable[[Client], Awaitable[None]]
) -> list[dict[str, Any]]:
    """Attack between two honest events; return all events that an honest client received."""

    async def check() -> list[dict[str, Any]]:
        async with nats.client("monitor") as (honest, _), follow(relay.ws_url) as feed:
            await ask(honest, "gateway.status.ctp.a", status("a").encode())
            async with nats.client(user) as (client, _):
                await attack(client)
            last = (await ask(honest, "gateway.status.ctp.a", status("a", Status.UNHEALTHY).encode()))["seq"]
            await feed.until(lambda: last in feed.seqs())
            return await feed.events(2)

    return run(check())


async def state(nats: Deployed, stream: str) -> dict[str, Any]:
    """Return the contents of a stream as the operator sees them."""
    async with nats.client("operator") as (client, _):
        there = await ask(client, f"$JS.API.STREAM.INFO.{stream}", {"subjects_filter": ">"})
        found: dict[str, Any] = there["state"]
        return found


@pytest.mark.parametrize("user", [SHIPPER, "publisher"])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Nats-Rollup": "all"}, 10111),
        ({"Nats-Rollup": "sub"}, 10111),
        (
            {"Nats-Schedule": "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target": "gateway.status.ctp.a"},
            10188,
        ),
        ({"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": "log.info.x"}, 10188),
        ({"Nats-Stream-Source": SOURCE}, 10227),
        ({"Nats-Incr": "5"}, 10168),
    ],
    ids=str,
)
def test_headers_that_the_stream_rejects(
    nats: Deployed, relay: Relay, user: str, headers: dict[str, str], code: int
) -> None:
    """Headers cannot erase or schedule messages, or forge their origin."""

    async def attack(client: Client) -> None:
        before = (await state(nats, "EVENTS"))["messages"]
        answer = await ask(client, "log.info.x", FORGED, **headers)
        assert answer["error"]["err_code"] == code
        assert (await state(nats, "EVENTS"))["messages"] == before

    events = attacked(nats, relay, user, attack)
    assert [event["event_type"] for event in events] == ["gateway_status_change"] * 2


@pytest.mark.parametrize(
    "headers",
    [
        {"Nats-Schedule-Target": "gateway.status.ctp.a"},
        {"Nats-Sequence": "1"},
        {"Nats-Marker-Reason": "Purge"},
        {"Nats-Subject": "gateway.status.ctp.a"},
        {"Nats-Time-Stamp": "2000-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_headers_without_a_meaning_here(nats: Deployed, relay: Relay, headers: dict[str, str]) -> None:
    """An event with headers that have no meaning here is delivered as it is."""

    async def attack(client: Client) -> None:
        assert (await ask(client, "log.info.x", FORGED, **headers))["seq"]

    events = attacked(nats, relay, "publisher", attack)
    assert [event.get("message") for event in events] == [None, "forged", None]


@pytest.mark.parametrize(
    "headers",
    [
        {"Status": "100", "Description": "Idle Heartbeat"},
        {"Status": "100", "Description": "FlowControl Request", "Nats-Consumer-Stalled": "rejected.forged"},
        {"Status": "100", "Nats-Last-Consumer": "999999"},
        {"Status": "409", "Description": "Consumer Deleted"},
        {"Status": "404", "Description": "No Messages"},
    ],
    ids=str,
)
def test_a_forged_control_message_is_an_event_like_others(
    nats: Deployed, relay: Relay, headers: dict[str, str]
) -> None:
    """A forged control message does not affect the relay's consumer, and is stored as rejected on its own
    subject.
    """

    async def attack(client: Client) -> None:
        before = (await state(nats, "REJECTED"))["messages"]
        assert (await ask(client, "log.info.x", b"", **headers))["seq"]
        while (found := await state(nats, "REJECTED"))["messages"] == before:
            await asyncio.sleep(0.02)
        assert found["messages"] == before + 1
        assert set(found["subjects"]) == {"rejected.log.info.x"}

    assert len(attacked(nats, relay, "publisher", attack)) == 2
    assert not any("recreating" in text for text in relay.log)


def test_an_event_with_a_ttl(own_nats: Deployed, own_relay: Relay) -> None:
    """A TTL shortens the life of the producer's own event only, and connected clients receive it."""
    nats, relay = own_nats, own_relay

    async def check() -> None:
        async with nats.client("publisher") as (client, _), follow(relay.ws_url) as feed:
            seq = (await ask(client, "log.info.x", line("passing").encode(), Nats_TTL="1s"))["seq"]
            await ask(client, "log.info.x", line("stays").encode())
            assert await feed.texts(2) == ["passing", "stays"]
            while (await state(nats, "EVENTS"))["first_seq"] == seq:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(relay.kill)
        await asyncio.to_thread(relay.start)
        cursor = f"{parse_cursor(feed.cursor).epoch}-{seq - 1}"
        async with follow(relay.ws_url, cursor=cursor, mode="complete") as again:
            assert await again.texts(1) == ["stays"]
            gaps = only(again.messages, Gap)
            assert [(gap.reason, gap.dropped) for gap in gaps] == [("retention", None)]

    run(check())


async def snapshot(relay: Relay) -> dict[str, Any]:
    """Return the snapshot of a new client, by subject."""

    async def shown(feed: FeedClient) -> dict[str, Any]:
        return {item.subject: item.event for part in only(feed.messages, Snapshot) for item in part.events}

    async with follow(relay.ws_url) as feed:
        return await shown(feed)


def test_a_snapshot_cannot_be_forged_from_another_subject(own_nats: Deployed, own_relay: Relay) -> None:
    """A snapshot cannot be forged through another subject, with garbage or with another gateway's fields."""
    nats, relay = own_nats, own_relay

    async def check() -> None:
        health = SystemHealth(component="db", status=Status.HEALTHY, checks={})
        async with nats.client("monitor") as (client, _):
            await ask(client, "gateway.status.ctp.a", status("a").encode())
        async with nats.client("publisher") as (client, _):
            await ask(client, health.subject, health.encode())
            for body in (status("a", Status.UNHEALTHY).encode(), b"garbage"):
                # First the fields of another gateway on a permitted subject, then an illegal payload.
                await ask(client, "system.health.web", body)
            answer = await ask(client, "system.health.db", b"{}", Nats_Stream_Source=SOURCE)
            assert answer["error"]["err_code"] == 10227
        while (await state(nats, "HEALTH")).get("subjects", {}).get("system.health.web") is None:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(relay.kill)
        await asyncio.to_thread(relay.start)
        found = await snapshot(relay)
        assert set(found) == {"gateway.status.ctp.a", "system.health.db"}
        assert found["gateway.status.ctp.a"]["current_status"] == "HEALTHY"
        async with nats.client("operator") as (client, _):
            assert await streams.stream_info(client, "LATEST") is not None

    run(check())
