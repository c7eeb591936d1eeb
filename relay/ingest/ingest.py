"""From NATS into the hub: our own ordered consumer, decoded, through any restart without loss or repeat.

Order of a start: streams, place, newest states, consumer, and only then the tail of the stream for memory.
The place is the end of the stream at that moment; the consumer begins right behind it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.relay.core.hub import Hub
from tickertape.relay.ingest.dead_letters import DeadLetter, DeadLetters
from tickertape.relay.ingest.gap_detector import GapDetector
from tickertape.relay.ingest.latest_states import LatestStates
from tickertape.relay.ingest.range_reader import RangeReader
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.ingest.unparsable_messages import (
    DisconnectTracker,
    UnparsableMessageError,
    dead_letter,
    find_unparsable,
    start_after,
    stored_time,
)
from tickertape.relay.ingest.upstream import RoundTrip, UpstreamStatus
from tickertape.relay.ingest.warmup import warm

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.credentials import Access
from tickertape.nats.direct_get import parse_time_ns
from tickertape.nats.ordered_consumer import Delivery, OrderedConsumer
from tickertape.nats.streams import StreamMissing, StreamsError, epoch_of, provision, stream_info
from tickertape.process.tasks import Tasks
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.ingest")

CHECK_EVERY: Final = 0.5
"""Seconds between looks at whether the consumer is still heard."""

RETRY_DELAY: Final = 0.5
HASTY_TRIES: Final = 3
HASTY: Final = 2.0
"""Seconds for the first tries to make a consumer again: a cluster can place it on the very server that has
just died, and then never answers, while the next try is placed anew. Later ones get a busy server's time."""

ABSENT_DELAY: Final = 2.0


class Ingest:
    """Reads EVENTS into a hub.

    Args:
        hub: gets every event, once, in order.
        clock: UNIX seconds that never go back.
        url: of NATS.
        names: of subjects and streams.
        patterns: what to take in, as in NATS.
        readers: read what is older for clients, over the same connection.
        access: credentials and certificates for NATS.
    """

    def __init__(
        self,
        hub: Hub,
        clock: Callable[[], float],
        url: str,
        names: Names,
        patterns: tuple[str, ...],
        readers: ReplayReaders,
        access: Access | None = None,
    ) -> None:
        self.hub = hub
        self.loaded = False
        self.lag = 0
        self._clock = clock
        self._url = url
        self._access = access
        self._names = names
        self._readers = readers
        self._range = RangeReader(names, patterns)
        self._stream = self._range.stream
        self._states = LatestStates(hub, clock, names, patterns)
        self._nc: SafeClient | None = None
        self._consumer: OrderedConsumer | None = None
        self._stumbles: DisconnectTracker | None = None
        self._expecting = False  # a consumer is made, and nothing has come of it yet
        self._broken = asyncio.Event()
        self._dead_letters = DeadLetters(names)
        self._ending = False
        self._afresh = False  # another stream has begun; its states are not loaded, or sessions not told
        self._ups = 0
        self._round_trip = RoundTrip(clock)
        self._lost_since: float | None = None
        self._newest: tuple[int, int] | None = None  # sequence of the newest message, and when it was stored
        self._gaps = GapDetector(self._range, lambda: hub.log.head, self._take, self._missing, self._lost)

    @property
    def connected(self) -> bool:
        """True while the relay hears from NATS."""
        return self.hub.sessions.upstream_connected

    def upstream_status(self) -> UpstreamStatus:
        """How the relay stands with NATS."""
        return UpstreamStatus(
            self.lag, max(0, self._ups - 1), self._round_trip.seconds, self._readers.reading
        )

    async def run(self, ready: asyncio.Event) -> None:
        """Connect, load, follow; until cancelled.

        Args:
            ready: set once the newest states are loaded and events flow.

        Raises:
            StreamsError: JetStream is off, or a stream breaks the contract.
        """
        self._nc = await connection.connect(
            self._url,
            name="tickertape-relay",
            access=self._access,
            on_up=self._up,
            on_down=self._down,
            on_error=self._error,
        )
        nc = self._nc
        self._stumbles = DisconnectTracker(nc)
        try:
            head = await self._start(nc)
            self.loaded = True
            ready.set()
            async with Tasks() as tasks:
                tasks.start(warm(nc, self.hub, self._range, self._names, head), "warm")
                tasks.start(self._supervise(nc), "supervise")
                tasks.start(self._readers.run(nc), "readers")
                tasks.start(self._dead_letters.run(nc), "rejected")
                tasks.start(self._round_trip.measure(nc), "round-trip")
                tasks.start(self._gaps.run(nc), "gaps")
                tasks.start(self._states.reload(nc), "states")
                await tasks.until()
        finally:
            self._ending = True
            if self._consumer is not None:
                with contextlib.suppress(NatsError, OSError):
                    await self._consumer.stop()
            await connection.close(nc)

    def pause_reading(self, seconds: float) -> None:
        """Leave what comes from NATS in the socket for a moment: nothing is flushed before it is over."""
        if self._nc is not None:
            self._nc.pause_reading()
            asyncio.get_running_loop().call_later(seconds, self._nc.resume_reading)

    # Start and restart.

    async def _start(self, nc: Client) -> int:
        """Begin for the first time; what may mend by itself is waited for, and said once."""
        said = ""
        while True:
            try:
                for note in (await provision(nc, self._names)).notes:
                    log.warning("%s", note)
                head = await self._begin(nc)
                await self._follow(nc)
                return head
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                if isinstance(error, StreamsError) and not error.transient and nc.is_connected:
                    raise
                if said != str(error):
                    said = str(error)
                    log.warning("events cannot be followed yet: %s", error)
                # Streams that another user has to create: NATS logs each look at whether we may.
                await asyncio.sleep(ABSENT_DELAY if isinstance(error, StreamMissing) else RETRY_DELAY)

    async def _begin(self, nc: Client) -> int:
        """Take the end of the stream as the place, and load the newest states."""
        there = await self._stream_info(nc)
        state = there["state"]
        head = int(state["last_seq"])
        # With messages deleted, the last that is there need not be the one that had the last sequence.
        whole = state.get("messages") and not state.get("num_deleted")
        stored_ns = parse_time_ns(state.get("last_ts", "")) if whole else None
        self._newest = None if stored_ns is None else (head, stored_ns)
        self._gaps.regrown = False
        self.hub.begin(epoch_of(there["created"]), head, stored_ns)
        await self._states.load(nc)
        return head

    async def _follow(self, nc: Client, patience: float | None = None) -> None:
        self._broken.clear()
        self._gaps.restart()
        consumer = OrderedConsumer(nc, self._stream, self._gaps.receive, self._lost)
        self._expecting = True
        await consumer.start(self.hub.log.head + 1, self._range.filters, patience)
        self._consumer = consumer
        if self._expecting and not consumer.pending:
            self._flows()

    def _flows(self) -> None:
        """Events are heard: not merely a consumer is there, whose first message may end the connection."""
        self._expecting = False
        self.hub.sessions.set_upstream(True, self._clock())
        if self._lost_since is not None:
            away, self._lost_since = self._clock() - self._lost_since, None
            log.info("events are followed again after %.1f s", away, extra={"away": round(away, 3)})

    async def _supervise(self, nc: Client) -> None:
        """Make the consumer again whenever it is lost, from where the log ends."""
        loop = asyncio.get_running_loop()
        tries = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CHECK_EVERY):
                    await self._broken.wait()
            if not self._broken.is_set():
                if self._consumer is None or not self._consumer.is_stale(loop.time()):
                    continue
                log.warning("nothing is heard from NATS; the consumer is made again")
                self._lost_since = self._lost_since or self._clock()
                self.hub.sessions.set_upstream(False, self._clock())
                self._broken.set()
            if not nc.is_connected:
                await asyncio.sleep(CHECK_EVERY / 5)
                continue
            tries += 1
            try:
                await self._resume(nc, HASTY if tries <= HASTY_TRIES else None)
                tries = 0
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                log.warning("events cannot be followed yet: %s", error)
                self.hub.sessions.set_upstream(False, self._clock())
                self._broken.set()  # however far it came
                await asyncio.sleep(RETRY_DELAY)

    async def _resume(self, nc: Client, patience: float | None) -> None:
        if self._consumer is not None:
            await self._consumer.stop()
            self._consumer = None
        there = await self._stream_info(nc)
        state = there["state"]
        head = self.hub.log.head
        if (
            epoch_of(there["created"]) != self.hub.epoch
            or int(state["last_seq"]) < head
            or await self._newest_is_lost(nc)
        ):
            log.warning("stream %s is not the one it was; all clients start afresh", self._stream)
            self._afresh = True
            await provision(nc, self._names)
            await self._begin(nc)
        elif self._afresh:
            await self._states.load(nc)  # which failed when it began
        elif int(state["first_seq"]) > head + 1:
            # What comes next would show it, too; but it may not come soon.
            self._missing(int(state["first_seq"]) - 1)
        if self._afresh:
            self.hub.restart_sessions()
            self._afresh = False
        if self._stumbles is not None and self._stumbles.again(self.hub.log.head):
            await self._pass_over(nc)
        await self._follow(nc, patience)

    async def _pass_over(self, nc: Client) -> None:
        """File the next message if it ends connections, and leave it behind."""
        head = self.hub.log.head
        found = await find_unparsable(nc, self._stream, start_after(head), self._range.filters)
        if found is None:
            return
        if found.seq > head + 1:
            self._missing(found.seq - 1)
        stored_ns = None if found.stored is None else found.stored.stored_ns
        self.hub.reject(found.seq, RejectionReason.UNREADABLE, stored_ns)
        self._dead_letters.add(dead_letter(found, self.hub.epoch, self._names))

    async def _newest_is_lost(self, nc: Client) -> bool:
        """Tell whether the stream has given the newest message's place to another since it was taken in.

        A server that lost its disk's newest writes in a power failure keeps the stream's creation time, and
        may have stored more since than it lost.
        """
        if self._gaps.regrown or self._newest is None:
            return self._gaps.regrown
        seq, known = self._newest
        try:
            return await stored_time(nc, self._stream, seq) not in (None, known)
        except UnparsableMessageError:
            self._newest = None  # the next one will tell
            return False

    async def _stream_info(self, nc: Client) -> dict[str, Any]:
        there = await stream_info(nc, self._stream)
        if there is None:
            await provision(nc, self._names)
            there = await stream_info(nc, self._stream)
            if there is None:
                raise StreamsError(f"stream {self._stream} is gone", "it is made again", transient=True)
        return there

    # Events.

    def _missing(self, end: int) -> None:
        """Say to all that the events after the log's head, up to a sequence, will never come."""
        self.hub.fanout.publish_missing(end, self._clock())
        self._states.missed()

    def _take(self, delivery: Delivery) -> None:
        if self._expecting:
            self._flows()
        self.lag = delivery.pending
        seq, stored_ns = self._newest = delivery.seq, delivery.stored_ns
        if not self._range.is_event(delivery.subject):
            self.hub.log.advance(seq, stored_ns)
            return
        subject = self._names.strip_prefix(delivery.subject)
        event = decode(subject, delivery.data)
        if isinstance(event, Rejection):
            self.hub.reject(seq, event.reason, stored_ns)
            cursor = f"{self.hub.epoch}-{stored_ns}-{seq}"
            self._dead_letters.add(DeadLetter(cursor, subject, delivery.data, event, delivery.header_block))
        else:
            headers = delivery.headers
            traceparent = None if headers is None else headers.get("traceparent")
            self.hub.publish(seq, subject, event, stored_ns, self._clock(), traceparent)

    def _lost(self, reason: str) -> None:
        log.info("the consumer is made again: %s", reason)
        self._broken.set()

    # The connection.

    async def _up(self) -> None:
        self._ups += 1
        log.info("connected to NATS at %s", redact_url(self._url))
        if self.loaded:
            self._broken.set()

    async def _down(self, failure: ConnectFailure) -> None:
        if self._ending:
            return
        self._lost_since = self._lost_since or self._clock()
        self._expecting = False
        level = logging.WARNING if failure.kind.is_transient else logging.ERROR
        log.log(level, "%s", failure.retry_message)
        self.hub.sessions.set_upstream(False, self._clock())

    async def _error(self, error: Exception) -> None:
        log.warning("NATS: %s", error)
