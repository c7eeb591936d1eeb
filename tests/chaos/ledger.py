"""What one client received over all its connections, checked against the stream: the conservation law.

Invariants:

1. The cursor is the one that the protocol defines: the last of ``subscribed``, ``events`` and ``heartbeat``,
   and the end of a gap only after a ``reset``. A gap that no cursor has passed is void when its connection
   ends.
2. The truth comes from the stream alone; what the client received is never its own proof.
"""

from bisect import bisect_right
from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, NamedTuple

from tickertape.contracts.cursors import parse_cursor


class Told(NamedTuple):
    """A gap: events after ``start``, up to ``end``; ``dropped`` is None if their number is unknown."""

    start: int
    end: int
    dropped: int | None


@dataclass
class Counts:
    """Violations of the law over several clients; all zero if it holds."""

    delivered: int = 0
    dropped: int = 0
    conflated: int = 0
    uncounted: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    foreign: int = 0
    resets: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))

    @property
    def breaches(self) -> dict[str, int]:
        """Counts that must be zero and are not."""
        names = ("lost", "repeated", "disordered", "foreign", "resets")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass
class Ledger:
    """Record of what a client received.

    Attributes:
        start: sequence after which the client began; -1 until it is known.
        cursor: cursor to resume from; empty until it is known.
        delivered: sequence and number of each event, in order of arrival.
        gaps: gaps in order of arrival.
        conflated: number of events that newer ones replaced.
        resets: number of times that another stream was announced.
    """

    start: int = -1
    cursor: str = ""
    delivered: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[Told] = field(default_factory=list)
    conflated: int = 0
    resets: int = 0

    @property
    def last(self) -> int:
        """Sequence of the newest event received."""
        return self.delivered[-1][0] if self.delivered else -1

    def note(self, message: dict[str, Any]) -> None:
        """Record a message of the relay."""
        kind = message["type"]
        if kind == "events":
            self.delivered += [(item["seq"], number_of(item["event"])) for item in message["events"]]
            self.conflated += message.get("conflated") or 0
        elif kind == "gap":
            begin, end = parse_cursor(message["from"])[1], parse_cursor(message["to"])[1]
            self.gaps.append(Told(begin, end, message["dropped"]))
            self.resets += message["reason"] == "reset"
            if message["reason"] == "reset":
                self.cursor = message["to"]
        elif kind == "subscribed" and self.start < 0:
            self.start = parse_cursor(message["cursor"])[1]
        if "cursor" in message:
            self.cursor = message["cursor"]

    def leave(self) -> None:
        """Record the end of a connection: gaps that its cursor has not passed will be reported again."""
        if not self.cursor:
            return
        position = parse_cursor(self.cursor)[1]
        kept = [gap for gap in self.gaps if gap.end <= position]
        # A gap cut by the cursor: how many of its drops lie before the cursor is unknown.
        kept += [Told(gap.start, position, None) for gap in self.gaps if gap.start < position < gap.end]
        self.gaps = kept

    def judge(self, truth: dict[int, int], upto: int) -> Counts:
        """Compare what was received with the stream.

        Args:
            truth: sequence and number of each event that the client's filter matches, in order.
            upto: last sequence that the client must account for.

        Returns:
            violations; a gap that is off by one counts as one lost event.
        """
        seqs = [seq for seq, _ in self.delivered]
        had = set(seqs)
        counts = Counts(
            delivered=len(seqs),
            dropped=sum(gap.dropped or 0 for gap in self.gaps),
            conflated=self.conflated,
            repeated=len(seqs) - len(had),
            disordered=sum(later < earlier for earlier, later in pairwise(seqs)),
            foreign=sum(truth.get(seq) != number for seq, number in self.delivered),
            resets=self.resets,
        )
        missing = [seq for seq in truth if self.start < seq <= upto and seq not in had]
        for gap in self.gaps:
            if gap.dropped is None:
                before = len(missing)
                missing = [seq for seq in missing if not gap.start < seq <= gap.end]
                counts.uncounted += before - len(missing)
        for gap in self.gaps:
            if gap.dropped is not None:
                inside = bisect_right(missing, gap.end) - bisect_right(missing, gap.start)
                counts.lost += abs(inside - gap.dropped)
                missing = [seq for seq in missing if not gap.start < seq <= gap.end]
        counts.lost += abs(len(missing) - self.conflated)
        return counts


def number_of(event: dict[str, Any]) -> int:
    """Return the unique number that the publisher gave an event."""
    return int(event["metadata"]["n"])
