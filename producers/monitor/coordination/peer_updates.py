"""Updates on the monitored gateways from other monitors, other producers, silences and dead man's switches.

Invariant: an event of another producer is adopted, and the pending changes on its subject are discarded.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import Status
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.coordination.election import Election
from tickertape.producers.monitor.coordination.recovery_events import adopt_recovery, parse_recovery
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.coordination.stored_status import (
    parse_stored_status,
    read_stored_statuses,
)
from tickertape.producers.monitor.coordination.stream_follower import Position, end_of, follow
from tickertape.producers.monitor.coordination.vote_messages import LEASES, VOTES
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.model import Silence, StoredStatus
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError


class PeerUpdates:
    """Peer updates, applied to the gateways of a monitor.

    Args:
        id: name of this monitor, whose own events are ignored.
        names: subject and stream names of the deployment.
        gateways: the monitored gateways by status subject; a live view.
        failures: keeps an unexpected failure of a gateway's update away from the others.
        status_publisher: publisher that tracks the last sequence of each subject.
        update: receives a gateway after an update.
        election: returns the election, which is created once NATS is connected.
        report: receives lines for the operator.

    Attributes:
        silences: latest silence of each gateway, by status subject.
        unconfirmed: gateways that this monitor published in an earlier run and that its file lacks, by status
            subject, as long as their removal is not confirmed.
    """

    def __init__(
        self,
        id: str,
        names: Names,
        gateways: Mapping[str, MonitoredGateway],
        failures: Failures,
        status_publisher: StatusPublisher,
        update: Callable[[MonitoredGateway], None],
        report: Callable[[str], None],
        election: Callable[[], Election | None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        self.silences: dict[str, Silence] = {}
        self.unconfirmed: dict[str, StoredStatus] = {}
        self._events_end = Position()
        self._id = id
        self._names = names
        self._monitored = gateways
        self._failures = failures
        self._status_publisher = status_publisher
        self._update = update
        self._election = election
        self._report = report

    async def load_initial_state(self, client: Client, with_silences: bool) -> dict[str, StoredStatus]:
        """Read the streams' last sequences before their contents, so that no message is missed in between.

        Args:
            client: connected NATS client.
            with_silences: whether there is a WATCHDOG stream with silences.

        Returns:
            the latest status of each gateway, by status subject.

        Raises:
            StreamsError: the streams cannot be read although NATS is reachable.
        """
        while True:
            reconnects = client.stats["reconnects"]
            try:
                self._events_end = await end_of(client, self._names.stream("EVENTS"))
                stored = await read_stored_statuses(client, self._names)
                if with_silences:
                    self.silences = await silences.read(client, self._names)
                return stored
            except (StreamsError, NatsError) as error:
                # An error without a lost connection does not disappear by itself, so the operator has to see
                # it.
                if client.is_connected and client.stats["reconnects"] == reconnects:
                    if isinstance(error, StreamsError):
                        raise
                    message = f"the stored statuses cannot be read: {str(error) or 'no reply'}"
                    raise StreamsError(message, "check the server's log") from None
            await asyncio.sleep(RETRY_DELAY)

    def is_own(self, stored: StoredStatus) -> bool:
        """Return whether this monitor published a status last; others may be in another monitor's file."""
        return stored.monitor == self._id and stored.status is not Status.REMOVED

    def apply(self, subject: str, sequence: int, body: bytes) -> bool:
        """Adopt an event of another producer, or of an earlier process with the same id.

        Returns:
            False if it is invalid, so that nothing is adopted and own changes follow it.
        """
        stored = parse_stored_status(subject, body, sequence)
        if stored is not None and self.unconfirmed.pop(subject, None) is not None and self.is_own(stored):
            self.unconfirmed[subject] = stored
        recovery = parse_recovery(subject, body) if stored is None else None
        if stored is None and recovery is None:
            return False
        self._status_publisher.discard(subject)
        monitored = self._monitored.get(subject.replace("gateway.recovery.", "gateway.status.", 1))
        if monitored is not None and stored is not None:
            with self._failures.isolate(monitored.gateway, "status"):
                self.adopt(monitored, stored)
        if monitored is not None and recovery is not None:
            with self._failures.isolate(monitored.gateway, "recovery", "peer"):
                adopt_recovery(monitored, recovery)
        return True

    def adopt(self, monitored: MonitoredGateway, stored: StoredStatus) -> None:
        """Adopt a status of a gateway that another producer published."""
        election = self._election()
        applied = election.electorate.applied if election is not None else 0
        as_view = election is not None and not election.is_supported
        monitored.adopt(stored, self._now(), applied, as_view=as_view)
        self._update(monitored)

    async def adopt_stored(self, client: Client, subjects: list[str]) -> None:
        """Adopt the stored statuses of gateways, by status subject."""
        while True:
            try:
                stored = await read_stored_statuses(client, self._names)
                break
            except (StreamsError, NatsError, TimeoutError):
                await asyncio.sleep(RETRY_DELAY)
        for subject in self._monitored.keys() & set(subjects):
            monitored, found = self._monitored[subject], stored.get(subject)
            last = self._status_publisher.last_sequence(subject)
            with self._failures.isolate(monitored.gateway, "status"):
                # Events that have been stored since then are adopted, or published, already.
                if found is not None and not 0 < found.sequence < last:
                    self.adopt(monitored, found)
                elif found is None and not last and not self._status_publisher.is_pending(subject):
                    monitored.unpublished = True
                    self._update(monitored)

    async def follow_events(self, client: Client) -> None:
        """Apply the events that were published since ``load_initial_state``, until cancelled."""
        patterns = (self._names.subject("gateway.>"),)
        stream, start = self._names.stream("EVENTS"), self._events_end
        await follow(client, stream, patterns, start, self.receive, self._report, self.start_over)

    def receive(self, delivery: Delivery) -> None:
        """Apply an event from EVENTS, unless this process has published it."""
        subject, publisher = self._names.strip_prefix(delivery.subject), self._status_publisher
        # An own event may arrive before its acknowledgement.
        is_new = publisher.record_sequence(subject, delivery.seq)
        if is_new and not publisher.is_queued(subject, delivery.data):
            self.apply(subject, delivery.seq, delivery.data)

    def start_over(self) -> None:
        """Publish all statuses again, because EVENTS was created again, without the events of before."""
        self._status_publisher.forget_sequences()
        for monitored in self._monitored.values():
            monitored.unpublished = True

    def apply_silence(self, subject: str, body: bytes) -> None:
        """Apply a silence to its gateway, and remember it for when the gateway is added.

        Args:
            subject: subject of the silence, without the deployment's prefix.
            body: message on that subject, from any client.
        """
        silence = silences.decode(body)
        if silence is None:
            return
        subject = silences.status_subject(subject)
        # Those of gateways that are not in the file yet are kept as well, up to a bound.
        self.silences.pop(subject, None)
        self.silences[subject] = silence
        if len(self.silences) > silences.MAX_SILENCES:
            del self.silences[next(iter(self.silences))]
        if (monitored := self._monitored.get(subject)) is not None:
            with self._failures.isolate(monitored.gateway, "silence"):
                monitored.set_silence(silence, self._now())
                self._update(monitored)

    async def follow_watchdog(self, client: Client, election: Election) -> None:
        """Apply all leases and votes, and the silences, until cancelled."""
        names = self._names

        def receive(delivery: Delivery) -> None:
            subject = names.strip_prefix(delivery.subject)
            if subject.startswith(silences.PREFIX):
                self.apply_silence(subject, delivery.data)
            else:
                election.receive(delivery)

        # One consumer, so that leases and votes arrive in the order in which they were stored.
        patterns = tuple(map(names.subject, (LEASES, VOTES, silences.PATTERN)))
        stream, clear = names.stream("WATCHDOG"), election.electorate.clear
        await follow(client, stream, patterns, Position(), receive, self._report, clear)
