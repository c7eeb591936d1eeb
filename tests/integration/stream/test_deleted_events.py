"""The stream deletes events before the relay has read them: each is reported in a gap, and no other is."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import Status
from tickertape.contracts.messages import Events, Gap, Snapshot

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import (
    PATIENCE,
    FeedClient,
    connection,
    follow,
    jetstream,
    line,
    publish,
    publish_burst,
    run,
    status,
)
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection as connect
from tickertape.nats.jetstream_api import request, server_version
from tickertape.nats.streams import provision, stream_configs

SMALL: Final = 2 * 1024 * 1024
"""Size in bytes of a stream that the floods below overwrite several times."""

FLOOD: Final = 12_000
PADDING: Final = "x" * 600


async def shrink(url: str, max_bytes: int = SMALL) -> None:
    """Create the streams, with an EVENTS that holds a few thousand events only."""
    nc = await connect.connect(url, name="test")
    await provision(nc, Names())
    (events,) = [one for one in stream_configs(Names(), server_version(nc)) if one["name"] == "EVENTS"]
    answer = await request(nc, "STREAM.UPDATE.EVENTS", {**events, "max_bytes": max_bytes})
    assert "error" not in answer, answer
    await connect.close(nc)


async def flood(url: str, count: int, *subjects: str) -> list[tuple[int, str]]:
    """Publish events to subjects in turn, as fast as the socket accepts them; return sequence and subject of
    each.
    """
    found = []
    async with connection(url) as nc:
        before = (await nc.jetstream().stream_info("EVENTS")).state.last_seq
        messages = []
        for number in range(count):
            subject = subjects[number % len(subjects)]
            body: dict[str, Any] = {
                "event_type": "system_log",
                "timestamp": "2026-01-01T00:00:00Z",
                "level": subject.split(".")[1].upper(),
                "source": subject.split(".")[2],
                "message": f"{number} {PADDING}",
            }
            messages.append((subject, orjson.dumps(body)))
            found.append((before + number + 1, subject))
        await publish_burst(nc, messages)
    return found


def account(feed: FeedClient, start: int, upto: int, matching: set[int], *, slow: bool = False) -> set[int]:
    """Check what was received against the conservation law; return the sequences that are in gaps.

    Args:
        feed: the client.
        start: sequence after which it began.
        upto: last sequence that it must account for.
        matching: sequences that its filter matches.
        slow: whether it may also have been too slow for some events, in mode live on a busy machine.
    """
    position, gone = start, set()
    seen: list[int] = []
    for message in feed.messages:
        if isinstance(message, Gap):
            begin, end = parse_cursor(message.from_).sequence, parse_cursor(message.to).sequence
            if not (slow and message.reason == "slow"):
                assert (message.dropped, message.reason) == (None, "retention")
            assert position <= begin < end, "told before any later cursor"
            gone |= set(range(begin + 1, end + 1))
            position = end
        elif isinstance(message, Events):
            seqs = [item.seq for item in message.events]
            assert seqs == sorted(set(seqs))
            assert not seen or seqs[0] > seen[-1]
            seen += seqs
            position = parse_cursor(message.cursor).sequence
    assert set(seen) <= matching
    expected = {seq for seq in matching if start < seq <= upto}
    assert expected - set(seen) <= gone, "lost in silence"
    return gone


def arrived(feed: FeedClient, seq: int) -> bool:
    """Return whether an event has arrived."""
    return bool(feed.seqs()) and feed.seqs()[-1] >= seq


@contextmanager
def frozen(relay: Relay) -> Iterator[None]:
    """Freeze a relay for a while."""
    relay.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        relay.signal(signal.SIGCONT)


@pytest.mark.parametrize("mode", ["complete", "live"])
@pytest.mark.parametrize("subjects", [">", "log.error.>,log.info.a"])
def test_a_flood_through_a_small_stream(nats_server: NatsServer, mode: str, subjects: str) -> None:
    """A relay that reads more slowly than the stream deletes reports every event that it missed."""

    async def watch(relay: Relay) -> None:
        async with follow(relay.ws_url, mode=mode) as feed:
            start = parse_cursor(feed.cursor).sequence
            kinds = ("log.info.a", "log.info.b", "log.error.a")
            with frozen(relay):
                found = await flood(nats_server.url, FLOOD, *kinds)
            async with jetstream(nats_server.url) as js:
                last = await publish(js, line("the last one", "ERROR", "a"))
                state = (await js.stream_info("EVENTS")).state
            await feed.until(lambda: arrived(feed, last))
            required = {s for s, subject in found if subjects == ">" or subject != "log.info.b"} | {last}
            gone = account(feed, start, last, required, slow=mode == "live")
            evicted = required - set(feed.seqs())
            assert evicted, "the stream was too large for this test"
            assert evicted <= gone
            if subjects == ">":
                assert gone == {seq for seq, _ in found} - set(feed.seqs()), "no more than was deleted"
                assert state.first_seq > start + 1

    run(shrink(nats_server.url))
    with Relay(nats_server.url, "--client-rate", "0", "--subjects", subjects) as relay:
        run(watch(relay), 120)


def test_narrow_subjects_do_not_take_others_for_deleted(nats_server: NatsServer) -> None:
    """Events outside of the filter are not reported in a gap; matching events that are purged are."""

    async def watch(relay: Relay) -> None:
        async with follow(relay.ws_url, mode="complete") as feed, jetstream(nats_server.url) as js:
            for _ in range(20):
                await publish(js, line("other", source="other"))
                await publish(js, line("mine", source="mine"))
            await feed.events(20)
            assert not [message for message in feed.messages if isinstance(message, Gap)]
            with frozen(relay):
                # Messages that are already on their way to the relay would arrive nevertheless.
                nats_server.stop()
                nats_server.start()
                async with jetstream(nats_server.url) as again:
                    lost = [await publish(again, line("mine", source="mine")) for _ in range(3)]
                    await publish(again, line("other", source="other"))
                    for seq in lost[:2]:
                        await again.delete_msg("EVENTS", seq)
            last = await publish(js, line("mine", source="mine"))
            await feed.until(lambda: arrived(feed, last))
            gone = account(feed, 0, last, {*range(2, 41, 2), *lost, last})
            assert gone == set(lost[:2])

    with Relay(nats_server.url, "--subjects", "log.*.mine") as relay:
        run(watch(relay))


@pytest.mark.parametrize("subjects", [">", "log.>"])
@pytest.mark.parametrize("log_size", ["10", "10000"])
def test_deletions_before_the_relay_started(nats_server: NatsServer, subjects: str, log_size: str) -> None:
    """Feed and history report the same deletions, from memory and from the stream."""

    async def watch() -> None:
        await shrink(nats_server.url)
        async with jetstream(nats_server.url) as js:
            last = 0
            for number in range(200):
                last = await publish(js, line(f"line {number}"))
            for seq in range(5, last, 7):
                await js.delete_msg("EVENTS", seq)
            await js.purge_stream("EVENTS", seq=51)
            gone = {*range(5, last, 7), *range(1, 51)}
            options = ("--subjects", subjects, "--log-size", log_size, "--client-rate", "0")
            with Relay(nats_server.url, *options) as relay:
                if log_size == "10000":
                    relay.until_logged("events from the stream's tail")
                epoch = await epoch_of(relay)
                async with follow(relay.ws_url, mode="complete", cursor=f"{epoch}-0") as feed:
                    await feed.until(lambda: arrived(feed, last))
                    assert account(feed, 0, last, set(range(1, last + 1))) == gone
                page = history(relay, cursor=f"{epoch}-0", limit=1000)
                assert [item["seq"] for item in page["events"]] == sorted(set(range(1, last + 1)) - gone)
                begin = parse_cursor(page["gap"]["from"]).sequence
                end = parse_cursor(page["gap"]["to"]).sequence
                assert gone <= set(range(begin + 1, end + 1))

    run(watch())


def history(relay: Relay, **query: object) -> dict[str, Any]:
    """Request a page of ``/events``."""
    with urlopen(f"{relay.url}/events?{urlencode(query)}", timeout=PATIENCE) as page:
        return dict(orjson.loads(page.read()))


async def epoch_of(relay: Relay) -> str:
    """Return the epoch of a relay's cursors."""
    async with follow(relay.ws_url) as feed:
        return parse_cursor(feed.cursor).epoch


def test_earliest_at_the_edge_of_retention(nats_server: NatsServer) -> None:
    """A client that starts at the oldest event while the stream deletes it is told every event that it
    missed.
    """

    async def watch(relay: Relay) -> None:
        await flood(nats_server.url, 6_000, "log.info.a")
        async with connection(nats_server.url) as nc:
            over = asyncio.Event()

            async def push() -> None:
                while not over.is_set():
                    for _ in range(20):
                        await nc.publish("log.info.a", line(PADDING, source="a").encode())
                    await asyncio.sleep(0.005)

            pushing = asyncio.create_task(push())
            for _ in range(2):
                async with follow(relay.ws_url, mode="complete", since="earliest") as feed:
                    start = parse_cursor(feed.cursor).sequence
                    await feed.until(lambda feed=feed, start=start: arrived(feed, start + 3_000))  # type: ignore[misc]
                    account(feed, start, feed.seqs()[-1], set(range(1, feed.seqs()[-1] + 1)))
            over.set()
            await pushing

    run(shrink(nats_server.url))
    with Relay(nats_server.url, "--client-rate", "0", "--log-size", "300") as relay:
        run(watch(relay), 180)


def test_another_stream_has_other_deleted_events(nats_server: NatsServer) -> None:
    """What a relay with narrow subjects knows about one stream is not applied to a recreated one."""

    async def one_deleted(relay: Relay, count: int, victim: int) -> None:
        async with follow(relay.ws_url, mode="complete") as feed, jetstream(nats_server.url) as js:
            start = parse_cursor(feed.cursor).sequence
            with frozen(relay):
                found = await flood(nats_server.url, count, "log.error.a", "log.info.a")
                await js.delete_msg("EVENTS", found[victim][0])
            last = await publish(js, line("the last one", "ERROR", "a"))
            await feed.until(lambda: arrived(feed, last))
            gone = account(feed, start, last, {s for s, x in found if x == "log.error.a"} | {last})
            assert found[victim][0] in {*gone, *feed.seqs()}

    async def another() -> None:
        async with jetstream(nats_server.url) as js:
            await js.delete_stream("EVENTS")

    with Relay(nats_server.url, "--client-rate", "0", "--subjects", "log.error.>") as relay:
        run(one_deleted(relay, 10, 4))
        run(another())
        relay.until_logged("receiving events again")
        run(one_deleted(relay, FLOOD, FLOOD - 1_000))


def test_a_state_that_was_deleted_is_known_all_the_same(nats_server: NatsServer) -> None:
    """A state within a gap is in the snapshot of new clients, and is sent to connected ones."""

    def received(feed: FeedClient) -> list[str]:
        found = only(feed.messages, Snapshot)
        return [item.event["current_status"] for message in found for item in message.events]

    async def watch(relay: Relay) -> None:
        async with follow(relay.ws_url, mode="complete") as feed, jetstream(nats_server.url) as js:
            with frozen(relay):
                # More than fits into the relay's socket: the rest is deleted before it is sent.
                await flood(nats_server.url, FLOOD, "log.info.a")
                lost = await publish(js, status("a", Status.UNHEALTHY))
                while not (await js.stream_info("LATEST")).state.messages:
                    await asyncio.sleep(0.05)
                await js.purge_stream("EVENTS")
            last = await publish(js, line("the last one"))
            await feed.until(lambda: arrived(feed, last))
            assert lost in account(feed, 0, last, {*feed.seqs(), lost})
            # Once for each gap, of which a busy machine may make two.
            await feed.until(lambda: set(received(feed)) == {"UNHEALTHY"})
            async with follow(relay.ws_url) as fresh:
                assert received(fresh) == ["UNHEALTHY"]

    run(shrink(nats_server.url, 64 * 1024 * 1024))
    with Relay(nats_server.url, "--client-rate", "0") as relay:
        run(watch(relay))


@pytest.mark.parametrize("log_size", ["10000", "1"])
def test_a_time_right_before_deleted_events(nats_server: NatsServer, log_size: str) -> None:
    """Deletions between ``since`` and the first remaining event are reported, from memory and from the
    stream.
    """

    async def prepare() -> str:
        async with jetstream(nats_server.url) as js:
            await publish(js, line("one"))
            await asyncio.sleep(0.02)  # the stream is queried with a resolution of milliseconds
            moment = datetime.now(UTC)
            for number in range(2, 8):
                await publish(js, line(str(number)))
            for seq in (2, 3, 4):
                await js.delete_msg("EVENTS", seq)
        return moment.isoformat().replace("+00:00", "Z")

    async def watch(relay: Relay, since: str) -> None:
        async with follow(relay.ws_url, mode="complete", since=since) as feed:
            await feed.until(lambda: arrived(feed, 7))
            assert feed.seqs() == [5, 6, 7]
            assert account(feed, 1, 7, {5, 6, 7}) == {2, 3, 4}

    run(shrink(nats_server.url))
    since = run(prepare())
    with Relay(nats_server.url, "--log-size", log_size) as relay:
        run(watch(relay, since))
