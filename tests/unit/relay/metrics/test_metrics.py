"""Counters as Prometheus reads them, in both of its formats."""

import errno
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.connection_limits import ClientSlot
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.ingest.upstream import UpstreamStatus
from tickertape.relay.metrics import catalog as metrics
from tickertape.relay.metrics.catalog import RelayCollector, make_registry, package_version, render
from tickertape.relay.metrics.snapshot import read_snapshot
from tickertape.relay.transport.connections import Connections

from tests.support.clients.fake_link import NOW, Stage, nanoseconds
from tests.support.clients.feed_client import line
from tests.support.paths import ROOT

TEXT = "text/plain;version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def values(
    connections: Connections, accept: str, lag: int = 0
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Samples of the relay by name and labels."""
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
def test_what_the_hub_counted_is_told(accept: str) -> None:
    """Each number under its name."""
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
    """Each bucket holds those before it, the last one all."""
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


def test_a_relay_that_has_done_nothing_tells_zeros() -> None:
    """A graph begins at the start, not at the first event."""
    found = values(Connections(Stage().hub, lambda: NOW), TEXT)
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
    connections = Connections(stage.hub, lambda: NOW)
    counts: list[dict[Any, int]] = [
        connections.handshake_results,
        connections.close_counts,
        stage.hub.stats.rejected,
    ]
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
        collector = RelayCollector(lambda: read_snapshot(connections, UpstreamStatus(), {}))
        for _ in range(300):
            names = [metric.name for metric in collector.collect()]
            assert names[-1] == "tickertape_build"
    finally:
        asked.set()
        counting.join()


def parsed(body: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Samples of plain text by name and the values of their labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse_text(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def test_labels_are_bounded_whatever_clients_do() -> None:
    """A close code of a client's own making, and a reason that nobody knows, are others."""
    connections = Connections(Stage().hub, lambda: NOW)
    for code in range(3000, 4999):
        connections.close_counts[code] += 1
    connections.hub.reject(1, "made up")
    reading = read_snapshot(connections, UpstreamStatus(), {"expired": 2, "made up too": 3})
    assert reading.numbers["disconnects"]["other"] > 1900
    assert len(reading.numbers["disconnects"]) < 20
    assert reading.numbers["events_rejected"]["other"] == 1
    assert (reading.numbers["auth_failures"]["expired"], reading.numbers["auth_failures"]["other"]) == (2, 3)


def test_sessions_are_told_by_mode() -> None:
    """One whose place is asked for has none yet."""
    stage = Stage(head=10, stream=True)
    connections = Connections(stage.hub, lambda: stage.now)
    stage.follow(Request(mode="latest"))
    stage.follow(Request(mode="complete"))
    stage.follow(Request(mode="complete"))
    stage.follow(Request(mode="live", cursor=Cursor("e", 50)))
    sessions = read_snapshot(connections, UpstreamStatus(), {}).numbers["sessions"]
    assert sessions == {"live": 0, "complete": 2, "latest": 1, "starting": 1}


def test_parked_members_are_told_by_what_they_wait_for() -> None:
    """A full socket, the stream, or a pace."""
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


def test_one_with_a_pace_of_its_own_is_parked_until_it_may_go_on() -> None:
    """Its burst is over, and there is more."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    stage.follow(Request(mode="complete"), grant=Grant(("log.>",), rate=2.0))
    for seq in range(1, 51):
        stage.log(seq)
    stage.flush()
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["clients_waiting"]["pace"] == 1


def test_memory_reaches_back_to_its_oldest_event() -> None:
    """Nothing while it is empty."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["log_seconds"] == {"": 0.0}
    stage.log(1)
    stage.now += 90.0
    stage.log(2)
    assert read_snapshot(connections, UpstreamStatus(), {}).numbers["log_seconds"][""] == pytest.approx(90.0)


def test_gaps_are_counted_where_their_events_cannot_be() -> None:
    """Once for each client that is told."""
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


def test_what_does_not_answer_has_no_round_trip() -> None:
    """Rather nothing than an old number."""
    connections = Connections(Stage().hub, lambda: NOW)
    there = {"tickertape_nats_round_trip_seconds", "tickertape_nats_reconnects_total"}
    body, _ = render(
        make_registry(lambda: read_snapshot(connections, UpstreamStatus(round_trip=0.002, reconnects=3), {})),
        TEXT,
    )
    assert there <= set(parsed(body))
    body, _ = render(make_registry(lambda: read_snapshot(connections, UpstreamStatus(), {})), TEXT)
    assert there & set(parsed(body)) == {"tickertape_nats_reconnects_total"}


def test_a_handshake_takes_from_the_arrival_to_the_session() -> None:
    """By the connections' own clock."""
    connections = Connections(Stage().hub, lambda: NOW + 0.3)
    client_slot = connections.admission.accept("127.0.0.1", FakeSocket(), NOW)
    assert isinstance(client_slot, ClientSlot)
    connections.record_open(client_slot)
    connections.record_open(None)
    taken = read_snapshot(connections, UpstreamStatus(), {}).distributions["handshake_duration_seconds"]
    assert sum(taken.counts) == 1
    assert taken.total == pytest.approx(0.3)
    assert connections.handshake_results["accepted"] == 2


class FakeSocket:
    """Stands for a socket that nobody cuts."""

    def abort(self) -> None:
        raise AssertionError("nobody cuts it")


def traced(stage: Stage, seq: int, **metadata: str) -> None:
    """Publish an event that names its trace."""
    event = line(f"event {seq}").model_copy(update={"metadata": metadata})
    found = decode(event.subject, event.encode())
    assert isinstance(found, Event)
    stage.hub.publish(seq, event.subject, found, nanoseconds(stage.now), stage.now)


def exemplars(connections: Connections) -> dict[str, str | None]:
    """Trace by the bound of its bucket, of the delivery delay."""
    body, _ = render(make_registry(lambda: read_snapshot(connections, UpstreamStatus(), {})), OPENMETRICS)
    parse: Any = parse_openmetrics
    (family,) = (one for one in parse(body.decode()) if one.name == "tickertape_delivery_delay_seconds")
    return {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for sample in family.samples
        if sample.exemplar
    }


def test_a_delay_leads_to_the_trace_of_its_newest_event() -> None:
    """One for each bucket, of those that name one; in plain text there is none."""
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


def test_what_nobody_got_is_no_example() -> None:
    """A trace that leads to no delivery leads nowhere."""
    stage = Stage()
    connections = Connections(stage.hub, lambda: stage.now)
    traced(stage, 1, trace_id="a" * 32)
    stage.flush()
    assert exemplars(connections) == {}


def test_a_reading_opens_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The version is looked up once: metrics are wanted most when no descriptor is left."""
    package_version()

    def refused(name: str) -> str:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(metrics, "version", refused)
    assert package_version()


def test_every_family_has_a_number_and_a_row() -> None:
    """One that is only in the catalogue has no samples; an operator finds all of them described."""
    reading = read_snapshot(Connections(Stage().hub, lambda: NOW), UpstreamStatus(0, 0, 0.1), {})
    names = {family.name for family in metrics.FAMILIES}
    assert names == reading.numbers.keys() | reading.distributions.keys()
    text = (ROOT / "deploy" / "prometheus" / "README.md").read_text()
    for family in metrics.FAMILIES:
        ending = "_total" if family.kind == "counter" else ""
        label = f"`{family.label}`" if family.label else ""
        name, about = f"tickertape_{family.name}{ending}", re.escape(family.text)
        assert re.search(rf"\| `{name}` \| {family.kind} \| {label} *\| {about} \|", text), name


def test_each_message_is_counted() -> None:
    """A snapshot, or a batch, of several messages counts as so many."""
    stage = Stage()
    for seq in range(1, 1_501):
        stage.status(seq, f"g{seq}")
    link, _ = stage.open()
    for seq in range(2_000, 2_100):
        stage.log(seq, size=4_000)
    stage.settle()
    assert stage.hub.stats.frames == len(link.read())
