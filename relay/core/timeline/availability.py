"""Availability and incidents of a gateway, from its timeline.

Time is available (HEALTHY, DEGRADED), not available (UNHEALTHY, RECOVERING), planned (OFF_SESSION, or not
available during a silence), or unknown (UNKNOWN, not monitored, or before the first event). Availability is
the share of the available time in the time that is available or not.

An incident begins when a gateway becomes unavailable, and ends when it is available, closed or removed. An
unknown status neither begins nor ends one. It is planned if the gateway was silenced whenever it was down.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias, TypeVar

from tickertape.relay.core.timeline.timeline import (
    DOWN,
    SILENCED,
    UNKNOWN,
    Piece,
    Timeline,
)

T = TypeVar("T")

SLICE: Final = 1_000
"""Number of pieces of time that are read between two pauses: 1 ms."""

Sliced: TypeAlias = Generator[None, None, T]
"""Computation that yields wherever it may pause, and returns its result."""


class Durations(NamedTuple):
    """Time of each kind in a range, in milliseconds, and the number of incidents that are not planned."""

    up: int
    down: int
    planned: int
    unknown: int
    incidents: int

    @property
    def availability(self) -> float | None:
        """Share of the available time; None if there is neither available nor unavailable time."""
        known = self.up + self.down
        return self.up / known if known else None


@dataclass(slots=True)
class Incident:
    """Incident of a gateway.

    Attributes:
        start: UNIX milliseconds.
        end: UNIX milliseconds; None while it continues.
        down: milliseconds in which the gateway was down and not silenced.
        planned: milliseconds in which it was down and silenced.
        last_down: last time at which it was down and not silenced; 0 for never.
        last: time at which it was last found to be down, silenced or not.
    """

    start: int
    end: int | None
    down: int
    planned: int
    last_down: int
    last: int


def find_incidents(pieces: Iterable[Piece]) -> Iterator[Incident]:
    """Yield the incidents in pieces of time, in order."""
    current: Incident | None = None
    for start, end, kind in pieces:
        if kind <= SILENCED:
            if current is None:
                current = Incident(start, None, 0, 0, 0, start)
            current.last = start
            if kind == DOWN:
                current.down += end - start
                current.last_down = end
            else:
                current.planned += end - start
        elif current is not None and kind != UNKNOWN:
            current.end = start
            yield current
            current = None
    if current is not None:
        yield current


def incidents_of(timeline: Timeline, start: int, end: int) -> Sliced[list[Incident]]:
    """Find the incidents that overlap a range, each from its beginning; later ones are cut at the end."""
    pieces = yield from _read_pieces(timeline, _begin_before(timeline, start), end)
    found = find_incidents(pieces)
    return [incident for incident in found if incident.end is None or incident.end > start]


def _read_pieces(timeline: Timeline, start: int, end: int) -> Sliced[list[Piece]]:
    # The timeline may change during a pause.
    stable = timeline.copy() if len(timeline.times) > SLICE else timeline
    pieces: list[Piece] = []
    for piece in stable.pieces(start, end):
        pieces.append(piece)
        if len(pieces) % SLICE == 0:
            yield
    return pieces


def _begin_before(timeline: Timeline, start: int) -> int:
    """Return the beginning of an incident that a range may begin in."""
    before = start
    for index in range(timeline.index_at(start), -1, -1):
        if timeline.kind(index) not in (DOWN, UNKNOWN):
            break
        before = timeline.times[index]
    return min(before, start)


def measure(timeline: Timeline, starts: Sequence[int], end: int) -> Sliced[list[Durations]]:
    """Measure the durations from each of several times until ``end``.

    Args:
        timeline: timeline of the gateway.
        starts: ascending UNIX milliseconds, at most ``end``.
        end: UNIX milliseconds.
    """
    pieces = yield from _read_pieces(timeline, starts[0], end)
    totals = [0] * 6
    at_starts: list[list[int]] = []
    waiting = list(starts)
    for number, (begin, finish, kind) in enumerate(pieces, 1):
        if number % SLICE == 0:
            yield
        while waiting and waiting[0] < finish:
            at_start = totals.copy()
            at_start[kind] += waiting.pop(0) - begin
            at_starts.append(at_start)
        totals[kind] += finish - begin
    at_starts.extend(totals for _ in waiting)
    yield
    last_downs = [incident.last_down for incident in find_incidents(pieces)]
    yield
    found = []
    for start, at_start in zip(starts, at_starts, strict=True):
        down, silenced, up, closed, unknown, removed = (a - b for a, b in zip(totals, at_start, strict=True))
        count = sum(last_down > start for last_down in last_downs)
        found.append(Durations(up, down, silenced + closed, unknown + removed, count))
    return found
