"""An ordered consumer of our own on a JetStream stream.

A plain subscription on an ephemeral push consumer with flow control and heartbeats. nats-py's own ordered
consumer stops for good on a message that looks like a control message (empty body, header ``Status: 100``),
and may not notice that its consumer is gone.

Invariants:

1. ``handle`` gets every message of the consumer, in stream order, each once; or ``lost`` is called, once.
2. After ``lost``, nothing more is handed out; whoever owns it makes another one.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from tickertape.nats.headers import Headers
from tickertape.nats.streams import StreamsError, request

HEARTBEAT: Final = 1.0
"""Seconds of silence after which the server says that it is still there."""

HEARTBEAT_TIMEOUT: Final = 3.5
"""Seconds of silence after which the consumer counts as gone: three heartbeats and a half."""

_ACK: Final = "$JS.ACK."


class Delivery(NamedTuple):
    """One message of the stream.

    Attributes:
        seq: its sequence in the stream.
        subject: as it stands in NATS; may be illegal, which ``decode`` rejects.
        data: its body.
        stored_ns: when the stream stored it, UNIX nanoseconds.
        pending: how many more the consumer has.
        headers: None when it has none, or a block that breaks the format.
        header_block: as it came; None when it has none.
    """

    seq: int
    subject: str
    data: bytes
    stored_ns: int
    pending: int
    headers: dict[str, str] | None
    header_block: bytes | None = None


async def create_consumer(
    nc: Client,
    stream: str,
    config: dict[str, Any],
    subjects: tuple[str, ...] = (),
    timeout_seconds: float | None = None,
) -> dict[str, Any]:
    """Create a consumer that the server forgets when it has no listener any more; return the server's answer.

    Args:
        nc: a connected client.
        stream: name in NATS.
        config: of the consumer, without name and filter.
        subjects, timeout_seconds: as of ``OrderedConsumer.start``.

    Raises:
        StreamsError: the server refuses the consumer.
    """
    verb = f"CONSUMER.CREATE.{stream}"
    if len(subjects) == 1:
        config = {**config, "name": secrets.token_hex(8), "filter_subject": subjects[0]}
        verb += f".{config['name']}.{subjects[0]}"
    elif subjects:
        config = {**config, "filter_subjects": list(subjects)}
    answer = await request(
        nc, verb, {"stream_name": stream, "config": config}, timeout_seconds=timeout_seconds
    )
    if "error" in answer:
        raise StreamsError(
            f"NATS refused a consumer on {stream}: {answer['error'].get('description')}",
            "look at the account's permissions and limits",
        )
    return answer


class OrderedConsumer:
    """Reads a stream in order from a sequence on.

    Args:
        nc: a connected client.
        stream: name in NATS.
        handle: gets each message; must not block.
        lost: gets the reason when the order cannot be kept any more.
    """

    def __init__(
        self,
        nc: Client,
        stream: str,
        handle: Callable[[Delivery], None],
        lost: Callable[[str], None],
    ) -> None:
        self.pending = 0
        self._nc = nc
        self._loop = asyncio.get_running_loop()  # looked up once: with 3.11 each look-up is a system call
        self._stream = stream
        self._handle = handle
        self._lost = lost
        self._name = ""
        self._expected = 1  # next sequence of the consumer itself
        self._heard = 0.0
        self._subscription: Subscription | None = None
        self._over = False

    async def start(
        self, first: int, subjects: tuple[str, ...] = (), timeout_seconds: float | None = None
    ) -> None:
        """Begin at the first message whose sequence is ``first`` or later.

        Args:
            first: 1 or more; may lie beyond the end of the stream.
            subjects: patterns as in NATS; none means all. A single one stands in the subject of the request,
                too, so that a user's permissions can be for that one alone.
            timeout_seconds: time that the server may take; None leaves it to ``request``.

        Raises:
            StreamsError: the server refuses the consumer, or its answer is lost, which messages may overtake;
                ``handle`` has got those.
        """
        inbox = self._nc.new_inbox()
        # No limit on what is pending: the server's flow control bounds it, and a limit would drop in silence.
        self._subscription = await self._nc.subscribe(
            inbox, cb=self._received, pending_msgs_limit=0, pending_bytes_limit=0
        )
        config: dict[str, Any] = {
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "ack_policy": "none",
            "replay_policy": "instant",
            "max_deliver": 1,
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
        }
        self._heard = self._loop.time()
        try:
            answer = await create_consumer(self._nc, self._stream, config, subjects, timeout_seconds)
        except BaseException:
            try:
                await self._hand_out()
            finally:
                await self.stop()
            raise
        self._name = answer["name"]
        self.pending = int(answer.get("num_pending", 0))

    async def _hand_out(self) -> None:
        """Wait until all that has come was handed out; a task of nats-py does that, in its next turn."""
        subscription = self._subscription
        come = 0 if subscription is None else subscription.delivered  # what waits is counted, too
        while subscription is not None and subscription.delivered - subscription.pending_msgs < come:
            if self._nc.is_closed:
                return
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """End it; the server forgets the consumer when nobody listens any more."""
        self._over = True
        if self._subscription is not None and not self._nc.is_closed and not self._nc.is_draining:
            await self._subscription.unsubscribe()
        self._subscription = None

    def is_stale(self, now: float) -> bool:
        """True when nothing was heard for too long; ``now`` is the loop's time."""
        return now - self._heard > HEARTBEAT_TIMEOUT

    async def _received(self, msg: Msg) -> None:
        if self._over:
            return
        reply = msg.reply
        if not reply.startswith(_ACK):
            await self._control(msg)
            return
        # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<delivered>.<sequence>.<own>.<time>.<pending>
        tokens = reply.split(".")
        at = 5 if len(tokens) == 9 else 7
        try:
            seq, own, stored, pending = map(int, tokens[at : at + 4])
        except ValueError:
            return  # not of JetStream: anyone may publish to an inbox, with a reply subject of their own
        if own != self._expected:
            self._fail(f"message {self._expected} of the consumer is missing, {own} came")
            return
        self._expected = own + 1
        self._heard = self._loop.time()
        self.pending = pending
        headers, block = msg.headers, None
        if isinstance(headers, Headers):
            block = headers.raw
            headers = headers if headers.well_formed and headers else None
        self._handle(Delivery(seq, msg.subject, msg.data, stored, pending, headers, block))

    async def _control(self, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status")
        if status == "100":
            self._heard = self._loop.time()
            stalled = headers.get("Nats-Consumer-Stalled")
            if msg.reply or stalled:
                # Answered in its turn, after what came before was handled: that is the backpressure.
                with contextlib.suppress(NatsError):  # no subject to publish on, or no connection
                    await self._nc.publish(msg.reply or stalled or "")
            last = headers.get("Nats-Last-Consumer")
            if last is not None and last.isdigit() and int(last) >= self._expected:
                self._fail(f"messages {self._expected} to {last} of the consumer are missing")
        elif status is not None:
            self._fail(f"the server ended the consumer: {headers.get('Description', status)}")

    def _fail(self, reason: str) -> None:
        self._over = True
        self._lost(reason)
