"""Own view of a gateway: the status that the probes of this monitor show; no I/O and no clock.

Invariants:

1. A view is UNKNOWN, which is no verdict, until there are results since the start or since an outage.
2. After a restart or an outage of its own, a monitor continues from the published status, so that its first
   results support that status until a threshold is reached.
3. A vote from before the probes were replaced counts until the new ones have run once, and not if they show
   nothing, or if the vote was that the exchange is closed.
"""

from typing import Any, Generic

from tickertape.contracts.events import Status, format_time
from tickertape.producers.monitor.gateway.majority import View
from tickertape.producers.monitor.gateway.model import AnyProbe, Check, StoredStatus
from tickertape.producers.monitor.gateway.probe_health import (
    RANKS,
    Outcome,
    ProbeHealth,
    Result,
    combine_statuses,
    restore_health,
)


class OwnView(Generic[AnyProbe]):
    """View of one gateway, with the health of its probes.

    Args:
        checks: probes with their thresholds.
        now: UNIX seconds.

    Attributes:
        status: status that the own probes show.
        since: start of that status, as RFC 3339 text.
        probes: health of each probe.
        results: latest result of each probe; None before the first.
        has_run: whether a probe has run, or the view has changed otherwise, since the probes were replaced.
    """

    def __init__(self, checks: tuple[Check[AnyProbe], ...], now: float) -> None:
        self.status = Status.UNKNOWN
        self.since = format_time(now)
        self.probes = [ProbeHealth() for _ in checks]
        self.results: list[Result | None] = [None] * len(checks)
        self.has_run = False
        self._checks = checks
        self._changed = False
        # Differs from the status while there is no result, as after a restart.
        self._judgement = Status.UNKNOWN
        self._is_stale = False
        # Probes without a result since no monitor was running, so that the first one needs no threshold.
        self._awaiting_first: set[int] = set()
        self._reset_at = float("-inf")

    def __repr__(self) -> str:
        return f"OwnView({self.status} since {self.since})"

    def record(
        self, index: int, result: Result, published: Status, now: float, started: float | None = None
    ) -> bool:
        """Record a probe result; return whether it counts.

        Args:
            index: index of the probe among the checks.
            result: result of the probe.
            published: published status of the gateway.
            now: UNIX seconds.
            started: start of the probe, UNIX seconds; ``now`` by default.
        """
        # Both concern probes that were in flight when the exchange closed.
        if (now if started is None else started) < self._reset_at or self.status is Status.OFF_SESSION:
            return False
        self.has_run = True
        if result.outcome is Outcome.UNKNOWN:
            self._record_no_verdict(index, result, now)
            return False
        if self._is_stale:
            self._is_stale = False
            self._judgement = published if published in RANKS else Status.UNKNOWN
            self.probes = [ProbeHealth(self._judgement) for _ in self.probes]
        check = self._checks[index]
        self.results[index] = result
        is_first = index in self._awaiting_first
        self._awaiting_first.discard(index)
        thresholds = (1, 1) if is_first else (check.unhealthy_after, check.healthy_after)
        self.probes[index] = self.probes[index].with_result(result.outcome, *thresholds)
        self._judgement = combine_statuses(self._judgement, (probe.status for probe in self.probes))
        self._set(self._judgement, now)
        return True

    def take_new(self) -> View | None:
        """Return the view if its status has changed since the previous call."""
        if not self._changed:
            return None
        self._changed = False
        return self.current()

    def current(self) -> View:
        """Return the view with the results that it is based on."""
        return View(self.status, self.since, self.details())

    def contradicts(self, voted: Status) -> bool:
        """Return whether a vote with a status is out of date, because the view is no longer that status."""
        # Until the new probes have run, what the ones before them showed is the best that is known.
        is_kept = not self.has_run and voted in RANKS
        return voted is not self.status and not is_kept

    def close_session(self, now: float) -> None:
        """Change to OFF_SESSION because the exchange has closed: the gateway is not probed."""
        if self.status is not Status.OFF_SESSION:
            self._reset(now)
            self._set(Status.OFF_SESSION, now)

    def open_session(self, now: float) -> None:
        """Change to UNKNOWN because the exchange has opened; the next results decide."""
        self._reset(now)
        self._set(Status.UNKNOWN, now)
        self._changed = True

    def discard(self) -> None:
        """Discard the latest results because the monitor cannot probe, so that they are out of date.

        There is nothing new to vote on, but a vote from before contradicts the view.
        """
        # Why a probe has no verdict is not out of date.
        self.results = [one if one and one.outcome is Outcome.UNKNOWN else None for one in self.results]
        self.has_run = True
        if self.status is not Status.OFF_SESSION:
            self._changed = False
            self._is_stale, self.status = True, Status.UNKNOWN

    def start_over(self, now: float) -> None:
        """Discard everything because time has passed unnoticed, so that the published status is no basis.

        Args:
            now: UNIX seconds; results of probes that started before do not count.
        """
        if self.status is not Status.OFF_SESSION:
            self._reset(now)
            self.status, self.has_run, self._changed = Status.UNKNOWN, True, False

    def restore(self, stored: StoredStatus, *, awaiting_first: bool) -> None:
        """Continue from a published status.

        Args:
            stored: the published status.
            awaiting_first: whether the first result of each probe decides without a threshold, because no
                monitor was running.
        """
        names = [check.probe.name for check in self._checks]
        probes = [restore_health(stored.status, stored.probes, name) for name in names]
        known = [probe.status for probe in probes if probe.status is not Status.UNKNOWN]
        # The event of a monitor that disagrees lists probes that do not have this status.
        if known and min(known, key=RANKS.__getitem__) is not stored.status:
            probes = [restore_health(stored.status, {}, name) for name in names]
        # What was before no monitor was running says nothing.
        self.probes = [ProbeHealth() for _ in probes] if awaiting_first else probes
        self._judgement = stored.status if stored.status in RANKS and not awaiting_first else Status.UNKNOWN
        self._awaiting_first = set(range(len(names))) if awaiting_first else set()
        self._is_stale = False
        # No monitor was running, so that any vote from before is out of date.
        self.has_run |= awaiting_first

    def replace(self, status: Status, since: str) -> None:
        """Replace the view with a published status, where there are no votes."""
        self.status, self.since = status, since

    def shift_clock(self, step: float) -> None:
        """Shift the time of the latest reset because the system clock was set by ``step`` seconds."""
        self._reset_at += step

    def details(self) -> dict[str, Any]:
        """Return the part of an event's metadata that explains the view."""
        details: dict[str, Any] = {
            "probes": {
                check.probe.name: str(probe.status)
                for check, probe in zip(self._checks, self.probes, strict=True)
            }
        }
        not_ok = [
            (check.probe.name, result)
            for check, result in zip(self._checks, self.results, strict=True)
            if result is not None and result.outcome is not Outcome.OK
        ]
        # A failure takes precedence over a degraded result, and only one error fits in an event.
        for name, result in sorted(not_ok, key=lambda item: item[1].outcome is not Outcome.FAILED)[:1]:
            details["probe"] = name
            details["error"] = result.error
        latencies = [result.latency for result in self.results if result and result.latency is not None]
        if latencies:
            details["latency_ms"] = round(max(latencies) * 1000, 1)
        return details

    def _record_no_verdict(self, index: int, result: Result, now: float) -> None:
        """Record a result without a verdict; when no probe has one, withdraw the view."""
        self.results[index] = result
        if all(latest is not None and latest.outcome is Outcome.UNKNOWN for latest in self.results):
            self._set(Status.UNKNOWN, now)
            self._is_stale = True

    def _set(self, status: Status, now: float) -> None:
        if status is not self.status:
            self.status, self.since, self._changed = status, format_time(now), True

    def _reset(self, now: float) -> None:
        self.probes = [ProbeHealth() for _ in self.probes]
        self.results = [None] * len(self.results)
        self._judgement = Status.UNKNOWN
        self._reset_at = now
        self.has_run = True
        self._is_stale = False
        self._awaiting_first.clear()
