"""Metrics of several processes merged into one snapshot."""

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tickertape.relay.metrics.catalog import ProcessMetrics, RelayCollector, process_numbers, render
from tickertape.relay.metrics.snapshot import Distribution, Exemplar, MetricsSnapshot
from tickertape.relay.workers.metrics_merge import SlotMetrics, decode_snapshot, merge_snapshots

OPENMETRICS = "application/openmetrics-text"


def counter(value: float, label: str = "a") -> MetricsSnapshot:
    """Return a snapshot with one labelled counter."""
    return MetricsSnapshot({"gaps": {label: value}})


def histogram(counts: tuple[int, ...], total: float, *exemplars: Exemplar) -> MetricsSnapshot:
    """Return a snapshot of a histogram with a bucket up to 0.5 and one above."""
    return MetricsSnapshot(
        distributions={"flush_duration_seconds": Distribution((0.5,), counts, total, exemplars)}
    )


def test_counters_are_summed_by_label() -> None:
    """Counters are summed by label, including labels that only one snapshot has."""
    assert merge_snapshots([counter(1), counter(2), counter(4, "b")]) == MetricsSnapshot(
        {"gaps": {"a": 3, "b": 4}}
    )
    assert merge_snapshots([]) == MetricsSnapshot()


def test_histograms_are_summed_by_bucket() -> None:
    """Buckets and totals are summed, and the newest exemplar of each bucket is kept."""
    old, new, low = (
        Exemplar(1, "old", 0.7, 100.0),
        Exemplar(1, "new", 0.8, 200.0),
        Exemplar(0, "low", 0.1, 9.0),
    )
    for first, second in (((new,), (low, old)), ((low, old), (new,))):
        merged = merge_snapshots([histogram((1, 1), 1.5, *first), histogram((3, 1), 2.0, *second)])
        found = merged.distributions["flush_duration_seconds"]
        assert (found.bounds, found.counts, found.total) == ((0.5,), (4, 2), 3.5)
        assert set(found.exemplars) == {new, low}


@pytest.mark.parametrize(
    ("name", "values", "merged"),
    [
        ("connections", (2, 3), 5),
        ("nats_connected", (1, 0), 0),
        ("log_events", (10, 7), 7),
        ("ingest_lag_events", (10, 700), 700),
        ("nats_round_trip_seconds", (0.5, 0.25), 0.5),
        ("events_received", (10, 9), 10),
    ],
)
def test_numbers_are_summed_or_the_worst_is_kept(
    name: str, values: tuple[float, float], merged: float
) -> None:
    """A number is summed, or its worst value is kept, and events received by all workers are counted once."""
    assert merge_snapshots(MetricsSnapshot({name: {"": value}}) for value in values) == MetricsSnapshot(
        {name: {"": merged}}
    )


@pytest.mark.parametrize(
    ("key", "values", "merged"),
    [
        ("process_start_time_seconds", (9, 7), 7),
        ("process_open_fds", (9, 7), 16),
        ("process_cpu_seconds_total", (9, 7), 16),
        ("python_gc_collections_total,0", (9, 7), 16),
        ("python_info,CPython,3,11", (1, 1), 1),
    ],
)
def test_process_metrics_are_summed(key: str, values: tuple[float, float], merged: float) -> None:
    """Process metrics are summed, except for the start time, whose minimum is kept, and the info metric."""
    assert merge_snapshots(MetricsSnapshot(process={key: value}) for value in values) == MetricsSnapshot(
        process={key: merged}
    )


def test_counters_of_a_dead_worker_are_kept() -> None:
    """Counters of a dead worker are kept and its successor's added, but its gauges are dropped."""
    totals = SlotMetrics()

    def report(value: float) -> None:
        numbers = {"gaps": {"a": value}, "handshakes": {"accepted": value}, "connections": {"": 7.0}}
        process = {"process_cpu_seconds_total": value, "process_open_fds": 7.0}
        totals.update(MetricsSnapshot(numbers, histogram((1, 0), value).distributions, process))

    for value in (10, 1):
        report(value)
        totals.retire_worker()
    for _ in range(2):
        merged = totals.total()
        assert merged.numbers == {"gaps": {"a": 11}, "handshakes": {"accepted": 11}}
        assert merged.process == {"process_cpu_seconds_total": 11}
        assert merged.distributions == histogram((2, 0), 11).distributions
        totals.retire_worker()
    for _ in range(2):
        report(3)
        merged = totals.total()
        assert merged.numbers == {
            "gaps": {"a": 14}, "handshakes": {"accepted": 14}, "connections": {"": 7}
        }  # fmt: skip
        assert merged.process == {"process_cpu_seconds_total": 14, "process_open_fds": 7}
        assert merged.distributions == histogram((3, 0), 14).distributions


def test_a_snapshot_is_decoded_from_json() -> None:
    """A snapshot with exemplars is decoded from JSON without any loss."""
    sent = MetricsSnapshot(
        {"gaps": {"a": 1.0}},
        histogram((1, 2), 3.0, Exemplar(1, "trace", 0.7, 100.0)).distributions,
        process_numbers(),
    )
    assert decode_snapshot(orjson.loads(orjson.dumps(sent))) == sent
    assert decode_snapshot(orjson.loads(orjson.dumps(MetricsSnapshot()))) == MetricsSnapshot()


def test_merged_metrics_have_the_names_of_a_single_process() -> None:
    """Merged metrics use the same names for process metrics as a single process does."""
    numbers = process_numbers()
    merged = merge_snapshots(
        [
            MetricsSnapshot({"gaps": {"rate": 1.0}}, process=numbers | {"process_open_fds": 2.0}),
            MetricsSnapshot({"gaps": {"rate": 2.0}}, process=numbers | {"process_open_fds": 3.0}),
        ]
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RelayCollector(lambda: merged))
    registry.register(ProcessMetrics(merged.process))
    lines = render(registry, OPENMETRICS)[0].decode().splitlines()
    assert 'tickertape_gaps_total{reason="rate"} 3.0' in lines
    assert "process_open_fds 5.0" in lines
    assert "# TYPE process_open_fds gauge" in lines
    assert sum(line.startswith("python_info{") and line.endswith(" 1.0") for line in lines) == 1
    assert sum(line.startswith("python_gc_collections_total{") for line in lines) == 3
