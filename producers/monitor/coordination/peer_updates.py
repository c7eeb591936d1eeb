"""Updates on the monitored gateways from other monitors, other producers, silences and dead man's switches.

Invariant: an event of another producer is adopted, and the pending changes on its subject are discarded.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.events import GatewayStatusChange
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.coordination.stored_status import (
    parse_author,
    parse_stored_status,
    read_stored_statuses,
)
from tickertape.producers.monitor.coordination.stream_follower import follow, last_sequence
from tickertape.producers.monitor.gateway.model import Silence, StoredStatus
from tickertape.producers.monitor.gateway.state import MONITOR_SILENT
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError


class PeerUpdates:
    """Peer updates, applied to the gateways of a monitor.

    Args:
        id: name of this monitor, whose own events are ignored.
        names: subject and stream names of the deployment.
        gateways: the monitored gateways by status subject; a live view.
        status_publisher: publisher that tracks the last sequence of each subject.
        publish_change: receives a gateway after an update, with the change that the update causes, or None.

    Attributes:
        silences: latest silence of each gateway, by status subject.
    """

    def __init__(
        self,
        id: str,
        names: Names,
        gateways: Mapping[str, MonitoredGateway],
        status_publisher: StatusPublisher,
        publish_change: Callable[[MonitoredGateway, GatewayStatusChange | None], None],
    ) -> None:
        self.silences: dict[str, Silence] = {}
        self._events_end = 0
        self._watchdog_end = 0
        self._id = id
        self._names = names
        self._monitored = gateways
        self._status_publisher = status_publisher
        self._publish_change = publish_change

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
                self._events_end = await last_sequence(client, self._names.stream("EVENTS"))
                stored = await read_stored_statuses(client, self._names)
                if with_silences:
                    self._watchdog_end = await last_sequence(client, self._names.stream("WATCHDOG"))
                    self.silences = await silences.read(client, self._names)
                return stored
            except (StreamsError, NatsError) as error:
                # An error without a lost connection does not disappear by itself, so the operator has to see
                # it.
                if client.is_connected and client.stats["reconnects"] == reconnects:
                    message = f"the stored statuses cannot be read: {error}"
                    hint = "check the server's log and the permissions of this NATS user"
                    raise StreamsError(message, hint) from None
            await asyncio.sleep(RETRY_DELAY)

    def apply(self, subject: str, sequence: int, body: bytes) -> bool:
        """Adopt an event unless this monitor published it; return whether another producer published it."""
        stored = parse_stored_status(subject, body, sequence)
        # The dead man's switch publishes events in the name of the monitor that armed it.
        switch_fired = stored is not None and stored.reason == MONITOR_SILENT
        if parse_author(body) == self._id and not switch_fired:
            return False
        self._status_publisher.discard(subject)
        monitored = self._monitored.get(subject)
        if monitored is not None and stored is not None:
            self._publish_change(monitored, monitored.adopt(stored, time.time()))
        for monitored in self._monitored.values() if subject.startswith("gateway.recovery.") else ():
            if monitored.recovery_subject == subject:
                monitored.cede_recovery()
        return True

    async def follow_events(self, client: Client) -> None:
        """Apply the events that were published since ``load_initial_state``, until cancelled."""
        names = self._names

        def receive(delivery: Delivery) -> None:
            subject = names.strip_prefix(delivery.subject)
            if self._status_publisher.record_sequence(subject, delivery.seq):
                self.apply(subject, delivery.seq, delivery.data)

        patterns = (names.subject("gateway.>"),)
        await follow(client, names.stream("EVENTS"), patterns, self._events_end, receive)

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
            self._publish_change(monitored, monitored.set_silence(silence, time.time()))

    async def follow_silences(self, client: Client) -> None:
        """Apply the silences that were set since ``load_initial_state``, until cancelled."""
        names = self._names

        def receive(delivery: Delivery) -> None:
            self.apply_silence(names.strip_prefix(delivery.subject), delivery.data)

        patterns = (names.subject(silences.PATTERN),)
        await follow(client, names.stream("WATCHDOG"), patterns, self._watchdog_end, receive)

    async def load_recovery_sequences(self, client: Client) -> None:
        """Read the last sequence of each gateway's recovery subject."""
        stream = self._names.stream("EVENTS")
        for monitored in self._monitored.values():
            subject = monitored.recovery_subject
            if subject is None or self._status_publisher.last_sequence(subject):
                continue
            try:
                message = await direct_get.get_last_message(client, stream, self._names.subject(subject))
            except NatsError:
                continue  # a conflict on the first publish reads the sequence again
            if message is not None:
                self._status_publisher.record_sequence(subject, message.seq)
