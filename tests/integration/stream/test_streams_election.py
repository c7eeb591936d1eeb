"""JetStream requests during a leader election: the first is lost, and a repeated one is answered."""

import asyncio
from pathlib import Path

import orjson
from nats.aio.msg import Msg

from tests.support.clients.feed_client import connection
from tests.support.servers.nats_server import NatsServer
from tickertape.nats import streams


def test_a_question_without_an_answer_is_asked_again(tmp_path: Path) -> None:
    """A request sent without a leader is lost for good; the repeated one is answered by the new leader."""
    requested: list[str] = []

    async def leader(msg: Msg) -> None:
        requested.append(msg.reply)
        if len(requested) > 1:
            await msg.respond(orjson.dumps({"config": {"name": "EVENTS"}}))

    async def body(url: str) -> None:
        # Without JetStream of its own the server leaves the request to any subscriber. The same connection is
        # used, because for some milliseconds a server may report that there is no subscriber.
        async with connection(url) as nc:
            await nc.subscribe("$JS.API.STREAM.INFO.EVENTS", cb=leader)
            assert await streams.stream_info(nc, "EVENTS") == {"config": {"name": "EVENTS"}}

    with NatsServer(tmp_path / "nats", jetstream=False) as server:
        asyncio.run(body(server.url))
    assert len(requested) == 2
    assert requested[0] != requested[1]


def test_what_changes_something_is_asked_once(tmp_path: Path) -> None:
    """A request that changes something is not repeated: a second consumer would send everything twice."""
    requested: list[str] = []

    async def slow(msg: Msg) -> None:
        requested.append(msg.reply)
        # Longer than the timeout of a request that may be repeated.
        await asyncio.sleep(1.2)
        await msg.respond(orjson.dumps({"name": "x"}))

    async def body(url: str) -> None:
        async with connection(url) as nc:
            await nc.subscribe("$JS.API.CONSUMER.CREATE.EVENTS", cb=slow)
            assert await streams.request(nc, "CONSUMER.CREATE.EVENTS", {}) == {"name": "x"}

    with NatsServer(tmp_path / "nats", jetstream=False) as server:
        asyncio.run(body(server.url))
    assert len(requested) == 1
