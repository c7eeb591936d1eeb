"""Catalog of all metrics of the relay, and their conversion from a snapshot when Prometheus scrapes.

``deploy/prometheus/README.md`` lists them for operators; a test keeps the two in sync.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as PrometheusExemplar
from prometheus_client.samples import Sample
from tickertape.relay.metrics.snapshot import Distribution, Exemplar, MetricsSnapshot

PREFIX: Final = "tickertape_"

Kind = Literal["counter", "gauge", "histogram"]
Aggregation = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """Metric family with at most one label.

    Attributes:
        name: name without the prefix, and without the ``_total`` of a counter.
        kind: metric type.
        text: help text.
        label: name of the label; empty without a label.
        aggregation: how the values of several processes on one port are combined. Each process receives the
            whole stream, so counts of received events are not summed; health metrics show the worst process.
    """

    name: str
    kind: Kind
    text: str
    label: str = ""
    aggregation: Aggregation = "sum"


FAMILIES: Final = (
    MetricFamily("connections", "gauge", "Open WebSocket connections and HTTP streams"),
    MetricFamily(
        "transport_connections", "gauge", "Open WebSocket connections and HTTP streams", "transport"
    ),
    MetricFamily("handshakes", "counter", "Handshakes and requests for HTTP streams by result", "result"),
    MetricFamily("disconnects", "counter", "Closed connections, by close code", "code"),
    MetricFamily(
        "sessions",
        "gauge",
        "Sessions by mode; starting: waiting for a token or for their start position",
        "mode",
    ),
    MetricFamily("events_received", "counter", "Events received from NATS", "kind", "max"),
    MetricFamily(
        "events_rejected", "counter", "Events rejected because they violate the contract", "reason", "max"
    ),
    MetricFamily("states", "gauge", "States of gateways and components in snapshots", "family", "max"),
    MetricFamily(
        "states_evicted",
        "counter",
        "States evicted because there are more than a relay can hold",
        "family",
        "max",
    ),
    MetricFamily(
        "states_missing",
        "gauge",
        "Evicted states that have not changed since and are missing from snapshots",
        "family",
        "max",
    ),
    MetricFamily("events_delivered", "counter", "Events written to clients, counted per client"),
    MetricFamily(
        "events_dropped", "counter", "Events reported as missing in a gap, counted per client", "reason"
    ),
    MetricFamily(
        "gaps", "counter", "Gaps reported, counted per client, including those of unknown size", "reason"
    ),
    MetricFamily(
        "events_conflated",
        "counter",
        "Events replaced by newer ones of their subject in mode latest, counted per client",
    ),
    MetricFamily("messages_sent", "counter", "Messages written to clients"),
    MetricFamily("bytes_sent", "counter", "Bytes of messages written to clients"),
    MetricFamily(
        "delivery_delay_seconds", "histogram", "Time from receiving an event to writing it to the socket"
    ),
    MetricFamily(
        "event_age_seconds", "histogram", "Time from an event's timestamp to writing it to the socket"
    ),
    MetricFamily(
        "event_age_outliers",
        "counter",
        "Deliveries of events whose timestamp is too far in the past or future to have an age",
        "reason",
    ),
    MetricFamily(
        "flush_duration_seconds", "histogram", "Duration of a flush, from its start to its last write"
    ),
    MetricFamily(
        "handshake_duration_seconds",
        "histogram",
        "Time from accepting a socket to its session, including TLS",
    ),
    MetricFamily("event_loop_lag_seconds", "histogram", "Delay of the event loop, sampled once a second"),
    MetricFamily("feeds", "gauge", "Feeds: groups of clients with the same filter, mode and rate"),
    MetricFamily("clients_behind", "gauge", "Clients behind the head of their feed"),
    MetricFamily(
        "clients_waiting", "gauge", "Clients whose delivery is paused, by what they wait for", "reason"
    ),
    MetricFamily("log_events", "gauge", "Events in the in-memory event log", aggregation="min"),
    MetricFamily("log_bytes", "gauge", "Size of the in-memory event log"),
    MetricFamily(
        "log_seconds", "gauge", "Age of the oldest event in the in-memory event log", aggregation="min"
    ),
    MetricFamily(
        "history_loaded", "gauge", "1 while the history of gateways is available", aggregation="min"
    ),
    MetricFamily("history_gateways", "gauge", "Gateways in the history in memory", aggregation="max"),
    MetricFamily(
        "history_entries",
        "gauge",
        "Statuses and recovery steps in the history in memory",
        aggregation="max",
    ),
    MetricFamily(
        "history_truncated_gateways",
        "gauge",
        "Gateways whose oldest statuses or recovery steps were dropped from memory",
        aggregation="max",
    ),
    MetricFamily("history_bytes", "gauge", "Approximate size of the history in memory"),
    MetricFamily(
        "ingest_lag_events",
        "gauge",
        "Events in the stream that the relay has not received yet",
        aggregation="max",
    ),
    MetricFamily("replay_readers", "gauge", "Active readers of events older than the in-memory event log"),
    MetricFamily(
        "resumes", "counter", "Sessions that started in the past, by where their events came from", "source"
    ),
    MetricFamily("audit_records", "counter", "Audit records, if --audit is set, by result", "result"),
    MetricFamily("auth_failures", "counter", "Rejected tokens", "reason"),
    MetricFamily(
        "auth_source_valid",
        "gauge",
        "1 while the revocations, client grants and keys in force are those of their file or URL",
        "source",
        "min",
    ),
    MetricFamily("sockets", "gauge", "Sockets on the main port, including those of HTTP requests"),
    MetricFamily("sockets_unauthenticated", "gauge", "Sockets on the main port without a session"),
    MetricFamily(
        "rejected",
        "counter",
        "Connections, requests and messages rejected because a limit was reached",
        "limit",
    ),
    MetricFamily("internal_errors", "counter", "Internal errors, by what they ended", "kind"),
    MetricFamily("nats_connected", "gauge", "1 while the relay receives from NATS", aggregation="min"),
    MetricFamily("nats_reconnects", "counter", "Reconnections to NATS"),
    MetricFamily(
        "nats_round_trip_seconds",
        "gauge",
        "Round-trip time to NATS, measured every 5 s while it responds",
        aggregation="max",
    ),
    MetricFamily(
        "nats_store_writable",
        "gauge",
        "1 while NATS can store events; absent if unknown, as without --nats-monitoring-url",
        aggregation="min",
    ),
)
"""All metrics except ``build_info``."""


@cache
def package_version() -> str:
    """Return the version of the installed package.

    The result is cached because each lookup opens a file, which fails when no descriptor is left.
    """
    try:
        return version("tickertape")
    except PackageNotFoundError:
        return "0"


class RelayCollector(Collector):
    """Collector of a relay's metrics.

    Args:
        take_snapshot: returns the current snapshot.
    """

    def __init__(self, take_snapshot: Callable[[], MetricsSnapshot]) -> None:
        self._take_snapshot = take_snapshot

    def collect(self) -> Iterable[Metric]:
        snapshot = self._take_snapshot()
        for family in FAMILIES:
            metric = Metric(PREFIX + family.name, family.text, family.kind)
            for name, labels, value, exemplar in _samples(family, snapshot):
                metric.add_sample(name, labels, value, exemplar=exemplar)
            yield metric
        build = InfoMetricFamily(PREFIX + "build", "Version of the relay")
        build.add_metric([], {"version": package_version()})
        yield build


class ProcessMetrics(Collector):
    """Collector of merged process metrics, with the names and help texts of the local process metrics.

    Args:
        numbers: merged results of ``process_numbers``.
    """

    def __init__(self, numbers: Mapping[str, float]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        for template in _process_registry().collect():
            # A copy, since some collectors return the same object each time.
            metric = Metric(template.name, template.documentation, template.type, template.unit)
            metric.samples = [
                sample._replace(value=self._numbers[key])
                for sample in template.samples
                if (key := _key(sample)) in self._numbers
            ]
            yield metric


def process_numbers() -> dict[str, float]:
    """Return the process metrics of this process, by name and label values."""
    return {
        _key(sample): sample.value for metric in _process_registry().collect() for sample in metric.samples
    }


def make_registry(take_snapshot: Callable[[], MetricsSnapshot]) -> CollectorRegistry:
    """Make a registry of the metrics of a relay and of its process."""
    # With ``auto_describe``, registering would collect everything once, only to learn the names.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RelayCollector(take_snapshot))
    registry.register(_process_registry())
    return registry


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Return all metrics in the format that ``Accept`` selects, and the content type."""
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


@cache
def _process_registry() -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def _key(sample: Sample) -> str:
    return ",".join([sample.name, *(value for _, value in sorted(sample.labels.items()))])


_SampleData = tuple[str, dict[str, str], float, PrometheusExemplar | None]


def _samples(family: MetricFamily, snapshot: MetricsSnapshot) -> Iterator[_SampleData]:
    name = PREFIX + family.name
    if family.kind == "histogram":
        if family.name in snapshot.distributions:
            yield from _buckets(name, snapshot.distributions[family.name])
        return
    for label_value, value in snapshot.numbers.get(family.name, {}).items():
        labels = {family.label: label_value} if family.label else {}
        yield f"{name}_total" if family.kind == "counter" else name, labels, value, None


def _buckets(name: str, distribution: Distribution) -> Iterator[_SampleData]:
    exemplars = {exemplar.bucket: exemplar for exemplar in distribution.exemplars}
    cumulative = 0
    for index, count in enumerate(distribution.counts):
        cumulative += count
        bound = "+Inf" if index == len(distribution.bounds) else str(distribution.bounds[index])
        exemplar = exemplars.get(index)
        converted = None if exemplar is None else _convert(exemplar)
        yield f"{name}_bucket", {"le": bound}, cumulative, converted
    yield f"{name}_count", {}, cumulative, None
    yield f"{name}_sum", {}, distribution.total, None


def _convert(exemplar: Exemplar) -> PrometheusExemplar:
    return PrometheusExemplar({"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.at)
