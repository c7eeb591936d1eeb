"""Decisions on the monitored gateways: votes, and the events that follow from them.

Invariant: every event on a status is created here, and only while this monitor has a say.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.coordination.election import Election
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.majority import Vote
from tickertape.producers.monitor.gateway.model import StoredStatus
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

TAKEOVER_DELAY: Final = 15.0
"""Seconds for which a monitor leaves a recovery to another one: enough to publish the attempt that is due."""


class Decisions:
    """Decisions of a monitor.

    Args:
        id: id of this monitor.
        gateways: the monitored gateways by status subject; a live view.
        failures: keeps an unexpected failure of a gateway's decision away from the others.
        status_publisher: queue of the events.
        publish_removal: publishes the removal of a gateway that no monitor has in its file any longer.
        adopt_stored: adopts the stored statuses of gateways, by status subject.
        report: receives lines for the operator.
        now: returns UNIX seconds.

    Attributes:
        election: votes of all monitors; None until NATS is connected.
        removed: gateways that were removed from the file, and on which this monitor withdraws its vote.
    """

    def __init__(
        self,
        id: str,
        gateways: Mapping[str, MonitoredGateway],
        failures: Failures,
        status_publisher: StatusPublisher,
        publish_removal: Callable[[StoredStatus], None],
        adopt_stored: Callable[[list[str]], None],
        report: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self.election: Election | None = None
        self.removed: dict[str, StoredStatus] = {}
        self._id = id
        self._monitored = gateways
        self._failures = failures
        self._status_publisher = status_publisher
        self._publish_removal = publish_removal
        self._adopt_stored = adopt_stored
        self._report = report
        self._now = now

    @property
    def holds_lease(self) -> bool:
        """Whether the votes of this monitor count."""
        return self.election is not None and self.election.holds_lease

    @property
    def may_publish(self) -> bool:
        """Whether events may be published now."""
        return self.election is not None and self.election.may_publish

    @property
    def lacks_lease(self) -> bool:
        """Whether the votes of this monitor do not count, although they should by now."""
        return self.election is not None and self.election.lacks_lease

    @property
    def peers(self) -> int:
        """Number of other monitors that hold a lease."""
        return len(self.election.electorate.live().keys() - {self._id}) if self.election is not None else 0

    def dissent(self, monitored: MonitoredGateway) -> int:
        """Return how many monitors disagree with the published status of a gateway."""
        if self.election is None:
            return 0
        return monitored.dissent(self.election.votes(monitored.gateway.subject, monitored.own.current))

    def update(self, monitored: MonitoredGateway) -> None:
        """Vote on a gateway if the own view differs from the own vote, and publish what is due."""
        election = self.election
        if election is None:
            return
        subject, now, own = monitored.gateway.subject, self._now(), monitored.own
        view = own.take_new()
        if view is None:
            voted = election.latest_vote(subject)
            # Whatever the reason why the change was not taken, or its vote not stored.
            if voted is not None and own.contradicts(voted):
                view = own.current()
        if view is not None:
            election.cast(subject, view)
        if not election.has_say:
            return
        votes = election.votes(subject, own.current)
        # A vote that is about to be withdrawn must not correct what was published for the lack of one.
        if own.status is Status.UNKNOWN and self._id in votes:
            vote = votes[self._id]
            if own.contradicts(vote.view.status):
                votes = {**votes, self._id: replace(vote, view=own.current())}
        change = monitored.decide(votes, election.electorate.applied, now)
        if change is not None:
            error = change.metadata.get("error")
            path = f"{change.previous_status} -> {change.current_status}"
            self._report(f"{change.gateway_id}: {path}{f' ({error})' if error else ''}")
            self._status_publisher.enqueue(change)
        # Also without a change: the end of a silence and a peer's status start or end a recovery, too.
        self._take_over_recovery(monitored, votes.keys(), now)
        recovery, event = monitored.recovery, monitored.update_recovery(now)
        if event is not None and recovery is not None:
            self._report(f"{event.gateway_id}: recovery {event.phase} {event.attempt}")
            stored = self._status_publisher.enqueue(event)
            stored.add_done_callback(
                lambda done: recovery.settle_start(event, self._now(), stored=done.result())
            )

    def _take_over_recovery(self, monitored: MonitoredGateway, voters: Collection[str], now: float) -> None:
        """Continue the recovery of a monitor that died; those that remain take turns until one does."""
        recovery = monitored.recovery
        if recovery is None or recovery.owner is None or self.election is None:
            return
        # An earlier process with the same id has ended, as this one holds the lease.
        if recovery.owner == self._id:
            delay = 0.0
        elif self.election.is_supported and self._id in voters:
            if recovery.owner in self.election.electorate.live():
                return
            # In the files of those before this one, the gateway may have no recovery.
            delay = TAKEOVER_DELAY * sorted(voters).index(self._id)
        else:
            return
        wait = f" in {delay:g} s, unless another one does" if delay else ""
        self._report(f"{monitored.gateway.id}: continuing the recovery of monitor {recovery.owner!r}{wait}")
        recovery.take_over(now, delay)

    def apply_vote(self, subject: str | None) -> None:
        """Decide on a gateway on which this monitor has voted, or on all after a change of the monitors."""
        for key in [subject] if subject is not None else list(self._monitored):
            if (monitored := self._monitored.get(key)) is not None:
                with self._failures.isolate(monitored.gateway, "status"):
                    self.update(monitored)
        if subject in self.removed:
            self._finish_removal(subject)

    def apply_peer_vote(self, subject: str, vote: Vote) -> None:
        """Probe a gateway again if another monitor has a different view, so that a majority is found soon."""
        monitored = self._monitored.get(subject)
        if monitored is not None and Status.UNKNOWN not in (vote.view.status, monitored.own.status):
            with self._failures.isolate(monitored.gateway, "status"):
                if vote.view.status is not monitored.own.status:
                    monitored.probe_early()

    def apply_lease(self) -> None:
        """Vote on all gateways because this monitor has obtained its lease."""
        assert self.election is not None
        # They were decided while this monitor could not reach NATS, and others have monitored since.
        # Recoveries and removals are not decided again; if another one was stored, it causes a conflict.
        pending = self._status_publisher.pending_subjects() if self.peers else []
        outdated = [subject for subject in pending if subject in self._monitored]
        for subject in outdated:
            self._status_publisher.discard(subject)
        if outdated:
            self._adopt_stored(outdated)
        for subject, monitored in self._monitored.items():
            with self._failures.isolate(monitored.gateway, "status"):
                view = monitored.own.current()
                has_voted = self._id in self.election.electorate.votes(subject)
                if view.status is not Status.UNKNOWN or monitored.status is Status.OFF_SESSION or has_voted:
                    self.election.cast(subject, view)
        for subject in self.removed:
            self.election.withdraw(subject)
        self.apply_vote(None)

    def remove(self, stored: StoredStatus) -> None:
        """Withdraw the vote on a gateway that is no longer in the file.

        The monitor that withdraws the last vote publishes the removal.
        """
        self._report(f"{stored.gateway_id} is no longer in the file: removed")
        subject = GatewayStatusChange.subject_of(
            gateway_type=stored.gateway_type, gateway_id=stored.gateway_id
        )
        self.removed[subject] = stored
        if self.election is not None and self.election.is_supported:
            self.election.withdraw(subject)
        else:
            self._finish_removal(subject)

    def _finish_removal(self, subject: str) -> None:
        stored = self.removed.pop(subject)
        if self.election is None or not self.election.electorate.votes(subject):
            self._publish_removal(stored)
