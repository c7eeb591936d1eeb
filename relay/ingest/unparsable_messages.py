"""When a message cannot be parsed at all: find it, so that it is passed over.

The parser takes every message that a server forwards, so this is for faults of our own. Such a message ends
the connection whenever it is delivered, and with that whatever else is read over it.

Invariants: a message is passed over only when it was delivered alone, over a connection of its own, and has
ended that; where a reader stood when its connection ended only says which message is looked at.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.relay.ingest.dead_letters import DeadLetter

from tickertape.names import Names
from tickertape.nats import connection, direct_get
from tickertape.nats.client import protocol_errors
from tickertape.nats.credentials import AccessError
from tickertape.nats.direct_get import StoredMessage
from tickertape.nats.ordered_consumer import create_consumer
from tickertape.nats.streams import StreamsError
from tickertape.process.tasks import run_with_check

T = TypeVar("T")

log = logging.getLogger("tickertape.ingest")

TRIES: Final = 2
"""Times that a connection ends at a place before the next message is looked at: once can be the network."""

PATIENCE: Final = 5.0
"""Seconds that a server has to deliver one message, and to say which one it was."""

KEPT: Final = 30.0
"""Seconds that a server keeps a consumer whose connection has ended."""

HEARTBEAT: Final = 0.5
"""Seconds between two words of the server on what it has delivered last."""

POLL: Final = 0.05


class DisconnectTracker:
    """Counts how often a reader's connection has ended at the same place.

    Args:
        nc: its client.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._faults = protocol_errors(nc)
        self._place = -1
        self._times = 0

    def again(self, place: int) -> bool:
        """Note that reading begins again after a place; True when the next message is to be looked at."""
        seen = protocol_errors(self._nc)
        if seen == self._faults:
            return False
        self._faults = seen
        self._times = self._times + 1 if place == self._place else 1
        self._place = place
        return self._times >= TRIES


class UnparsableMessage(NamedTuple):
    """A message that cannot be parsed; ``stored`` is None when direct get ends the connection, too."""

    seq: int
    stored: StoredMessage | None


class ConnectionEnded(StreamsError):
    """The connection ended before the answer, over something that came and could not be read."""

    def __init__(self) -> None:
        super().__init__(
            "the connection to NATS ended over what cannot be read", "it is tried again", transient=True
        )


class UnparsableMessageError(StreamsError):
    """A message that ends each connection over which it comes.

    Args:
        stream: name in NATS.
        seq: its sequence.
    """

    def __init__(self, stream: str, seq: int) -> None:
        super().__init__(f"message {seq} of stream {stream} cannot be parsed", "report it as a bug")


async def fail_on_disconnect(nc: Client, work: Coroutine[Any, Any, T], before: int | None = None) -> T:
    """Await an answer that never comes when the connection ends over what cannot be read.

    Args:
        nc: a client.
        work: asks over it.
        before: faults of the client from which it counts as ended; None are those that it has now.

    Raises:
        ConnectionEnded: it has ended; what came before was handed to whom it was for.
    """
    before = protocol_errors(nc) if before is None else before

    def look() -> None:
        if protocol_errors(nc) != before:
            raise ConnectionEnded

    return await run_with_check(work, look, POLL)


async def find_unparsable(
    nc: Client, stream: str, begin: Mapping[str, Any], patterns: tuple[str, ...] = ()
) -> UnparsableMessage | None:
    """Look at the message that a consumer would deliver first; None when it ends no connection.

    Args:
        nc: a client; another is made like it.
        stream: name in NATS.
        begin: where a consumer begins, as in its configuration; ``after`` makes it of a sequence.
        patterns: of the consumer; none means all.

    Raises:
        StreamsError: NATS does not answer.
    """
    try:
        return await _find(nc, stream, begin, patterns)
    except (AccessError, NatsError, OSError, TimeoutError) as error:
        raise StreamsError(
            f"what ends the connection while stream {stream} is read is not known: "
            f"{error or type(error).__name__}",
            "it is looked for again",
            transient=True,
        ) from None


async def stored_time(nc: Client, stream: str, seq: int) -> int | None:
    """Ask a stream when it stored a message, as ``stored_at``.

    Raises:
        UnparsableMessageError: the message ends each connection over which it comes.
        StreamsError: the stream does not answer.
    """
    try:
        return await fail_on_disconnect(nc, direct_get.get_stored_ns(nc, stream, seq))
    except ConnectionEnded:
        found = await find_unparsable(nc, stream, start_after(seq - 1))
        if found is None or found.seq != seq:
            raise
        raise UnparsableMessageError(stream, seq) from None


def start_after(seq: int) -> dict[str, Any]:
    """Begin a consumer behind a sequence."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": seq + 1}


async def _find(
    nc: Client, stream: str, begin: Mapping[str, Any], patterns: tuple[str, ...]
) -> UnparsableMessage | None:
    async with _alone(nc) as own:
        inbox = own.new_inbox()
        config = {
            **begin,
            "deliver_subject": inbox,
            # One message that is never acknowledged: no second one follows it.
            "ack_policy": "explicit",
            "max_ack_pending": 1,
            "max_deliver": 1,
            "inactive_threshold": int(KEPT * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        # Nothing is delivered before there is a listener: the answer does not share the message's fate.
        if not int((await create_consumer(own, stream, config, patterns)).get("num_pending", 0)):
            return None
        try:
            await fail_on_disconnect(own, _hear(own, inbox, lambda msg: msg.reply.startswith("$JS.ACK.")), 0)
            return None
        except ConnectionEnded:
            pass
    async with _alone(nc) as own:
        said = await _hear(own, inbox, lambda msg: "Nats-Last-Stream" in (msg.headers or {}))
        seq = int((said.headers or {})["Nats-Last-Stream"])
    async with _alone(nc) as own:
        try:
            return UnparsableMessage(
                seq, await fail_on_disconnect(own, direct_get.get_message(own, stream, seq=seq), 0)
            )
        except ConnectionEnded:
            return UnparsableMessage(seq, None)


@asynccontextmanager
async def _alone(nc: Client) -> AsyncIterator[Client]:
    """Connect for one question, beside what else a client does."""
    own = await connection.connect_like(nc, name="tickertape-relay-suspect")
    try:
        yield own
    finally:
        await connection.close(own)


async def _hear(nc: Client, inbox: str, wanted: Callable[[Msg], bool]) -> Msg:
    """Listen until a message comes that is wanted."""
    heard: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    async def came(msg: Msg) -> None:
        if not heard.done() and wanted(msg):
            heard.set_result(msg)

    await nc.subscribe(inbox, cb=came)
    async with asyncio.timeout(PATIENCE):
        return await heard


def dead_letter(found: UnparsableMessage, epoch: str, names: Names) -> DeadLetter:
    """Make the dead letter of a message that is passed over, and log that it is."""
    seq, stored = found
    why = "it has ended the connection to NATS twice" + ("" if stored else ", and cannot be fetched")
    log.error("event %d cannot be parsed and is passed over: %s; report it as a bug of the relay", seq, why)
    return DeadLetter(
        f"{epoch}-{stored.stored_ns}-{seq}" if stored else f"{epoch}-{seq}",
        names.strip_prefix(stored.subject) if stored else "unreadable",
        stored.data if stored else None,
        Rejection(RejectionReason.UNREADABLE, why),
        stored.header_block if stored else None,
    )


__all__ = [
    "ConnectionEnded",
    "DisconnectTracker",
    "UnparsableMessage",
    "UnparsableMessageError",
    "dead_letter",
    "fail_on_disconnect",
    "find_unparsable",
    "start_after",
    "stored_time",
]
