"""Readers of the stream on behalf of all clients: they read replay chunks and look up positions.

A fixed number of readers bounds the load on NATS, however many clients reconnect simultaneously. Errors of
NATS are retried; any other exception ends the sessions concerned, never a reader.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event, format_time, parse_time
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, MAX_CHUNK_BYTES, ChunkRequest
from tickertape.relay.core.session.session import Session
from tickertape.relay.ingest.range_reader import RangeReader
from tickertape.relay.ingest.replay_requests import ReplayRequests
from tickertape.relay.ingest.unparsable_messages import (
    ConnectionEnded,
    UnparsableMessage,
    UnparsableMessageError,
    fail_on_disconnect,
    find_unparsable,
    query_stored_ns,
)

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.direct_get import StoredMessage
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError, epoch_of, stream_info
from tickertape.process.tasks import Tasks
from tickertape.text import count

log = logging.getLogger("tickertape.readers")

READERS: Final = 2
"""Number of chunks that are read concurrently."""

RETRY_DELAY: Final = 0.5
"""Seconds before a failed read or lookup is retried."""

LOOKUP_BATCH: Final = 32
"""Number of sessions whose positions are looked up concurrently; a slow response delays only these."""

MAX_STORED: Final = 1_024
"""Maximum number of storage times that are remembered during look-ups."""

_UNBOUNDED: Final = 1 << 62
_ROUNDING_ERROR: Final = 0.001
"""Maximum rounding error in seconds when a time in nanoseconds becomes a float."""

_FAILURES: Final = (StreamsError, NatsError, OSError, TimeoutError)


class ReplayReaders:
    """Readers that serve the hub's requests to the stream.

    Args:
        hub: hub whose sessions are served.
        requests: pending requests of the hub.
        names: names of subjects and streams.
        patterns: subject patterns of the relay, as in NATS.
        clock: UNIX seconds that never decrease.

    Attributes:
        active: number of chunks that are being read.
    """

    def __init__(
        self,
        hub: Hub,
        requests: ReplayRequests,
        names: Names,
        patterns: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._hub = hub
        self._requests = requests
        self._names = names
        self._range = RangeReader(names, patterns)
        self._stream = self._range.stream
        self._clock = clock
        self._nc: Client | None = None
        self.active = 0
        self._reader_slots = asyncio.Semaphore(READERS)

    async def run(self, nc: Client) -> None:
        """Serve requests until cancelled."""
        self._nc = nc
        async with Tasks() as tasks:
            for number in range(READERS):
                tasks.start(self._read_chunks(), f"reader-{number}")
            tasks.start(self._locate_sessions(), "locate")
            await tasks.until()

    async def chunk_after(self, position: int) -> EventLog:
        """Return the replay chunk that continues after a position, from memory or from the stream.

        Raises:
            StreamsError: NATS is unreachable.
        """
        replay_cache = self._hub.fanout.replay_cache
        # The cache is asked while holding the slot: another page may have read the chunk during the wait.
        async with self._reader_slots:
            while (chunk := replay_cache.get(position)) is None:
                request = replay_cache.request_for(position)
                chunk = await self._read(request)
                self._hub.fanout.add_chunk(request, chunk)
                # A chunk that ended early may end before the position; the next one begins there.
                if chunk.head > position or chunk.head >= min(request.last, self._hub.log.head):
                    break
            return chunk

    async def is_stale_cursor(self, cursor: Cursor, stored: dict[int, int | None]) -> bool:
        """Return whether a cursor's sequence now belongs to another message than when the cursor was issued.

        A server that lost its newest messages in a power failure, and has since stored others, keeps the
        stream's name and creation time. A cursor whose message is deleted is not considered stale.

        Args:
            cursor: cursor of this stream at or before its last sequence.
            stored: cache of storage times by sequence, which this call may add to.

        Raises:
            StreamsError: NATS is unreachable.
        """
        if cursor.stored_ns is None:
            return False
        if self._nc is None or not self._nc.is_connected:
            raise StreamsError(f"stream {self._stream} is unreachable", "retrying", transient=True)
        seq = cursor.sequence
        if seq not in stored:
            try:
                stored[seq] = await query_stored_ns(self._nc, self._stream, seq)
            except UnparsableMessageError:
                stored[seq] = None
        return stored[seq] not in (None, cursor.stored_ns)

    async def position_at(self, timestamp: float) -> int:
        """Return the position before the first event stored at or after a time.

        The server counts nanoseconds in 64 bits, which end in the year 2262. Times after the last event are
        therefore not sent to it.

        Args:
            timestamp: UNIX seconds; 0 for the earliest position.

        Raises:
            StreamsError: NATS is unreachable.
        """
        state = (await self._stream_info())["state"]
        if timestamp <= 0:
            return max(0, int(state["first_seq"]) - 1)
        # The ``last_ts`` of a stream that never had a message is in the year 1.
        if timestamp > parse_time(state["last_ts"]).timestamp() + _ROUNDING_ERROR:
            return int(state["last_seq"])
        assert self._nc is not None
        message: StoredMessage | UnparsableMessage | None
        start_time = format_time(timestamp)
        try:
            message = await fail_on_disconnect(
                self._nc,
                direct_get.get_message(
                    self._nc, self._stream, batch=1, start_time=start_time, next_by_subj=">"
                ),
            )
        except ConnectionEnded:
            start = {"deliver_policy": "by_start_time", "opt_start_time": start_time}
            message = await find_unparsable(self._nc, self._stream, start)
            if message is None:
                raise  # this message can be parsed, so another message ended the connection
        except NoRespondersError:
            raise StreamsError(
                f"stream {self._stream} does not allow direct get", "run 'tickertape streams apply'"
            ) from None
        position = int(state["last_seq"]) if message is None else message.seq - 1
        if not state.get("num_deleted"):
            return position
        return await self._before_deleted(self._nc, int(state["first_seq"]), position)

    async def _before_deleted(self, nc: Client, first: int, position: int) -> int:
        """Move a position back over deleted sequences right before it, since their time is unknown."""
        # Doubled in each round, so that even a long run of deleted sequences takes few requests.
        window = CHUNK_SEQUENCES
        while True:
            start = max(first, position - window)
            deleted = await self._range.deleted.find(nc, start, position, ())
            if not deleted or deleted[-1][1] != position:
                return position
            if deleted[-1][0] > start or start == first:
                return deleted[-1][0] - 1
            window *= 2

    async def _read_chunks(self) -> None:
        replay_cache = self._hub.fanout.replay_cache
        while True:
            request = replay_cache.next_request()
            if request is None:
                # There is no await since ``next_request``, so no request can be lost between the two.
                self._requests.chunk_requested.clear()
                await self._requests.chunk_requested.wait()
                continue
            try:
                async with self._reader_slots:
                    self._hub.fanout.add_chunk(request, await self._read(request))
            except _FAILURES as error:
                log.warning("cannot read events %d to %d, retrying: %s", request.first, request.last, error)
                await asyncio.sleep(RETRY_DELAY)
                replay_cache.retry(request.number)
            except Exception as error:
                for member in replay_cache.abandon(request.number):
                    member.fail(error)

    async def _read(self, request: ChunkRequest) -> EventLog:
        self.active += 1
        try:
            return await self._read_chunk(request)
        finally:
            self.active -= 1

    async def _read_chunk(self, request: ChunkRequest) -> EventLog:
        hub = self._hub
        generation, head = hub.generation, hub.log.head
        # What retention has deleted is below the floor of the chunk, where members find it as lost.
        first = max(request.first, int((await self._stream_info())["state"]["first_seq"]))
        last = min(request.last, head)
        # Not bounded in bytes: a log that evicts events would be an incomplete chunk. ``take`` has the bound.
        chunk = EventLog(CHUNK_SEQUENCES, _UNBOUNDED)
        chunk.reset(first - 1)
        if first <= last and self._nc is not None:
            records: list[Record] = []
            size = 0

            def take(delivery: Delivery) -> bool:
                nonlocal last, size
                subject = self._names.strip_prefix(delivery.subject)
                event = decode(subject, delivery.data)
                if isinstance(event, Event):
                    record = hub.make_record(delivery.seq, subject, event, delivery.stored_ns)
                    records.append(record)
                    size += len(record.encoded)
                    if size > MAX_CHUNK_BYTES:
                        last = delivery.seq
                        return False
                return True

            missing = await self._range.read(self._nc, first, last, take)
            chunk.fill(records, missing)
        # Sequences of the replaced stream must not enter the cache, which ``hub.begin`` has cleared.
        if generation != hub.generation:
            raise StreamsError(f"stream {self._stream} was replaced while reading", "retrying")
        # The range may end with messages that are not events, or were rejected.
        chunk.advance(last)
        return chunk

    async def _locate_sessions(self) -> None:
        stored: dict[int, int | None] = {}  # a cache, since many clients reconnect with the same cursor
        while True:
            await self._requests.position_requested.wait()
            batch = self._requests.take_sessions(LOOKUP_BATCH)
            error = await self._locate_batch(batch, stored)
            if error is not None:
                # Sessions that were located, or have ended, are not queued again.
                waiting = [session for session in batch if session.locating is not None]
                log.warning("cannot look up %s, retrying: %s", count(len(waiting), "client position"), error)
                await asyncio.sleep(RETRY_DELAY)
                self._requests.request_positions(*waiting)
            if (
                error is not None
                or not self._requests.position_requested.is_set()
                or len(stored) > MAX_STORED
            ):
                stored.clear()  # it may be another stream by the time of the next request

    async def _locate_batch(
        self, sessions: list[Session], stored: dict[int, int | None]
    ) -> BaseException | None:
        """Look up positions concurrently; return an error if any lookup has to be retried."""
        try:
            info = await self._stream_info()
        except _FAILURES as error:
            return error
        results = await asyncio.gather(
            *(self._locate(session, info, stored) for session in sessions), return_exceptions=True
        )
        failure: BaseException | None = None
        for session, result in zip(sessions, results, strict=True):
            if isinstance(result, _FAILURES):
                failure = result
            elif isinstance(result, Exception):
                session.fail(result)
        return failure

    async def _locate(self, session: Session, info: dict[str, Any], stored: dict[int, int | None]) -> None:
        request = session.locating
        if request is None:
            return
        position: int | None
        if request.cursor is not None:
            # A cursor ahead of this relay may still be valid: compare it with the end of the stream.
            cursor = request.cursor
            ahead = cursor.sequence > int(info["state"]["last_seq"])
            stale = (
                ahead
                or cursor.epoch != epoch_of(info["created"])
                or await self.is_stale_cursor(cursor, stored)
            )
            position = None if stale else cursor.sequence
        else:
            assert request.since is not None
            position = await self.position_at(request.since.at(self._hub.stats.unix(self._clock())))
        self._hub.sessions.start_located(session, request, position, self._clock())

    async def _stream_info(self) -> dict[str, Any]:
        info = (
            await stream_info(self._nc, self._stream)
            if self._nc is not None and self._nc.is_connected
            else None
        )
        if info is None:
            raise StreamsError(f"stream {self._stream} is unreachable", "retrying")
        return info
