"""Ingest: reads EVENTS from NATS into the hub, without loss or repetition across restarts and reconnections.

Startup provisions the streams, takes the last sequence of the stream as the head, loads the newest states and
starts a consumer right after the head. Only then is the tail of the stream read into memory.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest.dead_letters import DeadLetter, DeadLetters
from tickertape.relay.ingest.eviction_log import EvictionLog
from tickertape.relay.ingest.gap_detector import GapDetector
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.latest_states import LatestStates
from tickertape.relay.ingest.range_reader import RangeReader
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.ingest.stream_identity import StreamIdentity
from tickertape.relay.ingest.unparsable_messages import (
    DisconnectTracker,
    find_unparsable,
    make_dead_letter,
    start_after,
)
from tickertape.relay.ingest.upstream import Upstream, UpstreamStatus
from tickertape.relay.ingest.warmup import warm_up

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.nats.credentials import Access
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL, PermissionDenied
from tickertape.nats.ordered_consumer import Delivery, OrderedConsumer
from tickertape.nats.streams import StreamMissing, StreamsError, epoch_of, provision
from tickertape.process.tasks import Tasks
from tickertape.rate_limit import RepeatFilter

log = logging.getLogger("tickertape.ingest")

CHECK_EVERY: Final = 0.5
"""Seconds between two checks that the consumer still receives heartbeats."""

RETRY_DELAY: Final = 0.5
"""Seconds between two attempts to start or to recreate the consumer."""

SHORT_TIMEOUT_ATTEMPTS: Final = 3
"""Number of attempts to recreate the consumer with ``SHORT_TIMEOUT``."""

SHORT_TIMEOUT: Final = 2.0
"""Timeout of these attempts in seconds. A cluster can place the consumer on a server that has just died, and
then never respond, while the next attempt is placed elsewhere. Later attempts allow for a busy server."""

MISSING_STREAM_DELAY: Final = 2.0
"""Seconds between two attempts while another user has to create the streams; longer, since NATS logs each
denied request."""


class Ingest:
    """Reader of EVENTS into a hub.

    Args:
        hub: hub that receives every event exactly once, in order.
        clock: UNIX seconds that never decrease.
        url: URL of NATS.
        names: names of subjects and streams.
        patterns: subject patterns to receive, as in NATS.
        readers: readers of older events for clients; they share the connection.
        history: history of gateways, which shares the connection, too.
        access: credentials and certificates for NATS.
        audit: stores audit records over the connection until cancelled; None without an audit log.

    Attributes:
        loaded: whether the newest states are loaded and events are received.
        lag: number of events in the stream that have not been received yet.
    """

    def __init__(
        self,
        hub: Hub,
        clock: Callable[[], float],
        url: str,
        names: Names,
        patterns: tuple[str, ...],
        readers: ReplayReaders,
        history: GatewayHistory,
        access: Access | None = None,
        audit: Callable[[Client], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        self.hub = hub
        self.loaded = False
        self.lag = 0
        self._clock = clock
        self._audit = audit
        self._names = names
        self._readers = readers
        self._history = history
        self._range = RangeReader(names, patterns)
        self._stream = self._range.stream
        self._states = LatestStates(hub, clock, names, patterns)
        self._nc: SafeClient | None = None
        self._consumer: OrderedConsumer | None = None
        self._disconnects: DisconnectTracker | None = None
        self._unconfirmed = False  # a consumer was created, and no message has arrived from it yet
        self._consumer_lost = asyncio.Event()
        self._dead_letters = DeadLetters(names)
        self._reset_pending = False  # the stream was replaced, and sessions are not restarted yet
        self._upstream = Upstream(url, clock, access, self._on_connect, self._on_disconnect)
        self._identity = StreamIdentity(self._stream, names)
        self._gaps = GapDetector(
            self._range, lambda: hub.log.head, self._take, self._report_missing, self._on_consumer_lost
        )

    @property
    def connected(self) -> bool:
        """Whether the relay receives events from NATS."""
        return self.hub.sessions.upstream_connected

    def upstream_status(self) -> UpstreamStatus:
        """Return the state of the connection to NATS."""
        return UpstreamStatus(
            self.lag, self._upstream.reconnects, self._upstream.round_trip.seconds, self._readers.active
        )

    async def run(self, ready: asyncio.Event) -> None:
        """Connect to NATS, load the newest states and receive events, until cancelled.

        Args:
            ready: set once the newest states are loaded and events are received.

        Raises:
            StreamsError: JetStream is disabled, or a stream violates the contract.
        """
        self._nc = nc = await self._upstream.connect()
        self._disconnects = DisconnectTracker(nc)
        try:
            head = await self._start(nc)
            self.loaded = True
            ready.set()
            async with Tasks() as tasks:
                # Readers and warm-up need the epoch and the head of the hub, which ``_start`` has set.
                tasks.start(warm_up(nc, self.hub, self._range, self._names, head), "warm-up")
                tasks.start(self._supervise(nc), "supervise")
                tasks.start(self._readers.run(nc), "readers")
                tasks.start(self._dead_letters.run(nc), "dead-letters")
                tasks.start(self._upstream.round_trip.measure(nc), "round-trip")
                if self._audit is not None:
                    tasks.start(self._audit(nc), "audit")
                tasks.start(self._gaps.run(nc), "gaps")
                tasks.start(self._states.reload(nc), "states")
                tasks.start(self._history.run(nc), "history")
                tasks.start(EvictionLog(self.hub.snapshot, self._clock).run(), "evictions")
                await tasks.until()
        finally:
            # Closing the connection must not be reported as an outage.
            self._upstream.stopping = True
            if self._consumer is not None:
                with contextlib.suppress(NatsError, OSError):  # closing ends it, too
                    await self._consumer.stop()
            await connection.close(nc)

    def pause_reading(self, seconds: float) -> None:
        """Pause reading from NATS until the next flush: events read earlier would only wait for it."""
        if self._nc is not None:
            self._nc.pause_reading()
            # If the client has reconnected by then, this resumes the new socket, which does no harm.
            asyncio.get_running_loop().call_later(seconds, self._nc.resume_reading)

    # Start and recovery.

    async def _start(self, nc: Client) -> int:
        """Start for the first time; retry transient errors, and log a repeated error once."""
        logged = ""
        while True:
            try:
                for note in (await provision(nc, self._names)).notes:
                    log.warning("%s", note)
                head = await self._reset(nc)
                await self._start_consumer(nc)
                return head
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                # Without a connection, the error may only be a consequence of the outage.
                if isinstance(error, StreamsError) and not error.transient and nc.is_connected:
                    raise
                if logged != str(error):
                    logged = str(error)
                    log.warning("cannot receive events, retrying: %s", error)
                await asyncio.sleep(MISSING_STREAM_DELAY if isinstance(error, StreamMissing) else RETRY_DELAY)

    async def _reset(self, nc: Client) -> int:
        """Restart the hub at the end of the stream, load the newest states, and return the head."""
        info = await self._identity.read_info(nc)
        head, stored_ns = self._identity.begin(info)
        self._gaps.sequences_reused = False
        # The head is fixed before the states are read, so none is missed in between: a state that is stored
        # later has a sequence after the head, and the consumer delivers it.
        self.hub.begin(epoch_of(info["created"]), head, stored_ns)
        await self._states.load(nc)
        return head

    async def _start_consumer(self, nc: Client, timeout_seconds: float | None = None) -> None:
        # Both flags change before ``start``, during which messages or the loss of the consumer may come.
        self._consumer_lost.clear()
        self._gaps.restart()
        consumer = OrderedConsumer(nc, self._stream, self._gaps.receive, self._on_consumer_lost)
        self._unconfirmed = True
        await consumer.start(self.hub.log.head + 1, self._range.filters, timeout_seconds)
        self._consumer = consumer
        # In a quiet stream the next message may not arrive for hours.
        if self._unconfirmed and not consumer.pending:
            self._set_receiving()

    def _set_receiving(self) -> None:
        """Mark NATS as connected, once a message has arrived or none is pending.

        Creating a consumer is not enough: its first message may end the connection.
        """
        self._unconfirmed = False
        self.hub.sessions.set_upstream(True, self._clock())
        self._upstream.end_outage()

    async def _supervise(self, nc: Client) -> None:
        """Recreate the consumer at the end of the log whenever it is lost."""
        loop = asyncio.get_running_loop()
        attempts = 0
        reports = RepeatFilter(DENIAL_REPORT_INTERVAL)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    await self._consumer_lost.wait()
            if not self._consumer_lost.is_set():
                if self._consumer is None or not self._consumer.is_stale(loop.time()):
                    continue
                log.warning("received no heartbeats from NATS, recreating the consumer")
                self._upstream.begin_outage()
                self.hub.sessions.set_upstream(False, self._clock())
                self._consumer_lost.set()
            # ``_consumer_lost`` stays set, so the consumer is recreated right after the reconnect.
            if not nc.is_connected:
                await asyncio.sleep(CHECK_EVERY / 5)
                continue
            attempts += 1
            try:
                await self._resume(nc, SHORT_TIMEOUT if attempts <= SHORT_TIMEOUT_ATTEMPTS else None)
                attempts = 0
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                if not isinstance(error, PermissionDenied) or reports.allow(str(error), loop.time()):
                    log.warning("cannot receive events, retrying: %s", error)
                self.hub.sessions.set_upstream(False, self._clock())
                self._consumer_lost.set()  # set again, since ``_start_consumer`` may have cleared it
                await asyncio.sleep(RETRY_DELAY)

    async def _resume(self, nc: Client, timeout_seconds: float | None) -> None:
        if self._consumer is not None:
            # Otherwise its late messages, which the new consumer delivers again, would look like sequences
            # that the stream has assigned twice.
            await self._consumer.stop()
            self._consumer = None
        info = await self._identity.read_info(nc)
        head = self.hub.log.head
        if self._gaps.sequences_reused or await self._identity.was_replaced(nc, info, self.hub.epoch, head):
            log.warning("stream %s was replaced or has lost messages, resetting all sessions", self._stream)
            # Set before anything can fail: after ``hub.begin`` the epochs are equal, and the next attempt
            # would no longer see that the sessions have to be restarted.
            self._reset_pending = True
            await provision(nc, self._names)
            await self._reset(nc)
        elif self._reset_pending:
            await self._states.load(nc)  # loading failed after the reset
        elif int(info["state"]["first_seq"]) > head + 1:
            # The next event would reveal the missing range, too, but may not arrive soon.
            self._report_missing(int(info["state"]["first_seq"]) - 1)
        if self._reset_pending:
            self._history.request_read()
            self.hub.restart_sessions()
            self._reset_pending = False
        if self._disconnects is not None and self._disconnects.record_restart(self.hub.log.head):
            await self._skip_unparsable(nc)
        await self._start_consumer(nc, timeout_seconds)

    async def _skip_unparsable(self, nc: Client) -> None:
        """Skip the next message if it cannot be parsed, and add it to the dead letters."""
        head = self.hub.log.head
        message = await find_unparsable(nc, self._stream, start_after(head), self._range.filters)
        if message is None:
            return
        # The message is proven to be the first after the head, so everything in between is deleted.
        if message.seq > head + 1:
            self._report_missing(message.seq - 1)
        stored_ns = None if message.stored is None else message.stored.stored_ns
        self.hub.reject(message.seq, RejectionReason.UNREADABLE, stored_ns)
        self._dead_letters.add(make_dead_letter(message, self.hub.epoch, self._names))

    # Events.

    def _report_missing(self, end: int) -> None:
        """Report that the events after the log's head, up to a sequence, will never arrive."""
        self.hub.fanout.publish_missing(end, self._clock())
        self._states.request_reload()
        self._history.request_read()

    def _take(self, delivery: Delivery) -> None:
        if self._unconfirmed:
            self._set_receiving()
        self.lag = delivery.pending
        seq, stored_ns = self._identity.newest = delivery.seq, delivery.stored_ns
        if not self._range.is_event(delivery.subject):
            # The head passes this message: a later missing range or a new consumer starts there.
            self.hub.log.advance(seq, stored_ns)
            return
        subject = self._names.strip_prefix(delivery.subject)
        event = decode(subject, delivery.data)
        if isinstance(event, Rejection):
            self.hub.reject(seq, event.reason, stored_ns)
            cursor = f"{self.hub.epoch}-{stored_ns}-{seq}"
            self._dead_letters.add(DeadLetter(cursor, subject, delivery.data, event, delivery.header_block))
        else:
            traceparent = None
            # Parsing headers takes as long as half of the rest, and few events have this one.
            if b"traceparent" in (delivery.header_block or b"") and (headers := delivery.headers):
                traceparent = headers.get("traceparent")
            self.hub.publish(seq, subject, event, stored_ns, self._clock(), traceparent)
            self._history.take(subject, delivery.data)

    def _on_consumer_lost(self, reason: str) -> None:
        log.info("recreating the consumer: %s", reason)
        self._consumer_lost.set()

    # The connection.

    def _on_connect(self) -> None:
        # nats-py renews the subscription, but messages in flight are lost, and the server may have deleted
        # the consumer. It is recreated without waiting for an overdue heartbeat; the first is ``_start``'s.
        if self.loaded:
            self._consumer_lost.set()

    def _on_disconnect(self) -> None:
        # A message of the ended connection that is still queued must not mark NATS as connected again.
        self._unconfirmed = False
        self.hub.sessions.set_upstream(False, self._clock())
