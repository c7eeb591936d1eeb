"""State of one monitored gateway: probe results, votes and peer updates in, events out; no I/O and no clock.

``view.py`` has the own view, which the own probes show. The *status* is what was published last: it follows
the majority of the monitors' views, which ``majority.py`` determines.

Invariants:

1. Adopting a status that a peer published does not change the own view.
2. A published status is changed only by a majority that a later vote brought about, or after
   ``SETTLE_TIME``: monitors that know fewer votes, or see other leases, do not change it back and forth.
3. ``previous_status`` of an event is ``current_status`` of the preceding one, regardless of its publisher.
4. The ``metadata`` of an event suffices to continue after a restart without a change of status.
"""

from collections.abc import Mapping
from typing import Any, Final, Generic

from tickertape.contracts.events import GatewayStatusChange, Status, format_time, parse_time
from tickertape.producers.monitor.gateway.flapping import Flapping
from tickertape.producers.monitor.gateway.majority import Vote, find_majority
from tickertape.producers.monitor.gateway.model import AnyProbe, Gateway, Silence, StoredStatus
from tickertape.producers.monitor.gateway.probe_health import RANKS, Result
from tickertape.producers.monitor.gateway.view import OwnView

MONITOR_SILENT: Final = "monitor_silent"
"""Reason in an event of the dead man's switch, which NATS publishes when no monitor does."""

MONITOR_RECOVERED: Final = "monitor_recovered"
SESSION_CLOSED: Final = "session_closed"
SESSION_OPEN: Final = "session_open"

SETTLE_TIME: Final = 5.0
"""Seconds after which a published status may be changed without a later vote, because a monitor died."""

DISPUTE_DELAY: Final = 5.0
"""Minimum seconds for which monitors disagree before that is published, since they do not probe in step."""

DISPUTE_INTERVAL: Final = 60.0
"""Minimum seconds between two events that only report that monitors disagree, or agree again."""

_DOWN: Final = (Status.UNHEALTHY, Status.RECOVERING)
_UP: Final = (Status.HEALTHY, Status.DEGRADED)


class GatewayState(Generic[AnyProbe]):
    """State of a monitored gateway: its published status and the own view.

    Args:
        gateway: the gateway with its resolved settings.
        monitor: name of this monitor, for the metadata of events.
        stored: latest stored status; None if there is none.
        now: UNIX seconds.

    Attributes:
        status: published status.
        own: own view.
        unpublished: whether the gateway has yet to be announced.
    """

    def __init__(
        self, gateway: Gateway[AnyProbe], monitor: str, stored: StoredStatus | None, now: float
    ) -> None:
        self.gateway = gateway
        self.monitor = monitor
        self.silence: Silence | None = None
        self.own: OwnView[AnyProbe] = OwnView(gateway.checks, now)
        known = stored is not None and stored.status is not Status.REMOVED
        self._previous = stored.status if stored is not None else Status.UNKNOWN
        self.status = stored.status if stored is not None and known else Status.UNKNOWN
        self.since = stored.since if stored is not None and known else format_time(now)
        self.unpublished = not known
        self._changed_at = parse_time(self.since).timestamp()
        self._reason: str | None = None
        self._flapping = Flapping(gateway.flapping, gateway.cycle)
        self._vote_sequence = 0
        self._settled_at = float("-inf")
        self._disputed = False
        self._dispute_changed_at: float | None = None
        self._dispute_published_at = float("-inf")
        # Whether the latest event marks the gateway as flapping, silenced and disputed.
        self._published = (False, False, False)
        if stored is not None and known:
            self._reason = stored.reason
            self._disputed = stored.disputed
            self._flapping.adopt(stored.flapping)
            self._published = (stored.flapping, stored.silenced, stored.disputed)
            self.own.restore(stored, awaiting_first=stored.reason == MONITOR_SILENT)

    def __repr__(self) -> str:
        return f"<GatewayState {self.gateway.id} {self.status} since {self.since}, {self.own}>"

    @property
    def is_flapping(self) -> bool:
        """Whether the published status alternates between up and down."""
        return self._flapping.is_flapping

    def record_result(self, index: int, result: Result, now: float, started: float | None = None) -> None:
        """Record a probe result; for the arguments, see ``OwnView.record``."""
        if self.own.record(index, result, self.status, now, started):
            self._flapping.record_result()

    def close_session(self, now: float) -> None:
        """Change the own view to OFF_SESSION because the exchange has closed: the gateway is not probed."""
        self.own.close_session(now)
        self._flapping.reset()

    def open_session(self, now: float) -> None:
        """Change the own view to UNKNOWN because the exchange has opened; the next results decide it."""
        if Status.OFF_SESSION in (self.own.status, self.status):
            self.own.open_session(now)
            self._flapping.reset()

    def set_silence(self, silence: Silence | None, now: float) -> None:
        """Start, change or end a silence."""
        self.silence = None if silence is not None and silence.until <= now else silence

    def adopt(self, stored: StoredStatus, now: float, applied: int = 0, *, as_view: bool = False) -> None:
        """Adopt a status that a peer monitor, the gateway itself or NATS has published.

        Args:
            stored: the published status.
            now: UNIX seconds.
            applied: sequence in WATCHDOG up to which votes are known.
            as_view: whether the own view continues from this status, because there are no votes.
        """
        if stored.status is Status.REMOVED:
            # The gateway was removed from the file of another monitor, but is still in the file of this one.
            self._previous, self.unpublished = stored.status, True
            return
        silent = stored.reason == MONITOR_SILENT
        as_view = as_view and not silent and stored.status is not self.status
        self._count_transition(stored.status)
        self.status, self.since, self._reason = stored.status, stored.since, stored.reason
        self.unpublished = False
        self._changed_at = parse_time(self.since).timestamp()
        self._flapping.adopt(stored.flapping)
        if stored.disputed is not self._published[2]:
            self._dispute_published_at = now
        self._published = (stored.flapping, stored.silenced, stored.disputed)
        # A monitor that probes the gateway corrects the dead man's switch immediately.
        self._vote_sequence = 0 if silent else stored.vote_sequence or applied
        self._settled_at = float("-inf") if silent else now + SETTLE_TIME
        if as_view or (silent and self.own.status is Status.UNKNOWN):
            self.own.restore(stored, awaiting_first=silent)
        if as_view:
            self.own.replace(stored.status, stored.since)

    def shift_clock(self, step: float) -> None:
        """Shift the times of pauses and waits because the system clock was set by ``step`` seconds."""
        self.own.shift_clock(step)
        self._changed_at += step
        self._settled_at += step
        self._dispute_published_at += step
        if self._dispute_changed_at is not None:
            self._dispute_changed_at += step

    def dissent(self, votes: Mapping[str, Vote]) -> int:
        """Return how many monitors disagree with the published status; 0 if they all agree."""
        verdicts = [vote.view.status for vote in votes.values() if vote.view.status is not Status.UNKNOWN]
        return sum(status is not self.status for status in verdicts) if len(set(verdicts)) > 1 else 0

    def decide(self, votes: Mapping[str, Vote], applied: int, now: float) -> GatewayStatusChange | None:
        """Return the event that is due according to the votes; None if none is due.

        Args:
            votes: vote of each live monitor, by its id.
            applied: sequence in WATCHDOG up to which votes are known.
            now: UNIX seconds.
        """
        if self._is_uncompressed(votes):
            return None
        self._update_dispute(votes, now)
        if self.unpublished:
            self.unpublished = False
            return self._make_event(self._previous, votes, applied, now)
        status = find_majority(self.status, (vote.view.status for vote in votes.values()))
        if status is not None and self._may_change(status, votes, applied, now):
            before = self.status
            self._change_status(status, votes, now)
            return self._make_event(before, votes, applied, now, votes[self.monitor].view.details)
        if self._disputed is not self._published[2] and now - self._dispute_published_at >= DISPUTE_INTERVAL:
            self._dispute_published_at = now
            return self._make_event(self.status, votes, applied, now)
        if self._published[:2] != (self._flapping.is_flapping, self.silence is not None):
            return self._make_event(self.status, votes, applied, now)
        return None

    def _is_uncompressed(self, votes: Mapping[str, Vote]) -> bool:
        """Return whether nothing is due, as almost always: this is asked for every gateway once a second."""
        published = (self._flapping.is_flapping, self.silence is not None, False)
        return (
            not self.unpublished
            and not self._disputed
            and self._dispute_changed_at is None
            and self._published == published
            and all(vote.view.status is self.status for vote in votes.values())
        )

    def _may_change(self, status: Status, votes: Mapping[str, Vote], applied: int, now: float) -> bool:
        own = votes.get(self.monitor)
        # One of the majority publishes, as only its results explain the status.
        if status is self.status or own is None:
            return False
        if own.view.status is not status and status is not Status.UNKNOWN:
            return False
        # The votes that decided the published status must be known, and a later one.
        latest = max(vote.sequence for vote in votes.values())
        if now < self._settled_at and not (self._vote_sequence <= applied and self._vote_sequence < latest):
            return False
        return not self._is_held_by_dwell(status, now)

    def _is_held_by_dwell(self, status: Status, now: float) -> bool:
        better = RANKS.get(status, 0) > RANKS.get(self.status, 0)
        if not better or self.status is Status.UNKNOWN:
            return False
        # A status that began in the future came from a host whose clock is ahead; it must not delay a change.
        return 0 <= now - self._changed_at < self.gateway.dwell

    def _change_status(self, status: Status, votes: Mapping[str, Vote], now: float) -> None:
        reason = None
        if self._reason == MONITOR_SILENT and self.status is Status.UNKNOWN:
            reason = MONITOR_RECOVERED
        elif status is Status.OFF_SESSION:
            reason = SESSION_CLOSED
        elif self.status is Status.OFF_SESSION and status is Status.UNKNOWN:
            reason = SESSION_OPEN
        self._count_transition(status)
        # It began with the vote that made it the majority, unless the clock of that monitor is wrong.
        begun = sorted(
            parse_time(vote.view.since).timestamp()
            for vote in votes.values()
            if vote.view.status is status or status is Status.UNKNOWN
        )
        decisive = begun[min(len(votes) // 2, len(begun) - 1)]
        self._changed_at = min(now, max(self._changed_at, decisive))
        self.status, self.since, self._reason = status, format_time(self._changed_at), reason

    def _count_transition(self, status: Status) -> None:
        if (self.status in _UP and status in _DOWN) or (self.status in _DOWN and status in _UP):
            self._flapping.record_transition()

    def _update_dispute(self, votes: Mapping[str, Vote], now: float) -> None:
        """Update whether monitors have disagreed, or agreed again, for long enough to publish it."""
        if (self.dissent(votes) > 0) is self._disputed:
            self._dispute_changed_at = None
        elif self._dispute_changed_at is None:
            self._dispute_changed_at = now
        elif now - self._dispute_changed_at >= max(DISPUTE_DELAY, 2 * self.gateway.interval):
            self._disputed, self._dispute_changed_at = not self._disputed, None

    def _make_event(
        self,
        before: Status,
        votes: Mapping[str, Vote],
        applied: int,
        now: float,
        details: Mapping[str, Any] | None = None,
    ) -> GatewayStatusChange:
        self._published = (self._flapping.is_flapping, self.silence is not None, self._disputed)
        self._vote_sequence, self._settled_at = applied, now + SETTLE_TIME
        metadata = self._metadata() | (dict(details) if details is not None else self.own.details())
        if applied:
            metadata["vote_sequence"] = applied
        if self._disputed:
            metadata["views"] = {monitor: str(vote.view.status) for monitor, vote in sorted(votes.items())}
        return GatewayStatusChange(
            timestamp=format_time(now),
            gateway_id=self.gateway.id,
            gateway_type=self.gateway.type,
            previous_status=before,
            current_status=self.status,
            metadata=metadata,
        )

    def _metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = {
            "monitor": self.monitor,
            "since": self.since,
            "labels": self.gateway.labels,
        }
        if self.gateway.group is not None:
            metadata["group"] = self.gateway.group
        if self._reason is not None:
            metadata["reason"] = self._reason
        if self._flapping.is_flapping:
            metadata["flapping"] = True
        if self.silence is not None:
            until = format_time(self.silence.until)
            metadata["silenced"] = {"until": until, "reason": self.silence.reason, "by": self.silence.by}
        return metadata


def make_removal_event(stored: StoredStatus, monitor: str, now: float) -> GatewayStatusChange:
    """Make the event that removes a gateway from snapshots because it is no longer monitored."""
    return GatewayStatusChange(
        timestamp=format_time(now),
        gateway_id=stored.gateway_id,
        gateway_type=stored.gateway_type,
        previous_status=stored.status,
        current_status=Status.REMOVED,
        metadata={"monitor": monitor, "since": format_time(now)},
    )
