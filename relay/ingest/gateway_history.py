"""History of gateways: read from the stream HISTORY in the background, and followed with the live events.

Invariants:

1. The relay is ready before the history is loaded, and without the stream, too.
2. The timelines have every event that the relay delivers, and every one that HISTORY has. One that arrives
   twice counts once.
3. Reading HISTORY delays live events by milliseconds only, although NATS sends megabytes ahead.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.silences import encode_silence, silence_subject
from tickertape.contracts.subjects import covers, intersect
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.timeline.changes import GatewayKey
from tickertape.relay.core.timeline.timelines import Timelines
from tickertape.relay.ingest import stream_reader

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.errors import PermissionDenied
from tickertape.nats.layout.configs import HISTORY_SUBJECTS
from tickertape.nats.stream_differences import catch_up
from tickertape.nats.streams import StreamMissing, StreamsError, stream_info
from tickertape.text import count

log = logging.getLogger("tickertape.ingest")

CATCH_UP_TIMEOUT: Final = 10.0
"""Seconds to wait until HISTORY has copied what EVENTS has; else what it has is read, and the rest later."""

RETRY_DELAY: Final = 5.0
"""Seconds before the next attempt to read HISTORY."""

DENIED_DELAY: Final = 60.0
"""Seconds before the next attempt if NATS denies a permission; NATS logs each attempt."""

SECOND_READ_DELAY: Final = 5.0
"""Seconds after the first read until HISTORY is read for what it had not copied by then."""

PUBLISH_TIMEOUT: Final = 5.0
"""Seconds to wait until a silence is stored."""

MAX_SHARED: Final = 2_000
"""Number of messages that are read over the connection of the live events, which wait for them."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds until a connection of its own counts as failed."""

ADDED: Final = 64
"""Number of messages that are added before other tasks run, half a millisecond."""

SEEDED: Final = 500
"""Number of states that are added before other tasks run."""

_FAMILY: Final = "gateway.status"
_EVENT_KEY: Final = b',"event":'


class HistoryStatus(NamedTuple):
    """State of the history of gateways in a relay.

    Attributes:
        loaded: whether pages are available.
        problem: what prevents that; empty if nothing does.
        gateways: number of gateways.
        entries: number of statuses and steps of recoveries of all gateways.
        truncated: number of gateways whose oldest statuses or steps were dropped.
        bytes: approximate bytes of the entries and their texts in memory.
    """

    loaded: bool
    problem: str
    gateways: int
    entries: int
    truncated: int
    bytes: int


class GatewayHistory:
    """Timelines of gateways, loaded from HISTORY and kept up to date.

    Args:
        hub: hub whose snapshot has the statuses of gateways that have not changed for long.
        names: names of subjects and streams.
        patterns: subject patterns of the relay, as in NATS.
        control: whether clients may silence gateways.

    Attributes:
        control: as given.
        timelines: timelines of the gateways.
        loaded: whether HISTORY was read after it had copied everything from EVENTS.
        problem: what prevents that; empty if nothing does.
    """

    def __init__(self, hub: Hub, names: Names, patterns: tuple[str, ...], *, control: bool = False) -> None:
        self.control = control
        self.timelines = Timelines()
        self.loaded = False
        self.problem = ""
        self._hub = hub
        self._names = names
        self._stream = names.stream("HISTORY")
        self._delivers, self._filters = _filters(names, patterns)
        self._requested = asyncio.Event()
        self._created = ""
        self._position = 0
        self._nc: Client | None = None

    def __repr__(self) -> str:
        return f"GatewayHistory({self.timelines}, loaded={self.loaded})"

    def status(self) -> HistoryStatus:
        """Return the state of the history."""
        lines = self.timelines
        return HistoryStatus(
            self.loaded, self.problem, len(lines), lines.entries, lines.truncated, lines.size
        )

    def take(self, subject: str, payload: bytes) -> None:
        """Add a live event that satisfies the contract, of any type."""
        if subject.startswith("gateway."):
            self.timelines.add(subject, payload)

    def request_read(self) -> None:
        """Request that HISTORY is read for what it has received since, because live events are missing."""
        self._requested.set()

    async def run(self, nc: Client) -> None:
        """Read HISTORY, and read it again when that is requested, until cancelled."""
        self._nc = nc
        if not self._delivers:
            self.loaded = True
            return
        while True:
            self._requested.clear()
            first = not self.loaded
            try:
                await self._read(nc)
            except (StreamsError, NatsError, OSError, TimeoutError) as error:
                problem = str(error) or "NATS does not respond"
                if problem != self.problem and nc.is_connected:
                    self.problem = problem
                    log.warning("cannot read the history of gateways, retrying: %s", problem)
                await asyncio.sleep(DENIED_DELAY if isinstance(error, PermissionDenied) else RETRY_DELAY)
                continue
            self.loaded, self.problem = True, ""
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECOND_READ_DELAY if first else None):
                    await self._requested.wait()

    async def silence(self, gateway: GatewayKey, until: float, reason: str, by: str) -> None:
        """Publish a silence, which the monitors apply and repeat in their events.

        Args:
            gateway: the gateway.
            until: end of the silence, UNIX seconds.
            reason: reason for it.
            by: name of the user.

        Raises:
            StreamsError: NATS is unreachable, or denies it.
            TimeoutError: NATS has not confirmed it, and may still store it.
        """
        # While it reconnects, nats-py would keep the silence, and publish it after the client was told that
        # it is not stored.
        if self._nc is None or not self._nc.is_connected:
            raise StreamsError("NATS is unreachable", "retry later", transient=True)
        subject = self._names.subject(silence_subject(*gateway))
        headers = {"Nats-Expected-Stream": self._names.stream("WATCHDOG")}
        await self._nc.jetstream().publish(
            subject, encode_silence(until, reason, by), timeout=PUBLISH_TIMEOUT, headers=headers
        )

    async def _read(self, nc: Client) -> None:
        """Read what HISTORY has received since the last time.

        Raises:
            StreamsError: the stream does not exist, cannot be read, or has not copied everything from EVENTS.
        """
        started = time.monotonic()
        info = await stream_info(nc, self._stream)
        if info is None:
            raise StreamMissing(self._stream)
        # An event that EVENTS had before this relay followed it must be in HISTORY.
        complete = await catch_up(nc, self._stream, CATCH_UP_TIMEOUT)
        if info["created"] != self._created or int(info["state"]["last_seq"]) < self._position:
            self._created, self._position = info["created"], 0
        first = not self.loaded
        pending = int(info["state"]["last_seq"]) - self._position
        async with _reading_connection(nc, pending) as client:
            read = stream_reader.read(
                client, self._stream, self._position + 1, subjects=self._filters, alone=client is not nc
            )
            async for batch in read:
                for index, delivery in enumerate(batch):
                    self.timelines.add(self._names.strip_prefix(delivery.subject), delivery.data)
                    self._position = delivery.seq
                    if index % ADDED == ADDED - 1:
                        await asyncio.sleep(0)
        await self._seed()
        if not complete:
            raise StreamsError(
                f"stream {self._stream} lags behind EVENTS", "wait until it has caught up", transient=True
            )
        if first and self.timelines.entries:
            entries = count(self.timelines.entries, "event")
            seconds = time.monotonic() - started
            log.info("loaded %s of the history of gateways in %.1f s", entries, seconds)

    async def _seed(self) -> None:
        """Add the newest status of each gateway: HISTORY no longer has it if it is older than its events."""
        records = list(self._hub.snapshot.pools[_FAMILY].records.values())
        for index, record in enumerate(records):
            encoded = record.encoded
            payload = encoded[encoded.index(_EVENT_KEY) + len(_EVENT_KEY) : -1]
            self.timelines.add(record.route.subject, payload)
            if index % SEEDED == SEEDED - 1:
                await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def _reading_connection(nc: Client, pending: int) -> AsyncIterator[Client]:
    """Yield the connection to read from: its own for many messages, as live events would wait for them."""
    if pending <= MAX_SHARED:
        yield nc
        return
    async with asyncio.timeout(CONNECT_TIMEOUT):
        client = await connection.connect_like(nc, name="tickertape-relay-history", reconnects=True)
    try:
        yield client
    finally:
        await connection.close(client)


def _filters(names: Names, patterns: tuple[str, ...]) -> tuple[bool, tuple[str, ...]]:
    """Return whether a relay delivers any events of gateways, and the patterns to read; none for all."""
    subjects = [names.subject(subject) for subject in HISTORY_SUBJECTS]
    found = {both for pattern in patterns for subject in subjects if (both := intersect(pattern, subject))}
    if found.issuperset(subjects):
        return True, ()  # NATS reads a stream with several filters twenty times as slowly
    # None may cover another, as NATS rejects overlapping filters.
    filters = tuple(sorted(one for one in found if not any(covers(other, one) for other in found - {one})))
    return bool(found), filters
