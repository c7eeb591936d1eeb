"""Metrics of several processes, added up: one reading for the whole, under the same names.

What the numbers of several processes come to is in the catalog.

Invariants:

1. No counter goes back: what a worker that died had counted stays in the sum, and one that does not answer
   counts with what it said last.
2. Only what accumulates outlives its worker; a gauge ends with it.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import Any, Final

from tickertape.relay.metrics.catalog import FAMILIES, Across
from tickertape.relay.metrics.snapshot import Distribution, Exemplar, MetricsSnapshot

Join = Callable[[float, float], float]

_JOINS: Final[dict[Across, Join]] = {"sum": add, "max": max, "min": min}
_JOIN_OF: Final[dict[str, Join]] = {
    **{family.name: _JOINS[family.across] for family in FAMILIES},
    "process_start_time_seconds": min,
}
_ACCUMULATING: Final = {family.name for family in FAMILIES if family.kind == "counter"}


def decode_snapshot(data: Mapping[str, Any]) -> MetricsSnapshot:
    """Read a reading as it comes in JSON."""
    return MetricsSnapshot(
        data["numbers"],
        {
            name: Distribution(
                tuple(one["bounds"]),
                tuple(one["counts"]),
                one["total"],
                tuple(Exemplar(**exemplar) for exemplar in one["exemplars"]),
            )
            for name, one in data["distributions"].items()
        },
        data["process"],
    )


def merge_snapshots(readings: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Add up the readings of processes that live at the same time."""
    return _joined(readings, _join_of)


class SlotMetrics:
    """The numbers of one slot, over all workers that it had."""

    def __init__(self) -> None:
        self._last = MetricsSnapshot()
        self._buried = MetricsSnapshot()

    def __repr__(self) -> str:
        return f"SlotMetrics({len(self._last.numbers)} living, {len(self._buried.numbers)} buried)"

    def heard(self, reading: MetricsSnapshot) -> None:
        """Take in what the worker told."""
        self._last = reading

    def bury(self) -> None:
        """Keep what a worker counted that is dead."""
        last = self._last
        counted = MetricsSnapshot(
            {name: values for name, values in last.numbers.items() if name in _ACCUMULATING},
            last.distributions,
            {key: value for key, value in last.process.items() if _name(key).endswith("_total")},
        )
        self._buried = _in_turn(self._buried, counted)
        self._last = MetricsSnapshot()

    def whole(self) -> MetricsSnapshot:
        """Add up what all of them have counted."""
        return _in_turn(self._buried, self._last)


def _in_turn(before: MetricsSnapshot, last: MetricsSnapshot) -> MetricsSnapshot:
    """Add up the readings of processes that lived one after the other; only the last has gauges."""
    return _joined((before, last), lambda _: add)


def _joined(readings: Iterable[MetricsSnapshot], join: Callable[[str], Join]) -> MetricsSnapshot:
    whole = MetricsSnapshot()
    for one in readings:
        for name, values in one.numbers.items():
            _add(whole.numbers.setdefault(name, {}), values, join(name))
        for key, value in one.process.items():
            _add(whole.process, {key: value}, join(key))
        for name, values_of in one.distributions.items():
            known = whole.distributions.get(name)
            whole.distributions[name] = values_of if known is None else _both(known, values_of)
    return whole


def _add(whole: dict[str, float], more: Mapping[str, float], join: Join) -> None:
    for key, value in more.items():
        whole[key] = join(whole[key], value) if key in whole else value


def _both(one: Distribution, other: Distribution) -> Distribution:
    exemplars: dict[int, Exemplar] = {}
    for exemplar in sorted((*one.exemplars, *other.exemplars), key=lambda found: found.at):
        exemplars[exemplar.bucket] = exemplar  # the newest
    counts = tuple(map(add, one.counts, other.counts))
    return Distribution(one.bounds, counts, one.total + other.total, tuple(exemplars.values()))


def _join_of(key: str) -> Join:
    name = _name(key)
    return max if name.endswith("_info") else _JOIN_OF.get(name, add)


def _name(key: str) -> str:
    return key.partition(",")[0]
