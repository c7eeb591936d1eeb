"""Election of the statuses: the lease and the votes of this monitor, and those of the others.

Each monitor holds a lease in WATCHDOG, which expires a few seconds after its last renewal, and writes its
view of a gateway there when that changes. A vote counts once this monitor has received it back, after every
message that WATCHDOG stored before it: so all monitors decide by the same votes, and there is no leader.

Invariants:

1. Of two monitors with the same id, only one holds the lease; the other one has no vote.
2. A monitor that cannot reach NATS, or is offline, has no say as soon as its lease may have expired, unless
   it was the only live monitor.
3. Without WATCHDOG (nats-server before 2.12) a monitor decides alone.
"""

import asyncio
import contextlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import APIError
from tickertape.contracts.events import Status
from tickertape.producers.monitor.coordination import vote_messages
from tickertape.producers.monitor.coordination.status_publisher import EXPECTED_SEQUENCE, WRONG_LAST_SEQUENCE
from tickertape.producers.monitor.gateway.majority import Electorate, View, Vote

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.nats.jetstream_api import describe_publish_error
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.nats.streams import StreamsError
from tickertape.rate_limit import RepeatFilter

LEASE_TTL: Final = 5
"""Seconds after which the lease of a monitor that stopped expires."""

RENEW_INTERVAL: Final = 1.0
"""Seconds between two renewals of the lease: four may fail."""

VOTE_TTL: Final = 3600
"""Seconds after which NATS deletes a vote, so that those of monitors that are gone do not pile up."""

REFRESH_INTERVAL: Final = 1200.0
"""Seconds after which an unchanged vote is written again, before it expires."""

MAX_QUEUED: Final = 16
"""Views of a gateway that wait for NATS; beyond that the oldest is dropped."""

MAX_IN_FLIGHT: Final = 64
"""Votes that are written concurrently."""

ACK_TIMEOUT: Final = 2.0
"""Seconds for JetStream to store a lease or a vote."""


class Election:
    """Lease and votes of this monitor, and the votes of all monitors.

    Args:
        client: connected NATS client.
        names: subject and stream names of the deployment.
        id: id of this monitor.
        is_online: returns whether the probes of this monitor count.
        on_change: called with the status subject of a gateway on which a vote has arrived; None after a
            change of the live monitors.
        on_peer_vote: called with the status subject of a gateway on which another monitor has voted.
        on_acquired: called when this monitor has obtained its lease, at the start and after each loss.
        report: receives lines for the operator.
        supported: whether there is a WATCHDOG stream.
        on_failure: called with the status subject and the error of a vote that is dropped for it.

    Attributes:
        electorate: live monitors and their votes.
        is_supported: whether there is a WATCHDOG stream.
    """

    def __init__(
        self,
        client: Client,
        names: Names,
        id: str,
        is_online: Callable[[], bool],
        on_change: Callable[[str | None], None],
        on_peer_vote: Callable[[str, Vote], None],
        on_acquired: Callable[[], None],
        report: Callable[[str], None],
        *,
        supported: bool,
        on_failure: Callable[[str, Exception], None] = lambda *_: None,
    ) -> None:
        self.electorate = Electorate()
        self._client = client
        self._names = names
        self._id = id
        self._is_online = is_online
        self._on_change = on_change
        self._on_peer_vote = on_peer_vote
        self._on_acquired = on_acquired
        self._report = report
        self._on_failure = on_failure
        self.is_supported = supported
        self._instance = secrets.token_hex(8)
        self._sequence: int | None = None  # of the lease; None while this monitor holds none
        self._started_at, self._seen_at = time.monotonic(), float("-inf")
        self._was_elected = False
        self._rival: tuple[str, int] | None = None
        self._queues: dict[str, deque[View]] = {}
        self._cast: dict[str, tuple[View, float]] = {}
        self._not_empty = asyncio.Event()
        self._received = asyncio.Event()
        self._reports = RepeatFilter(DENIAL_REPORT_INTERVAL)

    def __repr__(self) -> str:
        return f"<Election {self._id} {self._instance} {self.electorate!r}>"

    @property
    def holds_lease(self) -> bool:
        """Whether this monitor holds its lease, or needs none."""
        if not self.is_supported:
            return True
        is_recent = time.monotonic() - self._seen_at < LEASE_TTL
        return is_recent and self.electorate.is_live(self._id, self._instance)

    @property
    def lacks_lease(self) -> bool:
        """Whether this monitor has lost its lease, or has not obtained one in time after its start."""
        is_overdue = time.monotonic() - self._started_at > 2 * LEASE_TTL
        return not self.holds_lease and (is_overdue or self._seen_at > float("-inf"))

    @property
    def is_alone(self) -> bool:
        """Whether this monitor decides by its own view, because it is the only one and cannot reach NATS."""
        if not self.is_supported:
            return True
        return not self._client.is_connected and self.electorate.live() == {self._id: self._instance}

    @property
    def may_publish(self) -> bool:
        """Whether events may be handed to NATS, which would store them after an outage, too."""
        return self.holds_lease and (self._client.is_connected or not self.is_supported)

    @property
    def has_say(self) -> bool:
        """Whether this monitor may change the status of gateways."""
        # Its lease is released up to a second after it has gone offline.
        return (self.holds_lease and self._is_online()) or self.is_alone

    def votes(self, subject: str, own: Callable[[], View]) -> Mapping[str, Vote]:
        """Return the votes on a gateway, by the id of the monitor.

        Args:
            subject: status subject of the gateway.
            own: returns the current view of this monitor.
        """
        if self.is_alone:
            return {self._id: Vote(self._instance, own(), self.electorate.applied + 1)}
        return self.electorate.votes(subject)

    def latest_vote(self, subject: str) -> Status | None:
        """Return the status that this monitor has voted for last on a gateway; None without a vote."""
        if queue := self._queues.get(subject):
            return queue[-1].status if queue[-1].status is not Status.REMOVED else None
        if (cast := self._cast.get(subject)) is not None:
            return cast[0].status
        vote = self.electorate.votes(subject).get(self._id)
        return vote.view.status if vote is not None else None

    def cast(self, subject: str, view: View) -> None:
        """Vote on the gateway with a status subject; while there is no lease, do nothing."""
        if not self._was_elected:
            return
        self._queues.setdefault(subject, deque(maxlen=MAX_QUEUED)).append(view)
        self._not_empty.set()

    def withdraw(self, subject: str) -> None:
        """Withdraw the vote on a gateway that is no longer in the file."""
        self._queues.pop(subject, None)
        self._cast.pop(subject, None)
        self.cast(subject, View(Status.REMOVED, ""))

    def receive(self, delivery: Delivery) -> None:
        """Apply a message from WATCHDOG, in the order of its sequences."""
        subject = self._names.strip_prefix(delivery.subject)
        gateway_and_monitor = vote_messages.parse_vote_subject(subject)
        if gateway_and_monitor is not None:
            gateway, monitor = gateway_and_monitor
            vote = vote_messages.decode_vote(delivery.data, delivery.seq)
            self.electorate.record_vote(gateway, monitor, vote, delivery.seq)
            self._received.set()
            # The monitor whose vote came last publishes; the others notice if it does not.
            if monitor == self._id:
                self._on_change(gateway)
            elif vote is not None:
                self._on_peer_vote(gateway, vote)
            return
        holder = vote_messages.parse_lease_subject(subject)
        lease = vote_messages.decode_lease(delivery.data)
        if holder is None or lease is None:
            return
        instance, is_released = lease
        if self.electorate.record_lease(holder, None if is_released else instance, delivery.seq):
            self._on_change(None)
        if (holder, lease) == (self._id, (self._instance, False)):
            self._seen_at = time.monotonic()
            if not self._was_elected:
                self._was_elected, self._rival = True, None
                self._on_acquired()

    async def run(self) -> None:
        """Hold the lease, until cancelled.

        Raises:
            StreamsError: another monitor with the same id is running.
        """
        while True:
            if self._client.is_connected:
                await self._renew_or_release()
            self._refresh()
            await asyncio.sleep(RENEW_INTERVAL)

    async def release(self) -> None:
        """Release the lease, so that a successor does not have to wait until it expires."""
        sequence, self._sequence = self._sequence, None
        if sequence is None:
            return
        body = vote_messages.encode_lease(self._instance, released=True)
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            await self._publish(vote_messages.lease_subject(self._id), body, 1, sequence)

    async def _renew_or_release(self) -> None:
        try:
            if self._is_online():
                await self._renew()
            elif self._sequence is not None:
                await self.release()
                self._lose_lease()
        except (NatsError, TimeoutError, OSError) as error:
            text = describe_publish_error(error)
            if self._client.is_connected and self._reports.allow(text, time.monotonic()):
                self._report(
                    f"the lease of this monitor cannot be renewed, so its votes do not count: {text}"
                )

    async def _renew(self) -> None:
        subject, instance = vote_messages.lease_subject(self._id), self._instance
        expected = self._sequence or 0
        for _ in range(2):
            try:
                body = vote_messages.encode_lease(self._instance)
                self._sequence = await self._publish(subject, body, LEASE_TTL, expected)
                return
            except APIError as error:
                if error.err_code != WRONG_LAST_SEQUENCE:
                    raise
            self._lose_lease()
            stored = await direct_get.get_last_message(
                self._client, self._names.stream("WATCHDOG"), self._names.subject(subject)
            )
            lease = vote_messages.decode_lease(stored.data) if stored is not None else None
            # An expired lease, a released one, and an own one whose acknowledgement was lost are taken over.
            expected = stored.seq if stored is not None else 0
            if lease is not None and lease[0] != instance and not lease[1]:
                self._check_rival(lease[0], expected)
                return

    def _check_rival(self, instance: str, sequence: int) -> None:
        """Report another monitor with the same id, unless its lease is about to expire."""
        before, self._rival = self._rival, (instance, sequence)
        # A lease that is not renewed belongs to a monitor that was killed, often to the predecessor.
        if before is None or before == self._rival:
            return
        message = f"another monitor with the id {self._id!r} is running"
        hint = "give each monitor its own --id"
        if self._seen_at == float("-inf"):
            raise StreamsError(message, hint)
        if self._reports.allow(message, time.monotonic()):
            self._report(f"{message}, so the votes of this one do not count; {hint}")

    def _lose_lease(self) -> None:
        # When it is obtained again, votes from before are out of date: others may have decided since.
        self._instance, self._sequence, self._was_elected = secrets.token_hex(8), None, False
        self._queues.clear()
        self._cast.clear()

    def _refresh(self) -> None:
        now = time.monotonic()
        for subject, (view, cast_at) in list(self._cast.items()):
            if now - cast_at > REFRESH_INTERVAL and subject not in self._queues:
                self.cast(subject, view)

    async def write_votes(self) -> None:
        """Write the votes in order per gateway, each until it has been received; until cancelled."""
        while True:
            await self._not_empty.wait()
            heads = [(subject, queue[0]) for subject, queue in list(self._queues.items())[:MAX_IN_FLIGHT]]
            stored = await asyncio.gather(*(self._write(subject, view) for subject, view in heads))
            await self._wait_until_received(max(stored, default=0))
            for (subject, view), sequence in zip(heads, stored, strict=True):
                queue = self._queues.get(subject)
                # The lease may have been lost meanwhile, and another view been queued.
                if sequence and queue and queue[0] is view:
                    queue.popleft()
                    if view.status is not Status.REMOVED:
                        self._cast[subject] = (view, time.monotonic())
                if queue is not None and not queue:
                    del self._queues[subject]
            if not self._queues:
                self._not_empty.clear()
            elif not all(stored):
                await asyncio.sleep(RETRY_DELAY)

    async def _write(self, subject: str, view: View) -> int:
        """Write a vote; return its sequence, or 0 if it has to be written again."""
        withdrawn = view.status is Status.REMOVED
        try:
            body = b"" if withdrawn else vote_messages.encode_vote(self._instance, view)
            vote_subject = vote_messages.vote_subject(subject, self._id)
            return await self._publish(vote_subject, body, 1 if withdrawn else VOTE_TTL)
        except (NatsError, TimeoutError, OSError) as error:
            text = describe_publish_error(error)
            if self._client.is_connected and self._reports.allow(f"vote {text}", time.monotonic()):
                self._report(f"votes cannot be written, retrying: {text}")
            return 0
        except Exception as error:  # a vote that cannot be written must not delay those on other gateways
            self._queues.pop(subject, None)
            self._on_failure(subject, error)
            return 0

    async def _wait_until_received(self, sequence: int) -> None:
        # The next vote on a gateway would replace one that has not been delivered yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ACK_TIMEOUT):
                while self.electorate.applied < sequence:
                    self._received.clear()
                    await self._received.wait()

    async def _publish(self, subject: str, body: bytes, ttl: int, expected: int | None = None) -> int:
        headers = {"Nats-TTL": f"{ttl}s"}
        if expected is not None:
            headers[EXPECTED_SEQUENCE] = str(expected)
        ack = await self._client.jetstream().publish(
            self._names.subject(subject), body, timeout=ACK_TIMEOUT, headers=headers
        )
        return ack.seq
