"""Hears what others say of the gateways under watch: other monitors, silences, the switches of NATS.

Invariant: another's word on a subject is taken over, and what was to be told before it is told no more.
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
    author,
    newest_statuses,
    status_of,
)
from tickertape.producers.monitor.coordination.stream_follower import end_of, follow
from tickertape.producers.monitor.gateway.model import Newest, Silence
from tickertape.producers.monitor.gateway.state import MONITOR_SILENT
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError


class PeerUpdates:
    """Others' words, as a monitor takes them over.

    Args:
        id: name of this monitor; its own words are no news.
        names: the deployment.
        watched: the gateways by subject, as they are now.
        telling: knows where each subject stands.
        tell: gets a gateway that took a word over, with the change that this made.

    Attributes:
        silences: the newest silence of each gateway's status subject.
    """

    def __init__(
        self,
        id: str,
        names: Names,
        watched: Mapping[str, MonitoredGateway],
        telling: StatusPublisher,
        tell: Callable[[MonitoredGateway, GatewayStatusChange | None], None],
    ) -> None:
        self.silences: dict[str, Silence] = {}
        self._events_end = 0
        self._watchdog_end = 0
        self._id = id
        self._names = names
        self._watched = watched
        self._telling = telling
        self._tell = tell

    async def first_look(self, client: Client, silenced: bool) -> dict[str, Newest]:
        """Read where the streams end, and what they hold: in this order nothing falls in between.

        Args:
            client: connected.
            silenced: whether there is a WATCHDOG to hear of silences from.

        Returns:
            the newest status of each subject.

        Raises:
            StreamsError: NATS is there, and they cannot be read.
        """
        while True:
            reconnects = client.stats["reconnects"]
            try:
                self._events_end = await end_of(client, self._names.stream("EVENTS"))
                newest = await newest_statuses(client, self._names)
                if silenced:
                    self._watchdog_end = await end_of(client, self._names.stream("WATCHDOG"))
                    self.silences = await silences.read(client, self._names)
                return newest
            except (StreamsError, NatsError) as error:
                if client.is_connected and client.stats["reconnects"] == reconnects:
                    what = f"the newest statuses cannot be read: {error}"
                    raise StreamsError(what, "look at the server's log and this user's permissions") from None
            await asyncio.sleep(RETRY_DELAY)

    def word(self, subject: str, sequence: int, body: bytes) -> bool:
        """Take over what stands on a subject, unless it is our own; True when it is another's."""
        newest = status_of(subject, body, sequence)
        silent = newest is not None and newest.reason == MONITOR_SILENT
        if author(body) == self._id and not silent:
            return False
        self._telling.drop(subject)
        watched = self._watched.get(subject)
        if watched is not None and newest is not None:
            self._tell(watched, watched.adopt(newest, time.time()))
        for one in self._watched.values() if subject.startswith("gateway.recovery.") else ():
            if one.recovery_subject == subject:
                one.leave_recovery()
        return True

    async def events(self, client: Client) -> None:
        """Hear what is said in EVENTS since the first look, until cancelled."""
        names = self._names

        def heard(delivery: Delivery) -> None:
            subject = names.strip_prefix(delivery.subject)
            if self._telling.heard(subject, delivery.seq):
                self.word(subject, delivery.seq, delivery.data)

        patterns = (names.subject("gateway.>"),)
        await follow(client, names.stream("EVENTS"), patterns, self._events_end, heard)

    async def quiet(self, client: Client) -> None:
        """Hear of silences since the first look, until cancelled."""
        names = self._names

        def heard(delivery: Delivery) -> None:
            subject = silences.status_subject(names.strip_prefix(delivery.subject))
            silence = silences.decode(delivery.data)
            if silence is None:
                return
            self.silences[subject] = silence
            if (watched := self._watched.get(subject)) is not None:
                self._tell(watched, watched.quiet(silence, time.time()))

        patterns = (names.subject(silences.PATTERN),)
        await follow(client, names.stream("WATCHDOG"), patterns, self._watchdog_end, heard)

    async def recoveries(self, client: Client) -> None:
        """Know the last word on the recovery of each gateway."""
        stream = self._names.stream("EVENTS")
        for watched in self._watched.values():
            subject = watched.recovery_subject
            if subject is None or self._telling.expects(subject):
                continue
            try:
                answer = await direct_get.get_last_message(client, stream, self._names.subject(subject))
            except NatsError:
                continue  # it is read again when it turns out to be needed
            if answer is not None:
                self._telling.heard(subject, answer.seq)
