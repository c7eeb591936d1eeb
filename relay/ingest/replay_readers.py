"""A few readers of the stream for all clients: stretches for the replay cache, and places the stream knows.

Their number bounds what NATS is asked for, however many clients come back at once. What fails because of NATS
is tried again; any other exception ends the sessions that it was for, never a reader.
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
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, ChunkRequest
from tickertape.relay.core.session.session import Session
from tickertape.relay.ingest.range_reader import RangeReader
from tickertape.relay.ingest.replay_requests import ReplayRequests
from tickertape.relay.ingest.unparsable_messages import (
    ConnectionEnded,
    UnparsableMessage,
    UnparsableMessageError,
    fail_on_disconnect,
    find_unparsable,
    stored_time,
)

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.direct_get import StoredMessage
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError, epoch_of, stream_info
from tickertape.process.tasks import Tasks

log = logging.getLogger("tickertape.readers")

READERS: Final = 2
RETRY_DELAY: Final = 0.5
LOCATED_TOGETHER: Final = 32
"""Sessions whose places are asked for side by side; a slow answer to one holds up no more than these."""

_UNBOUNDED: Final = 1 << 62
_ROUNDED: Final = 0.001
"""Seconds by which a time can be off that was a number of nanoseconds once."""
_FAILURES: Final = (StreamsError, NatsError, OSError, TimeoutError)


class ReplayReaders:
    """Reads what the hub's sessions want from the stream.

    Args:
        hub: whose sessions they are.
        requests: what it wants.
        names: of subjects and streams.
        patterns: what the relay takes in, as in NATS.
        clock: UNIX seconds that never go back.

    Attributes:
        reading: how many of them read now.
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
        self.reading = 0
        self._reading = asyncio.Semaphore(READERS)

    async def run(self, nc: Client) -> None:
        """Serve what is wanted, until cancelled."""
        self._nc = nc
        async with Tasks() as tasks:
            for number in range(READERS):
                tasks.start(self._read_wanted(), f"reader-{number}")
            tasks.start(self._locate_asking(), "locate")
            await tasks.until()

    async def chunk_after(self, place: int) -> EventLog:
        """The stretch that leads on from a place, from memory or from the stream.

        Raises:
            StreamsError: NATS is unreachable.
        """
        replay_cache = self._hub.fanout.replay_cache
        async with self._reading:
            found = replay_cache.get(place)
            if found is None:
                number = place // CHUNK_SEQUENCES
                found = await self._read(
                    ChunkRequest(number, number * CHUNK_SEQUENCES + 1, (number + 1) * CHUNK_SEQUENCES)
                )
                self._hub.fanout.add_chunk(number, found)
            return found

    async def is_stale_cursor(self, cursor: Cursor, stored: dict[int, int | None]) -> bool:
        """Tell whether the stream has another message at a cursor's sequence than the one it was made for.

        A server that lost its newest messages in a power failure, and has stored others since, keeps the
        stream's name and creation time. Where there is no message now, nothing is disproved.

        Args:
            cursor: of this stream, and not ahead of it.
            stored: what the stream said of other cursors a moment ago, by sequence; it is added to.

        Raises:
            StreamsError: NATS is unreachable.
        """
        if cursor.stored_ns is None:
            return False
        if self._nc is None or not self._nc.is_connected:
            raise StreamsError(
                f"stream {self._stream} cannot be reached", "it is tried again", transient=True
            )
        seq = cursor.sequence
        if seq not in stored:
            try:
                stored[seq] = await stored_time(self._nc, self._stream, seq)
            except UnparsableMessageError:
                stored[seq] = None
        return stored[seq] not in (None, cursor.stored_ns)

    async def position_at(self, moment: float) -> int:
        """Place before the first event that was stored at or after a time, UNIX seconds; 0 is the earliest.

        The server counts nanoseconds in 64 bits, which end in 2262: it is not asked for times after its last.

        Raises:
            StreamsError: NATS is unreachable.
        """
        state = (await self._info())["state"]
        if moment <= 0:
            return max(0, int(state["first_seq"]) - 1)
        if moment > parse_time(state["last_ts"]).timestamp() + _ROUNDED:
            return int(state["last_seq"])
        assert self._nc is not None
        found: StoredMessage | UnparsableMessage | None
        at = format_time(moment)
        try:
            found = await fail_on_disconnect(
                self._nc,
                direct_get.get_message(self._nc, self._stream, batch=1, start_time=at, next_by_subj=">"),
            )
        except ConnectionEnded:
            begin = {"deliver_policy": "by_start_time", "opt_start_time": at}
            found = await find_unparsable(self._nc, self._stream, begin)
            if found is None:
                raise  # over something else, and it can be read
        except NoRespondersError:
            raise StreamsError(
                f"stream {self._stream} allows no direct reads", "'tickertape streams apply'"
            ) from None
        place = int(state["last_seq"]) if found is None else found.seq - 1
        return (
            await self._before_deleted(self._nc, int(state["first_seq"]), place)
            if state.get("num_deleted")
            else place
        )

    async def _before_deleted(self, nc: Client, first: int, place: int) -> int:
        """Go back over what the stream deleted right before a place, since its time is not known."""
        window = CHUNK_SEQUENCES
        while True:
            begin = max(first, place - window)
            gone = await self._range.deleted.missing(nc, begin, place, ())
            if not gone or gone[-1][1] != place:
                return place
            if gone[-1][0] > begin or begin == first:
                return gone[-1][0] - 1
            window *= 2

    async def _read_wanted(self) -> None:
        replay_cache = self._hub.fanout.replay_cache
        while True:
            wanted = replay_cache.next_request()
            if wanted is None:
                self._requests.chunk_requested.clear()
                await self._requests.chunk_requested.wait()
                continue
            try:
                async with self._reading:
                    self._hub.fanout.add_chunk(wanted.number, await self._read(wanted))
            except _FAILURES as error:
                log.warning("events %d to %d cannot be read yet: %s", wanted.first, wanted.last, error)
                await asyncio.sleep(RETRY_DELAY)
                replay_cache.retry(wanted.number)
            except Exception as error:
                for member in replay_cache.abandon(wanted.number):
                    member.fail(error)

    async def _read(self, wanted: ChunkRequest) -> EventLog:
        self.reading += 1
        try:
            return await self._read_chunk(wanted)
        finally:
            self.reading -= 1

    async def _read_chunk(self, wanted: ChunkRequest) -> EventLog:
        hub = self._hub
        generation, head = hub.generation, hub.log.head
        first = max(wanted.first, int((await self._info())["state"]["first_seq"]))
        last = min(wanted.last, head)
        found = EventLog(CHUNK_SEQUENCES, _UNBOUNDED)
        found.reset(first - 1)
        if first <= last and self._nc is not None:
            records: list[Record] = []

            def take(delivery: Delivery) -> None:
                subject = self._names.strip_prefix(delivery.subject)
                event = decode(subject, delivery.data)
                if isinstance(event, Event):
                    records.append(hub.make_record(delivery.seq, subject, event, delivery.stored_ns))

            missing = await self._range.read(self._nc, first, last, take)
            found.fill(records, missing)
        if generation != hub.generation:
            raise StreamsError(f"stream {self._stream} is not the one it was", "it is read again")
        found.advance(last)
        return found

    async def _locate_asking(self) -> None:
        while True:
            await self._requests.position_requested.wait()
            sessions = self._requests.take_sessions()
            stored: dict[int, int | None] = {}  # many clients come back with the same cursor
            while sessions:
                some, sessions[:LOCATED_TOGETHER] = sessions[:LOCATED_TOGETHER], []
                failed = await self._locate_some(some, stored)
                if failed is None:
                    continue
                waiting = [one for one in (*some, *sessions) if one.locating is not None]
                log.warning("%d clients wait for their place: %s", len(waiting), failed)
                await asyncio.sleep(RETRY_DELAY)
                self._requests.request_positions(*waiting)
                break

    async def _locate_some(
        self, sessions: list[Session], stored: dict[int, int | None]
    ) -> BaseException | None:
        """Locate sessions side by side; return why those that still have a request have to wait."""
        try:
            there = await self._info()
        except _FAILURES as error:
            return error
        answers = await asyncio.gather(
            *(self._locate(session, there, stored) for session in sessions), return_exceptions=True
        )
        failed: BaseException | None = None
        for session, answer in zip(sessions, answers, strict=True):
            if isinstance(answer, _FAILURES):
                failed = answer
            elif isinstance(answer, Exception):
                session.fail(answer)
        return failed

    async def _locate(self, session: Session, there: dict[str, Any], stored: dict[int, int | None]) -> None:
        request = session.locating
        if request is None:
            return
        place: int | None
        if request.cursor is not None:
            # Ahead of this relay only, or of the stream too? That has been settled by the stream's own end.
            cursor = request.cursor
            ahead = cursor.sequence > int(there["state"]["last_seq"])
            lost = (
                ahead
                or cursor.epoch != epoch_of(there["created"])
                or await self.is_stale_cursor(cursor, stored)
            )
            place = None if lost else cursor.sequence
        else:
            assert request.since is not None
            place = await self.position_at(request.since.at(self._clock()))
        self._hub.sessions.located(session, request, place, self._clock())

    async def _info(self) -> dict[str, Any]:
        there = (
            await stream_info(self._nc, self._stream)
            if self._nc is not None and self._nc.is_connected
            else None
        )
        if there is None:
            raise StreamsError(f"stream {self._stream} cannot be reached", "it is tried again")
        return there
