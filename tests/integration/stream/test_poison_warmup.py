"""A relay starts while its connection ends over unparsable messages: at each point, once and twice.

The faults are injected into the real parser, with several relays in one event loop. Whatever ends a
connection, each state and each event arrives in memory, except for a message that ends every connection over
which it arrives alone.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, NamedTuple

import pytest
from nats.js import JetStreamContext
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import STREAM_SUBJECTS, Status
from tickertape.relay.core.grants import EVERYTHING
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.ingest import Ingest
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.ingest.replay_requests import ReplayRequests
from tickertape.relay.ingest.unparsable_messages import find_unparsable, start_after

import tickertape.nats.wire.operation_parser as client
from tests.support.clients.feed_bench import states_of
from tests.support.clients.feed_client import PATIENCE, jetstream, line, publish, run, status
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.wire.protocol_parser import Message, Operation, ProtocolParser
from tickertape.process.tasks import cancel_and_wait

POISON: Final = 2
"""Sequence of the message with the word ``unparsable``, in EVENTS and in LATEST."""

Where = Callable[[Message], bool]


class Faults:
    """Faults that end the connections of one relay.

    Args:
        where: returns whether a message is a fault.
        times: total number of faults.
        answers_late: whether the response to creating a consumer arrives after its first messages.
    """

    def __init__(self, where: Where, times: int = 1, *, answers_late: bool = False) -> None:
        self.where = where
        self.times = self.left = times
        self.answers_late = answers_late


none = Faults(lambda _: False)
present: ContextVar[Faults] = ContextVar("present", default=none)


class Faulty(ProtocolParser):
    """Parser with injected faults, which it finds in the context of its connection."""

    def __init__(self) -> None:
        super().__init__()
        self._faults = present.get()
        self._late: list[Operation] = []

    def receive_data(self, data: bytes) -> Iterator[Operation]:
        """Return the operations up to a fault."""
        faults = self._faults
        for operation in super().receive_data(data):
            if type(operation) is Message:
                if faults.left > 0 and faults.where(operation):
                    faults.left -= 1
                    raise RuntimeError("a fault of the parser's own")
                if (
                    faults.answers_late
                    and b"consumer_create_response" in operation.data
                    and overtaken(operation)
                ):
                    self._late.append(operation)
                    continue
            yield operation
            if type(operation) is Message and b"Idle Heartbeat" in (operation.headers or b""):
                yield from self._late
                self._late.clear()


def overtaken(answer: Message) -> bool:
    """Return whether a consumer delivers immediately, so that its messages can overtake the response."""
    return b'"num_pending":0' not in answer.data and b'"ack_policy":"none"' in answer.data


def answer(kind: str, stream: str) -> Where:
    """Match a JetStream response about a stream."""
    return lambda message: kind.encode() in message.data and b'"%b"' % stream.encode() in message.data


def delivered(stream: str, seq: int) -> Where:
    """Match a message of a stream as a consumer delivers it."""
    reply = re.compile(rf"\$JS\.ACK\.{stream}\.[^.]+\.\d+\.{seq}\.".encode())
    return lambda message: reply.match(message.reply) is not None


def unparsable(message: Message) -> bool:
    return b"unparsable" in message.data


def unparsable_delivered(message: Message) -> bool:
    return unparsable(message) and message.reply.startswith(b"$JS.ACK.")


POINTS: Final[dict[str, Where]] = {
    **{
        f"{what} {stream}": answer(kind, stream)
        for stream in ("EVENTS", "LATEST")
        for what, kind in {"what is in": "stream_info", "a consumer of": "consumer_create"}.items()
    },
    **{
        f"{stream} {seq}": delivered(stream, seq)
        for stream, last in {"EVENTS": 5, "LATEST": 3}.items()
        for seq in range(1, last + 1)
    },
}
"""Messages at which a startup can lose its connection. None of them is faulty itself."""

ALL: Final = EVERYTHING.intersect((">",), "DEBUG")
ALWAYS: Final = 1_000_000
CASES: Final[dict[str, tuple[Faults, bool]]] = {
    **{
        f"{name}, {times} times, answers {'late' if late else 'first'}": (
            Faults(where, times, answers_late=late),
            False,
        )
        for name, where in POINTS.items()
        for times in (1, 2)
        for late in (False, True)
    },
    **{
        f"a message that always ends it, {how}, answers {'late' if late else 'first'}": (
            Faults(where, ALWAYS, answers_late=late),
            True,
        )
        for how, where in {"everywhere": unparsable, "delivered": unparsable_delivered}.items()
        for late in (False, True)
    },
}
"""Faults, and whether a message is expected to be skipped."""


async def fill(js: JetStreamContext) -> None:
    """Publish three states and two lines; the second state contains the word."""
    await publish(js, status("a", Status.DEGRADED))
    await publish(js, status("unparsable"))
    await publish(js, status("b", Status.HEALTHY))
    await publish(js, line("4"))
    await publish(js, line("5"))
    async with asyncio.timeout(PATIENCE):
        while (await js.stream_info("LATEST")).state.messages < 3:
            await asyncio.sleep(0.02)


class Started(NamedTuple):
    """An ingest, and what it has received."""

    hub: Hub
    readers: ReplayReaders


@asynccontextmanager
async def started(url: str, faults: Faults = none) -> AsyncIterator[Started]:
    """Run a relay's ingest until it is ready, with a connection that ends over these faults."""
    names = Names("")
    patterns = tuple(names.subject(pattern) for pattern in STREAM_SUBJECTS)
    hub = Hub(HubSettings(), lambda: None)
    readers = ReplayReaders(hub, ReplayRequests(), names, patterns, time.time)
    ingest = Ingest(hub, time.time, url, names, patterns, readers, GatewayHistory(hub, names, patterns))
    ready = asyncio.Event()
    token = present.set(faults)
    running = asyncio.create_task(ingest.run(ready))
    present.reset(token)
    readied = asyncio.create_task(ready.wait())
    try:
        await asyncio.wait({running, readied}, return_when=asyncio.FIRST_COMPLETED)
        assert ready.is_set()
        yield Started(hub, readers)
    finally:
        await cancel_and_wait(running, readied)


def test_nothing_is_missing_wherever_the_connection_ends(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All states are loaded when the relay is ready, then the tail; a skipped message is a missing range."""
    monkeypatch.setattr(client, "ProtocolParser", Faulty)

    async def check(faults: Faults, lacks: bool) -> None:
        complete = {1, 2, 3, 4, 5} - ({POISON} if lacks else set())
        async with started(nats_server.url, faults) as (hub, _):
            states = {record.seq for record in states_of(hub.snapshot, ALL, hub.log.head)}
            assert states == complete & {1, 2, 3}
            async with asyncio.timeout(8 * PATIENCE):
                while hub.log.floor:
                    await asyncio.sleep(0.02)
            assert {record.seq for record in hub.log} == complete
            assert [missing_range.end for missing_range in hub.log.missing_ranges] == (
                [POISON] if lacks else []
            )
            assert hub.stats.rejected == {}
        assert faults.left < faults.times

    async def main() -> None:
        async with started(nats_server.url), jetstream(nats_server.url) as js:
            await fill(js)
        results = await asyncio.gather(*(check(*case) for case in CASES.values()), return_exceptions=True)
        failed = {name: result for name, result in zip(CASES, results, strict=True) if result is not None}
        assert failed == {}

    run(main(), timeout=16 * PATIENCE)


def test_an_unparsable_newest_message_delays_nothing(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Position lookups, time lookups and reconnections do not read the newest message."""
    monkeypatch.setattr(client, "ProtocolParser", Faulty)

    async def main() -> None:
        async with started(nats_server.url), jetstream(nats_server.url) as js:
            await publish(js, line("before"))
            await asyncio.sleep(0.01)  # positions are looked up with a resolution of milliseconds
            seq = await publish(js, line("unparsable"))
            stored = await js.get_msg("EVENTS", seq=seq)
        assert stored.time is not None
        faults = Faults(unparsable, ALWAYS)
        async with started(nats_server.url, faults) as (hub, readers):
            present.set(faults)  # of the connections that the reader opens for this
            assert hub.log.head == seq
            await eventually(lambda: hub.log.floor == 0)
            assert await readers.position_at(stored.time.timestamp()) == seq - 1
            await eventually(lambda: hub.sessions.upstream_connected)
            assert not await readers.is_stale_cursor(Cursor(hub.epoch, seq, 7), {})

            await asyncio.to_thread(nats_server.stop)
            await eventually(lambda: not hub.sessions.upstream_connected)
            await asyncio.to_thread(nats_server.start)
            async with jetstream(nats_server.url) as js:
                await publish(js, line("after"))
            await eventually(lambda: hub.log.head == seq + 1)
            assert hub.generation == 1
            assert {record.seq for record in hub.log} == {seq - 1, seq + 1}

    run(main(), timeout=16 * PATIENCE)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(8 * PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


FAR: Final = 20_001
"""First sequence of a stream; all earlier ones are missing."""

LOOKS: Final[dict[str, tuple[dict[str, Any], tuple[str, ...], int | None]]] = {
    "the next one is another, behind many holes": (start_after(0), (), None),
    "the next one is it, behind many holes": (start_after(0), ("far.bad",), FAR + 1),
    "the next one is it": (start_after(FAR), (), FAR + 1),
    "the next one is it, of two subjects": (start_after(FAR), ("far.bad", "far.b"), FAR + 1),
    "the filter leaves it out": (start_after(0), ("far.b",), None),
    "it was left behind": (start_after(FAR + 1), (), None),
    "nothing comes": (start_after(FAR + 2), (), None),
    "since the beginning": (
        {"deliver_policy": "by_start_time", "opt_start_time": "2020-01-01T00:00:00Z"},
        ("far.bad",),
        FAR + 1,
    ),
}
"""Start of a consumer, its filter, and the message that is found."""


@pytest.mark.parametrize("where", [unparsable, unparsable_delivered])
def test_only_what_ends_a_connection_by_itself_is_found(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, where: Where
) -> None:
    """Only a message that ends a connection on its own is found, with its body if readable; the main
    connection stays.
    """
    monkeypatch.setattr(client, "ProtocolParser", Faulty)

    async def main() -> None:
        async with jetstream(nats_server.url) as js:
            await js.add_stream(name="FAR", subjects=["far.>"], first_seq=FAR, allow_direct=True)
            for subject, body in {"far.a": b"a", "far.bad": b"unparsable", "far.b": b"b"}.items():
                await js.publish(subject, body)
        present.set(Faults(where, ALWAYS))
        nc = await connection.connect(nats_server.url, name="reader")
        for name, (begin, patterns, expected) in LOOKS.items():
            found = await find_unparsable(nc, "FAR", begin, patterns)
            assert (found and found.seq) == expected, name
            if found is not None and where is unparsable:
                assert found.stored is None, name
            elif found is not None:
                assert found.stored is not None, name
                assert found.stored.data == b"unparsable", name
        assert nc.stats["reconnects"] == 0
        await connection.close(nc)

    run(main(), timeout=8 * PATIENCE)
