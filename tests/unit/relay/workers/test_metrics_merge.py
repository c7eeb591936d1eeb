"""Tests of metrics of several processes that become one."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from tickertape.relay.workers.metrics_merge import Answer, Totals, add_up, parse

OPENMETRICS = "application/openmetrics-text"


def exposition(*lines: str) -> list[Metric]:
    """Metrics as a worker tells them."""
    return parse("\n".join([*lines, "# EOF"]) + "\n")


def rendered(metrics: list[Metric], accept: str = OPENMETRICS) -> list[str]:
    """Lines that Prometheus gets, without comments."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Answer(metrics))
    encoder, _ = choose_encoder(accept)
    return [line for line in encoder(registry).decode().splitlines() if not line.startswith("#")]


def counter(value: int, label: str = "a") -> list[Metric]:
    """A counter with a label."""
    return exposition("# TYPE tickertape_x counter", f'tickertape_x_total{{kind="{label}"}} {value}')


def test_counters_add_up_by_their_labels() -> None:
    """What only one of them has is there too."""
    whole = add_up([counter(1), counter(2), counter(4, "b")])
    assert rendered(whole) == ['tickertape_x_total{kind="a"} 3.0', 'tickertape_x_total{kind="b"} 4.0']
    assert rendered(whole, "") == rendered(whole)


def test_histograms_add_up_by_bucket() -> None:
    """Count and sum too, and the newest exemplar is kept."""

    def histogram(low: int, all_of_them: int, total: float, trace: str, at: float) -> list[Metric]:
        return exposition(
            "# TYPE tickertape_h_seconds histogram",
            "# UNIT tickertape_h_seconds seconds",
            f'tickertape_h_seconds_bucket{{le="0.5"}} {low}',
            f'tickertape_h_seconds_bucket{{le="+Inf"}} {all_of_them} # {{trace_id="{trace}"}} 0.7 {at}',
            f"tickertape_h_seconds_count {all_of_them}",
            f"tickertape_h_seconds_sum {total}",
        )

    whole = add_up([histogram(1, 2, 1.5, "old", 100.0), histogram(3, 4, 2.0, "new", 200.0)])
    assert rendered(whole) == [
        'tickertape_h_seconds_bucket{le="0.5"} 4.0',
        'tickertape_h_seconds_bucket{le="+Inf"} 6.0 # {trace_id="new"} 0.7 200.000000000',
        "tickertape_h_seconds_count 6.0",
        "tickertape_h_seconds_sum 3.5",
    ]


@pytest.mark.parametrize(
    ("name", "values", "whole"),
    [
        ("tickertape_connections", (2, 3), 5),
        ("tickertape_nats_connected", (1, 0), 0),
        ("tickertape_log_events", (10, 7), 7),
        ("tickertape_intake_lag_events", (10, 700), 700),
        ("tickertape_nats_round_trip_seconds", (0.5, 0.25), 0.5),
        ("process_start_time_seconds", (9, 7), 7),
        ("process_open_fds", (9, 7), 16),
        ("python_info", (1, 1), 1),
    ],
)
def test_gauges_are_sums_or_the_worst(name: str, values: tuple[float, float], whole: float) -> None:
    """As each is meant."""
    sources = [exposition(f"# TYPE {name} gauge", f"{name} {value}") for value in values]
    assert rendered(add_up(sources)) == [f"{name} {float(whole)}"]


def test_an_info_is_told_once() -> None:
    """All workers are of one version."""
    build = exposition("# TYPE tickertape_build info", 'tickertape_build_info{version="1"} 1')
    assert rendered(add_up([build, build])) == ['tickertape_build_info{version="1"} 1.0']


def test_a_counter_of_no_type_beside_a_gauge_of_its_name() -> None:
    """It has no type, since OpenMetrics allows no two families of one name; it adds up all the same."""
    both = exposition(
        "# TYPE tickertape_connections gauge",
        "tickertape_connections 2",
        "# TYPE tickertape_connections_total unknown",
        'tickertape_connections_total{result="opened"} 5',
    )
    totals = Totals()
    totals.heard(both)
    totals.bury()
    totals.heard(both)
    assert rendered(totals.whole()) == [
        'tickertape_connections_total{result="opened"} 10.0',
        "tickertape_connections 2.0",
    ]


def test_what_a_dead_worker_counted_stays() -> None:
    """And what was a state of it does not; its successor's count comes on top."""
    totals = Totals()
    gauge = exposition("# TYPE tickertape_connections gauge", "tickertape_connections 7")
    for value in (10, 1):
        totals.heard([*counter(value), *gauge])
        totals.bury()
    assert rendered(totals.whole()) == ['tickertape_x_total{kind="a"} 11.0']
    totals.bury()
    assert rendered(totals.whole()) == ['tickertape_x_total{kind="a"} 11.0']
    totals.heard([*counter(3), *gauge])
    assert rendered(totals.whole()) == [
        'tickertape_x_total{kind="a"} 14.0',
        "tickertape_connections 7.0",
    ]
    assert rendered(totals.whole())[0] == 'tickertape_x_total{kind="a"} 14.0'
