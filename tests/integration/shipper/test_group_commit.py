"""Batches of several file streams that share an atomic batch: each is stored once, and fails by itself."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout
from tickertape.producers.shipper.sinks.atomic import AtomicSink
from tickertape.producers.shipper.sinks.group_commit import Entry, Outcome
from tickertape.producers.shipper.sinks.sink import (
    Checkpoint,
    Conflict,
    OutgoingEvent,
)

from tests.support.clients.feed_client import run
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection, direct_get, streams

FILES = 40
LINES = 3


class Sink(AtomicSink):
    """Sink that records its groups.

    Attributes:
        groups: number of entries of each group, in the order in which they were sent.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        super().__init__(client, Names(prefix), "host", print)
        self.groups: list[int] = []

    async def _attempt(self, group: list[Entry]) -> Outcome:
        self.groups.append(len(group))
        return await super()._attempt(group)


def lines(file: int, count: int = LINES, size: int = 1) -> list[OutgoingEvent]:
    """Return the events of a file."""
    return [
        OutgoingEvent("log.info.a", orjson.dumps([file, number, "x" * size]), "") for number in range(count)
    ]


async def stored(client: Client, prefix: str) -> list[list[Any]]:
    """Return file and number of each stored line, in order."""
    stream, found, sequence = Names(prefix).stream("EVENTS"), [], 0
    pattern = Names(prefix).subject("log.>")
    while message := await direct_get.get_message(client, stream, seq=sequence + 1, next_by_subj=pattern):
        sequence = message.seq
        found.append(orjson.loads(message.data)[:2])
    return found


def commit(sink: AtomicSink, file: int, expected: int, count: int = 1, size: int = 1) -> "asyncio.Task[int]":
    """Start to commit the lines of a file."""
    checkpoint = Checkpoint(f"/logs/{file}", count=count, run="run")
    return asyncio.create_task(sink.commit(lines(file, size=size), checkpoint, expected))


async def sinks(url: str, prefix: str) -> tuple[Client, Sink, Sink]:
    """Connect two shippers to the streams of a prefix."""
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    return client, Sink(client, prefix), Sink(client, prefix)


def test_batches_that_are_ready_together_share_a_commit(nats_url: str, nats_prefix: str) -> None:
    """Many small batches need one atomic batch, and each learns the sequence of its own checkpoint."""

    async def work() -> None:
        client, sink, other = await sinks(nats_url, nats_prefix)
        sequences = await asyncio.gather(*(commit(sink, file, 0) for file in range(FILES)))
        assert sink.groups == [FILES]
        loaded = await other.load()
        assert {path: checkpoint.sequence for path, checkpoint in loaded.items()} == {
            f"/logs/{file}": sequence for file, sequence in enumerate(sequences)
        }
        # These are the conditions of the next commits.
        await asyncio.gather(*(commit(sink, file, sequences[file], 2) for file in range(FILES)))
        assert sink.groups == [FILES, FILES]
        expected = [[file, number] for file in range(FILES) for number in range(LINES)]
        assert await stored(client, nats_prefix) == expected * 2
        await connection.close(client)

    run(work())


def test_batches_beyond_the_limits_are_split(nats_url: str, nats_prefix: str) -> None:
    """No atomic batch has more than a thousand messages, or more than a mebibyte of several batches."""

    async def work() -> None:
        client, sink, _ = await sinks(nats_url, nats_prefix)
        await asyncio.gather(*(commit(sink, file, 0, count=1, size=1) for file in range(3)))
        await asyncio.gather(
            *(
                asyncio.create_task(sink.commit(lines(file, 300), Checkpoint(f"/many/{file}", count=1), 0))
                for file in range(10)
            ),
            *(
                asyncio.create_task(
                    sink.commit(lines(file, 2, 200_000), Checkpoint(f"/large/{file}", count=1), 0)
                )
                for file in range(6)
            ),
        )
        assert len(await stored(client, nats_prefix)) == 3 * LINES + 10 * 300 + 6 * 2
        assert max(sink.groups) < 10
        await connection.close(client)

    run(work())


def test_a_conflict_concerns_one_batch_of_a_group(nats_url: str, nats_prefix: str) -> None:
    """A batch that another shipper has committed first is a conflict; the others of its group are stored."""

    async def work() -> None:
        client, sink, other = await sinks(nats_url, nats_prefix)
        await commit(other, 7, 0, 5)
        outcomes = await asyncio.gather(
            *(commit(sink, file, 0) for file in range(20)), return_exceptions=True
        )
        assert [file for file, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)] == [7]
        assert all(isinstance(outcome, int) for file, outcome in enumerate(outcomes) if file != 7)
        found = sorted(await stored(client, nats_prefix))
        assert found == sorted([file, number] for file in range(20) for number in range(LINES))
        await connection.close(client)

    run(work())


def test_an_expired_checkpoint_does_not_hold_up_a_group(nats_url: str, nats_prefix: str) -> None:
    """A batch whose previous checkpoint is gone from EVENTS finds that out, and the group is stored."""

    async def work() -> None:
        client, sink, _ = await sinks(nats_url, nats_prefix)
        await asyncio.gather(*(commit(sink, file, 1000 * (file == 3)) for file in range(10)))
        assert len(await stored(client, nats_prefix)) == 10 * LINES
        await connection.close(client)

    run(work())


def test_a_batch_that_is_not_accepted_holds_up_no_other(tmp_path: Path, nats_prefix: str) -> None:
    """Of a group with an event that the stream rejects, the other batches are stored."""

    async def work(url: str) -> None:
        client, sink, _ = await sinks(url, nats_prefix)
        name = Names(nats_prefix).stream("EVENTS")
        info = await client.jetstream().stream_info(name)
        info.config.max_msg_size = 5_000
        await client.jetstream().update_stream(info.config)
        rejected = commit(sink, 0, 0, size=6_000)
        await asyncio.gather(*(commit(sink, file, 0) for file in range(1, 5)))
        assert sink.groups[0] == 5
        assert len(await stored(client, nats_prefix)) == 4 * LINES
        rejected.cancel()
        await asyncio.gather(rejected, return_exceptions=True)
        await connection.close(client)

    with NatsServer(tmp_path / "nats") as server:
        run(work(server.url))


@pytest.mark.parametrize("processed", [True, False])
def test_a_group_whose_acknowledgement_is_lost_is_stored_once(
    nats_url: str, nats_prefix: str, processed: bool
) -> None:
    """Each batch of a group without an acknowledgement is looked up, and sent again unless it was stored."""

    class LossySink(Sink):
        async def _request(self, subject: str, body: bytes, *rest: Any) -> Msg:
            if len(self.groups) > 1:
                return await super()._request(subject, body, *rest)
            if processed:
                await super()._request(subject, body, *rest)
            raise NatsTimeout

    async def work() -> None:
        client, _, other = await sinks(nats_url, nats_prefix)
        sink = LossySink(client, nats_prefix)
        sequences = await asyncio.gather(*(commit(sink, file, 0) for file in range(10)))
        assert len(await stored(client, nats_prefix)) == 10 * LINES
        loaded = await other.load()
        assert sequences == [loaded[f"/logs/{file}"].sequence for file in range(10)]
        await connection.close(client)

    run(work())


def test_a_cancelled_batch_does_not_end_its_group(nats_url: str, nats_prefix: str) -> None:
    """The others of a group are stored when nothing waits for one of its batches any more."""

    async def work() -> None:
        client, sink, _ = await sinks(nats_url, nats_prefix)
        tasks = [commit(sink, file, 0) for file in range(5)]
        await asyncio.sleep(0)
        tasks[2].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes].count(int) == 4
        files = {file for file, _ in await stored(client, nats_prefix)}
        assert files >= {0, 1, 3, 4}
        await connection.close(client)

    run(work())
