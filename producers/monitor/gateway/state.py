"""State of one monitored gateway: probe results and peer updates in, status changes out; no I/O and no clock.

Invariants:

1. An event is created when the status changes, once at the start if no status is stored, and when flapping
   or a silence begins or ends. Its two statuses can be equal only in the last two cases.
2. ``previous_status`` of an event is ``current_status`` of the preceding one, regardless of its publisher.
3. The ``metadata`` of an event suffices to continue after a restart without a change of status.
4. A probe that started before a peer's status was adopted does not override that status.
"""

from typing import Any, Final, Generic

from tickertape.contracts.events import GatewayStatusChange, Status, format_time, parse_time
from tickertape.producers.monitor.gateway.flapping import Flapping
from tickertape.producers.monitor.gateway.model import AnyProbe, Gateway, Silence, StoredStatus
from tickertape.producers.monitor.gateway.probe_health import (
    RANKS,
    Outcome,
    ProbeHealth,
    Result,
    combine_statuses,
    restore_health,
)

MONITOR_SILENT: Final = "monitor_silent"
"""Reason in an event of the dead man's switch, which NATS publishes when no monitor does."""

MONITOR_RECOVERED: Final = "monitor_recovered"
SESSION_CLOSED: Final = "session_closed"
SESSION_OPEN: Final = "session_open"


class GatewayState(Generic[AnyProbe]):
    """State of a monitored gateway: its status and the health of its probes.

    Args:
        gateway: the gateway with its resolved settings.
        monitor: name of this monitor, for the metadata of events.
        stored: latest stored status; None if there is none.
        now: UNIX seconds.

    Attributes:
        unpublished: whether the initial status has yet to be published.
    """

    def __init__(
        self, gateway: Gateway[AnyProbe], monitor: str, stored: StoredStatus | None, now: float
    ) -> None:
        self.gateway = gateway
        self.monitor = monitor
        self.silence: Silence | None = None
        known = stored is not None and stored.status is not Status.REMOVED
        self._previous = stored.status if stored is not None else Status.UNKNOWN
        self.status = stored.status if stored is not None and known else Status.UNKNOWN
        self.since = stored.since if stored is not None and known else format_time(now)
        self.unpublished = not known
        self.probes = [ProbeHealth() for _ in gateway.checks]
        self.results: list[Result | None] = [None] * len(gateway.checks)
        self._flapping = Flapping(gateway.flapping)
        self._adopted_at = float("-inf")
        # Probes without a result since no monitor was running; see _record_first_result.
        self._awaiting_first: set[int] = set()
        self._reason: str | None = None
        self._published_silenced = stored is not None and stored.silenced
        if stored is not None and known:
            self._restore(stored)

    def __repr__(self) -> str:
        return f"<GatewayState {self.gateway.id} {self.status} since {self.since}>"

    @property
    def is_flapping(self) -> bool:
        """Whether the recent results alternate between good and bad."""
        return self._flapping.is_flapping

    def initial_event(self, now: float) -> GatewayStatusChange | None:
        """Return the event that announces the gateway; None if its status is stored already."""
        return self._make_event(self._previous, now) if self.unpublished else None

    def record_result(
        self, index: int, result: Result, now: float, started: float | None = None
    ) -> GatewayStatusChange | None:
        """Record a probe result; return the event of the change that it causes, or None.

        Args:
            index: index of the probe among the gateway's checks.
            result: result of the probe.
            now: UNIX seconds.
            started: start of the probe, UNIX seconds; ``now`` by default.
        """
        # Both concern probes that were in flight when a peer's status was adopted or the exchange closed.
        if (now if started is None else started) < self._adopted_at or self.status is Status.OFF_SESSION:
            return None
        check = self.gateway.checks[index]
        self.results[index] = result
        if self._awaiting_first:
            return self._record_first_result(index, result, now)
        self.probes[index] = self.probes[index].with_result(
            result.outcome, check.unhealthy_after, check.healthy_after
        )
        healthy = all(latest is None or latest.outcome is not Outcome.FAILED for latest in self.results)
        flapping_changed = self._flapping.record_result(healthy)
        # One event is enough: an event for a change of status also has the current flapping state.
        status = combine_statuses(self.status, (probe.status for probe in self.probes))
        if status is not self.status and not self._is_held_by_dwell(status, now):
            return self._change_status(status, now)
        return self._make_event(self.status, now) if flapping_changed else None

    def adopt(self, stored: StoredStatus, now: float) -> GatewayStatusChange | None:
        """Adopt a status that a peer monitor, the gateway itself or NATS has published.

        Args:
            stored: the published status.
            now: UNIX seconds.

        Returns:
            the event that corrects the published status, or None. A correction is due if the dead man's
            switch fired although this monitor was probing, or if a peer removed a gateway that is still in
            this monitor's file.
        """
        if stored.reason == MONITOR_SILENT and all(result is not None for result in self.results):
            # NATS was unreachable but this monitor kept probing, so its own results count.
            before, self.status = self.status, stored.status
            status = before if before is Status.OFF_SESSION else self._status_of_probes()
            return self._change_status(status, now, MONITOR_RECOVERED)
        if stored.status is Status.REMOVED:
            # The gateway was removed from the file of another monitor, but is still in the file of this one.
            status, self.status = self.status, stored.status
            return self._change_status(status, now)
        self._adopted_at = now
        self.since = stored.since
        self._published_silenced = stored.silenced
        self._flapping.adopt(stored.flapping)
        if stored.status is not self.status:
            self.status = stored.status
            self._restore(stored)
        return None

    def close_session(self, now: float) -> GatewayStatusChange | None:
        """Change to OFF_SESSION because the exchange has closed: the gateway is not probed until it opens."""
        if self.status is Status.OFF_SESSION:
            return None
        self._reset()
        return self._change_status(Status.OFF_SESSION, now, SESSION_CLOSED)

    def open_session(self, now: float) -> GatewayStatusChange | None:
        """Change to UNKNOWN because the exchange has opened; the next results decide the status."""
        if self.status is not Status.OFF_SESSION:
            return None
        self._reset()
        return self._change_status(Status.UNKNOWN, now, SESSION_OPEN)

    def discard_results(self) -> None:
        """Discard the latest results because the monitor is offline and they are out of date."""
        self.results = [None] * len(self.gateway.checks)

    def set_silence(self, silence: Silence | None, now: float) -> GatewayStatusChange | None:
        """Start, change or end a silence; return the event to publish, or None."""
        if silence is not None and silence.until <= now:
            silence = None
        if silence == self.silence:
            return None
        self.silence = silence
        # Publish only if the latest event differs: another monitor may have published the silence already.
        return (
            self._make_event(self.status, now)
            if (silence is not None) is not self._published_silenced
            else None
        )

    def _record_first_result(self, index: int, result: Result, now: float) -> GatewayStatusChange | None:
        """Record a first result without thresholds: no monitor was running, so the status is unknown."""
        self.probes[index] = ProbeHealth().with_result(result.outcome, 1, 1)
        self._awaiting_first.discard(index)
        if self._awaiting_first:
            return None
        status = self._status_of_probes()
        return None if status is self.status else self._change_status(status, now, MONITOR_RECOVERED)

    def _status_of_probes(self) -> Status:
        return combine_statuses(Status.UNKNOWN, (probe.status for probe in self.probes))

    def _is_held_by_dwell(self, status: Status, now: float) -> bool:
        better = RANKS.get(status, 0) > RANKS.get(self.status, 0)
        if not better or self.status is Status.UNKNOWN:
            return False
        # A status that began in the future came from a host whose clock is ahead; it must not delay a change.
        return 0 <= now - parse_time(self.since).timestamp() < self.gateway.dwell

    def _change_status(self, status: Status, now: float, reason: str | None = None) -> GatewayStatusChange:
        before, self.status, self.since = self.status, status, format_time(now)
        self._reason = reason
        self._awaiting_first.clear()
        return self._make_event(before, now)

    def _restore(self, stored: StoredStatus) -> None:
        names = [check.probe.name for check in self.gateway.checks]
        self.probes = [restore_health(stored.status, stored.probes, name) for name in names]
        self._reason = stored.reason
        self._awaiting_first = set(range(len(names))) if stored.reason == MONITOR_SILENT else set()

    def _reset(self) -> None:
        self.probes = [ProbeHealth() for _ in self.gateway.checks]
        self.results = [None] * len(self.gateway.checks)
        self._flapping.reset()

    def _make_event(self, before: Status, now: float) -> GatewayStatusChange:
        self._published_silenced = self.silence is not None
        return GatewayStatusChange(
            timestamp=format_time(now),
            gateway_id=self.gateway.id,
            gateway_type=self.gateway.type,
            previous_status=before,
            current_status=self.status,
            metadata=self._metadata(),
        )

    def _metadata(self) -> dict[str, Any]:
        checks = self.gateway.checks
        metadata: dict[str, Any] = {
            "monitor": self.monitor,
            "since": self.since,
            "probes": {
                check.probe.name: str(probe.status) for check, probe in zip(checks, self.probes, strict=True)
            },
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
        not_ok = [
            (check.probe.name, result)
            for check, result in zip(checks, self.results, strict=True)
            if result is not None and result.outcome is not Outcome.OK
        ]
        # A failure takes precedence over a degraded result, and only one error fits in an event.
        for name, result in sorted(not_ok, key=lambda item: item[1].outcome is not Outcome.FAILED)[:1]:
            metadata["probe"] = name
            metadata["error"] = result.error
        latencies = [result.latency for result in self.results if result and result.latency is not None]
        if latencies:
            metadata["latency_ms"] = round(max(latencies) * 1000, 1)
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
