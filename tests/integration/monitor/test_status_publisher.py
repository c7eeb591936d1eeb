"""Status changes on a real stream: simultaneous ones, and those after the stream was created again."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.coordination.stream_follower import Position, end_of, follow
from tickertape.producers.sdk.publisher import Publisher

from tests.support.patience import PATIENCE
from tickertape.names import Names
from tickertape.nats import connection, streams

ROUNDS = 100
SUBJECT = "gateway.status.ctp.main"


def change(monitor: str, number: int) -> GatewayStatusChange:
    states = (Status.HEALTHY, Status.UNHEALTHY)
    return GatewayStatusChange(
        gateway_id="main",
        gateway_type="ctp",
        previous_status=states[number % 2],
        current_status=states[(number + 1) % 2],
        metadata={"monitor": monitor},
    )


def test_of_two_simultaneous_changes_one_is_published(nats_url: str, nats_prefix: str) -> None:
    """Of two simultaneous changes exactly one is published, and the other monitor adopts it."""
    names = Names(nats_prefix)
    adopted: dict[str, list[str]] = {"a": [], "b": []}

    def adopter(monitor: str) -> Callable[[str, int, bytes], bool]:
        def adopt(subject: str, sequence: int, body: bytes) -> bool:
            author = orjson.loads(body)["metadata"]["monitor"]
            adopted[monitor].append(author)
            return bool(author != monitor)

        return adopt

    async def main() -> list[str]:
        client = await connection.connect(nats_url, name="test")
        await streams.provision(client, names)
        async with (
            Publisher(nats_url, prefix=nats_prefix, name="a") as first,
            Publisher(nats_url, prefix=nats_prefix, name="b") as second,
        ):
            a = StatusPublisher(first, names, adopter("a"), print)
            b = StatusPublisher(second, names, adopter("b"), print)
            for number in range(ROUNDS):
                a.enqueue(change("a", number))
                b.enqueue(change("b", number))
                async with asyncio.timeout(PATIENCE):
                    while a.pending or b.pending:
                        await asyncio.gather(a.publish_pending(), b.publish_pending())
                assert a.last_sequence(SUBJECT) == b.last_sequence(SUBJECT), "both know the last sequence"
            assert a.published + b.published == ROUNDS
        js = client.jetstream()
        stream, subject = names.stream("EVENTS"), names.subject(SUBJECT)
        info = await js.stream_info(stream, subjects_filter=subject)
        assert info.state.subjects == {subject: ROUNDS}
        statuses = [
            orjson.loads((await js.get_msg(stream, seq=sequence)).data or b"")["current_status"]
            for sequence in range(info.state.first_seq, info.state.last_seq + 1)
        ]
        await connection.close(client)
        return statuses

    assert asyncio.run(main()) == ["UNHEALTHY", "HEALTHY"] * (ROUNDS // 2)
    assert len(adopted["a"]) + len(adopted["b"]) == ROUNDS
    assert set(adopted["a"]) <= {"b"}
    assert set(adopted["b"]) <= {"a"}


def test_a_newer_sequence_overrules_a_pending_change(nats_url: str, nats_prefix: str) -> None:
    """A newer sequence received during publishing overrules the pending change, which is then outdated."""
    names = Names(nats_prefix)

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        await streams.provision(client, names)
        async with Publisher(nats_url, prefix=nats_prefix, name="a") as publisher:
            a, b = (StatusPublisher(publisher, names, lambda *_: True, print) for _ in range(2))
            b.enqueue(change("b", 0))
            assert await b.publish_pending()
            a.enqueue(change("a", 0))
            publishing = asyncio.create_task(a.publish_pending())
            # Runs after the first step of that task, as a consumer's callback may.
            asyncio.get_running_loop().call_soon(a.record_sequence, SUBJECT, b.last_sequence(SUBJECT))
            assert await publishing
            assert (a.published, a.pending) == (0, 0)
        await connection.close(client)

    asyncio.run(main())


def test_a_sequence_of_before_the_stream_was_created_again_is_corrected(
    nats_url: str, nats_prefix: str
) -> None:
    """A conflict states the true sequence, also if it is lower than the known one."""
    names = Names(nats_prefix)

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        await streams.provision(client, names)
        async with Publisher(nats_url, prefix=nats_prefix, name="a") as publisher:
            stored, known = (StatusPublisher(publisher, names, lambda *_: False, print) for _ in range(2))
            stored.enqueue(change("b", 0))
            assert await stored.publish_pending()
            known.record_sequence(SUBJECT, stored.last_sequence(SUBJECT) + 5_000)
            known.enqueue(change("a", 1))
            async with asyncio.timeout(PATIENCE):
                while known.pending:
                    await known.publish_pending()
            assert known.last_sequence(SUBJECT) == stored.last_sequence(SUBJECT) + 1
        await connection.close(client)

    asyncio.run(main())


@pytest.mark.parametrize("again", [(b"4", b"5"), (b"4", b"5", b"6", b"7")])
def test_a_stream_that_was_created_again_is_followed_from_its_start(
    nats_url: str, nats_prefix: str, again: tuple[bytes, ...]
) -> None:
    """Messages that it has received before the follower comes back are not skipped, however many they are."""
    name = Names(nats_prefix).stream("FOLLOWED")
    subject = f"{nats_prefix}.followed"

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        js = client.jetstream()
        received: list[bytes] = []

        async def until(*expected: bytes) -> None:
            async with asyncio.timeout(PATIENCE):
                while received != [*expected]:
                    await asyncio.sleep(0.01)

        async def follower(start: Position) -> None:
            await follow(
                client, name, (subject,), start, lambda one: received.append(one.data), print,
                lambda: received.append(b"recreated"),
            )  # fmt: skip

        start = Position()
        for bodies in ((b"1", b"2", b"3"), again):
            received.clear()
            await js.add_stream(name=name, subjects=[subject])
            for body in bodies:
                await js.publish(subject, body)
            following = asyncio.create_task(follower(start))
            await until(*(() if start == Position() else (b"recreated",)), *bodies)
            start = await end_of(client, name)
            following.cancel()
            await asyncio.wait([following])
            await js.delete_stream(name)
        await connection.close(client)

    asyncio.run(main())


def test_an_event_that_was_discarded_too_late_is_adopted(nats_url: str, nats_prefix: str) -> None:
    """A change that is stored although it was discarded meanwhile is like one of another producer."""
    names = Names(nats_prefix)
    adopted: list[tuple[str, int, bytes]] = []

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        await streams.provision(client, names)
        async with Publisher(nats_url, prefix=nats_prefix, name="a") as publisher:

            def adopt(*stored: Any) -> bool:
                adopted.append(stored)
                return True

            a = StatusPublisher(publisher, names, adopt, print)
            event = change("a", 0)
            stored = a.enqueue(event)
            publishing = asyncio.create_task(a.publish_pending())
            # Runs after the first step of that task.
            asyncio.get_running_loop().call_soon(a.discard, SUBJECT)
            assert await publishing
            assert adopted == [(SUBJECT, a.last_sequence(SUBJECT), event.encode())]
            assert not await stored
            stored = a.enqueue(change("a", 1))
            assert await a.publish_pending()
            assert await stored
            assert len(adopted) == 1
        await connection.close(client)

    asyncio.run(main())


@pytest.mark.parametrize("adopts", [True, False])
def test_an_own_event_follows_an_invalid_one(nats_url: str, nats_prefix: str, *, adopts: bool) -> None:
    """A change that conflicts is discarded for a valid event, and is stored after an invalid one."""
    names = Names(nats_prefix)

    async def main() -> None:
        client = await connection.connect(nats_url, name="test")
        await streams.provision(client, names)
        async with Publisher(nats_url, prefix=nats_prefix, name="a") as publisher:
            a = StatusPublisher(publisher, names, lambda *_: adopts, print)
            await client.jetstream().publish(names.subject(SUBJECT), b"{}")
            stored = a.enqueue(change("a", 0))
            async with asyncio.timeout(PATIENCE):
                while a.pending:
                    await a.publish_pending()
            assert await stored is not adopts
        await connection.close(client)

    asyncio.run(main())
