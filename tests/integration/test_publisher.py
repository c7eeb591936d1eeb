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

from contracts import connect, streams
from contracts.events import SystemHealth, SystemLog
from contracts.streams import Names
from producers.errors import InvalidEvent, PublishError, PublishRejected
from producers.publish_command import PublishSettings, run
from producers.publisher import Publisher
from tests.nats_server import NatsServer


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
    client = await connect.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield client
    finally:
        await connect.close(client)


async def stored(client: Client, subject: str, stream: str = "EVENTS") -> list[dict[str, Any]]:
    """Events of a subject as the stream has them, in order."""
    events: list[dict[str, Any]] = []
    sequence = 1
    while True:
        request = orjson.dumps({"seq": sequence, "next_by_subj": subject})
        reply = await client.request(f"$JS.API.DIRECT.GET.{stream}", request, timeout=5)
        if reply.headers and reply.headers.get("Status") == "404":
            return events
        assert reply.headers is not None
        sequence = int(reply.headers["Nats-Sequence"]) + 1
        events.append(orjson.loads(reply.data))


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

            async with asyncio.timeout(60):
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
            said: list[str] = []
            async with Publisher(nats_server.url, on_down=said.append) as publisher:
                publishing = asyncio.create_task(publisher.publish(line("early")))
                async with asyncio.timeout(20):
                    while not said:
                        await asyncio.sleep(0.01)
                    assert not publishing.done()
                    await asyncio.to_thread(nats_server.start)
                    ack = await publishing
            assert ack.seq == 1
            async with asyncio.timeout(20):
                while not client.is_connected:
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def test_the_deadline_is_told(nats_server: NatsServer) -> None:
    """A publisher that never reached NATS says so, with the address and without its password."""
    nats_server.stop()

    async def main() -> None:
        url = nats_server.url.replace("//", "//user:secret@")
        async with Publisher(url, deadline=0.3) as publisher:
            with pytest.raises(PublishError, match="was away") as caught:
                await publisher.publish(line("lost"))
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_no_stream_is_told(nats_url: str, nats_prefix: str) -> None:
    """Without streams the deadline's error says how to make them."""

    async def main() -> None:
        async with Publisher(nats_url, prefix=nats_prefix, deadline=0.6) as publisher:
            with pytest.raises(PublishError, match=r"no stream takes this subject.*streams apply"):
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
            async with asyncio.timeout(20):
                await publisher.publish(line("two"))

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
    assert "goes to one subject" in capsys.readouterr().err
