"""Ordered consumer of a JetStream stream.

It is a plain subscription to an ephemeral push consumer with flow control and heartbeats. The ordered
consumer of nats-py stops permanently on a message that looks like a control message (empty body, header
``Status: 100``), and may not notice that its consumer was deleted.

Invariants:

1. ``handle`` receives every message of the consumer exactly once, in stream order, until ``on_lost`` is
   called.
2. ``on_lost`` is called at most once. No message is delivered after it; the owner must create a new consumer.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from tickertape.nats.client import subscribe_raw
from tickertape.nats.streams import StreamsError, request
from tickertape.nats.wire.headers import Headers
from tickertape.nats.wire.protocol_parser import Message

HEARTBEAT: Final = 1.0
"""Seconds without a message after which the server sends a heartbeat."""

HEARTBEAT_TIMEOUT: Final = 3.5
"""Seconds without a message or heartbeat after which the consumer counts as lost: 3.5 heartbeats."""

_ACK: Final = b"$JS.ACK."


class Delivery(NamedTuple):
    """Message delivered by a consumer.

    Attributes:
        seq: sequence in the stream.
        subject: subject in NATS; may be invalid, which ``decode`` rejects.
        data: body of the message.
        stored_ns: time at which the stream stored the message, in UNIX nanoseconds.
        pending: number of messages that the consumer has not delivered yet.
        header_block: the header block as received; None without headers.
    """

    seq: int
    subject: str
    data: bytes
    stored_ns: int
    pending: int
    header_block: bytes | None = None

    @property
    def headers(self) -> dict[str, str] | None:
        """Parsed headers; None without headers, or if the block is malformed."""
        if self.header_block is None:
            return None
        headers = Headers(self.header_block)
        return headers if headers.well_formed and headers else None


async def create_consumer(
    nc: Client,
    stream: str,
    config: dict[str, Any],
    subjects: tuple[str, ...] = (),
    timeout_seconds: float | None = None,
) -> dict[str, Any]:
    """Create an ephemeral consumer; return the reply of the server.

    Args:
        nc: a connected client.
        stream: name of the stream in NATS.
        config: configuration of the consumer, without name and filter.
        subjects, timeout_seconds: as for ``OrderedConsumer.start``.

    Raises:
        StreamsError: the server rejects the consumer.
    """
    verb = f"CONSUMER.CREATE.{stream}"
    if len(subjects) == 1:
        # This form of the request has the filter in its subject, to which permissions can be limited.
        config = {**config, "name": secrets.token_hex(8), "filter_subject": subjects[0]}
        verb += f".{config['name']}.{subjects[0]}"
    elif subjects:
        config = {**config, "filter_subjects": list(subjects)}
    response = await request(
        nc, verb, {"stream_name": stream, "config": config}, timeout_seconds=timeout_seconds
    )
    if "error" in response:
        raise StreamsError(
            f"NATS rejected a consumer of stream {stream}: {response['error'].get('description')}",
            "check the permissions and limits of the account",
        )
    return response


class OrderedConsumer:
    """Consumer that delivers a stream in order, starting at a sequence.

    Args:
        nc: a connected client.
        stream: name of the stream in NATS.
        handle: receives each message; must not block. Nothing further is read from the connection until what
            it returns is done.
        on_lost: receives the reason when the consumer cannot continue in order.

    Attributes:
        pending: number of messages that the consumer has not delivered yet.
    """

    def __init__(
        self,
        nc: Client,
        stream: str,
        handle: Callable[[Delivery], Awaitable[object] | None],
        on_lost: Callable[[str], None],
    ) -> None:
        self.pending = 0
        self._nc = nc
        self._loop = asyncio.get_running_loop()  # cached: in Python 3.11 each lookup is a system call
        self._stream = stream
        self._handle = handle
        self._on_lost = on_lost
        self._name = ""
        self._next_consumer_seq = 1
        self._last_received = 0.0
        self._subscription: Subscription | None = None
        self._stopped = False

    async def start(
        self, first: int, subjects: tuple[str, ...] = (), timeout_seconds: float | None = None
    ) -> None:
        """Start at the first message whose sequence is at least ``first``.

        Args:
            first: 1 or more; may be beyond the end of the stream.
            subjects: NATS subject patterns; an empty tuple means all subjects. A single pattern is also part
                of the request's subject, so that permissions can be limited to it.
            timeout_seconds: maximum time to wait for the server; None means the default of ``request``.

        Raises:
            StreamsError: the server rejects the consumer, or its reply is lost. Messages may arrive before
                the reply; ``handle`` has received these.
        """
        # Subscribed before the consumer exists, because messages to an inbox without a subscriber are lost.
        inbox = self._nc.new_inbox()
        self._subscription = await subscribe_raw(self._nc, inbox, self._receive)
        config: dict[str, Any] = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            # A lost consumer is replaced, so its state needs neither disk nor replicas.
            "mem_storage": True,
            "num_replicas": 1,
        }
        self._last_received = self._loop.time()
        try:
            response = await create_consumer(self._nc, self._stream, config, subjects, timeout_seconds)
        # The server may have created the consumer; without a subscription it deletes it.
        except BaseException:
            await self.stop()
            raise
        self._name = response["name"]
        self.pending = int(response.get("num_pending", 0))

    async def stop(self) -> None:
        """Stop the consumer; the server deletes it when its subscription has ended."""
        self._stopped = True
        # nats-py raises in both states, which end the subscription anyway.
        if self._subscription is not None and not self._nc.is_closed and not self._nc.is_draining:
            await self._subscription.unsubscribe()
        self._subscription = None

    def is_stale(self, now: float) -> bool:
        """Return whether the heartbeat is overdue; ``now`` is the time of the event loop."""
        return now - self._last_received > HEARTBEAT_TIMEOUT

    def _receive(self, message: Message) -> Awaitable[object] | None:
        if self._stopped:
            return None
        _, subject, reply, headers, data = message
        # Only the server sets this reply subject on a stored message, so a producer cannot
        # forge a control message with headers.
        if not reply.startswith(_ACK):
            return self._handle_control(reply, headers)
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<stream seq>.<consumer
        # seq>.<time>.<pending>
        tokens = reply.split(b".")
        offset = 5 if len(tokens) == 9 else 7
        try:
            seq, consumer_seq, stored_ns, pending = map(int, tokens[offset : offset + 4])
        except ValueError:
            return (
                None  # not of JetStream: any client may publish to an inbox with an arbitrary reply subject
            )
        # The sequence in the stream may jump, because of deletions and filters; that of the consumer may not.
        if consumer_seq != self._next_consumer_seq:
            self._fail(f"consumer message {self._next_consumer_seq} is missing, received {consumer_seq}")
            return None
        self._next_consumer_seq = consumer_seq + 1
        self._last_received = self._loop.time()
        self.pending = pending
        # Takes half the time of Delivery(...), which matters when a stream is read from its beginning.
        fields = (seq, subject.decode(errors="surrogateescape"), data, stored_ns, pending, headers)
        return self._handle(tuple.__new__(Delivery, fields))

    async def _handle_control(self, reply: bytes, block: bytes | None) -> None:
        headers: dict[str, str] = {} if block is None else Headers(block)
        status = headers.get("Status")
        if status == "100":
            self._last_received = self._loop.time()
            # A flow control request has a reply subject. If it was lost, heartbeats repeat its reply subject
            # in this header until it is answered.
            answer = reply.decode(errors="surrogateescape") or headers.get("Nats-Consumer-Stalled")
            if answer:
                # Answered only after all earlier messages were handled, which creates the backpressure.
                with contextlib.suppress(NatsError):  # no reply subject, or no connection
                    await self._nc.publish(answer)
            # The heartbeat reveals a loss at the end, which no later message may reveal for long.
            last = headers.get("Nats-Last-Consumer")
            if last is not None and last.isdigit() and int(last) >= self._next_consumer_seq:
                self._fail(f"consumer messages {self._next_consumer_seq} to {last} are missing")
        elif status is not None:
            self._fail(f"the server stopped the consumer: {headers.get('Description', status)}")

    def _fail(self, reason: str) -> None:
        self._stopped = True
        self._on_lost(reason)
