"""Store of records: publishes the events of a request, and returns when JetStream has acknowledged them.

Invariants:

1. ``store`` returns only after every event is acknowledged, or rejected for good; else it raises.
2. Each event has its message id however it is sent, so the stream keeps one within its duplicate window.
3. The events of a request are stored in their order, while no event has to be sent again.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.producers.sdk.errors import InvalidEvent, PublishError, PublishRejected
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper.files.batch import MAX_BATCH_BYTES, MAX_BATCH_EVENTS
from tickertape.producers.shipper.sinks.sink import BlockedReport, OutgoingEvent

from tickertape.errors import TickertapeError
from tickertape.names import Names
from tickertape.nats.client import publish_batch
from tickertape.nats.errors import PermissionDenied
from tickertape.nats.wire.batch_messages import BatchMessages
from tickertape.process.tasks import run_with_check

STORE_TIMEOUT: Final = 5.0
"""Seconds for an acknowledgement, less than the ten after which senders give up."""

MAX_IN_FLIGHT: Final = 8
"""Batches that are sent simultaneously; the server has at most 50 for all its clients."""

SMALL_BATCH: Final = 16
"""Events up to which they are sent by themselves: a batch costs the server milliseconds."""

_CONNECTION_POLL: Final = 0.1


class StoreUnavailable(TickertapeError):
    """Failure to store events, which may be sent again."""


class RecordStore:
    """Store of records.

    Args:
        client: connected; the caller closes it.
        publisher: entered, over the same connection, with a deadline; the caller closes it.
        names: subjects of the deployment.
        warn: called with a line when nothing can be stored although NATS is connected.
        atomic: whether the server has atomic batches, which take less time.
    """

    def __init__(
        self,
        client: Client,
        publisher: Publisher,
        names: Names,
        warn: Callable[[str], None],
        *,
        atomic: bool,
    ) -> None:
        self._client = client
        self._publisher = publisher
        self._names = names
        self._atomic = atomic
        self._blocked = BlockedReport(warn)
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    @property
    def online(self) -> bool:
        """Whether NATS is connected."""
        return self._client.is_connected

    async def store(self, events: Sequence[OutgoingEvent]) -> list[tuple[OutgoingEvent, str]]:
        """Store events.

        Returns:
            The events that the server rejects, with its reason.

        Raises:
            StoreUnavailable: they are not acknowledged; some may be stored.
        """
        rejected = []
        for batch in _batches(events):
            if not self.online:
                raise StoreUnavailable("NATS is unreachable")
            if self._atomic and len(batch) > SMALL_BATCH and await self._store_batch(batch):
                continue
            rejected += await self._store_each(batch)
        self._blocked.clear()
        return rejected

    async def _store_batch(self, events: Sequence[OutgoingEvent]) -> bool:
        """Store events together; return whether they are stored.

        A batch that has an event which is stored already, is too large or denied is rejected as a whole.
        """
        client = self._client
        id = secrets.token_hex(8)
        messages = BatchMessages(id)
        for event in events[:-1]:
            messages.add(self._names.subject(event.subject), event.payload, message_id=event.id)
        last = events[-1]
        headers = {
            "Nats-Batch-Id": id,
            "Nats-Batch-Sequence": str(len(events)),
            "Nats-Batch-Commit": "1",
            "Nats-Msg-Id": last.id,
        }
        reconnects = client.stats["reconnects"]

        def check_connection() -> None:
            if not client.is_connected or client.stats["reconnects"] != reconnects:
                raise StoreUnavailable("the connection to NATS was lost")

        try:
            async with self._slots:
                await publish_batch(client, messages)
                request = client.request(
                    self._names.subject(last.subject), last.payload, timeout=STORE_TIMEOUT, headers=headers
                )
                reply = await run_with_check(request, check_connection, _CONNECTION_POLL)
            return "seq" in orjson.loads(reply.data)
        except (NatsError, PermissionDenied, orjson.JSONDecodeError):
            return False  # each event has a reply of its own, with the cause

    async def _store_each(self, events: Sequence[OutgoingEvent]) -> list[tuple[OutgoingEvent, str]]:
        """Store events by themselves; return those that the server rejects.

        Raises:
            StoreUnavailable: they are not acknowledged.
        """
        try:
            futures = [
                await self._publisher.send(each.subject, each.payload, msg_id=each.id) for each in events
            ]
        except PublishError as error:
            raise self._unavailable(error) from None
        rejected = []
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, (InvalidEvent, PublishRejected)):
                rejected.append((event, str(outcome)))
            elif isinstance(outcome, PublishError):
                raise self._unavailable(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
        return rejected

    def _unavailable(self, error: PublishError) -> StoreUnavailable:
        if self.online:
            self._blocked.report(str(error))
        return StoreUnavailable(str(error))


def _batches(events: Sequence[OutgoingEvent]) -> Iterator[Sequence[OutgoingEvent]]:
    start = size = 0
    for index, event in enumerate(events):
        if index > start and (
            index - start >= MAX_BATCH_EVENTS or size + len(event.payload) > MAX_BATCH_BYTES
        ):
            yield events[start:index]
            start, size = index, 0
        size += len(event.payload)
    if start < len(events):
        yield events[start:]
