"""Merging of the metrics snapshots of several processes into one.

The catalog defines how each metric is aggregated.

Invariants:

1. No counter decreases: the counters of a worker that exited stay in the sum, and a worker that does not
   respond counts with its last snapshot.
2. Only counters and histograms outlive their worker; gauges do not.
"""

from collections.abc import Callable, Iterable, Mapping
from operator import add
from typing import Any, Final

from tickertape.relay.metrics.catalog import FAMILIES, Aggregation
from tickertape.relay.metrics.snapshot import Distribution, Exemplar, MetricsSnapshot

Join = Callable[[float, float], float]

_JOINS: Final[dict[Aggregation, Join]] = {"sum": add, "max": max, "min": min}
_JOIN_OF: Final[dict[str, Join]] = {
    **{family.name: _JOINS[family.aggregation] for family in FAMILIES},
    "process_start_time_seconds": min,
}
_ACCUMULATING: Final = {family.name for family in FAMILIES if family.kind == "counter"}


def decode_snapshot(data: Mapping[str, Any]) -> MetricsSnapshot:
    """Convert a snapshot from its JSON form."""
    return MetricsSnapshot(
        data["numbers"],
        {
            name: Distribution(
                tuple(values["bounds"]),
                tuple(values["counts"]),
                values["total"],
                tuple(Exemplar(**exemplar) for exemplar in values["exemplars"]),
            )
            for name, values in data["distributions"].items()
        },
        data["process"],
    )


def merge_snapshots(snapshots: Iterable[MetricsSnapshot]) -> MetricsSnapshot:
    """Merge the snapshots of processes that run simultaneously."""
    return _merge(snapshots, _join_of)


class SlotMetrics:
    """Metrics of a slot over all workers that it has had."""

    def __init__(self) -> None:
        self._current = MetricsSnapshot()
        self._retired = MetricsSnapshot()

    def __repr__(self) -> str:
        return f"SlotMetrics({len(self._current.numbers)} current, {len(self._retired.numbers)} retired)"

    def update(self, snapshot: MetricsSnapshot) -> None:
        """Replace the snapshot of the current worker."""
        self._current = snapshot

    def retire_worker(self) -> None:
        """Keep the counters and histograms of the current worker, which has exited."""
        last = self._current
        counted = MetricsSnapshot(
            {name: values for name, values in last.numbers.items() if name in _ACCUMULATING},
            last.distributions,
            {key: value for key, value in last.process.items() if _name(key).endswith("_total")},
        )
        self._retired = _merge_sequential(self._retired, counted)
        self._current = MetricsSnapshot()

    def total(self) -> MetricsSnapshot:
        """Merge the metrics of all workers of the slot."""
        return _merge_sequential(self._retired, self._current)


def _merge_sequential(retired: MetricsSnapshot, current: MetricsSnapshot) -> MetricsSnapshot:
    """Merge the snapshots of processes that ran one after the other; only the current one has gauges."""
    # Added even where concurrent workers are merged by their maximum, since a successor starts counting at 0.
    return _merge((retired, current), lambda _: add)


def _merge(snapshots: Iterable[MetricsSnapshot], join: Callable[[str], Join]) -> MetricsSnapshot:
    merged = MetricsSnapshot()
    for snapshot in snapshots:
        for name, values in snapshot.numbers.items():
            _add(merged.numbers.setdefault(name, {}), values, join(name))
        for key, value in snapshot.process.items():
            _add(merged.process, {key: value}, join(key))
        for name, distribution in snapshot.distributions.items():
            known = merged.distributions.get(name)
            merged.distributions[name] = (
                distribution if known is None else _merge_distributions(known, distribution)
            )
    return merged


def _add(totals: dict[str, float], values: Mapping[str, float], join: Join) -> None:
    for key, value in values.items():
        totals[key] = join(totals[key], value) if key in totals else value


def _merge_distributions(first: Distribution, second: Distribution) -> Distribution:
    exemplars: dict[int, Exemplar] = {}
    for exemplar in sorted((*first.exemplars, *second.exemplars), key=lambda exemplar: exemplar.at):
        exemplars[exemplar.bucket] = exemplar  # the newest wins
    # Bucket by bucket, since all workers run the same code and therefore have the same bounds.
    counts = tuple(map(add, first.counts, second.counts))
    return Distribution(first.bounds, counts, first.total + second.total, tuple(exemplars.values()))


def _join_of(key: str) -> Join:
    name = _name(key)
    return max if name.endswith("_info") else _JOIN_OF.get(name, add)


def _name(key: str) -> str:
    return key.partition(",")[0]
