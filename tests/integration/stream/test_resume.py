"""Clients resume from any cursor or time, at any relay, in any mode, and nothing is lost silently."""

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import orjson
import pytest
from nats.js import JetStreamContext
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import EventModel, Status, format_time, parse_time
from tickertape.contracts.messages import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    Error,
    Events,
    Gap,
    Snapshot,
    Subscribed,
)
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.clients.fake_link import gaps, only, shown
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
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

MANY: Final = 5_000
MEMORY: Final = 500
"""Events that the relay with a small memory keeps; the stream holds ten times as many."""

SHORT: Final = ("--client-rate", "0", "--log-size", str(MEMORY))


async def fill(js: JetStreamContext, count: int, *events: EventModel) -> int:
    """Publish a number of events, the given ones in turn or numbered lines; return the last sequence."""
    before = await head(js)
    for number in range(count):
        event = events[number % len(events)] if events else line(f"{number}")
        await js._nc.publish(event.subject, event.encode())
        if number % 500 == 499:
            await js._nc.flush()
    await js._nc.flush()
    async with asyncio.timeout(PATIENCE):
        # The server stores them asynchronously.
        while await head(js) < before + count:
            await asyncio.sleep(0.005)
    return before + count


async def head(js: JetStreamContext) -> int:
    """Return the last sequence of the stream."""
    return int((await js.stream_info("EVENTS")).state.last_seq)


async def epoch(relay: Relay) -> str:
    """Return the epoch of the relay's cursors."""
    async with follow(relay.ws_url) as feed:
        return parse_cursor(feed.cursor).epoch


async def reached(relay: Relay, seq: int) -> str:
    """Wait until a relay has received an event; return its epoch."""
    async with follow(relay.ws_url, mode="complete") as feed:  # no rate limit may delay the last one
        begin, start, _ = parse_cursor(feed.cursor)
        if start < seq:
            await feed.until(lambda: bool(feed.seqs()) and feed.seqs()[-1] >= seq)
        return begin


async def arrive(feed: FeedClient, seq: int) -> None:
    """Read up to an event."""
    await feed.until(lambda: feed.seqs()[-1:] == [seq])


def resumed(feed: FeedClient) -> bool:
    """Return whether the relay resumes from the cursor."""
    return only(feed.messages, Subscribed)[-1].resumed


@pytest.fixture
def short(nats_server: NatsServer) -> Iterator[Relay]:
    """Run a relay whose memory holds a tenth of what is published."""
    with Relay(nats_server.url, *SHORT) as relay:
        yield relay


def test_from_memory(nats_server: NatsServer) -> None:
    """Events since the cursor are sent once, in order, followed by new ones."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await reached(relay, await fill(js, 100))
            position = f"{await epoch(relay)}-40"
            for mode in ("live", "complete"):
                async with follow(relay.ws_url, cursor=position, mode=mode) as feed:
                    await feed.events(60)
                    newest = await publish(js, line("new"))
                    await arrive(feed, newest)
                    assert feed.seqs() == list(range(41, newest + 1))
                    assert (resumed(feed), gaps(feed.messages), shown(feed.messages)) == (True, [], [])

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_complete_from_beyond_memory(nats_server: NatsServer, short: Relay) -> None:
    """All events come from the stream and then from memory, while more are published."""

    async def check() -> None:
        async with jetstream(nats_server.url) as js:
            await reached(short, await fill(js, MANY))
            position = f"{await epoch(short)}-7"
            async with follow(short.ws_url, cursor=position, mode="complete") as feed:
                more = asyncio.create_task(fill(js, MEMORY * 3))
                await feed.events(MANY - 7)
                last = await more
                await arrive(feed, last)
                assert feed.seqs() == list(range(8, last + 1))
                assert (resumed(feed), gaps(feed.messages)) == (True, [])

    run(check())


def test_live_from_beyond_memory(nats_server: NatsServer) -> None:
    """The newest ``--max-catch-up`` events are sent, with gaps that lead up to them."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await reached(relay, await fill(js, MANY))
            position = f"{await epoch(relay)}-0"
            async with follow(relay.ws_url, cursor=position) as feed:
                await arrive(feed, MANY)
                received = gaps(feed.messages)
                # The gaps are contiguous and do not overlap; what lies too far back is not counted.
                assert {reason for _, _, _, reason in received} == {"slow"}
                assert [begin for begin, _, _, _ in received] == [
                    position,
                    *(end for _, end, _, _ in received[:-1]),
                ]
                for begin, end, dropped, _ in received:
                    size = parse_cursor(end)[1] - parse_cursor(begin)[1]
                    assert dropped in (None, size)
                assert parse_cursor(received[-1][1])[1] == MANY - 700
                assert feed.seqs() == list(range(MANY - 699, MANY + 1))

    with Relay(nats_server.url, *SHORT, "--max-catch-up", "700") as relay:
        run(check(relay))


def test_a_client_may_leave_right_after_a_gap(nats_server: NatsServer) -> None:
    """The newest states within a gap arrive wherever the client disconnects."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await publish(js, status("early", Status.DEGRADED))
            await reached(relay, await fill(js, 300))
            position, got = f"{await epoch(relay)}-0", set[int]()
            async with follow(relay.ws_url, cursor=position, live=False) as feed:
                await feed.one(Gap)
                got |= set(feed.seqs())
                position = feed.cursor
            async with follow(relay.ws_url, cursor=position) as feed:
                await arrive(feed, 301)
                assert 1 in got | set(feed.seqs())

    with Relay(nats_server.url, "--client-rate", "0", "--max-catch-up", "100") as relay:
        run(check(relay))


@pytest.mark.parametrize("mode", ["live", "complete"])
def test_at_another_relay_and_after_kills(nats_server: NatsServer, mode: str) -> None:
    """A cursor is valid at another relay, and after kill -9 of the relay and of NATS."""

    async def some(relay: Relay, position: str | None, count: int) -> tuple[str, list[int]]:
        query: dict[str, Any] = {"mode": mode, **({"cursor": position} if position else {})}
        async with follow(relay.ws_url, **query) as feed, jetstream(nats_server.url) as js:
            if position is None:
                await fill(js, count)
            await feed.events(count)
            if position is not None:
                assert resumed(feed)
            assert gaps(feed.messages) == []
            return feed.cursor, feed.seqs()

    async def more() -> None:
        async with jetstream(nats_server.url) as js:
            await fill(js, 50)

    with Relay(nats_server.url, *SHORT) as one, Relay(nats_server.url, *SHORT) as other:
        position, found = run(some(one, None, 50))
        run(more())
        position, fresh = run(some(other, position, 50))
        found += fresh
        other.kill()
        run(more())
        other.start()
        position, fresh = run(some(other, position, 50))
        found += fresh
        nats_server.kill()
        nats_server.start()
        run(more())
        position, fresh = run(some(one, position, 50))
        found += fresh
        assert found == list(range(1, 201))


@pytest.mark.parametrize("mode", ["live", "complete"])
def test_past_retention(nats_server: NatsServer, mode: str) -> None:
    """Deleted events are one gap, up to the first remaining event."""

    async def before(relay: Relay) -> str:
        async with jetstream(nats_server.url) as js:
            await reached(relay, await fill(js, 900))
            await js.purge_stream("EVENTS", keep=200)
        return await epoch(relay)

    async def after(relay: Relay, begin: str) -> None:
        async with follow(relay.ws_url, cursor=f"{begin}-3", mode=mode) as feed:
            await arrive(feed, 900)
            assert gaps(feed.messages) == [(f"{begin}-3", f"{begin}-700", None, "retention")]
            assert feed.seqs() == list(range(701, 901))
            assert resumed(feed)

    # With all remaining events in memory, and with a part of them.
    with Relay(nats_server.url, "--client-rate", "0") as relay:
        begin = run(before(relay))
        relay.kill()
        relay.start()
        run(after(relay, begin))
    with Relay(nats_server.url, "--client-rate", "0", "--log-size", "50") as relay:
        run(after(relay, begin))


def test_another_epoch(nats_server: NatsServer) -> None:
    """A recreated stream leads to ``reset``, a snapshot, and live events."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await reached(relay, await fill(js, 20))
            old = f"{await epoch(relay)}-10"
            await js.delete_stream("EVENTS")
            async with asyncio.timeout(PATIENCE):
                while await epoch(relay) == parse_cursor(old).epoch:
                    await asyncio.sleep(0.05)
            await reached(relay, await publish(js, status("new")))
            async with follow(relay.ws_url, cursor=old, mode="complete") as feed:
                ((begin, end, dropped, reason),) = gaps(feed.messages)
                assert (begin, dropped, reason) == (old, None, "reset")
                assert end == only(feed.messages, Subscribed)[0].cursor
                assert (resumed(feed), shown(feed.messages)) == (False, [1])
                assert [m.type for m in feed.messages] == ["welcome", "subscribed", "gap", "snapshot"]
                await publish(js, line("on"))
                assert await feed.texts(1) == ["on"]

    with Relay(nats_server.url) as relay:
        run(check(relay))


@pytest.mark.parametrize("mode", ["live", "complete"])
def test_ahead_of_this_relay_only(nats_server: NatsServer, mode: str) -> None:
    """A relay that receives only a part of the stream waits until it reaches the cursor."""

    async def check(ahead: Relay, behind: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(ahead.ws_url) as feed:
            await fill(js, 10, status("a"))
            await feed.events(10)
            # It receives no state, so its own head is the start of the stream.
            async with follow(behind.ws_url, cursor=feed.cursor, mode=mode) as late:
                assert (resumed(late), gaps(late.messages)) == (True, [])
                assert only(late.messages, Subscribed)[0].cursor == feed.cursor
                await fill(js, 5, line("on"))
                await late.events(5)
                assert late.seqs() == list(range(11, 16))

    with (
        Relay(nats_server.url) as ahead,
        Relay(nats_server.url, "--client-rate", "0", "--subjects", "log.>") as behind,
    ):
        run(check(ahead, behind))


def test_ahead_of_the_stream(nats_server: NatsServer) -> None:
    """A cursor beyond the end of the stream is a ``reset``; the client never waits for it."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await reached(relay, await fill(js, 20))
            begin = await epoch(relay)
            async with follow(relay.ws_url, cursor=f"{begin}-21") as feed:
                (gap,) = gaps(feed.messages)
                assert (gap[0], parse_cursor(gap[1])[:2], *gap[2:]) == (
                    f"{begin}-21",
                    (begin, 20),
                    None,
                    "reset",
                )
                assert resumed(feed) is False
                await publish(js, line("on"))
                assert await feed.texts(1) == ["on"]

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_a_malformed_cursor(nats_server: NatsServer) -> None:
    """A malformed cursor is rejected with 4409, in the query and in ``subscribe``."""

    async def check(relay: Relay) -> None:
        for cursor in ("", "x", "e-", "-5", "e-05", "E-5", "e-1e3", f"e-{2**64}", "e-5-06", "e-٣"):
            async with follow(relay.ws_url, live=False, cursor=cursor) as feed:
                assert await feed.closed() == 4409, cursor
                assert only(feed.messages, Error)[0].code == "bad_cursor"
            async with follow(relay.ws_url) as feed:
                await feed.send_message(type="subscribe", cursor=cursor)
                assert await feed.closed() == 4409, cursor

    with Relay(nats_server.url) as relay:
        run(check(relay))


def test_a_new_filter_and_mode_continue_from_the_same_position(nats_server: NatsServer, short: Relay) -> None:
    """Changing filter and mode loses and repeats nothing, also while events flow and the client lags."""

    async def check() -> None:
        async with jetstream(nats_server.url) as js:
            await reached(short, await fill(js, 2_000))
            position = f"{await epoch(short)}-0"
            async with follow(short.ws_url, cursor=position, mode="complete") as feed:
                more = asyncio.create_task(fill(js, 2_000))
                for turn in range(30):
                    await feed.send_message(
                        type="subscribe",
                        mode="complete",
                        subjects=["log.info.>"] if turn % 2 else ["log.>", "gateway.>"],
                    )
                    count = len(feed.seqs())
                    await feed.one(Subscribed)
                    output = only(feed.messages, Subscribed)[-1]
                    assert parse_cursor(output.cursor).sequence == max(feed.seqs(), default=0)
                    if feed.seqs()[-1:] != [4_000]:
                        await feed.events(count + 1)
                last = await more
                await arrive(feed, last)
                assert feed.seqs() == list(range(1, last + 1))
                assert gaps(feed.messages) == []
                await feed.send_message(type="subscribe", mode="live", level="ERROR")
                await feed.one(Snapshot)
                await fill(js, 10, line("no"), line("yes", "ERROR"))
                count = len(feed.seqs())
                await feed.events(count + 5)
                assert feed.seqs()[count:] == list(range(last + 2, last + 11, 2))

    run(check())


def test_latest_conflates(nats_server: NatsServer) -> None:
    """Each interval has at most one batch, with the newest event of each subject and the number of the
    others.
    """

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            async with follow(relay.ws_url, mode="latest", interval_ms=300) as feed:
                clock = asyncio.get_running_loop().time
                times: list[float] = []
                flooding = asyncio.create_task(flood(js))
                while True:
                    batch = await feed.one(Events)
                    times.append(clock())
                    subjects = [item.subject for item in batch.events]
                    assert len(set(subjects)) == len(subjects)
                    assert batch.conflated is not None
                    if subjects[-1] == "log.info.end":
                        break
                last = await flooding
                received = sum(batch.conflated or 0 for batch in only(feed.messages, Events))
                assert len(feed.seqs()) + received == last
                assert feed.seqs() == sorted(set(feed.seqs()))
                assert received > 0
                # The relay's clock is not ours: a batch may be late, and the next one on time.
                assert times[-1] - times[0] >= 0.3 * (len(times) - 1) - 0.25
            async with follow(relay.ws_url, mode="latest", since="earliest") as feed:
                await arrive(feed, last)
                received = sum(batch.conflated or 0 for batch in only(feed.messages, Events))
                assert len(feed.seqs()) == 5
                assert len(feed.seqs()) + received == last

    async def flood(js: JetStreamContext) -> int:
        for _ in range(20):
            await fill(js, 40, status("a"), status("b"), line("x"), line("y", source="y"))
            await asyncio.sleep(0.05)
        return await publish(js, line("end", source="end"))

    with Relay(nats_server.url) as relay:
        run(check(relay))


async def read_events(url: str, compression: str | None, last: int) -> list[dict[str, Any]]:
    """Return the items that a client receives up to a sequence, with or without permessage-deflate."""
    async with connect(
        url,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=compression,
        max_size=MAX_MESSAGE_BYTES,
        proxy=None,
        ping_interval=None,
    ) as socket:
        assert bool(socket.protocol.extensions) is (compression is not None)
        items: list[dict[str, Any]] = []
        async with asyncio.timeout(PATIENCE):
            while not items or items[-1]["seq"] < last:
                message = orjson.loads(await socket.recv())
                assert message["type"] != "gap"
                if message["type"] == "events":
                    items += message["events"]
        return items


def test_compressed_and_plain_get_the_same(nats_server: NatsServer, short: Relay) -> None:
    """From the stream, from memory and live, every event is the same byte for byte."""

    async def check() -> None:
        async with jetstream(nats_server.url) as js:
            await reached(short, await fill(js, 1_500, line("ä" * 300), status("a"), line("short")))
            url = f"{short.ws_url}?mode=complete&since=earliest"
            reading = [asyncio.create_task(read_events(url, how, 3_000)) for how in (None, "deflate")]
            await fill(js, 1_500)
            plain, deflated = [await one for one in reading]
            assert plain == deflated
            assert [item["seq"] for item in plain] == list(range(1, 3_001))

    run(check())


@pytest.mark.parametrize("options", [("--client-rate", "0"), SHORT], ids=["memory", "stream"])
def test_since(nats_server: NatsServer, options: tuple[str, ...]) -> None:
    """``earliest``, a duration and a time each start at the right event."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js:
            await fill(js, 700)
            await asyncio.sleep(1.1)
            late = await publish(js, line("late"))
            stored = await stored_at(js, late)
            last = await fill(js, 600)
            await reached(relay, last)
            for since, first in (
                ("earliest", 1),
                ("1h", 1),
                (format_time(stored - 0.5), late),
                (format_time(stored - 3600), 1),
            ):
                async with follow(relay.ws_url, since=since, mode="complete") as feed:
                    await arrive(feed, last)
                    assert feed.seqs() == list(range(first, last + 1)), since
                    assert gaps(feed.messages) == []
            async with follow(relay.ws_url, since="0s", mode="complete") as feed:
                after = await publish(js, line("after"))
                await feed.events(1)
                assert feed.seqs() == [after]
            async with follow(relay.ws_url, since="2099-01-01T00:00:00Z") as feed:
                after = await publish(js, line("after"))
                await feed.events(1)
                assert feed.seqs() == [after]

    with Relay(nats_server.url, *options) as relay:
        run(check(relay))


async def stored_at(js: JetStreamContext, seq: int) -> float:
    """Return when the stream stored an event, UNIX seconds."""
    reply = await js._nc.request("$JS.API.STREAM.MSG.GET.EVENTS", orjson.dumps({"seq": seq}))
    return parse_time(orjson.loads(reply.data)["message"]["time"]).timestamp()


def test_a_slow_reader_in_complete_loses_nothing(nats_server: NatsServer, short: Relay) -> None:
    """A client that repeatedly falls out of memory receives everything from the stream."""

    async def check() -> None:
        big = [line(f"{'x' * 2_000} {n}") for n in range(10)]
        async with (
            jetstream(nats_server.url) as js,
            connect(
                f"{short.ws_url}?mode=complete",
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                max_queue=1,
                proxy=None,
                ping_interval=None,
            ) as socket,
        ):
            client = FeedClient(socket)
            await client.one(Snapshot)
            last = await fill(js, MANY, *big)
            await reached(short, last)
            while client.seqs()[-1:] != [last]:
                await client.read()
                await asyncio.sleep(0.002)
            assert client.seqs() == list(range(1, last + 1))
            assert only(client.messages, Gap) == []

    run(check())
