"""Counters as Prometheus reads them, in both of its formats."""

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from relay.gate import Gate
from relay.metrics import RelayCollector, package_version, registry, render
from relay.readings import Upstream, read
from tests.fake_link import NOW, Stage

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def values(gate: Gate, accept: str, lag: int = 0) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of the relay by name and labels."""
    body, content_type = render(registry(lambda: read(gate, Upstream(lag), {})), accept)
    parse: Any = parse_openmetrics if content_type.startswith("application/openmetrics") else parse_text
    return {
        (sample.name.removeprefix("tickertape_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
        if sample.name.startswith("tickertape_") and not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_what_the_hub_counted_is_told(accept: str) -> None:
    """Each number under its name."""
    stage = Stage(rate=4.0)
    gate = Gate(stage.hub, lambda: stage.now)
    for _ in range(2):
        stage.follow()
    for seq in range(1, 11):
        stage.log(seq)
    stage.hub.skip(11, "bad_json")
    stage.flush()
    gate.results["accepted"] += 2
    gate.results["refused"] += 1
    gate.codes[1001] += 1
    found = values(gate, accept, lag=5)
    assert found["events_received_total", (("kind", "log"),)] == 10
    assert found["events_rejected_total", (("reason", "bad_json"),)] == 1
    assert found["events_delivered_total", ()] == 6
    assert found["events_dropped_total", (("reason", "rate"),)] == 14
    assert found["connections_total", (("result", "accepted"),)] == 2
    assert found["connections_total", (("result", "refused"),)] == 1
    assert found["disconnects_total", (("code", "1001"),)] == 1
    assert found["connections", ()] == 0
    assert found["feeds", ()] == 1
    assert found["log_events", ()] == 10
    assert found["log_bytes", ()] == stage.hub.log.bytes > 1000
    assert found["intake_lag_events", ()] == 5
    assert found["nats_connected", ()] == 1
    assert found["build_info", (("version", package_version()),)] == 1


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_a_histogram_is_cumulative(accept: str) -> None:
    """Each bucket holds those before it, the last one all."""
    stage = Stage()
    gate = Gate(stage.hub, lambda: NOW)
    for seconds in (0.0004, 0.003, 0.003, 0.7, 99.0):
        stage.hub.stats.delay.observe(seconds, 1)
    found = values(gate, accept)

    def bucket(bound: str) -> float:
        return found["delivery_delay_seconds_bucket", (("le", bound),)]

    assert [bucket(bound) for bound in ("0.0005", "0.0025", "0.005", "1.0", "60.0", "+Inf")] == [
        1, 1, 3, 4, 4, 5,
    ]  # fmt: skip
    assert found["delivery_delay_seconds_count", ()] == 5
    assert found["delivery_delay_seconds_sum", ()] == pytest.approx(99.7064)


def test_a_relay_that_has_done_nothing_tells_zeros() -> None:
    """A graph begins at the start, not at the first event."""
    found = values(Gate(Stage().hub, lambda: NOW), TEXT)
    for reason in ("rate", "slow", "retention", "reset"):
        assert found["events_dropped_total", (("reason", reason),)] == 0
    assert found["events_received_total", (("kind", "state"),)] == 0
    assert found["resumes_total", (("source", "log"),)] == 0


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns a thousand times more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_another_thread_may_ask() -> None:
    """A host's registry asks from a thread of its own, while the loop counts what it never counted before."""
    stage = Stage()
    gate = Gate(stage.hub, lambda: NOW)
    counts: list[dict[Any, int]] = [gate.results, gate.codes, stage.hub.stats.rejected]
    asked = threading.Event()

    def count() -> None:
        while not asked.is_set():
            for places in counts:
                for key in range(4000, 4100):
                    places[key] = 1
                places.clear()

    counting = threading.Thread(target=count)
    counting.start()
    try:
        collector = RelayCollector(lambda: read(gate, Upstream(), {}))
        for _ in range(300):
            names = [metric.name for metric in collector.collect()]
            assert names[-1] == "tickertape_build"
    finally:
        asked.set()
        counting.join()
