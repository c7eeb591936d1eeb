"""What a series of probe results says about a gateway: a table of states, with no I/O and no clock.

Invariants:

1. One result never flips a gateway between HEALTHY and UNHEALTHY unless its threshold is 1.
2. UNKNOWN is left only by a verdict: ``healthy_after`` answers, or ``unhealthy_after`` failures, in a row.
3. From UNHEALTHY the way up is RECOVERING, unless ``healthy_after`` is 1; a failure there leads back.
4. A gateway is what its worst probe is.

The table of one probe, with F failures in a row, B results in a row that are not ok, O ok results in a row,
A answers (ok or degraded) in a row, ``u`` and ``h`` the thresholds; the first line that fits counts:

=============================  ======================  ==============================================
state                          condition               next
=============================  ======================  ==============================================
any                            F >= u                  UNHEALTHY
UNHEALTHY RECOVERING           failed                  UNHEALTHY
UNHEALTHY RECOVERING UNKNOWN   A >= h                  HEALTHY if the last was ok, else DEGRADED
UNHEALTHY                      answered                RECOVERING
HEALTHY                        B >= u                  DEGRADED
DEGRADED                       O >= h                  HEALTHY
any                            else                    as it is
=============================  ======================  ==============================================
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from tickertape.contracts.events import Status


class Outcome(StrEnum):
    """What one probe found."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One look at a gateway.

    Attributes:
        error: why it is not ok; None when it is.
        latency: seconds until it answered; None when it did not.
        expires: when its certificate ends, UNIX seconds; None when it showed none.
    """

    outcome: Outcome
    error: str | None = None
    latency: float | None = None
    expires: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeHealth:
    """State of one probe, and the runs of results that lead to the next one."""

    status: Status = Status.UNKNOWN
    failed: int = 0
    not_ok: int = 0
    ok: int = 0
    answered: int = 0

    def after(self, outcome: Outcome, unhealthy_after: int, healthy_after: int) -> "ProbeHealth":
        """State after one more result; thresholds are results in a row."""
        runs = replace(
            self,
            failed=self.failed + 1 if outcome is Outcome.FAILED else 0,
            not_ok=self.not_ok + 1 if outcome is not Outcome.OK else 0,
            ok=self.ok + 1 if outcome is Outcome.OK else 0,
            answered=self.answered + 1 if outcome is not Outcome.FAILED else 0,
        )
        return replace(runs, status=runs._next(outcome, unhealthy_after, healthy_after))

    def _next(self, outcome: Outcome, unhealthy_after: int, healthy_after: int) -> Status:
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
"""Greater is better."""


def combined(current: Status, probes: Iterable[Status]) -> Status:
    """Status of a gateway by those of its probes.

    Args:
        current: its status so far; one that is known is not lost to a probe that has shown nothing yet.
        probes: at least one.
    """
    statuses = list(probes)
    if current in _WORST_FIRST and current is not Status.UNKNOWN:
        statuses = [status for status in statuses if status is not Status.UNKNOWN] or [current]
    return min(statuses, key=_WORST_FIRST.index)


def adopted(status: Status, probes: Mapping[str, str], name: str) -> ProbeHealth:
    """State in which a probe goes on after a restart, so that its first result flips nothing.

    Args:
        status: what the gateway's newest event says.
        probes: what that event says of each probe; empty when another producer wrote it.
        name: this probe.
    """
    try:
        own = Status(probes.get(name, ""))
    except ValueError:
        # A probe that is new to a gateway has shown nothing yet; without details all are as the gateway.
        own = Status.UNKNOWN if probes else status
    return ProbeHealth(own if own in _WORST_FIRST else Status.UNKNOWN)
