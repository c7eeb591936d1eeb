"""Detection of messages that cannot be parsed, so that readers can skip them.

The parser accepts every message that a server forwards, so this only guards against bugs in the parser. A
message that cannot be parsed ends the connection whenever it is delivered, and with it all other reads.

Invariant: a message is skipped only if it was delivered alone, over a separate connection, and ended that
connection. The position of a reader when its connection ended only selects the message to test.
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

MIN_DISCONNECTS: Final = 2
"""Number of disconnects at one position before the next message is tested: one can be a network failure."""

DELIVERY_TIMEOUT: Final = 5.0
"""Seconds to wait for the delivery of one message, and for the heartbeat with its sequence."""

INACTIVE_THRESHOLD: Final = 30.0
"""Seconds for which the server keeps a consumer after its connection has ended."""

HEARTBEAT: Final = 0.5
"""Seconds between the heartbeats in which the server names the last delivered sequence."""

POLL_INTERVAL: Final = 0.05
"""Seconds between two checks for a lost connection."""


class DisconnectTracker:
    """Counter of consecutive disconnects of a reader at the same position.

    Args:
        nc: client of the reader.
    """

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._errors = protocol_errors(nc)
        self._position = -1
        self._disconnects = 0

    def record_restart(self, position: int) -> bool:
        """Record that reading restarts after a position; return whether the next message should be tested."""
        errors = protocol_errors(self._nc)
        # The network or the server ended the connection, not the bytes of a message.
        if errors == self._errors:
            return False
        self._errors = errors
        self._disconnects = self._disconnects + 1 if position == self._position else 1
        self._position = position
        return self._disconnects >= MIN_DISCONNECTS


class UnparsableMessage(NamedTuple):
    """Message that cannot be parsed.

    Attributes:
        seq: sequence of the message.
        stored: the message as returned by direct get; None if fetching it ends the connection, too.
    """

    seq: int
    stored: StoredMessage | None


class ConnectionEnded(StreamsError):
    """Error for a connection that ended before the response, because received bytes could not be parsed."""

    def __init__(self) -> None:
        super().__init__(
            "connection to NATS ended by bytes that cannot be parsed", "retrying", transient=True
        )


class UnparsableMessageError(StreamsError):
    """Error for a message that ends every connection over which it is delivered.

    Args:
        stream: name of the stream in NATS.
        seq: sequence of the message.
    """

    def __init__(self, stream: str, seq: int) -> None:
        super().__init__(f"message {seq} of stream {stream} cannot be parsed", "report it as a bug")


async def fail_on_disconnect(nc: Client, work: Coroutine[Any, Any, T], before: int | None = None) -> T:
    """Await a request, and fail if the connection ends because received bytes cannot be parsed.

    Without this check, the caller would wait for a response that never arrives.

    Args:
        nc: client.
        work: request over the client.
        before: number of protocol errors to compare with; None for the current number.

    Raises:
        ConnectionEnded: the connection ended; messages received before have been handled.
    """
    before = protocol_errors(nc) if before is None else before

    def check() -> None:
        if protocol_errors(nc) != before:
            raise ConnectionEnded

    return await run_with_check(work, check, POLL_INTERVAL)


async def find_unparsable(
    nc: Client, stream: str, start: Mapping[str, Any], patterns: tuple[str, ...] = ()
) -> UnparsableMessage | None:
    """Test the message that a consumer would deliver first; return None if it can be parsed.

    Args:
        nc: client; the test uses separate connections with the same options.
        stream: name of the stream in NATS.
        start: start of the consumer, as in its configuration; see ``start_after``.
        patterns: filter of the consumer; empty for all subjects.

    Raises:
        StreamsError: NATS does not respond.
    """
    try:
        return await _find(nc, stream, start, patterns)
    except (AccessError, NatsError, OSError, TimeoutError) as error:
        raise StreamsError(
            f"cannot find the message of stream {stream} that ends the connection: "
            f"{error or type(error).__name__}",
            "retrying",
            transient=True,
        ) from None


async def query_stored_ns(nc: Client, stream: str, seq: int) -> int | None:
    """Return when a stream stored a message, like ``direct_get.get_stored_ns``.

    Raises:
        UnparsableMessageError: the message cannot be parsed.
        StreamsError: the stream does not respond.
    """
    try:
        return await fail_on_disconnect(nc, direct_get.get_stored_ns(nc, stream, seq))
    except ConnectionEnded:
        message = await find_unparsable(nc, stream, start_after(seq - 1))
        # Another message ended the connection, so this one is requested again.
        if message is None or message.seq != seq:
            raise
        raise UnparsableMessageError(stream, seq) from None


def start_after(seq: int) -> dict[str, Any]:
    """Return the consumer configuration that starts after a sequence."""
    return {"deliver_policy": "by_start_sequence", "opt_start_seq": seq + 1}


async def _find(
    nc: Client, stream: str, start: Mapping[str, Any], patterns: tuple[str, ...]
) -> UnparsableMessage | None:
    # Step 1: does the message end a connection over which nothing else arrives? The consumer outlives this
    # connection by ``INACTIVE_THRESHOLD`` and remembers what it has delivered.
    async with _separate_connection(nc) as client:
        inbox = client.new_inbox()
        config = {
            **start,
            "deliver_subject": inbox,
            # The first message is never acknowledged, so no second message follows it.
            "ack_policy": "explicit",
            "max_ack_pending": 1,
            "max_deliver": 1,
            "inactive_threshold": int(INACTIVE_THRESHOLD * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        # Nothing is delivered before the subscription below, so the response always arrives.
        if not int((await create_consumer(client, stream, config, patterns)).get("num_pending", 0)):
            return None
        try:
            delivered = _receive(client, inbox, lambda msg: msg.reply.startswith("$JS.ACK."))
            await fail_on_disconnect(client, delivered, 0)
            return None
        except ConnectionEnded:
            pass  # the client could not parse what was delivered, and disconnected
    # Step 2: nothing of the message could be read, so its sequence is taken from a heartbeat. It is not
    # delivered again, because ``max_deliver`` is 1.
    async with _separate_connection(nc) as client:
        heartbeat = await _receive(client, inbox, lambda msg: "Nats-Last-Stream" in (msg.headers or {}))
        seq = int((heartbeat.headers or {})["Nats-Last-Stream"])
    # Step 3: direct get returns the message in another form, which may be readable, for the dead letter.
    async with _separate_connection(nc) as client:
        try:
            stored = await fail_on_disconnect(client, direct_get.get_message(client, stream, seq=seq), 0)
            return UnparsableMessage(seq, stored)
        except ConnectionEnded:
            return UnparsableMessage(seq, None)


@asynccontextmanager
async def _separate_connection(nc: Client) -> AsyncIterator[Client]:
    """Open a connection with the same options, whose loss affects no other request."""
    client = await connection.connect_like(nc, name="tickertape-relay-suspect")
    try:
        yield client
    finally:
        await connection.close(client)


async def _receive(nc: Client, inbox: str, matches: Callable[[Msg], bool]) -> Msg:
    """Subscribe to an inbox and return the first message that matches."""
    received: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    async def handle(msg: Msg) -> None:
        if not received.done() and matches(msg):
            received.set_result(msg)

    await nc.subscribe(inbox, cb=handle)
    async with asyncio.timeout(DELIVERY_TIMEOUT):
        return await received


def make_dead_letter(message: UnparsableMessage, epoch: str, names: Names) -> DeadLetter:
    """Make the dead letter of a message that is skipped, and log the message."""
    seq, stored = message
    reason = "ended the connection to NATS twice" + ("" if stored else " and cannot be fetched")
    log.error("skipping event %d, which cannot be parsed: %s; report this as a bug of the relay", seq, reason)
    return DeadLetter(
        f"{epoch}-{stored.stored_ns}-{seq}" if stored else f"{epoch}-{seq}",
        names.strip_prefix(stored.subject) if stored else "unreadable",
        stored.data if stored else None,
        Rejection(RejectionReason.UNREADABLE, reason),
        stored.header_block if stored else None,
    )


__all__ = [
    "POLL_INTERVAL",
    "ConnectionEnded",
    "DisconnectTracker",
    "UnparsableMessage",
    "UnparsableMessageError",
    "fail_on_disconnect",
    "find_unparsable",
    "make_dead_letter",
    "query_stored_ns",
    "start_after",
]
