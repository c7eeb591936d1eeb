"""The publisher with a real server that is killed, unreachable, or rejects events."""

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
    """Run a server that is killed; collect the socket nats-py leaks in an interrupted reconnection."""
    yield nats_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def line(text: str, source: str = "test") -> SystemLog:
    return SystemLog(level="INFO", message=text, source=source)


@contextlib.asynccontextmanager
async def provisioned(url: str, prefix: str = "") -> AsyncIterator[Client]:
    """Connect to a server and create the contract's streams."""
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield client
    finally:
        await connection.close(client)


async def with_client(url: str, work: Any) -> Any:
    """Run a coroutine function with a client, and return its result."""
    client = await connection.connect(url, name="test")
    try:
        return await work(client)
    finally:
        await connection.close(client)


async def stored(client: Client, subject: str, stream: str = "EVENTS") -> list[dict[str, Any]]:
    """Return the events of a subject from the stream, in order."""
    events: list[dict[str, Any]] = []
    inbox = client.new_inbox()
    replies = await client.subscribe(inbox)
    sequence, before = 1, -1
    while len(events) > before:
        before = len(events)
        request = orjson.dumps({"seq": sequence, "next_by_subj": subject, "batch": 500})
        await client.publish(f"$JS.API.DIRECT.GET.{stream}", request, reply=inbox)
        while (reply := await replies.next_msg(PATIENCE)).data:
            assert reply.headers is not None
            sequence = int(reply.headers["Nats-Sequence"]) + 1
            events.append(orjson.loads(reply.data))
    await replies.unsubscribe()
    return events


def test_an_event_is_acknowledged_with_its_sequence(nats_url: str, nats_prefix: str) -> None:
    """An acknowledgement names stream and sequence; the same message ID again is a duplicate."""

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
    """Although the server is killed twice, every publish returns and each event is stored exactly once."""

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
    """Events are stored in the order in which they were submitted, and ``flush`` waits for all of them."""

    async def main() -> None:
        async with (
            provisioned(nats_url, nats_prefix) as client,
            Publisher(nats_url, prefix=nats_prefix, max_pending=64) as publisher,
        ):
            futures = [
                await publisher.submit("log.info.test", line(f"{number} {'x' * 2000}").encode())
                for number in range(1500)
            ]
            await publisher.flush()
            assert publisher.pending == 0
            sequences = [future.result().seq for future in futures]
            assert sequences == list(range(1, 1501))
            assert client.is_connected

    asyncio.run(main())


def test_an_event_waits_for_nats(nats_server: NatsServer) -> None:
    """An event published while NATS is unreachable arrives when it is reachable."""

    async def main() -> None:
        async with provisioned(nats_server.url) as client:
            nats_server.stop()
            failures: list[ConnectFailure] = []
            async with Publisher(nats_server.url, on_down=failures.append) as publisher:
                publishing = asyncio.create_task(publisher.publish(line("early")))
                async with asyncio.timeout(PATIENCE):
                    while not failures:
                        await asyncio.sleep(0.01)
                    assert not publishing.done()
                    await asyncio.to_thread(nats_server.start)
                    ack = await publishing
            assert ack.seq == 1
            assert [failure.kind for failure in failures] == [ConnectFailureKind.UNREACHABLE]
            async with asyncio.timeout(PATIENCE):
                while not client.is_connected:
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def test_the_deadline_raises_an_error(nats_server: NatsServer) -> None:
    """A publisher that never reached NATS raises an error with the URL but without its password."""
    nats_server.stop()

    async def main() -> None:
        url = nats_server.url.replace("//", "//user:secret@")
        async with Publisher(url, deadline=0.3) as publisher:
            with pytest.raises(PublishError, match="unreachable: ") as caught:
                await publisher.publish(line("lost"))
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_missing_streams_are_reported(nats_url: str, nats_prefix: str) -> None:
    """Without streams the error at the deadline says how to create them."""

    async def main() -> None:
        async with Publisher(nats_url, prefix=nats_prefix, deadline=3.0) as publisher:
            await publisher.connected()
            with pytest.raises(PublishError, match=r"no stream captures this subject.*streams apply"):
                await publisher.publish(line("lost"))

    asyncio.run(main())


def test_a_rejection_has_its_error_code(nats_url: str, nats_prefix: str) -> None:
    """Of two events that expect the same last sequence, one is rejected with error code 10071."""

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
    """An event that the relay would reject is rejected by the publisher and not sent."""

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


def test_close_waits_and_then_rejects(nats_url: str, nats_prefix: str) -> None:
    """``close`` waits until submitted events are acknowledged; afterwards ``publish`` raises an error."""

    async def main() -> None:
        async with provisioned(nats_url, nats_prefix):
            async with Publisher(nats_url, prefix=nats_prefix) as publisher:
                futures = [await publisher.submit("log.info.test", line("x").encode()) for _ in range(50)]
            assert sorted(future.result().seq for future in futures) == list(range(1, 51))
            with pytest.raises(PublishError, match="closed"):
                await publisher.publish(line("late"))

    asyncio.run(main())


def test_a_cancelled_publish_releases_its_capacity(nats_server: NatsServer) -> None:
    """A publish cancelled during an outage releases its capacity."""

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


def test_the_oldest_events_are_dropped_and_reported(
    nats_server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With ``drop_oldest`` the newest events survive an outage; the others are counted and reported."""

    async def main() -> None:
        async with (
            provisioned(nats_server.url) as client,
            Publisher(nats_server.url, name="orders", max_pending=10, when_full="drop_oldest") as publisher,
        ):
            await publisher.publish(line("before"))
            await asyncio.to_thread(nats_server.stop)
            while publisher.online:
                await asyncio.sleep(0.01)
            futures = [
                await publisher.submit("log.info.test", line(f"{number}").encode()) for number in range(50)
            ]
            assert (publisher.pending, publisher.dropped) == (10, 40)
            for future in futures[:40]:
                assert isinstance(future.exception(), PublishDropped)
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
    (first, *_) = [record for record in caplog.records if record.name == "tickertape"]
    assert first.getMessage() == "orders: 1 event was dropped while NATS was unreachable"


def test_a_pending_drop_report_is_sent_at_the_close(nats_server: NatsServer) -> None:
    """A publisher closed right after an outage reports the dropped events before it closes."""

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


def test_a_full_publisher_raises_immediately(nats_server: NatsServer) -> None:
    """With ``raise`` a full publisher raises immediately and does not send the event."""

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


def test_a_caller_waiting_for_capacity_gets_an_error_at_the_close(nats_server: NatsServer) -> None:
    """A caller that waits for capacity gets an error when the publisher closes."""
    nats_server.stop()

    async def main() -> None:
        async with Publisher(nats_server.url, max_pending=1) as publisher:
            future = await publisher.submit("log.info.test", line("0").encode())
            waiting = asyncio.create_task(publisher.publish(line("1")))
            await asyncio.sleep(0.05)
            closing = [asyncio.create_task(publisher.close(0.2)) for _ in range(2)]
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(PublishError, match="closed"):
                    await waiting
                await asyncio.wait(closing, return_when=asyncio.FIRST_COMPLETED)
            assert future.done()
            assert isinstance(future.exception(), PublishError)

    asyncio.run(main())


def test_an_unknown_policy_is_rejected() -> None:
    """The constructor rejects an unknown policy."""
    with pytest.raises(ValueError, match="block, drop_oldest, raise"):
        Publisher(when_full="drop")  # type: ignore[arg-type]


def test_too_many_requests_slow_the_whole_connection(nats_url: str, nats_prefix: str) -> None:
    """While JetStream answers 429, all events wait and are sent in bursts with increasing delays."""

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        loop = asyncio.get_running_loop()
        arrivals: list[float] = []
        busy = True

        async def reply(message: Msg) -> None:
            arrivals.append(loop.time())
            error = {"code": 429, "err_code": 10167, "description": "too many requests"}
            await message.respond(
                orjson.dumps({"error": error} if busy else {"stream": "S", "seq": len(arrivals)})
            )

        await client.subscribe(f"{nats_prefix}.log.>", cb=reply)
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
        # A burst has at most 20 events, so the third one comes after delays of 0.25 and 0.5 s.
        assert third - began > 0.7

    asyncio.run(main())


def test_the_trace_context_is_sent(nats_url: str, nats_prefix: str) -> None:
    """An event's own ``traceparent`` has precedence over the constructor's, and an invalid one is omitted."""
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
    """``tickertape publish log.info.demo '{"message":"hi"}'`` prints the subject and sequence."""

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


def test_the_command_continues_after_an_invalid_line(
    nats_url: str, nats_prefix: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invalid line is reported with its number, all other lines are published, and the exit code is 1."""
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
    output = capsys.readouterr()
    assert code == 1
    assert output.out == "log.info.demo seq 1\nlog.info.demo seq 2\n"
    assert output.err.startswith("line 2: bad_json:")
    assert output.err.count("\n") == 1


def test_the_command_rejects_a_wildcard(capsys: pytest.CaptureFixture[str]) -> None:
    """A subject with a wildcard is a usage error: one line and exit code 2, without connecting to NATS."""
    assert asyncio.run(run(PublishSettings(subject="log.*.a", text="{}"))) == 2
    assert "has a single subject" in capsys.readouterr().err
