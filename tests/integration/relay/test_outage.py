"""Outages of NATS and the relay: no event is lost or repeated, and no client is disconnected."""

import asyncio
import contextlib
import json
import signal
from urllib.error import HTTPError
from urllib.request import urlopen

import nats
import pytest
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import SystemLog
from tickertape.contracts.messages import Events, Snapshot, Subscribed, Upstream

from tests.support.clients.attacker import count
from tests.support.clients.fake_link import gaps, only
from tests.support.clients.feed_client import (
    PATIENCE,
    FeedClient,
    follow,
    jetstream,
    line,
    publish,
    run,
    status,
)
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer


def answer(url: str) -> int:
    """Return the status of a page."""
    try:
        with urlopen(url, timeout=PATIENCE) as page:
            return int(page.status)
    except HTTPError as error:
        with error:
            return error.code


def memory_reaches_back_to(relay: Relay, seq: int) -> bool:
    """Return whether the relay's memory holds everything after a sequence."""
    with urlopen(f"{relay.ops_url}/statusz", timeout=PATIENCE) as page:
        status = json.load(page)
    return parse_cursor(status["log"]["from"])[1] <= seq


class Producer:
    """Publisher of numbered lines that retries each until it is acknowledged, through any outage."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.acknowledged: list[int] = []
        self.number = 0

    async def run(self, until: asyncio.Event) -> None:
        """Publish until told to stop."""
        nc = await nats.connect(self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        js = nc.jetstream()
        while not until.is_set():
            event = line(f"{self.number}")
            try:
                ack = await js.publish(
                    event.subject, event.encode(), timeout=1.0, headers={"Nats-Msg-Id": f"n{self.number}"}
                )
            except (NatsError, OSError):
                await asyncio.sleep(0.05)
                continue
            self.acknowledged.append(ack.seq)
            self.number += 1
            await asyncio.sleep(0.002)
        await nc.close()


async def until_acknowledged(js: JetStreamContext, event: SystemLog) -> None:
    """Publish to a server that may still be starting."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(NatsError, OSError):
                await publish(js, event)
                return
            await asyncio.sleep(0.05)


async def in_thread(call: object) -> None:
    """Run a slow function beside the clients."""
    assert callable(call)
    await asyncio.get_running_loop().run_in_executor(None, call)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_an_outage_of_nats(nats_server: NatsServer, how: str) -> None:
    """Clients stay connected, are notified, and receive every acknowledged event exactly once, in order."""

    async def check(relay: Relay) -> None:
        producer, over = Producer(nats_server.url), asyncio.Event()
        async with follow(relay.ws_url) as one, follow(relay.ws_url, subjects="log.>") as other:
            await asyncio.sleep(0)
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(producer.run(over))
                for _ in range(2):
                    await other.events(len(other.seqs()) + 50)
                    await in_thread(nats_server.kill if how == "kill" else nats_server.stop)
                    assert (await other.one(Upstream)).state == "disconnected"
                    await in_thread(nats_server.start)
                    assert (await other.one(Upstream)).state == "connected"
                    await other.events(len(other.seqs()) + 50)
                over.set()
                await publishing
            for feed in (one, other):
                got = await feed.texts(producer.number)
                assert got == [f"{n}" for n in range(producer.number)]
                assert feed.seqs() == sorted(set(feed.seqs()))
                assert set(producer.acknowledged) <= set(feed.seqs())
                assert gaps(feed.messages) == []
                assert count(relay, "nats_reconnects_total") == 2
                states = [message.state for message in only(feed.messages, Upstream)]
                assert states == ["disconnected", "connected"] * 2

    with Relay(nats_server.url, "--client-rate", "0") as relay:
        run(check(relay))


def test_a_silent_nats_is_noticed(nats_server: NatsServer) -> None:
    """A server that keeps the connection open but is silent counts as unreachable, until it responds
    again.
    """

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            async with jetstream(nats_server.url) as js:
                await publish(js, line("before"))
            await feed.events(1)
            nats_server.pause()
            try:
                assert (await feed.one(Upstream)).state == "disconnected"
                assert await in_page(relay, "/readyz") == 503
            finally:
                nats_server.resume()
            assert (await feed.one(Upstream)).state == "connected"
            async with jetstream(nats_server.url) as js:
                await publish(js, line("after"))
            assert await feed.texts(2) == ["before", "after"]

    async def in_page(relay: Relay, path: str) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, answer, relay.ops_url + path)

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_nats_unreachable_at_startup(nats_server: NatsServer) -> None:
    """A relay that starts without NATS is live but not ready, logs why, and serves as soon as NATS is
    there.
    """

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed, jetstream(nats_server.url) as js:
            await publish(js, line("hello"))
            assert await feed.texts(1) == ["hello"]

    nats_server.stop()
    relay = Relay(nats_server.url)
    try:
        relay.start(ready=False)
        relay.until_logged("unreachable, retrying: ")
        assert answer(relay.ops_url + "/livez") == 200
        assert answer(relay.ops_url + "/readyz") == 503
        assert answer(relay.url + "/health") == 503
        assert answer(relay.url + "/") == 200
        nats_server.start()
        relay.until_ready()
        assert answer(relay.ops_url + "/readyz") == 200
        assert answer(relay.url + "/health") == 200
        run(check(relay))
        assert sum("unreachable, retrying" in text for text in relay.log) == 1
    finally:
        relay.close()


def test_a_relay_that_waits_for_nats_can_be_stopped(nats_server: NatsServer) -> None:
    """Ctrl-C ends a relay that waits for NATS, with exit code 0."""
    nats_server.stop()
    relay = Relay(nats_server.url)
    try:
        relay.start(ready=False)
        relay.until_logged("unreachable, retrying")
        relay.signal(signal.SIGINT)
        assert relay.wait() == 0
    finally:
        relay.close()


def test_cursors_are_good_after_a_restart_of_the_relay(nats_server: NatsServer) -> None:
    """A restarted relay fills its memory from the stream; a client resumes with every event once."""

    async def before(relay: Relay) -> tuple[str, list[int]]:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            for number in range(20):
                await publish(js, line(f"{number}"))
            await feed.events(20)
            return feed.cursor, feed.seqs()

    async def between() -> None:
        async with jetstream(nats_server.url) as js:
            for number in range(20, 60):
                await publish(js, line(f"{number}"))
            await publish(js, status("a"))

    async def after(relay: Relay, cursor: str) -> FeedClient:
        async with follow(relay.ws_url, cursor=cursor) as feed:
            async with jetstream(nats_server.url) as js:
                for number in range(60, 70):
                    await publish(js, line(f"{number}"))
            await feed.events(51)
            return feed

    with Relay(nats_server.url) as relay:
        cursor, seen = run(before(relay))
        relay.kill()
        run(between())
        relay.start()
        eventually(lambda: memory_reaches_back_to(relay, seen[-1]), "the memory is warm")
        feed = run(after(relay, cursor))
        (subscribed,) = only(feed.messages, Subscribed)
        assert (subscribed.resumed, subscribed.cursor) == (True, cursor)
        assert only(feed.messages, Snapshot) == []
        assert gaps(feed.messages) == []
        assert feed.seqs() == list(range(seen[-1] + 1, seen[-1] + 52))
        texts = [item.event.get("message") for m in only(feed.messages, Events) for item in m.events]
        assert texts == [f"{n}" for n in range(20, 60)] + [None] + [f"{n}" for n in range(60, 70)]


def test_a_cursor_is_good_at_every_relay(nats_server: NatsServer) -> None:
    """Two relays on one stream have the same cursors."""

    async def check(one: Relay, other: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(one.ws_url) as feed:
            for number in range(10):
                await publish(js, line(f"{number}"))
            await feed.events(10)
            cursor = only(feed.messages, Subscribed)[0].cursor
        async with follow(other.ws_url, cursor=cursor) as feed:
            assert await feed.texts(10) == [f"{n}" for n in range(10)]
            assert only(feed.messages, Subscribed)[0].resumed

    with Relay(nats_server.url) as one, Relay(nats_server.url) as other:
        run(check(one, other))


def test_a_stream_that_was_lost_is_reported(nats_server: NatsServer) -> None:
    """A stream that was deleted and recreated leads to ``reset`` and a new snapshot."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            await publish(js, status("old"))
            await feed.events(1)
            cursor = feed.cursor
            await js.delete_stream("EVENTS")
            await feed.until(lambda: bool(gaps(feed.messages)))
            ((begin, end, dropped, reason),) = gaps(feed.messages)
            assert (begin, dropped, reason) == (cursor, None, "reset")
            assert end.partition("-")[0] != cursor.partition("-")[0]
            feed.reset()
            snapshot = await feed.one(Snapshot)
            assert snapshot.events == []
            await publish(js, line("new"))
            await feed.until(lambda: len(feed.seqs()) == 2)
            async with follow(relay.ws_url, cursor=cursor) as late:
                ((begin, _, _, reason),) = gaps(late.messages)
                assert (begin, reason) == (cursor, "reset")
                assert only(late.messages, Subscribed)[0].resumed is False

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_events_that_expired_during_an_outage_are_reported(nats_server: NatsServer) -> None:
    """Events that expired while NATS was unreachable are reported in a gap."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            async with jetstream(nats_server.url) as js:
                await publish(js, line("before"))
                await feed.events(1)
                await in_thread(nats_server.stop)
                assert (await feed.one(Upstream)).state == "disconnected"
                relay.signal(signal.SIGSTOP)
                try:
                    await in_thread(nats_server.start)
                    for number in range(10):
                        await until_acknowledged(js, line(f"lost {number}"))
                    await js.purge_stream("EVENTS")
                finally:
                    relay.signal(signal.SIGCONT)
                await feed.until(lambda: bool(gaps(feed.messages)))
                await publish(js, line("after"))
                assert await feed.texts(2) == ["before", "after"]
            assert gaps(feed.messages) == [
                (f"{epoch_of(feed)}-1", f"{epoch_of(feed)}-11", None, "retention"),
            ]

    def epoch_of(feed: FeedClient) -> str:
        return feed.cursor.partition("-")[0]

    with Relay(nats_server.url) as relay:
        run(check(relay), 2 * PATIENCE)
