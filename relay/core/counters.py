"""Statistics of the hub: plain numbers, read on demand by the metrics, so that counting is almost free."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from tickertape.relay.core.event_log import Record

DELAY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds in seconds for the delay and the age of delivered events."""

TURN_BUCKETS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
)  # fmt: skip
"""Upper bounds in seconds for the relay's own work: flush durations and the lag of the event loop."""

MAX_AGE: Final = 86_400.0
"""Maximum plausible age of a new event in seconds. The stream keeps events for a day, so the timestamp of an
older event must be wrong."""

MAX_AHEAD: Final = 60.0
"""Maximum seconds that a producer's clock may be ahead; within this tolerance, the age counts as zero."""


class Exemplar(NamedTuple):
    """Exemplar of a histogram bucket: an event that may belong to a trace.

    Attributes:
        record: the event.
        at: time of its delivery, UNIX seconds.
    """

    record: Record
    at: float


class Histogram:
    """Histogram over seconds with fixed buckets; one observation can stand for many deliveries.

    Args:
        bounds: ascending upper bounds of the buckets; an additional bucket counts larger values.

    Attributes:
        counts: observations per bucket, not cumulative.
        exemplars: newest exemplar by bucket index, with the observed seconds; buckets may have none.
        total: sum of the observed seconds.
    """

    __slots__ = ("bounds", "counts", "exemplars", "total")

    def __init__(self, bounds: tuple[float, ...] = DELAY_BUCKETS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        self.exemplars: dict[int, tuple[Exemplar, float]] = {}

    def __repr__(self) -> str:
        return f"Histogram({sum(self.counts)} observed, {self.total:.3f} s in total)"

    def observe(self, seconds: float, times: int = 1, exemplar: Exemplar | None = None) -> None:
        """Count a duration for ``times`` deliveries; ``exemplar`` may belong to a trace."""
        seconds = max(0.0, seconds)
        bucket = bisect_left(self.bounds, seconds)
        self.counts[bucket] += times
        self.total += seconds * times
        if exemplar is not None and times:
            self.exemplars[bucket] = exemplar, seconds


@dataclass(slots=True)
class Stats:
    """Totals since the start of the relay, and the difference of its clocks.

    Attributes:
        received: events read from the stream, by kind: ``state`` or ``log``.
        rejected: events that violate the contract, by reason.
        delivered: events written to sockets, each counted once per client.
        dropped: events reported in gaps, by reason of the gap, each counted once per client.
        gaps: reported gaps, by reason, each counted once per client; the size of a gap may be unknown.
        conflated: events replaced by a newer event of their subject in mode ``latest``, counted per client.
        frames: messages written.
        bytes: bytes of the messages written.
        resumes: sessions that started at a position in the past, by source: ``log``, ``stream`` or ``gap``.
        delay: seconds from ingest to the write, for live members of feeds only; catching up is excluded.
        age: seconds from the event's own timestamp to the write, for live members only.
        flush: seconds from the start of a flush until the operating system has its writes.
        loop_lag: seconds that the event loop was late, measured once per second.
        errors: internal errors, by what they ended: a ``session`` or a ``request``.
        age_outliers: deliveries left out of ``age`` because the event's timestamp is implausible: too far in
            the ``past`` or the ``future``.
        clock_skew: seconds by which the system clock is ahead of the relay's own, which never goes back.
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
    age_outliers: dict[str, int] = field(default_factory=lambda: {"past": 0, "future": 0})
    clock_skew: float = 0.0

    def unix(self, now: float) -> float:
        """Convert a time of the relay to the system clock's, which may have been set since the start."""
        return now + self.clock_skew

    def observe_age(self, seconds: float, times: int, exemplar: Exemplar | None = None) -> None:
        """Count the seconds from an event's own timestamp to the write; count implausible values separately.

        A single event dated to the year 1 would otherwise dominate the sum.
        """
        if seconds > MAX_AGE:
            self.age_outliers["past"] += times
        elif seconds < -MAX_AHEAD:
            self.age_outliers["future"] += times
        else:
            self.age.observe(seconds, times, exemplar)
