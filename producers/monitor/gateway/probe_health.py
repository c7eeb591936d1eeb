"""Probe and gateway health from a series of probe results: a state table without I/O or a clock.

Invariants:

1. One result never flips a gateway between HEALTHY and UNHEALTHY unless its threshold is 1.
2. UNKNOWN ends only with ``healthy_after`` answers, or ``unhealthy_after`` failures, in a row.
3. UNHEALTHY becomes HEALTHY through RECOVERING, unless ``healthy_after`` is 1; a failure while RECOVERING
   leads back to UNHEALTHY.
4. A gateway has the status of its worst probe.

State table of one probe, where F is the number of consecutive failures, B of results that are not ok, O of ok
results and A of answers (ok or degraded); ``u`` and ``h`` are the thresholds. The first matching row applies:

=============================  ======================  ==============================================
state                          condition               next
=============================  ======================  ==============================================
any                            F >= u                  UNHEALTHY
UNHEALTHY RECOVERING           failed                  UNHEALTHY
UNHEALTHY RECOVERING UNKNOWN   A >= h                  HEALTHY if the last was ok, else DEGRADED
UNHEALTHY                      answered                RECOVERING
HEALTHY                        B >= u                  DEGRADED
DEGRADED                       O >= h                  HEALTHY
any                            otherwise               unchanged
=============================  ======================  ==============================================

An outcome UNKNOWN is no verdict: it leaves the state and all counts unchanged.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tickertape.contracts.events import Status


class Outcome(StrEnum):
    """Outcome of one probe run."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """Result of one probe run.

    Attributes:
        error: reason why the outcome is not ok, or that there is no verdict; None if it is ok.
        latency: seconds until the response; None without one.
        expires: expiry of the certificate, UNIX seconds; None without a certificate.
    """

    outcome: Outcome
    error: str | None = None
    latency: float | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeHealth:
    """Status of one probe, with the counts of consecutive results that decide the next status."""

    status: Status = Status.UNKNOWN
    failed: int = 0
    not_ok: int = 0
    ok: int = 0
    answered: int = 0

    def with_result(self, outcome: Outcome, unhealthy_after: int, healthy_after: int) -> "ProbeHealth":
        """Return the health after one more result; thresholds are numbers of consecutive results."""
        if outcome is Outcome.UNKNOWN:
            return self
        counted = ProbeHealth(
            self.status,
            failed=self.failed + 1 if outcome is Outcome.FAILED else 0,
            not_ok=self.not_ok + 1 if outcome is not Outcome.OK else 0,
            ok=self.ok + 1 if outcome is Outcome.OK else 0,
            answered=self.answered + 1 if outcome is not Outcome.FAILED else 0,
        )
        status = counted._next_status(outcome, unhealthy_after, healthy_after)
        return counted if status is self.status else replace(counted, status=status)

    def _next_status(self, outcome: Outcome, unhealthy_after: int, healthy_after: int) -> Status:
        down = self.status in (Status.UNHEALTHY, Status.RECOVERING)
        if self.failed >= unhealthy_after or (down and outcome is Outcome.FAILED):
            return Status.UNHEALTHY
        if (down or self.status is Status.UNKNOWN) and self.answered >= healthy_after:
            return Status.HEALTHY if outcome is Outcome.OK else Status.DEGRADED
        if down:
            return Status.RECOVERING
        if self.status is Status.HEALTHY and self.not_ok >= unhealthy_after:
            return Status.DEGRADED
        if self.status is Status.DEGRADED and self.ok >= healthy_after:
            return Status.HEALTHY
        return self.status


_WORST_FIRST: Final = (
    Status.UNHEALTHY,
    Status.RECOVERING,
    Status.UNKNOWN,
    Status.DEGRADED,
    Status.HEALTHY,
)


RANKS: Final = {status: rank for rank, status in enumerate(_WORST_FIRST)}
"""Rank of each status; a better status has a higher rank."""


def combine_statuses(current: Status, probes: Iterable[Status]) -> Status:
    """Combine the statuses of a gateway's probes into its own.

    Args:
        current: current status of the gateway; if it is known, probes without a status do not change it.
        probes: status of each probe, at least one.
    """
    statuses = list(probes)
    if current in _WORST_FIRST and current is not Status.UNKNOWN:
        statuses = [status for status in statuses if status is not Status.UNKNOWN] or [current]
    return min(statuses, key=_WORST_FIRST.index)


def restore_health(status: Status, probes: Mapping[str, str], name: str) -> ProbeHealth:
    """Restore a probe's health after a restart, so that its first result does not change the status.

    Args:
        status: status of the gateway in its latest event.
        probes: status of each probe in that event, by name; empty if another producer published it.
        name: name of this probe.
    """
    try:
        own = Status(probes.get(name, ""))
    except ValueError:
        # A new probe has no status yet; without details every probe takes the status of the gateway.
        own = Status.UNKNOWN if probes else status
    return ProbeHealth(own if own in _WORST_FIRST else Status.UNKNOWN)
