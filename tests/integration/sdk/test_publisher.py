"""The publisher against a real server that is killed, away, or unwilling."""

import asyncio
import contextlib
import gc
import os
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from tickertape.contracts.events import SystemHealth, SystemLog
from tickertape.producers.sdk.errors import (
    InvalidEvent,
    PublishDropped,
    PublisherFull,
    PublishError,
    PublishRejected,
)
from tickertape.producers.sdk.publisher import Publisher

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.publish import PublishSettings, run
from tickertape.names import Names
from tickertape.nats import connection, streams
from tickertape.nats.connect_errors import ConnectFailure, ConnectFailureKind


@pytest.fixture
def nats_server(nats_server: NatsServer) -> Iterator[NatsServer]:
    """A server to be killed: nats-py leaves a socket unclosed when a reconnection breaks off half-way."""
    yield nats_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def line(text: str, source: str = "test") -> SystemLog:
    return SystemLog(level="INFO", message=text, source=source)


@contextlib.asynccontextmanager
async def provisioned(url: str, prefix: str = "") -> AsyncIterator[Client]:
    """A connection of the test's own to a server with the contract's streams."""
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield client
    finally:
        await connection.close(client)


async def stored(client: Client, subject: str, stream: str = "EVENTS") -> list[dict[str, Any]]:
    """Events of a subject as the stream has them, in order."""
    events: list[dict[str, Any]] = []
    inbox = client.new_inbox()
    answers = await client.subscribe(inbox)
    sequence, before = 1, -1
    while len(events) > before:
        before = len(events)
        wish = orjson.dumps({"seq": sequence, "next_by_subj": subject, "batch": 500})
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", wish, reply=inbox)
        while (answer := await answers.next_msg(PATIENCE)).data:
            assert answer.headers is not None
            sequence = int(answer.headers["Nats-Sequence"]) + 1
            events.append(orjson.loads(answer.data))
    await answers.unsubscribe()
    return events


def test_an_event_is_acknowledged_with_its_place(nats_url: str, nats_prefix: str) -> None:
    """The acknowledgement names stream and sequence; the same id again is a duplicate."""

    async def main() -> None:
        async with (
            provisioned(nats_url, nats_prefix) as client,
            Publisher(nats_url, prefix=nats_prefix) as publisher,
        ):
            first = await publisher.publish(line("one"), msg_id="same")
            again = await publisher.publish(line("one"), msg_id="same")
            assert first == (Names(nats_prefix).stream("EVENTS"), 1, False)
            assert (again.seq, again.duplicate) == (1, True)
            own = b'{"event_type":"mine","timestamp":"2025-06-24T10:30:45Z","a":1}'
            assert (await publisher.publish_raw("log.mine", own)).seq == 2
            stream = Names(nats_prefix).stream("EVENTS")
            (event,) = await stored(client, f"{nats_prefix}.log.info.test", stream)
            assert event["message"] == "one"

    asyncio.run(main())


def test_events_in_flight_survive_a_killed_server(nats_server: NatsServer) -> None:
    """Every publish returns, and what was acknowledged is in the stream once, in spite of a kill."""

    async def main() -> None:
        async with (
            provisioned(nats_server.url) as client,
            Publisher(nats_server.url, ack_timeout=1.0, max_pending=200) as publisher,
        ):
            acknowledged: list[str] = []

            async def publish(worker: int) -> None:
                for number in range(60):
                    text = f"{worker}-{number}"
                    await publisher.publish(line(text))
                    acknowledged.append(text)

            async def kill_twice() -> None:
                for share in (0.2, 0.6):
                    while len(acknowledged) < 3000 * share:
                        await asyncio.sleep(0.005)
                    await asyncio.to_thread(nats_server.kill)
                    await asyncio.to_thread(nats_server.start)

            async with asyncio.timeout(PATIENCE):
                await asyncio.gather(kill_twice(), *(publish(worker) for worker in range(50)))
                while not client.is_connected:
                    await asyncio.sleep(0.02)
            events = await stored(client, "log.info.test")
            assert sorted(event["message"] for event in events) == sorted(acknowledged)
            assert len(acknowledged) == 3000
            assert publisher.pending == 0

    asyncio.run(main())


def test_one_publisher_keeps_the_order_of_submitted_events(nats_url: str, nats_prefix: str) -> None:
    """Events are in the stream in the order in which they were submitted, and flush waits for all of them."""

    async def main() -> None:
        async with (
            provisioned(nats_url, nats_prefix) as client,
            Publisher(nats_url, prefix=nats_prefix, max_pending=64) as publisher,
        ):
            tickets = [
                await publisher.submit("log.info.test", line(f"{number} {'x' * 2000}").encode())
                for number in range(1500)
            ]
            await publisher.flush()
            assert publisher.pending == 0
            sequences = [ticket.result().seq for ticket in tickets]
            assert sequences == list(range(1, 1501))
            assert client.is_connected

    asyncio.run(main())


def test_nats_away_is_waited_for(nats_server: NatsServer) -> None:
    """An event published before NATS is there arrives when it is."""

    async def main() -> None:
        async with provisioned(nats_server.url) as client:
            nats_server.stop()
            said: list[ConnectFailure] = []
            async with Publisher(nats_server.url, on_down=said.append) as publisher:
                publishing = asyncio.create_task(publisher.publish(line("early")))
                async with asyncio.timeout(PATIENCE):
                    while not said:
                        await asyncio.sleep(0.01)
                    assert not publishing.done()
                    await asyncio.to_thread(nats_server.start)
                    ack = await publishing
            assert ack.seq == 1
            assert [failure.kind for failure in said] == [ConnectFailureKind.UNREACHABLE]
            async with asyncio.timeout(PATIENCE):
                while not client.is_connected:
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def test_the_deadline_is_told(nats_server: NatsServer) -> None:
    """A publisher that never reached NATS says so, with the address and without its password."""
    nats_server.stop()

    async def main() -> None:
        url = nats_server.url.replace("//", "//user:secret@")
        async with Publisher(url, deadline=0.3) as publisher:
            with pytest.raises(PublishError, match="unreachable: ") as caught:
                await publisher.publish(line("lost"))
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_no_stream_is_told(nats_url: str, nats_prefix: str) -> None:
    """Without streams the deadline's error says how to make them."""

    async def main() -> None:
        async with Publisher(nats_url, prefix=nats_prefix, deadline=3.0) as publisher:
            await publisher.connected()
            with pytest.raises(PublishError, match=r"no stream captures this subject.*streams apply"):
                await publisher.publish(line("lost"))

    asyncio.run(main())


def test_a_refusal_is_told_with_its_code(nats_url: str, nats_prefix: str) -> None:
    """Of two events that expect the same last sequence one is refused with 10071."""

    async def main() -> None:
        async with (
            provisioned(nats_url, nats_prefix),
            Publisher(nats_url, prefix=nats_prefix) as publisher,
        ):
            event = SystemHealth(component="a", status="HEALTHY")  # type: ignore[arg-type]
            expected = {"Nats-Expected-Last-Subject-Sequence": "0"}
            await publisher.publish(event, headers=expected)
            with pytest.raises(PublishRejected) as caught:
                await publisher.publish(event, headers=expected)
            assert caught.value.code == 10071

    asyncio.run(main())


def test_an_invalid_event_is_not_sent(nats_url: str, nats_prefix: str) -> None:
    """What the relay would reject is refused where it is made."""

    async def main() -> None:
        async with (
            provisioned(nats_url, nats_prefix) as client,
            Publisher(nats_url, prefix=nats_prefix) as publisher,
        ):
            with pytest.raises(InvalidEvent, match="subject_mismatch"):
                await publisher.publish_raw("log.error.test", line("x").encode())
            names = Names(nats_prefix)
            assert await stored(client, names.subject(">"), names.stream("EVENTS")) == []

    asyncio.run(main())


def test_closing_waits_and_then_refuses(nats_url: str, nats_prefix: str) -> None:
    """What was submitted before the close is acknowledged; afterwards nothing is taken."""

    async def main() -> None:
        async with provisioned(nats_url, nats_prefix):
            async with Publisher(nats_url, prefix=nats_prefix) as publisher:
                tickets = [await publisher.submit("log.info.test", line("x").encode()) for _ in range(50)]
            assert sorted(ticket.result().seq for ticket in tickets) == list(range(1, 51))
            with pytest.raises(PublishError, match="closed"):
                await publisher.publish(line("late"))

    asyncio.run(main())


def test_a_cancelled_publish_gives_its_place_back(nats_server: NatsServer) -> None:
    """Callers that give up while NATS is away leave room for others."""

    async def main() -> None:
        async with (
            provisioned(nats_server.url),
            Publisher(nats_server.url, max_pending=2) as publisher,
        ):
            await publisher.publish(line("one"))
            nats_server.stop()
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await publisher.publish(line("given up"))
            assert publisher.pending == 0
            nats_server.start()
            async with asyncio.timeout(PATIENCE):
                await publisher.publish(line("two"))

    asyncio.run(main())


def test_the_oldest_makes_room_and_the_stream_is_told(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With drop_oldest the newest events survive an outage; the rest is counted, logged and told."""

    async def main() -> None:
        async with (
            provisioned(nats_server.url) as client,
            Publisher(nats_server.url, name="orders", max_pending=10, when_full="drop_oldest") as publisher,
        ):
            await publisher.publish(line("before"))
            await asyncio.to_thread(nats_server.stop)
            while publisher.online:
                await asyncio.sleep(0.01)
            tickets = [
                await publisher.submit("log.info.test", line(f"{number}").encode()) for number in range(50)
            ]
            assert (publisher.pending, publisher.dropped) == (10, 40)
            for ticket in tickets[:40]:
                assert isinstance(ticket.exception(), PublishDropped)
            await asyncio.to_thread(nats_server.start)
            async with asyncio.timeout(PATIENCE):
                await publisher.flush()
                while not (reports := await stored(client, "log.warn.orders")):
                    await asyncio.sleep(0.05)
                messages = [event["message"] for event in await stored(client, "log.info.test")]
            assert messages == ["before", *map(str, range(40, 50))]
            assert [report["metadata"] for report in reports] == [{"dropped": 40}]
            assert reports[0]["message"] == "40 events were dropped while NATS was unreachable"
            assert publisher.dropped == 40

    asyncio.run(main())
    (told, *_) = [record for record in caplog.records if record.name == "tickertape"]
    assert told.getMessage() == "orders: 1 event was dropped while NATS was unreachable"


def test_a_report_that_was_not_due_is_sent_at_the_close(nats_server: NatsServer) -> None:
    """A publisher that closes right after an outage tells of it before it goes."""

    async def main() -> None:
        async with provisioned(nats_server.url) as client:
            await asyncio.to_thread(nats_server.stop)
            async with Publisher(
                nats_server.url, name="orders", max_pending=1, when_full="drop_oldest"
            ) as publisher:
                for number in range(3):
                    await publisher.submit("log.info.test", line(f"{number}").encode())
                await asyncio.to_thread(nats_server.start)
                await publisher.connected()
            async with asyncio.timeout(PATIENCE):
                while not client.is_connected:
                    await asyncio.sleep(0.02)
            (report,) = await stored(client, "log.warn.orders")
            assert report["metadata"] == {"dropped": 2}

    asyncio.run(main())


def test_a_full_publisher_refuses_at_once(nats_server: NatsServer) -> None:
    """With ``raise`` nothing of the refused event is sent, neither for want of places nor of bytes."""

    async def main() -> None:
        async with provisioned(nats_server.url) as client:
            await asyncio.to_thread(nats_server.stop)
            size = len(line("0").encode())
            async with Publisher(nats_server.url, max_pending_bytes=2 * size, when_full="raise") as publisher:
                for number in range(2):
                    await publisher.submit("log.info.test", line(f"{number}").encode())
                with pytest.raises(PublisherFull, match=rf"2 events of {2 * size} bytes"):
                    await publisher.publish(line("2"))
                assert (publisher.pending, publisher.dropped) == (2, 0)
                await asyncio.to_thread(nats_server.start)
                async with asyncio.timeout(PATIENCE):
                    await publisher.flush()
                    await publisher.publish(line("3"))
                    while not client.is_connected:
                        await asyncio.sleep(0.02)
            messages = [event["message"] for event in await stored(client, "log.info.test")]
            assert messages == ["0", "1", "3"]

    asyncio.run(main())


def test_a_caller_who_waits_for_room_hears_of_the_close(nats_server: NatsServer) -> None:
    """Nobody waits for ever: who was not let in is told that the publisher is closed."""
    nats_server.stop()

    async def main() -> None:
        async with Publisher(nats_server.url, max_pending=1) as publisher:
            ticket = await publisher.submit("log.info.test", line("0").encode())
            waiting = asyncio.create_task(publisher.publish(line("1")))
            await asyncio.sleep(0.05)
            closing = [asyncio.create_task(publisher.close(0.2)) for _ in range(2)]
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(PublishError, match="closed"):
                    await waiting
                await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
            assert ticket.done()
            assert isinstance(ticket.exception(), PublishError)

    asyncio.run(main())


def test_a_policy_has_a_name() -> None:
    """A misspelt policy is refused when the publisher is made."""
    with pytest.raises(ValueError, match="block, drop_oldest, raise"):
        Publisher(when_full="drop")  # type: ignore[arg-type]


def test_too_many_requests_slow_the_whole_link(nats_url: str, nats_prefix: str) -> None:
    """While JetStream answers 429 the link sends in bursts with growing waits, new events included."""

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        loop = asyncio.get_running_loop()
        arrivals: list[float] = []
        busy = True

        async def answer(message: Msg) -> None:
            arrivals.append(loop.time())
            error = {"code": 429, "err_code": 10167, "description": "too many requests"}
            await message.respond(
                orjson.dumps({"error": error} if busy else {"stream": "S", "seq": len(arrivals)})
            )

        await client.subscribe(f"{nats_prefix}.log.>", cb=answer)
        try:
            async with Publisher(nats_url, prefix=nats_prefix, max_pending=20) as publisher:
                await publisher.connected()
                began = loop.time()

                async def publish() -> None:
                    while busy:
                        await publisher.publish(line("x"))

                callers = [asyncio.create_task(publish()) for _ in range(40)]
                async with asyncio.timeout(PATIENCE):
                    while len(arrivals) <= 2 * 20:
                        await asyncio.sleep(0.01)
                third = loop.time()
                busy = False
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*callers)
        finally:
            await connection.close(client)
        # A burst is of 20 at most, so that the third came after waits of 0.25 and 0.5 s.
        assert third - began > 0.7

    asyncio.run(main())


def test_the_trace_context_travels(nats_url: str, nats_prefix: str) -> None:
    """An event's own traceparent goes before the constructor's, and a wrong one is left out."""
    own = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    other = own.replace("0af7", "1af7")

    async def main() -> None:
        async with provisioned(nats_url, nats_prefix) as client:
            stream = Names(nats_prefix).stream("EVENTS")
            async with Publisher(nats_url, prefix=nats_prefix, traceparent=lambda: own) as publisher:
                await publisher.publish(line("1"))
                await publisher.publish(line("2"), headers={"traceparent": other})
                await publisher.publish(line("3"), headers={"traceparent": "nonsense"})
            found = []
            for sequence in (1, 2, 3):
                message = await client.jetstream().get_msg(stream, sequence)
                found.append((message.headers or {}).get("traceparent"))
            assert found == [own, other, None]

    asyncio.run(main())


def test_the_command_publishes_one_event(
    nats_url: str, nats_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``tickertape publish log.info.demo '{"message":"hi"}'`` prints where the event is."""

    async def main() -> int:
        async with provisioned(nats_url, nats_prefix):
            return await run(
                PublishSettings(
                    nats_url=nats_url,
                    subject_prefix=nats_prefix,
                    subject="log.info.demo",
                    text='{"message":"hi"}',
                )
            )

    assert asyncio.run(main()) == 0
    assert capsys.readouterr().out == "log.info.demo seq 1\n"


def test_the_command_goes_on_after_a_bad_line(
    nats_url: str, nats_prefix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad line is named with its number, its neighbours are published, and the exit code is 1."""
    reading, writing = os.pipe()
    os.write(writing, b'{"message":"one"}\nnonsense\n{"message":"two"}')
    os.close(writing)

    async def main() -> int:
        async with provisioned(nats_url, nats_prefix):
            return await run(
                PublishSettings(nats_url=nats_url, subject_prefix=nats_prefix, subject="log.info.demo")
            )

    with os.fdopen(reading) as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        code = asyncio.run(main())
    told = capsys.readouterr()
    assert code == 1
    assert told.out == "log.info.demo seq 1\nlog.info.demo seq 2\n"
    assert told.err.startswith("line 2: bad_json:")
    assert told.err.count("\n") == 1


def test_the_command_refuses_a_pattern(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong use is one line and exit code 2, before NATS is asked for."""
    assert asyncio.run(run(PublishSettings(subject="log.*.a", text="{}"))) == 2
    assert "has a single subject" in capsys.readouterr().err
