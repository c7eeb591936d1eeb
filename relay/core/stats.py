"""What the hub counts: plain numbers, read when somebody asks, so that counting costs next to nothing."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

DELAY_BUCKETS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


class Histogram:
    """Counts in fixed buckets, seconds; one observation can stand for many deliveries."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(DELAY_BUCKETS) + 1)
        self.total = 0.0

    def __repr__(self) -> str:
        return f"Histogram({sum(self.counts)} observed, {self.total:.3f} s in all)"

    def observe(self, seconds: float, times: int) -> None:
        """Count a delay that ``times`` deliveries had."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(DELAY_BUCKETS, seconds)] += times
        self.total += seconds * times


@dataclass(slots=True)
class Stats:
    """Totals since the start.

    Attributes:
        received: events taken in, by kind: ``state`` or ``log``.
        rejected: events that broke the contract, by reason.
        delivered: events handed to sockets, each counted once per client.
        dropped: events told in a gap, by its reason, each counted once per client.
        conflated: events replaced by a newer one of their subject in mode ``latest``, once per client.
        frames: messages written.
        bytes: bytes of them.
        resumes: sessions that began at a place in the past, by where from: ``log``, ``stream`` or ``gap``.
        delay: from intake to the write, of what goes to the heads of feeds: catching up is not delay.
        age: from the event's own timestamp to the write, likewise.
    """

    received: dict[str, int] = field(default_factory=lambda: {"state": 0, "log": 0})
    rejected: dict[str, int] = field(default_factory=dict)
    delivered: int = 0
    dropped: dict[str, int] = field(
        default_factory=lambda: {"rate": 0, "slow": 0, "retention": 0, "reset": 0}
    )
    conflated: int = 0
    frames: int = 0
    bytes: int = 0
    resumes: dict[str, int] = field(default_factory=lambda: {"log": 0, "stream": 0, "gap": 0})
    delay: Histogram = field(default_factory=Histogram)
    age: Histogram = field(default_factory=Histogram)
