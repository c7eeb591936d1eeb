"""Metrics of several processes, added up: one set of numbers for the whole, under the same names.

Read from the text that each worker answers with; what several numbers come to is in the table of metrics.

Invariants:

1. No counter goes back: what a worker that died had counted stays in the sum, and one that does not answer
   counts with what it said last.
2. Only what accumulates outlives its worker; a gauge ends with it.
"""

from collections.abc import Callable, Iterable
from operator import add
from typing import Final

from prometheus_client.core import Metric
from prometheus_client.metrics_core import METRIC_TYPES
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from tickertape.relay.metrics.catalog import FAMILIES, PREFIX, Across

Merge = Callable[[float, float], float]

_JOINS: Final[dict[Across, Merge]] = {"sum": add, "max": max, "min": min}
_OURS: Final = {PREFIX + family.name: _JOINS[family.across] for family in FAMILIES}
_OTHERS: Final[dict[str, Merge]] = {"process_start_time_seconds": min}
"""Gauges of the libraries that are no sums."""

_ACCUMULATING: Final = frozenset({"counter", "histogram", "summary"})


def parse(text: str) -> list[Metric]:
    """Read an exposition in OpenMetrics."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def accumulates(metric: Metric) -> bool:
    """Tell whether a metric only grows while its process lives; one of no type says so by its name."""
    return metric.type in _ACCUMULATING or metric.name.endswith("_total")


def merging(metric: Metric) -> Merge | None:
    """How the values of several processes become one; None keeps the first, as of an info."""
    if metric.type in ("info", "stateset") or metric.name.endswith("_info"):
        return None
    return _OURS.get(metric.name) or _OTHERS.get(metric.name) or add


def add_up(
    sources: Iterable[Iterable[Metric]], join: Callable[[Metric], Merge | None] = merging
) -> list[Metric]:
    """Merge the metrics of several processes.

    Args:
        sources: metrics of each.
        join: says how values become one; as of processes that live at the same time.
    """
    whole: dict[str, Metric] = {}
    samples: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], Sample]] = {}
    for metrics in sources:
        for metric in metrics:
            if metric.name not in whole:
                whole[metric.name] = _empty(metric)
                samples[metric.name] = {}
            known, merge = samples[metric.name], join(metric)
            for sample in metric.samples:
                if sample.name.endswith("_created"):
                    continue  # each process began at another time
                key = (sample.name, tuple(sorted(sample.labels.items())))
                before = known.get(key)
                known[key] = sample if before is None else _merged(before, sample, merge)
    for name, metric in whole.items():
        metric.samples = list(samples[name].values())
    return list(whole.values())


class Totals:
    """The numbers of one slot, over all workers that it had."""

    def __init__(self) -> None:
        self._last: list[Metric] = []
        self._buried: list[Metric] = []

    def __repr__(self) -> str:
        return f"Totals({len(self._last)} living, {len(self._buried)} buried)"

    def heard(self, metrics: list[Metric]) -> None:
        """The worker told its numbers."""
        self._last = metrics

    def bury(self) -> None:
        """The worker is dead; what it counted stays."""
        self._buried = add_up([self._buried, filter(accumulates, self._last)], _in_turn)
        self._last = []

    def whole(self) -> list[Metric]:
        """What all of them come to."""
        return add_up([self._buried, self._last], _in_turn)


class Answer(Collector):
    """Metrics that are there already, for an encoder that wants to collect them."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _in_turn(metric: Metric) -> Merge | None:
    """How the values of processes that lived one after the other become one."""
    return add if accumulates(metric) else None


def _empty(metric: Metric) -> Metric:
    kind = metric.type if metric.type in METRIC_TYPES else "unknown"
    return Metric(metric.name, metric.documentation, kind, metric.unit)


def _merged(one: Sample, other: Sample, merge: Merge | None) -> Sample:
    if merge is None:
        return one
    exemplar = max(
        (found for found in (one.exemplar, other.exemplar) if found is not None),
        key=lambda found: found.timestamp or 0.0,
        default=None,
    )
    return Sample(one.name, one.labels, merge(one.value, other.value), None, exemplar)
