"""Readings of several processes that become one."""

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tickertape.relay.metrics.catalog import ProcessMetrics, RelayCollector, process_numbers, render
from tickertape.relay.metrics.snapshot import Distribution, Exemplar, MetricsSnapshot
from tickertape.relay.workers.metrics_merge import SlotMetrics, decode_snapshot, merge_snapshots

OPENMETRICS = "application/openmetrics-text"


def counter(value: float, label: str = "a") -> MetricsSnapshot:
    """A counter with a label."""
    return MetricsSnapshot({"gaps": {label: value}})


def histogram(counts: tuple[int, ...], total: float, *exemplars: Exemplar) -> MetricsSnapshot:
    """A histogram with a bucket up to 0.5, and one for the rest."""
    return MetricsSnapshot(
        distributions={"flush_duration_seconds": Distribution((0.5,), counts, total, exemplars)}
    )


def test_counters_add_up_by_their_labels() -> None:
    """What only one of them has is there too."""
    assert merge_snapshots([counter(1), counter(2), counter(4, "b")]) == MetricsSnapshot(
        {"gaps": {"a": 3, "b": 4}}
    )
    assert merge_snapshots([]) == MetricsSnapshot()


def test_histograms_add_up_by_bucket() -> None:
    """Their sum too, and of each bucket the newest exemplar is kept."""
    old, new, low = (
        Exemplar(1, "old", 0.7, 100.0),
        Exemplar(1, "new", 0.8, 200.0),
        Exemplar(0, "low", 0.1, 9.0),
    )
    for one, other in (((new,), (low, old)), ((low, old), (new,))):
        whole = merge_snapshots([histogram((1, 1), 1.5, *one), histogram((3, 1), 2.0, *other)])
        found = whole.distributions["flush_duration_seconds"]
        assert (found.bounds, found.counts, found.total) == ((0.5,), (4, 2), 3.5)
        assert set(found.exemplars) == {new, low}


@pytest.mark.parametrize(
    ("name", "values", "whole"),
    [
        ("connections", (2, 3), 5),
        ("nats_connected", (1, 0), 0),
        ("log_events", (10, 7), 7),
        ("ingest_lag_events", (10, 700), 700),
        ("nats_round_trip_seconds", (0.5, 0.25), 0.5),
        ("events_received", (10, 9), 10),
    ],
)
def test_numbers_are_sums_or_the_worst(name: str, values: tuple[float, float], whole: float) -> None:
    """As each is meant; what all take in alike is counted once."""
    assert merge_snapshots(MetricsSnapshot({name: {"": value}}) for value in values) == MetricsSnapshot(
        {name: {"": whole}}
    )


@pytest.mark.parametrize(
    ("key", "values", "whole"),
    [
        ("process_start_time_seconds", (9, 7), 7),
        ("process_open_fds", (9, 7), 16),
        ("process_cpu_seconds_total", (9, 7), 16),
        ("python_gc_collections_total,0", (9, 7), 16),
        ("python_info,CPython,3,11", (1, 1), 1),
    ],
)
def test_numbers_of_processes_add_up(key: str, values: tuple[float, float], whole: float) -> None:
    """But for a start, of which the first counts, and an info."""
    assert merge_snapshots(MetricsSnapshot(process={key: value}) for value in values) == MetricsSnapshot(
        process={key: whole}
    )


def test_what_a_dead_worker_counted_stays() -> None:
    """And what was a state of it does not; its successor's count comes on top."""
    totals = SlotMetrics()

    def heard(value: float) -> None:
        numbers = {"gaps": {"a": value}, "handshakes": {"accepted": value}, "connections": {"": 7.0}}
        process = {"process_cpu_seconds_total": value, "process_open_fds": 7.0}
        totals.update(MetricsSnapshot(numbers, histogram((1, 0), value).distributions, process))

    for value in (10, 1):
        heard(value)
        totals.retire_worker()
    for _ in range(2):
        whole = totals.total()
        assert whole.numbers == {"gaps": {"a": 11}, "handshakes": {"accepted": 11}}
        assert whole.process == {"process_cpu_seconds_total": 11}
        assert whole.distributions == histogram((2, 0), 11).distributions
        totals.retire_worker()
    for _ in range(2):
        heard(3)
        whole = totals.total()
        assert whole.numbers == {
            "gaps": {"a": 14}, "handshakes": {"accepted": 14}, "connections": {"": 7}
        }  # fmt: skip
        assert whole.process == {"process_cpu_seconds_total": 14, "process_open_fds": 7}
        assert whole.distributions == histogram((3, 0), 14).distributions


def test_a_reading_travels_as_json() -> None:
    """Nothing is lost on the way, exemplars included."""
    sent = MetricsSnapshot(
        {"gaps": {"a": 1.0}},
        histogram((1, 2), 3.0, Exemplar(1, "trace", 0.7, 100.0)).distributions,
        process_numbers(),
    )
    assert decode_snapshot(orjson.loads(orjson.dumps(sent))) == sent
    assert decode_snapshot(orjson.loads(orjson.dumps(MetricsSnapshot()))) == MetricsSnapshot()


def test_the_whole_is_rendered_as_one_relay_is() -> None:
    """With the numbers of all processes under the names that this process has for its own."""
    numbers = process_numbers()
    whole = merge_snapshots(
        [
            MetricsSnapshot({"gaps": {"rate": 1.0}}, process=numbers | {"process_open_fds": 2.0}),
            MetricsSnapshot({"gaps": {"rate": 2.0}}, process=numbers | {"process_open_fds": 3.0}),
        ]
    )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RelayCollector(lambda: whole))
    registry.register(ProcessMetrics(whole.process))
    lines = render(registry, OPENMETRICS)[0].decode().splitlines()
    assert 'tickertape_gaps_total{reason="rate"} 3.0' in lines
    assert "process_open_fds 5.0" in lines
    assert "# TYPE process_open_fds gauge" in lines
    assert sum(line.startswith("python_info{") and line.endswith(" 1.0") for line in lines) == 1
    assert sum(line.startswith("python_gc_collections_total{") for line in lines) == 3
