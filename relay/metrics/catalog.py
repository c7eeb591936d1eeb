"""Every metric: its name, its help and its unit, made of a reading when Prometheus asks.

``deploy/prometheus/README.md`` shows the table below to operators; a test holds the two together.
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
Across = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class Family:
    """A metric.

    Attributes:
        name: without the prefix, and without a counter's ``_total``.
        kind: its type.
        text: its help.
        label: the only one that it has, if any.
        across: what the numbers of several processes on one port come to: each takes in the whole stream, and
            the one that is worst off decides how well the relay is.
    """

    name: str
    kind: Kind
    text: str
    label: str = ""
    across: Across = "sum"


FAMILIES: Final = (
    Family("connections", "gauge", "Open WebSocket connections"),
    Family("handshakes", "counter", "WebSocket handshakes by result", "result"),
    Family("disconnects", "counter", "Closed connections, by close code", "code"),
    Family(
        "sessions",
        "gauge",
        "Sessions by mode; starting: waiting for a token or for their start position",
        "mode",
    ),
    Family("events_received", "counter", "Events received from NATS", "kind", "max"),
    Family(
        "events_rejected", "counter", "Events rejected because they violate the contract", "reason", "max"
    ),
    Family("events_delivered", "counter", "Events written to clients, counted per client"),
    Family("events_dropped", "counter", "Events reported as missing in a gap, counted per client", "reason"),
    Family("gaps", "counter", "Gaps reported, counted per client, including those of unknown size", "reason"),
    Family("events_conflated", "counter", "Events replaced by newer ones of the same subject in mode latest"),
    Family("messages_sent", "counter", "Messages written to clients"),
    Family("bytes_sent", "counter", "Bytes of messages written to clients"),
    Family("delivery_delay_seconds", "histogram", "Time from receiving an event to writing it to the socket"),
    Family("event_age_seconds", "histogram", "Time from an event's timestamp to writing it to the socket"),
    Family(
        "event_age_outliers",
        "counter",
        "Events whose timestamp is too far in the past or future to have an age",
        "reason",
    ),
    Family("flush_duration_seconds", "histogram", "Duration of a flush, from its start to its last write"),
    Family(
        "handshake_duration_seconds",
        "histogram",
        "Time from accepting a socket to its session, including TLS",
    ),
    Family("event_loop_lag_seconds", "histogram", "Delay of the event loop, sampled once a second"),
    Family("feeds", "gauge", "Feeds: groups of clients with the same filter, mode and rate"),
    Family("clients_behind", "gauge", "Clients behind the head of their feed"),
    Family("clients_waiting", "gauge", "Clients whose delivery is paused, by what they wait for", "reason"),
    Family("log_events", "gauge", "Events in the in-memory event log", across="min"),
    Family("log_bytes", "gauge", "Size of the in-memory event log"),
    Family("log_seconds", "gauge", "Age of the oldest event in the in-memory event log", across="min"),
    Family(
        "ingest_lag_events", "gauge", "Events in the stream that the relay has not received yet", across="max"
    ),
    Family("replay_readers", "gauge", "Active readers of events older than the in-memory event log"),
    Family(
        "resumes", "counter", "Sessions that started in the past, by where their events came from", "source"
    ),
    Family("auth_failures", "counter", "Rejected tokens", "reason"),
    Family("sockets", "gauge", "Sockets on the main port, including those of HTTP requests"),
    Family("sockets_unauthenticated", "gauge", "Sockets on the main port without a session"),
    Family(
        "rejected",
        "counter",
        "Connections, requests and messages rejected because a limit was reached",
        "limit",
    ),
    Family("internal_errors", "counter", "Internal errors, by what they ended", "kind"),
    Family("nats_connected", "gauge", "1 while the relay receives from NATS", across="min"),
    Family("nats_reconnects", "counter", "Reconnections to NATS"),
    Family(
        "nats_round_trip_seconds",
        "gauge",
        "Round-trip time to NATS, measured every 5 s while it responds",
        across="max",
    ),
)
"""All but ``build_info``."""


@cache
def package_version() -> str:
    """Version of the installed package; each look-up of the metadata opens a file, and none may be left."""
    try:
        return version("tickertape")
    except PackageNotFoundError:
        return "0"


class RelayCollector(Collector):
    """Turns readings of a relay into metrics.

    Args:
        reading: reads it now.
    """

    def __init__(self, reading: Callable[[], MetricsSnapshot]) -> None:
        self._reading = reading

    def collect(self) -> Iterable[Metric]:
        reading = self._reading()
        for family in FAMILIES:
            metric = Metric(PREFIX + family.name, family.text, family.kind)
            for name, labels, value, exemplar in _samples(family, reading):
                metric.add_sample(name, labels, value, exemplar=exemplar)
            yield metric
        build = InfoMetricFamily(PREFIX + "build", "Version of the relay")
        build.add_metric([], {"version": package_version()})
        yield build


class ProcessMetrics(Collector):
    """Turns the numbers of processes into metrics: name and help are those of this process's own.

    Args:
        numbers: as ``process_numbers`` has them.
    """

    def __init__(self, numbers: Mapping[str, float]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        for own in _process().collect():
            metric = Metric(own.name, own.documentation, own.type, own.unit)  # some collectors share theirs
            metric.samples = [
                sample._replace(value=self._numbers[key])
                for sample in own.samples
                if (key := _key(sample)) in self._numbers
            ]
            yield metric


def process_numbers() -> dict[str, float]:
    """Read the numbers of this process, by name and labels."""
    return {_key(sample): sample.value for metric in _process().collect() for sample in metric.samples}


def make_registry(reading: Callable[[], MetricsSnapshot]) -> CollectorRegistry:
    """All metrics of a relay: its own, and those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(RelayCollector(reading))
    made.register(_process())
    return made


def render(source: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Text of all metrics, and its content type, in the format that ``Accept`` asks for."""
    encoder, content_type = choose_encoder(accept)
    return encoder(source), content_type


@cache
def _process() -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=made)
    return made


def _key(sample: Sample) -> str:
    return ",".join([sample.name, *(value for _, value in sorted(sample.labels.items()))])


_Sample = tuple[str, dict[str, str], float, PrometheusExemplar | None]


def _samples(family: Family, reading: MetricsSnapshot) -> Iterator[_Sample]:
    name = PREFIX + family.name
    if family.kind == "histogram":
        if family.name in reading.distributions:
            yield from _buckets(name, reading.distributions[family.name])
        return
    for value, number in reading.numbers.get(family.name, {}).items():
        labels = {family.label: value} if family.label else {}
        yield f"{name}_total" if family.kind == "counter" else name, labels, number, None


def _buckets(name: str, values: Distribution) -> Iterator[_Sample]:
    exemplars = {one.bucket: one for one in values.exemplars}
    so_far = 0
    for index, count in enumerate(values.counts):
        so_far += count
        bound = "+Inf" if index == len(values.bounds) else str(values.bounds[index])
        found = exemplars.get(index)
        shown = found if found is None else _shown(found)
        yield f"{name}_bucket", {"le": bound}, so_far, shown
    yield f"{name}_count", {}, so_far, None
    yield f"{name}_sum", {}, values.total, None


def _shown(exemplar: Exemplar) -> PrometheusExemplar:
    return PrometheusExemplar({"trace_id": exemplar.trace_id}, exemplar.seconds, exemplar.at)
