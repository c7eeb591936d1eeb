"""Publisher of status changes that ensures that only one of several monitors publishes each change.

Every change is published with ``Nats-Expected-Last-Subject-Sequence``. If two monitors publish the same
change, NATS accepts one and rejects the other (error 10071); the monitor whose change was rejected then reads
and adopts the accepted event.

Invariants:

1. Probing never waits for NATS: changes are queued, in order per subject, until NATS acknowledges them.
2. A change is stored once: it keeps its message id through all retries.
3. The queue is bounded: it holds the latest ``MAX_QUEUED`` changes per subject.
4. When another producer's event on a subject is received, the changes queued for that subject are discarded;
   one that was stored nevertheless is adopted like that of another producer.
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import EventModel
from tickertape.producers.sdk.errors import InvalidEvent, PublishError, PublishRejected
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.provisioning import RETRY_DELAY

MAX_QUEUED: Final = 64
"""Changes per subject that wait for NATS; beyond that the oldest is dropped and reported."""

MAX_SEQUENCES: Final = 100_000
"""Subjects whose last sequence is known; beyond that the least recently changed one is forgotten."""

STOP_GRACE: Final = 2.0
"""Seconds on shutdown to publish the queued changes."""

WRONG_LAST_SEQUENCE: Final = 10071
"""JetStream's error code for an expected last sequence that does not match."""

EXPECTED_SEQUENCE: Final = "Nats-Expected-Last-Subject-Sequence"


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    msg_id: str
    event: EventModel
    stored: asyncio.Future[bool]

    def settle(self, *, stored: bool) -> None:
        """Set whether NATS has stored the event."""
        if not self.stored.done():
            self.stored.set_result(stored)


class StatusPublisher:
    """Queue of changes to publish, and the last known sequence of each subject in EVENTS.

    Args:
        publisher: started publisher; the caller closes it.
        names: subject and stream names of the deployment.
        on_conflict: receives subject, sequence and body of a stored event that is not the latest change of
            this publisher; adopts it, or returns False if it is invalid.
        report: receives lines for the operator.
        may_publish: returns whether this monitor has a say; until then, changes wait.
        on_failure: called with the subject and the error of a change that is dropped for an unexpected one.

    Attributes:
        published: number of changes that NATS has acknowledged.
    """

    def __init__(
        self,
        publisher: Publisher,
        names: Names,
        on_conflict: Callable[[str, int, bytes], bool],
        report: Callable[[str], None],
        may_publish: Callable[[], bool] = lambda: True,
        on_failure: Callable[[str, Exception], None] = lambda *_: None,
    ) -> None:
        self.published = 0
        self._may_publish = may_publish
        self._on_failure = on_failure
        self._publisher = publisher
        self._names = names
        self._on_conflict = on_conflict
        self._report = report
        self._sequences: dict[str, int] = {}
        self._queues: dict[str, deque[_Change]] = {}
        self._in_flight: dict[str, str] = {}  # message id by subject, unless the change was discarded
        self._not_empty = asyncio.Event()
        self._failure_reported = False

    @property
    def pending(self) -> int:
        """Number of changes that NATS has not acknowledged."""
        return sum(map(len, self._queues.values()))

    def is_pending(self, subject: str) -> bool:
        """Return whether a change on a subject is not acknowledged yet."""
        return subject in self._queues

    def is_queued(self, subject: str, body: bytes) -> bool:
        """Return whether an event is that of a change whose acknowledgement has not arrived yet."""
        return any(change.event.encode() == body for change in self._queues.get(subject, ()))

    def record_sequence(self, subject: str, sequence: int) -> bool:
        """Record the last sequence of a subject; return whether it is newer than the known one.

        The sequence of an event that this publisher has published is already known.
        """
        if sequence <= self._sequences.get(subject, 0):
            return False
        # Any subject of a gateway arrives here. A forgotten sequence causes a conflict, which reads it again.
        self._sequences.pop(subject, None)
        self._sequences[subject] = sequence
        if len(self._sequences) > MAX_SEQUENCES:
            del self._sequences[next(iter(self._sequences))]
        return True

    def forget_sequences(self) -> None:
        """Forget all sequences, because the stream was created again and starts over."""
        self._sequences.clear()

    def last_sequence(self, subject: str) -> int:
        """Return the last known sequence of a subject in EVENTS; 0 if there is none."""
        return self._sequences.get(subject, 0)

    def enqueue(self, event: EventModel) -> asyncio.Future[bool]:
        """Queue an event behind the pending ones of its subject.

        Returns:
            a future of whether NATS has stored it; False if it was dropped or discarded.
        """
        queue = self._queues.setdefault(event.subject, deque())
        if len(queue) == MAX_QUEUED:
            queue.popleft().settle(stored=False)
            self._report(
                f"{event.subject}: more than {MAX_QUEUED} changes wait for NATS; the oldest is dropped"
            )
        change = _Change(secrets.token_hex(12), event, asyncio.get_running_loop().create_future())
        queue.append(change)
        self._not_empty.set()
        return change.stored

    def pending_subjects(self) -> list[str]:
        """Return the subjects of the changes that NATS has not acknowledged."""
        return list(self._queues)

    def discard(self, subject: str) -> None:
        """Discard the pending changes of a subject, because a newer event of another producer is stored."""
        for change in self._queues.pop(subject, ()):
            change.settle(stored=False)
        self._in_flight.pop(subject, None)

    async def run(self) -> None:
        """Publish queued changes, until cancelled."""
        while True:
            await self._not_empty.wait()
            if not self._may_publish() or not await self.publish_pending():
                await asyncio.sleep(RETRY_DELAY)
            # Nothing is awaited between the check and the clear, so no change can be queued in between.
            if not self._queues:
                self._not_empty.clear()

    async def publish_remaining(self) -> None:
        """Publish the queued changes on shutdown, and report those that NATS does not acknowledge in time."""
        try:
            async with asyncio.timeout(STOP_GRACE):
                while self.pending:
                    if not await self.publish_pending():
                        await asyncio.sleep(RETRY_DELAY)
        except TimeoutError:
            self._report(f"stopped with {self.pending} changes that NATS has not acknowledged")

    async def publish_pending(self) -> bool:
        """Publish the oldest change of each subject concurrently; return False if one has to be retried."""
        heads = {subject: queue[0] for subject, queue in self._queues.items()}
        self._in_flight = {subject: change.msg_id for subject, change in heads.items()}
        # Take the expected sequence together with the change: if another producer's event arrives before the
        # publish, NATS must reject the change.
        settled = await asyncio.gather(
            *(
                self._publish(subject, self.last_sequence(subject), change)
                for subject, change in heads.items()
            )
        )
        for (subject, head), done in zip(heads.items(), settled, strict=True):
            queue = self._queues.get(subject)
            # The queue may have been discarded, or have dropped its oldest change, while the publish was in
            # flight.
            if done and queue and queue[0] is head:
                queue.popleft().settle(stored=False)  # unless it is stored
            if queue is not None and not queue:
                del self._queues[subject]
        return all(settled)

    async def _publish(self, subject: str, expected: int, change: _Change) -> bool:
        """Publish one change; return False if it has to be retried."""
        event, headers = change.event, {EXPECTED_SEQUENCE: str(expected)}
        try:
            ack = await self._publisher.publish(event, msg_id=change.msg_id, headers=headers)
        except PublishRejected as error:
            if error.code == WRONG_LAST_SEQUENCE:
                return await self._resolve_conflict(subject, change)
            self._report(f"a status change was dropped: {error}")
        except InvalidEvent as error:
            self._report(f"a status change was dropped: {error}")
        except PublishError as error:
            if not self._failure_reported:
                self._report(f"{error}; retrying")
            self._failure_reported = True
            return False
        except Exception as error:  # a change that cannot be published must not delay those of other gateways
            self._on_failure(subject, error)
        else:
            is_latest = self.record_sequence(subject, ack.seq)
            self.published += 1
            self._failure_reported = False
            change.settle(stored=True)
            if is_latest and self._in_flight.get(subject) != change.msg_id:
                self._on_conflict(subject, ack.seq, event.encode())
        return True

    async def _resolve_conflict(self, subject: str, change: _Change) -> bool:
        """Read the event that is stored instead of this one; return False if this one has to be retried."""
        client: Client = await self._publisher.connected()
        try:
            stored = await direct_get.get_last_message(
                client, self._names.stream("EVENTS"), self._names.subject(subject)
            )
        except (NatsError, OSError, TimeoutError):
            return False
        if stored is None:
            self._sequences.pop(subject, None)  # the last event has expired, so this one is the first again
            return False
        # The known one was wrong; if the stream was created again, it was too high.
        self._sequences.pop(subject, None)
        self.record_sequence(subject, stored.seq)
        # If it is this very event, only its acknowledgement was lost.
        if stored.data == change.event.encode():
            change.settle(stored=True)
            return True
        return self._on_conflict(subject, stored.seq, stored.data)
