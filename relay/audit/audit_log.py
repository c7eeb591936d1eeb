"""Audit log: records of a relay, stored in the stream AUDIT in the background.

Invariants:

1. Writing a record never blocks and never fails; memory is bounded, whatever clients do and whether NATS is
   reachable or not.
2. Rejections and reads are counted by client and reason, so that a client cannot flood the stream.
3. Every record is stored once, or counted in a ``lost`` record and in the metrics: none is lost in silence.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.audit import (
    MAX_PATTERNS,
    MAX_USER_AGENT,
    HistoryRead,
    Lost,
    Record,
    Rejected,
    SessionEnded,
    SessionStarted,
    record_subject,
)
from tickertape.contracts.events import format_time
from tickertape.relay.audit.audit_stream import ensure_audit
from tickertape.relay.core.grants import Grant

from tickertape.names import Names
from tickertape.nats.jetstream_api import StreamsError, describe_publish_error
from tickertape.text import printable

log = logging.getLogger("tickertape.audit")

WINDOW: Final = 5.0
"""Seconds over which rejections and reads are counted before they become records."""

MAX_KEYS: Final = 200
"""Maximum number of clients and reasons that are counted separately in a window; the others are added up."""

MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of records that wait for NATS; further ones are lost, and counted."""

MAX_RECORD: Final = 256 * 1024
"""Maximum bytes of a record; NATS would reject a larger one each time that it is published."""

BATCH_SIZE: Final = 64
"""Maximum number of records whose acknowledgements are awaited together."""

RETRY_DELAY: Final = 0.5
"""Seconds before records that NATS did not accept are published again."""

STOP_TIMEOUT: Final = 2.0
"""Seconds in which a relay that stops stores its last records."""

Transport = Literal["websocket", "sse", "ndjson", "asgi"]


class Queued(NamedTuple):
    """Record that waits for NATS.

    Attributes:
        id: id by which the stream recognizes a record that is published again.
        subject: subject in NATS.
        data: encoded record.
    """

    id: str
    subject: str
    data: bytes


class AuditLog:
    """Audit log of one relay.

    Args:
        names: names of subjects and streams.
        source: name of the relay.
        clock: returns UNIX seconds that never go back.
        unix: converts them to the time of the system clock.

    Attributes:
        stored: number of records that the stream has acknowledged.
        lost: number of records that were dropped, because NATS did not accept them in time.
    """

    def __init__(
        self,
        names: Names,
        source: str,
        clock: Callable[[], float],
        unix: Callable[[float], float] = float,
    ) -> None:
        self.stored = 0
        self.lost = 0
        self._names = names
        self._source = source
        self._clock = clock
        self._unix = unix
        self._queue: deque[Queued] = deque()
        self._bytes = 0
        self._added = asyncio.Event()
        self._unreported = 0  # lost records that no ``lost`` record counts yet
        # A random part, since a relay that restarts counts from 0 again.
        self._ids = map(f"{secrets.token_urlsafe(9)}-{{}}".format, itertools.count())
        self._window_start = 0.0
        self._rejections: dict[tuple[str, str], tuple[int, float]] = {}
        self._reads: dict[tuple[str, str, str | None], tuple[int, float, dict[str, Any]]] = {}
        self._failure = ""

    def __repr__(self) -> str:
        return f"AuditLog({self.stored} stored, {len(self._queue)} queued, {self.lost} lost)"

    def seconds(self) -> float:
        """Return the current time in UNIX seconds."""
        return self._clock()

    def fields(self, seconds: float | None = None) -> dict[str, str]:
        """Return the fields of every record.

        Args:
            seconds: UNIX seconds of what happened; None for the current time.
        """
        return {
            "timestamp": format_time(self._unix(self._clock() if seconds is None else seconds)),
            "source": self._source,
        }

    def write(self, record: Record) -> bool:
        """Queue a record; return False if it is lost because the queue is full."""
        data = record.encode()
        if len(data) > MAX_RECORD or self._bytes + len(data) > MAX_QUEUED_BYTES:
            self._lose()
            return False
        self._queue.append(Queued(next(self._ids), self._names.subject(record_subject(record)), data))
        self._bytes += len(data)
        self._added.set()
        return True

    def queued(self) -> list[Queued]:
        """Return the records that are not stored yet, oldest first."""
        return list(self._queue)

    def session(self, transport: Transport, address: str, user_agent: str | None) -> "SessionAudit":
        """Return the log of one session.

        Args:
            transport: transport of its connection.
            address: address of the client.
            user_agent: header of its request.
        """
        return SessionAudit(self, transport, address, user_agent)

    def count_rejection(self, reason: str, address: str) -> None:
        """Count a rejection.

        Args:
            reason: fixed short text; it must not contain data from the client.
            address: address of the client.
        """
        key = (reason, address)
        if key not in self._rejections and len(self._rejections) >= MAX_KEYS:
            key = ("other", "")
        number, first = self._rejections.get(key, (0, self._clock()))
        self._rejections[key] = number + 1, first

    def count_read(self, grant: Grant, address: str, user_agent: str | None) -> None:
        """Count a page of history that is sent to a client."""
        key = (address, grant.subject, grant.token_id)
        if key not in self._reads and len(self._reads) >= MAX_KEYS:
            self._lose()
            return
        number, first, fields = self._reads.get(key) or (
            *(0, self._clock()), client_fields(grant, address, user_agent)
        )  # fmt: skip
        self._reads[key] = number + 1, first, fields

    def tick(self) -> None:
        """Write what was counted once the window is over; called every second."""
        if self._clock() - self._window_start >= WINDOW:
            self._window_start = self._clock()
            self._write_counted()

    async def run(self, nc: Client) -> None:
        """Store records until cancelled, and then those that are left."""
        try:
            await self._ensure_stream(nc)
            while True:
                await self._added.wait()
                self._added.clear()
                while self._queue:
                    if not await self._store(nc):
                        await asyncio.sleep(RETRY_DELAY)
        finally:
            self._write_counted()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    while self._queue and await self._store(nc):
                        pass
            if self._queue:
                log.error("%d audit records could not be stored before the relay stopped", len(self._queue))

    async def _ensure_stream(self, nc: Client) -> None:
        try:
            await ensure_audit(nc, self._names)
        except (StreamsError, NatsError, OSError, TimeoutError) as error:
            # Another user may create it later.
            log.warning("%s; create stream AUDIT with 'tickertape streams apply --audit'", error)

    async def _store(self, nc: Client) -> bool:
        """Publish the oldest records; return whether all of them were stored."""
        # They stay in the queue until they are acknowledged; meanwhile ``write`` only appends.
        batch = list(itertools.islice(self._queue, BATCH_SIZE))
        results = await asyncio.gather(*(self._publish(nc, record) for record in batch))
        for _ in batch:
            self._bytes -= len(self._queue.popleft().data)
        kept = [record for record, error in zip(batch, results, strict=True) if error is not None]
        self._queue.extendleft(reversed(kept))
        self._bytes += sum(len(record.data) for record in kept)
        self.stored += len(batch) - len(kept)
        failure = next((error for error in results if error is not None), "")
        if failure and not self._failure:
            log.warning("cannot store audit records, retrying: %s", failure)
        elif self._failure and not failure:
            log.info("audit records are stored again")
        self._failure = failure
        if not failure and self._unreported:
            count, self._unreported = self._unreported, 0
            log.error("%d audit records were lost", count)
            self.write(Lost(**self.fields(), count=count))
        return not failure

    async def _publish(self, nc: Client, record: Queued) -> str | None:
        """Publish a record; return the error, or None if it is stored."""
        headers = {"Nats-Msg-Id": record.id, "Nats-Expected-Stream": self._names.stream("AUDIT")}
        try:
            await nc.jetstream().publish(record.subject, record.data, timeout=2.0, headers=headers)
        # nats-py raises ValueError and KeyError for an acknowledgement that it cannot parse.
        except (NatsError, OSError, TimeoutError, ValueError, KeyError) as error:
            return describe_publish_error(error)
        return None

    def _write_counted(self) -> None:
        rejections, self._rejections = self._rejections, {}
        for (reason, address), (number, first) in rejections.items():
            self.write(Rejected(**self.fields(first), address=address, reason=reason, count=number))
        reads, self._reads = self._reads, {}
        for number, first, client in reads.values():
            self.write(HistoryRead(**self.fields(first), **client, count=number))

    def _lose(self) -> None:
        self.lost += 1
        self._unreported += 1


class SessionAudit:
    """Audit log of one session.

    Args:
        audit: log of the relay.
        transport: transport of the connection.
        address: address of the client.
        user_agent: header of the client's request.
    """

    __slots__ = ("_address", "_audit", "_session", "_started", "_transport", "_user_agent")

    def __init__(self, audit: AuditLog, transport: Transport, address: str, user_agent: str | None) -> None:
        self._audit = audit
        self._transport: Transport = transport
        self._address = address
        self._user_agent = user_agent
        self._session = ""
        self._started = 0.0

    def granted(self, session: str, grant: Grant) -> None:
        """Record that a session has a grant, or a new one."""
        record = SessionStarted(
            **self._audit.fields(),
            **client_fields(grant, self._address, self._user_agent),
            session=session,
            transport=self._transport,
            renewed=bool(self._session),
            expires_at=None if grant.expires_at is None else format_time(grant.expires_at),
        )
        self._session, self._started = session, self._started or self._audit.seconds()
        self._audit.write(record)

    def ended(self, code: int, bytes_sent: int | None = None) -> None:
        """Record the end of the session, if it had a grant.

        Args:
            code: close code.
            bytes_sent: bytes that the client has received; None if unknown.
        """
        if self._session:
            seconds = round(max(0.0, self._audit.seconds() - self._started), 3)
            record = SessionEnded(
                **self._audit.fields(),
                session=self._session, code=code, seconds=seconds, bytes_sent=bytes_sent,
            )  # fmt: skip
            self._audit.write(record)


def client_fields(grant: Grant, address: str, user_agent: str | None) -> dict[str, Any]:
    """Return the fields of a record that describe a client and its grant."""
    return {
        "address": address,
        "user_agent": None if user_agent is None else printable(user_agent)[:MAX_USER_AGENT],
        "subject": grant.subject or None,
        "token_id": grant.token_id,
        "key_id": grant.key_id,
        "certificate": None if grant.certificate is None else grant.certificate.fingerprint,
        "subjects": _first(grant.subjects),
        "deny": _first(grant.deny),
        "level": grant.level,
    }


def _first(patterns: Iterable[str]) -> list[str]:
    return list(itertools.islice(patterns, MAX_PATTERNS))
