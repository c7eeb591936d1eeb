"""A power failure loses the newest messages of a stream, and new messages get their sequences.

The failure is simulated with a copy of the servers' data: they are killed and restarted with earlier disks.
"""

import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.messages import Gap, Subscribed

from tests.support.clients.feed_client import PATIENCE, connection, follow, jetstream, line, publish, run
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_cluster import asker, cluster, current, provision
from tests.support.servers.nats_server import NatsServer

KEPT = 5
LOST = 5


async def publish_some(url: str, name: str, count: int) -> None:
    """Publish lines, one after the other."""
    async with jetstream(url) as js:
        for number in range(count):
            await publish(js, line(f"{name} {number}"))


def save(servers: list[NatsServer]) -> Callable[[], None]:
    """Stop servers, copy their disks, and restart them; return a function that restores the disks."""
    for server in servers:
        server.stop()
    for server in servers:
        shutil.copytree(server.folder / "data", server.folder / "kept")
    for server in servers:
        server.start()

    def restore() -> None:
        for server in servers:
            server.kill()
        for server in servers:
            shutil.rmtree(server.folder / "data")
            (server.folder / "kept").rename(server.folder / "data")
        for server in servers:
            server.start()

    return restore


async def comes_back(relay: Relay, lost: str, kept: str) -> None:
    """Check two clients of a relay: one with a cursor in the lost part, and one in the remaining part."""
    async with follow(relay.ws_url, live=False, mode="complete", cursor=lost) as feed:
        subscribed = await feed.one(Subscribed)
        assert subscribed.resumed is False
        gap = await feed.one(Gap)
        assert (gap.from_, gap.dropped, gap.reason) == (lost, None, "reset")
        assert parse_cursor(gap.to).sequence >= KEPT
    with pytest.raises(HTTPError) as rejected:
        urlopen(f"{relay.url}/events?{urlencode({'cursor': lost})}", timeout=PATIENCE)
    with rejected.value as answer:
        assert (answer.code, orjson.loads(answer.read())["code"]) == (400, "bad_cursor")
    async with follow(relay.ws_url, mode="complete", cursor=kept) as feed:
        assert (await feed.texts(LOST + 1))[: LOST + 1] == [f"new {number}" for number in range(LOST + 1)]
    epoch, sequence, _ = parse_cursor(lost)
    async with follow(relay.ws_url, cursor=f"{epoch}-{sequence}") as feed:
        assert feed.messages[-1].resumed  # type: ignore[union-attr]


@pytest.mark.parametrize("log_size", ["10000", "1"])
def test_a_cursor_of_the_lost_part(nats_server: NatsServer, log_size: str) -> None:
    """A relay that starts afterwards detects the cursor, from its memory or by a direct read of the
    stream.
    """

    async def watch() -> None:
        with Relay(nats_server.url, "--log-size", log_size) as relay:
            async with follow(relay.ws_url, mode="complete") as feed:
                await publish_some(nats_server.url, "old", KEPT)
                await feed.events(KEPT)
                kept = feed.cursor
            restore = save([nats_server])
            async with follow(relay.ws_url, mode="complete", cursor=kept) as feed:
                await publish_some(nats_server.url, "lost", LOST)
                await feed.events(LOST)
                lost = feed.cursor
            relay.stop()
            restore()
            await publish_some(nats_server.url, "new", LOST + 3)
            relay.start()
            if log_size != "1":
                relay.until_logged("events from the stream's tail")
            await comes_back(relay, lost, kept)

    run(watch(), 4 * PATIENCE)


def test_a_relay_that_stayed(nats_server: NatsServer) -> None:
    """A relay that stayed connected detects that its newest message is not the stream's, and notifies its
    clients.
    """

    async def watch() -> None:
        with Relay(nats_server.url) as relay:
            async with follow(relay.ws_url, mode="complete") as feed:
                await publish_some(nats_server.url, "old", KEPT)
                await feed.events(KEPT)
                kept = feed.cursor
                restore = save([nats_server])
                await publish_some(nats_server.url, "lost", LOST)
                await feed.events(KEPT + LOST)
                lost = feed.cursor
                relay.signal(signal.SIGSTOP)
                restore()
                await publish_some(nats_server.url, "new", LOST + 3)
                relay.signal(signal.SIGCONT)
                gap = await feed.one(Gap)
                assert (gap.from_, gap.dropped, gap.reason) == (lost, None, "reset")
                feed.reset()
                await publish_some(nats_server.url, "after", 1)
                texts = await feed.texts(KEPT + LOST + 1)
                assert texts[-1] == "after 0"
            await comes_back(relay, lost, kept)

    run(watch(), 4 * PATIENCE)


def test_a_stream_that_lost_nothing_resets_no_client(nats_server: NatsServer) -> None:
    """Restarting NATS or the relay without data loss resets no client."""

    async def watch() -> None:
        with Relay(nats_server.url) as relay:
            async with follow(relay.ws_url, mode="complete") as feed:
                await publish_some(nats_server.url, "old", KEPT)
                await feed.events(KEPT)
                nats_server.kill()
                nats_server.start()
                await publish_some(nats_server.url, "more", 1)
                await feed.events(KEPT + 1)
                assert not [message for message in feed.messages if isinstance(message, Gap)]
            relay.stop()
            async with connection(nats_server.url) as nc:
                await nc.jetstream().delete_msg("EVENTS", KEPT + 1)
            relay.start()
            async with follow(relay.ws_url, mode="complete", cursor=feed.cursor) as again:
                assert again.messages[-1].resumed  # type: ignore[union-attr]
                await publish_some(nats_server.url, "after", 1)
                assert await again.texts(1) == ["after 0"]

    run(watch(), 4 * PATIENCE)


def test_a_cursor_of_the_part_that_a_cluster_lost(tmp_path: Path) -> None:
    """All three servers lose their newest writes, as in a power failure of a rack."""

    async def watch() -> None:
        with cluster(tmp_path) as servers:
            nc = await asker(servers.url)
            try:
                await provision(nc, 3)
                await current(nc)
                with Relay(servers.url) as relay:
                    async with follow(relay.ws_url, mode="complete") as feed:
                        await publish_some(servers.url, "old", KEPT)
                        await feed.events(KEPT)
                        kept = feed.cursor
                    relay.stop()
                    restore = save(list(servers.servers.values()))
                    await current(nc)
                    relay.start()
                    async with follow(relay.ws_url, mode="complete", cursor=kept) as feed:
                        await publish_some(servers.url, "lost", LOST)
                        await feed.events(LOST)
                        lost = feed.cursor
                    relay.stop()
                    restore()
                    await current(nc)
                    await publish_some(servers.url, "new", LOST + 3)
                    relay.start()
                    await comes_back(relay, lost, kept)
            finally:
                await nc.close()

    run(watch(), 8 * PATIENCE)


def test_a_user_who_may_not_read_directly(tmp_path: Path) -> None:
    """Without permission for direct reads nothing can be disproved, and no client waits for a response."""
    users = (
        "authorization { users: [{user: all, password: x}, {user: relay, password: x, permissions: "
        '{publish: {allow: ">", deny: "$JS.API.DIRECT.GET.>"}, subscribe: ">"}}] }'
    )

    async def watch(server: NatsServer, relay: Relay, everybody: str) -> None:
        async with follow(relay.ws_url, mode="complete") as feed:
            await publish_some(everybody, "old", KEPT)
            await feed.events(KEPT)
            server.kill()
            server.start()
            await publish_some(everybody, "new", 1)
            await feed.events(KEPT + 1)
        epoch, sequence, stored_ns = parse_cursor(feed.cursor)
        assert stored_ns is not None
        older = f"{epoch}-{sequence - 3}-{stored_ns}"  # beyond the relay's memory, and wrong
        async with follow(relay.ws_url, mode="complete", cursor=older) as again:
            assert again.messages[-1].resumed  # type: ignore[union-attr]
            assert len(await again.events(3)) == 3

    with NatsServer(tmp_path / "nats", config=users) as server:
        everybody = f"nats://all:x@127.0.0.1:{server.port}"
        with Relay(f"nats://relay:x@127.0.0.1:{server.port}", "--log-size", "1") as relay:
            run(watch(server, relay, everybody), 4 * PATIENCE)
