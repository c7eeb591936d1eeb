"""Events that are deleted from the middle of the stream are reported at their position to later readers."""

import asyncio
import signal

from nats.js import JetStreamContext
from tickertape.contracts.messages import Events, Gap

from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer


async def publish_and_lose(js: JetStreamContext, first: int) -> None:
    """Publish five lines, and delete the second and third, as an expired TTL would."""
    for number in range(first, first + 5):
        assert await publish(js, line(f"line {number}")) == number
    for number in (first + 1, first + 2):
        await js.delete_msg("EVENTS", number)


def received(feed: FeedClient) -> list[object]:
    """Return sequences and gaps in order of arrival."""
    found: list[object] = []
    for message in feed.messages:
        if isinstance(message, Gap):
            found.append((message.from_.split("-")[1], message.to.split("-")[1], message.reason))
        elif isinstance(message, Events):
            found += [item.seq for item in message.events]
    return found


def test_a_relay_that_starts_later_reports_deletions(nats_server: NatsServer) -> None:
    """A relay that starts later reports the deletions, from its memory and from the stream."""

    async def watch() -> None:
        with Relay(nats_server.url) as first:
            async with jetstream(nats_server.url) as js, follow(first.ws_url):
                await publish_and_lose(js, 1)
        with Relay(nats_server.url) as relay:
            relay.until_logged("events from the stream's tail")
            async with follow(relay.ws_url, since="earliest", mode="complete") as feed:
                await feed.events(3)
                assert received(feed) == [1, ("1", "3", "retention"), 4, 5]

    run(watch())


def test_an_expired_ttl_is_reported(nats_server: NatsServer) -> None:
    """An event that expires by ``Nats-TTL`` is reported."""

    async def watch() -> None:
        with Relay(nats_server.url, "--log-size", "1") as relay:
            async with jetstream(nats_server.url) as js:
                async with follow(relay.ws_url) as honest:
                    await publish(js, line("one"))
                    await publish(js, line("two"), "", **{"Nats-TTL": "1s"})
                    await publish(js, line("three"))
                    assert await honest.texts(3) == ["one", "two", "three"]
                while not (await js.stream_info("EVENTS")).state.num_deleted:
                    await asyncio.sleep(0.05)
                await publish(js, line("four"))
                async with follow(relay.ws_url, since="earliest", mode="complete") as feed:
                    assert await feed.texts(3) == ["one", "three", "four"]
                    assert received(feed) == [1, ("1", "2", "retention"), 3, 4]

    run(watch())


def test_deletions_during_an_outage_are_reported(nats_server: NatsServer) -> None:
    """A relay that was disconnected asks for what was deleted meanwhile."""

    async def watch() -> None:
        with Relay(nats_server.url) as relay:
            async with follow(relay.ws_url, mode="complete") as feed:
                async with jetstream(nats_server.url) as js:
                    await publish(js, line("line 1"))
                await feed.events(1)
                relay.signal(signal.SIGSTOP)
                nats_server.stop()
                nats_server.start()
                async with jetstream(nats_server.url) as js:
                    await publish_and_lose(js, 2)
                relay.signal(signal.SIGCONT)
                await feed.events(4)
                assert received(feed) == [1, 2, ("2", "4", "retention"), 5, 6]

    run(watch())
