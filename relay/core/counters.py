"""What the hub counts: plain numbers, read when somebody asks, so that counting costs next to nothing."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tickertape.relay.core.event_log import Record

DELAY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip

TURN_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Of what the relay itself takes: a flush, or how late the event loop is."""


MAX_AGE: Final = 86_400.0
"""Seconds past which the age of an event that has just come is a fault of its timestamp: the stream itself
keeps events for a day."""

MAX_AHEAD: Final = 60.0
"""Seconds by which a producer's clock may be ahead; up to that the age counts as zero."""


class Exemplar(NamedTuple):
    """An event that stands for its bucket, since it may name the trace that it belongs to.

    Attributes:
        record: the event.
        at: when it was written, UNIX seconds.
    """

    record: Record
    at: float


class Histogram:
    """Counts in fixed buckets, seconds; one observation can stand for many deliveries.

    Args:
        bounds: of its buckets, rising; what is larger than the last has a bucket of its own.

    Attributes:
        counts: of each bucket, those of smaller ones not among them.
        exemplars: the newest of each bucket that has one, with what was observed.
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...] = DELAY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[Exemplar, float]] = {}

    def __repr__(self) -> str:
        return f"Histogram({sum(self.counts)} observed, {self.total:.3f} s in all)"

    def observe(self, seconds: float, times: int = 1, exemplar: Exemplar | None = None) -> None:
        """Count a delay that ``times`` deliveries had; ``exemplar`` is one of them that may be traced."""
        seconds = max(0.0, seconds)
        bucket = bisect_left(self.bounds, seconds)
        self.counts[bucket] += times
        self.total += seconds * times
        if exemplar is not None and times:
            self.exemplars[bucket] = exemplar, seconds


@dataclass(slots=True)
class Stats:
    """Totals since the start.

    Attributes:
        received: events taken in, by kind: ``state`` or ``log``.
        rejected: events that broke the contract, by reason.
        delivered: events handed to sockets, each counted once per client.
        dropped: events told in a gap, by its reason, each counted once per client.
        gaps: gaps told, by reason, each counted once per client; in some nobody can count the events.
        conflated: events replaced by a newer one of their subject in mode ``latest``, once per client.
        frames: messages written.
        bytes: bytes of them.
        resumes: sessions that began at a place in the past, by where from: ``log``, ``stream`` or ``gap``.
        delay: from intake to the write, of what goes to the heads of feeds: catching up is not delay.
        age: from the event's own timestamp to the write, likewise.
        flush: from the beginning of a flush until its writes are with the system.
        loop_lag: how late the event loop was, once a second.
        errors: internal errors, by what each of them ended: a ``session`` or a ``request``.
        odd_ages: deliveries whose age is in no histogram, because the event's timestamp cannot be right:
            it lies too far in the ``past``, or in the ``future``.
    """

    received: dict[str, int] = field(default_factory=lambda: {"state": 0, "log": 0})
    rejected: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    dropped: dict[str, int] = field(
        default_factory=lambda: {"rate": 0, "slow": 0, "retention": 0, "reset": 0}
    )
    gaps: dict[str, int] = field(default_factory=lambda: {"rate": 0, "slow": 0, "retention": 0, "reset": 0})
    conflated: int = 0
    frames: int = 0
    bytes: int = 0
    resumes: dict[str, int] = field(default_factory=lambda: {"log": 0, "stream": 0, "gap": 0})
    delay: Histogram = field(default_factory=Histogram)
    age: Histogram = field(default_factory=Histogram)
    flush: Histogram = field(default_factory=lambda: Histogram(TURN_BUCKETS))
    loop_lag: Histogram = field(default_factory=lambda: Histogram(TURN_BUCKETS))
    errors: dict[str, int] = field(default_factory=lambda: {"session": 0, "request": 0})
    odd_ages: dict[str, int] = field(default_factory=lambda: {"past": 0, "future": 0})

    def observe_age(self, seconds: float, times: int, exemplar: Exemplar | None = None) -> None:
        """Count from an event's own timestamp to the write; one that cannot be right is counted apart.

        One event of the year 1 would otherwise weigh as much as a year of others in the sum.
        """
        if seconds > MAX_AGE:
            self.odd_ages["past"] += times
        elif seconds < -MAX_AHEAD:
            self.odd_ages["future"] += times
        else:
            self.age.observe(seconds, times, exemplar)
