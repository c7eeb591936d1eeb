"""Metrics in both exposition formats of Prometheus."""

import errno
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.connection_limits import ClientSlot
from tickertape.relay.core.counters import Exemplar, Histogram, Stats
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.ingest.gateway_history import HistoryStatus
from tickertape.relay.ingest.upstream import UpstreamStatus
from tickertape.relay.metrics import catalog as metrics
from tickertape.relay.metrics.catalog import RelayCollector, make_registry, package_version, render
from tickertape.relay.metrics.snapshot import read_snapshot
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.connections import Connections

from tests.support.clients.fake_link import NOW, Stage, nanoseconds
from tests.support.clients.feed_client import line
from tests.support.other_thread import changing
from tests.support.paths import ROOT

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def values(
    connections: Connections, accept: str, lag: int = 0
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return the relay's samples by name and labels."""
    body, content_type = render(
        make_registry(lambda: read_snapshot(connections, UpstreamStatus(lag), {})), accept
    )
    parse: Any = parse_openmetrics if content_type.startswith("application/openmetrics") else parse_text
    return {
        (sample.name.removeprefix("tickertape_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(body.decode())
        for sample in family.samples
        if sample.name.startswith("tickertape_") and not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_every_count_is_exported(accept: str) -> None:
    """Each count of the hub and the connections is exported under its name."""
    stage = Stage(rate=4.0)
    connections = Connections(stage.hub, lambda: stage.now)
    for _ in range(2):
        stage.follow()
    for seq in range(1, 11):
        stage.log(seq)
    stage.hub.reject(11, "bad_json")
    stage.flush()
    connections.handshake_results["accepted"] += 2
    connections.handshake_results["rejected"] += 1
    connections.close_counts[1001] += 1
    found = values(connections, accept, lag=5)
    assert found["events_received_total", (("kind", "log"),)] == 10
    assert found["events_rejected_total", (("reason", "bad_json"),)] == 1
    assert found["events_delivered_total", ()] == 6
    assert found["events_dropped_total", (("reason", "rate"),)] == 14
    assert found["handshakes_total", (("result", "accepted"),)] == 2
    assert found["handshakes_total", (("result", "rejected"),)] == 1
    assert found["disconnects_total", (("code", "1001"),)] == 1
    assert found["connections", ()] == 0
    assert found["feeds", ()] == 1
    assert found["log_events", ()] == 10
    assert found["log_bytes", ()] == stage.hub.log.bytes > 1000
    assert found["ingest_lag_events", ()] == 5
    assert found["nats_connected", ()] == 1
    assert found["build_info", (("version", package_version()),)] == 1


@pytest.mark.parametrize("accept", [TEXT, OPENMETRICS])
def test_a_histogram_is_cumulative(accept: str) -> None:
    """Each bucket of a histogram includes those before it, and the last one includes all."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: NOW)
    for seconds in (0.0004, 0.003, 0.003, 0.7, 99.0):
        stage.hub.stats.delay.observe(seconds, 1)
    found = values(connections, accept)

    def bucket(bound: str) -> float:
        return found["delivery_delay_seconds_bucket", (("le", bound),)]

    assert [bucket(bound) for bound in ("0.0005", "0.0025", "0.005", "1.0", "60.0", "+Inf")] == [
        1, 1, 3, 4, 4, 5,
    ]  # fmt: skip
    assert found["delivery_delay_seconds_count", ()] == 5
    assert found["delivery_delay_seconds_sum", ()] == pytest.approx(99.7064)


def test_an_idle_relay_exports_zeros() -> None:
    """An idle relay exports zeros, so that a graph starts with the relay and not with the first event."""
    found = values(Connections(Stage().hub, lambda: NOW), TEXT)
    for reason in ("rate", "slow", "retention", "reset"):
        assert found["events_dropped_total", (("reason", reason),)] == 0
    assert found["events_received_total", (("kind", "state"),)] == 0
    assert found["resumes_total", (("source", "log"),)] == 0


@pytest.fixture
def fast_thread_switches() -> Iterator[None]:
    """Make threads switch a thousand times more often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("fast_thread_switches")
def test_metrics_can_be_read_in_another_thread() -> None:
    """A host's registry may read metrics in its own thread while the event loop adds new label values."""
    stage = Stage()
    stage.follow()
    stage.log(1)
    connections = Connections(stage.hub, lambda: NOW)
    failures: Counter[Any] = Counter({"expired": 1})
    stats = stage.hub.stats
    collector = RelayCollector(lambda: read_snapshot(connections, UpstreamStatus(), failures))
    counters: list[dict[Any, int]] = [
        connections.handshake_results,
        connections.close_counts,
        connections.admission.rejected,
        failures,
        *(value for value in vars_of(stats) if isinstance(value, dict)),
    ]
    exemplars = [value.exemplars for value in vars_of(stats) if isinstance(value, Histogram)]
    for table in counters:
        table.update(dict.fromkeys(map(str, range(20)), 1))
    for latest in exemplars:
        latest[0] = Exemplar(next(iter(stage.hub.log)), NOW), 0.1
    with changing(*counters, *exemplars):
        names = [metric.name for metric in collector.collect()]
    assert names[-1] == "tickertape_build"


def vars_of(stats: Stats) -> list[Any]:
    """Return the values of all fields."""
    return [getattr(stats, field.name) for field in fields(stats)]


def parsed(body: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return samples in plain text by name and label values."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_label_values_are_bounded() -> None:
    """A close code chosen by a client and an unknown reason are counted as ``other``."""
    connections = Connections(Stage().hub, lambda: NOW)
    for code in range(3000, 4999):
        connections.close_counts[code] += 1
    connections.hub.reject(1, "made up")
    snapshot = read_snapshot(connections, UpstreamStatus(), {"expired": 2, "made up too": 3})
    assert snapshot.numbers["disconnects"]["other"] > 1900
    assert len(snapshot.numbers["disconnects"]) < 20
    assert snapshot.numbers["events_rejected"]["other"] == 1
    failures = snapshot.numbers["auth_failures"]
    assert (failures["expired"], failures["other"]) == (2, 3)


def test_sessions_are_counted_by_mode() -> None:
    """A session whose start position is still being looked up counts as starting, not under its mode."""
    stage = Stage(head=10, stream=True)
    connections = Connections(stage.hub, lambda: stage.now)
    stage.follow(Request(mode="latest"))
    stage.follow(Request(mode="complete"))
    stage.follow(Request(mode="complete"))
    stage.follow(Request(mode="live", cursor=Cursor("e", 50)))
    sessions = read_snapshot(connections, UpstreamStatus(), {}).numbers["sessions"]
    assert sessions == {"live": 0, "complete": 2, "latest": 1, "starting": 1}


def test_waiting_clients_are_counted_by_cause() -> None:
    """Waiting clients are counted by what they wait for: a full socket, the stream, or their pace."""
    stage = Stage(stream=True, log_events=10)
    connections = Connections(stage.hub, lambda: stage.now)
    for seq in range(1, 101):
        stage.log(seq)
    _, full = stage.follow()
    stage.hub.sessions.pause(full)
    stage.follow(Request(mode="complete", cursor=Cursor("e", 5)))
    stage.settle()
    parked = read_snapshot(connections, UpstreamStatus(), {}).numbers["clients_waiting"]
    assert parked == {"socket": 1, "stream": 1, "pace": 0}


def test_a_client_over_its_rate_waits_for_its_pace() -> None:
    """A client that has used up its burst and is behind waits for its pace."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    stage.follow(Request(mode="complete"), grant=Grant(("log.>",), rate=2.0))
    for seq in range(1, 51):
        stage.log(seq)
    stage.flush()
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["clients_waiting"]["pace"] == 1


def test_log_seconds_is_the_age_of_the_oldest_event() -> None:
    """The time span of the event log starts at its oldest event, and is zero while the log is empty."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["log_seconds"] == {"": 0.0}
    stage.log(1)
    stage.now += 90.0
    stage.log(2)
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["log_seconds"][""] == pytest.approx(90.0)


def test_gaps_with_unknown_event_counts_are_counted() -> None:
    """A gap with an unknown number of events is counted once for each client that is notified."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    for _ in range(3):
        stage.follow()
    stage.log(1)
    stage.flush()
    stage.hub.fanout.publish_missing(5, stage.now)
    numbers = read_snapshot(connections, UpstreamStatus(), {}).numbers
    assert (numbers["gaps"]["retention"], numbers["events_dropped"]["retention"]) == (3, 0)
    stage.hub.begin("f", 9)
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["gaps"]["reset"] == 3
    stage.follow(Request(cursor=Cursor("e", 1)))
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["gaps"]["reset"] == 4


def test_an_unknown_round_trip_is_not_exported() -> None:
    """While NATS does not answer, no round trip is exported rather than an outdated one."""
    connections = Connections(Stage().hub, lambda: NOW)
    names = {"tickertape_nats_round_trip_seconds", "tickertape_nats_reconnects_total"}
    body, _ = render(
        make_registry(lambda: read_snapshot(connections, UpstreamStatus(round_trip=0.002, reconnects=3), {})),
        TEXT,
    )
    assert names <= set(parsed(body))
    body, _ = render(make_registry(lambda: read_snapshot(connections, UpstreamStatus(), {})), TEXT)
    assert names & set(parsed(body)) == {"tickertape_nats_reconnects_total"}


def test_a_handshake_is_timed_from_accept_to_session() -> None:
    """The duration of a handshake is measured with the clock of the connections."""
    connections = Connections(Stage().hub, lambda: NOW + 0.3)
    client_slot = connections.admission.accept("127.0.0.1", FakeSocket(), NOW)
    assert isinstance(client_slot, ClientSlot)
    accounting = Accounting(connections)
    accounting.record_open()
    accounting.client_slot = client_slot
    accounting.record_open()
    durations = read_snapshot(connections, UpstreamStatus(), {}).distributions["handshake_duration_seconds"]
    assert sum(durations.counts) == 1
    assert durations.total == pytest.approx(0.3)
    assert connections.handshake_results["accepted"] == 2


class FakeSocket:
    """Socket that must not be aborted."""

    def abort(self) -> None:
        raise AssertionError("the socket must not be aborted")


def traced(stage: Stage, seq: int, **metadata: str) -> None:
    """Publish an event with trace metadata."""
    event = line(f"event {seq}").model_copy(update={"metadata": metadata})
    found = decode(event.subject, event.encode())
    assert isinstance(found, Event)
    stage.hub.publish(seq, event.subject, found, nanoseconds(stage.now), stage.now)


def exemplars(connections: Connections) -> dict[str, str | None]:
    """Return the trace ids of the exemplars of the delivery delay, by the bound of their bucket."""
    body, _ = render(make_registry(lambda: read_snapshot(connections, UpstreamStatus(), {})), OPENMETRICS)
    parse: Any = parse_openmetrics
    (family,) = (
        family for family in parse(body.decode()) if family.name == "tickertape_delivery_delay_seconds"
    )
    return {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for sample in family.samples
        if sample.exemplar
    }


def test_a_delay_has_the_trace_of_its_newest_event() -> None:
    """The exemplar of a bucket is its newest event with a trace; the text format has no exemplars."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    stage.follow()
    for seq, trace in enumerate(("a" * 32, "b" * 32), 1):
        traced(stage, seq, trace_id=trace)
        stage.flush()
    stage.log(3)
    stage.flush()
    traced(stage, 4, trace_id="c" * 32)
    stage.now += 0.3
    stage.flush()
    assert exemplars(connections) == {"0.0005": "b" * 32, "0.5": "c" * 32}
    body, _ = render(make_registry(lambda: read_snapshot(connections, UpstreamStatus(), {})), TEXT)
    assert b"trace_id" not in body


def test_an_undelivered_event_is_not_an_exemplar() -> None:
    """An event that was not delivered to any client has no exemplar."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    traced(stage, 1, trace_id="a" * 32)
    stage.flush()
    assert exemplars(connections) == {}


def test_reading_metrics_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is read once, since metrics matter most when no file descriptor is left."""
    package_version()

    def fail(name: str) -> str:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(metrics, "version", fail)
    assert package_version()


def test_every_family_has_a_value_and_a_description() -> None:
    """Every metric family has a value in the snapshot and a row in the documentation."""
    connections = Connections(Stage().hub, lambda: NOW)
    connections.store.writable = True
    history = HistoryStatus(False, "", 1, 2, 3, 4)
    snapshot = read_snapshot(connections, UpstreamStatus(0, 0, 0.1), {}, {}, history)
    names = {family.name for family in metrics.FAMILIES}
    assert names == snapshot.numbers.keys() | snapshot.distributions.keys()
    text = (ROOT / "deploy" / "prometheus" / "README.md").read_text()
    for family in metrics.FAMILIES:
        ending = "_total" if family.kind == "counter" else ""
        label = f"`{family.label}`" if family.label else ""
        name, about = f"tickertape_{family.name}{ending}", re.escape(family.text)
        assert re.search(rf"\| `{name}` \| {family.kind} \| {label} *\| {about} \|", text), name


def test_each_message_is_counted() -> None:
    """Each message of a snapshot or a batch is counted."""
    stage = Stage()
    for seq in range(1, 1_501):
        stage.status(seq, f"g{seq}")
    link, _ = stage.open()
    for seq in range(2_000, 2_100):
        stage.log(seq, size=4_000)
    stage.settle()
    assert stage.hub.stats.frames == len(link.read())
