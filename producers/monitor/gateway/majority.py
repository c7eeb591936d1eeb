"""Majority of the monitors: their leases and votes as WATCHDOG stores them, in the order of its sequences.

Every monitor applies the same messages in the same order. There is no clock: a monitor that stopped is
recognized by how often the others have renewed their leases since its last renewal.

Invariants:

1. A vote counts only while its monitor holds a lease, as the same instance that voted.
2. A status has a majority only if more than half of the live monitors with a verdict have voted for it.
3. Memory is bounded by ``MAX_MONITORS`` and ``MAX_VOTES``, whatever other clients publish.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tickertape.contracts.events import Status

MISSED_RENEWALS: Final = 5
"""Renewals of another monitor after which one that has not renewed its lease counts as dead."""

MAX_MONITORS: Final = 256
"""Leases that are remembered; further monitors are ignored."""

MAX_VOTES: Final = 100_000
"""Votes that are remembered; beyond that the one that was cast first is forgotten."""


@dataclass(frozen=True, slots=True)
class View:
    """Judgement of one monitor on a gateway.

    Attributes:
        status: the status that its own probes show; UNKNOWN is no verdict.
        since: start of that status, as RFC 3339 text.
        details: statuses of the probes, the failing probe and its error, for the metadata of an event.
    """

    status: Status
    since: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Vote:
    """View that a monitor has written to WATCHDOG.

    Attributes:
        instance: token of the process that voted.
        view: its view.
        sequence: sequence of the vote in WATCHDOG.
    """

    instance: str
    view: View
    sequence: int = 0


@dataclass(slots=True)
class _Lease:
    instance: str
    missed: Counter[str] = field(default_factory=Counter)


class Electorate:
    """Live monitors and their votes.

    Attributes:
        applied: sequence in WATCHDOG up to which leases and votes are known.
    """

    def __init__(self) -> None:
        self.applied = 0
        self._leases: dict[str, _Lease] = {}
        self._votes: dict[tuple[str, str], Vote] = {}
        self._monitors_of: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"Electorate({sorted(self._leases)}, {len(self._votes)} votes, {self.applied})"

    def live(self) -> dict[str, str]:
        """Return the instance of each live monitor, by the id of the monitor."""
        return {monitor: lease.instance for monitor, lease in self._leases.items()}

    def is_live(self, monitor: str, instance: str) -> bool:
        """Return whether an instance of a monitor is live."""
        lease = self._leases.get(monitor)
        return lease is not None and lease.instance == instance

    def record_lease(self, monitor: str, instance: str | None, sequence: int) -> bool:
        """Record a new, renewed or, without an instance, released lease; return whether monitors changed."""
        self._advance(sequence)
        known = self._leases.get(monitor)
        if instance is None:
            return self._leases.pop(monitor, None) is not None
        dead = []
        for other, lease in self._leases.items():
            if other != monitor:
                lease.missed[monitor] += 1
                if lease.missed[monitor] >= MISSED_RENEWALS:
                    dead.append(other)
        for other in dead:
            del self._leases[other]
        if known is not None and known.instance == instance:
            known.missed.clear()
        elif known is not None or len(self._leases) < MAX_MONITORS:
            self._leases[monitor] = _Lease(instance)
        return bool(dead) or known is None or known.instance != instance

    def record_vote(self, gateway: str, monitor: str, vote: Vote | None, sequence: int) -> None:
        """Record the vote of a monitor on a gateway; None withdraws it."""
        self._advance(sequence)
        key = (gateway, monitor)
        self._forget(key)
        if vote is None:
            return
        self._votes[key] = vote
        self._monitors_of.setdefault(gateway, set()).add(monitor)
        if len(self._votes) > MAX_VOTES:
            self._forget(next(iter(self._votes)))

    def clear(self) -> None:
        """Forget all leases and votes, because the stream was created again."""
        self.applied = 0
        self._leases.clear()
        self._votes.clear()
        self._monitors_of.clear()

    def votes(self, gateway: str) -> dict[str, Vote]:
        """Return the votes of the live monitors on a gateway, by the id of the monitor."""
        found = {}
        for monitor in self._monitors_of.get(gateway, ()):
            lease, vote = self._leases.get(monitor), self._votes[gateway, monitor]
            if lease is not None and lease.instance == vote.instance:
                found[monitor] = vote
        return found

    def _forget(self, key: tuple[str, str]) -> None:
        if self._votes.pop(key, None) is not None:
            monitors = self._monitors_of[key[0]]
            monitors.discard(key[1])
            if not monitors:
                del self._monitors_of[key[0]]

    def _advance(self, sequence: int) -> None:
        # Messages arrive in order, so a lower sequence is one of a stream that was created again.
        if sequence < self.applied:
            self.clear()
        self.applied = sequence


def find_majority(current: Status, views: Iterable[Status]) -> Status | None:
    """Return the status that a strict majority of the verdicts has; None if there is none.

    Args:
        current: published status of the gateway.
        views: view of each live monitor; UNKNOWN is no verdict, except on whether the exchange has opened.
    """
    counts = Counter(views)
    total, closed = counts.total(), counts[Status.OFF_SESSION]
    if 2 * closed > total:
        return Status.OFF_SESSION
    # Where the exchange has opened, a monitor has no verdict before its first results.
    has_opened = current is Status.OFF_SESSION and 2 * closed < total
    if current is Status.OFF_SESSION and not has_opened:
        return None
    verdicts = total - counts[Status.UNKNOWN]
    for status, count in counts.items():
        if 2 * count > verdicts and status not in (Status.UNKNOWN, Status.OFF_SESSION):
            return status
    return Status.UNKNOWN if has_opened else None
