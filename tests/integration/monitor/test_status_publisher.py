"""Two monitors that publish the same change simultaneously to a real stream."""

import asyncio
from collections.abc import Callable

import orjson
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
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
