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

Kind = Literal["counter", "gauge", "histogram", "unknown"]
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
    Family("connections", "gauge", "WebSocket connections that are open"),
    # A counter's family would be called like the gauge's, which OpenMetrics forbids; so it is of no type.
    Family("connections_total", "unknown", "Handshakes of WebSocket connections", "result"),
    Family("disconnects", "counter", "Ended connections by close code", "code"),
    Family(
        "sessions", "gauge", "Sessions by mode; those that wait for a token or a place are starting", "mode"
    ),
    Family("events_received", "counter", "Events taken in from NATS", "kind", "max"),
    Family("events_rejected", "counter", "Events that broke the contract", "reason", "max"),
    Family("events_delivered", "counter", "Events written to clients, once per client"),
    Family("events_dropped", "counter", "Events told in a gap, once per client", "reason"),
    Family("gaps", "counter", "Gaps told, once per client, those without a known number too", "reason"),
    Family("events_conflated", "counter", "Events replaced by newer ones in mode latest"),
    Family("frames_sent", "counter", "Messages written to clients"),
    Family("bytes_sent", "counter", "Bytes of messages written to clients"),
    Family("delivery_delay_seconds", "histogram", "From intake to the socket write"),
    Family("event_age_seconds", "histogram", "From the event's timestamp to the socket write"),
    Family(
        "event_age_outliers",
        "counter",
        "Events whose timestamp is too old, or too far ahead, to have an age",
        "reason",
    ),
    Family("flush_duration_seconds", "histogram", "From the beginning of a flush to the end of its writes"),
    Family("handshake_duration_seconds", "histogram", "From accepting a socket to its session, TLS too"),
    Family("event_loop_lag_seconds", "histogram", "How late the event loop was, looked at once a second"),
    Family("feeds", "gauge", "Groups of clients that share filter, mode and rate"),
    Family("clients_behind", "gauge", "Clients that are not at the head of their feed"),
    Family("members_parked", "gauge", "Clients that stand still, by what they wait for", "reason"),
    Family("log_events", "gauge", "Events in memory", across="min"),
    Family("log_bytes", "gauge", "Bytes of the events in memory"),
    Family("log_seconds", "gauge", "How far back the events in memory go", across="min"),
    Family("intake_lag_events", "gauge", "Events of the stream that are not taken in yet", across="max"),
    Family("replay_readers", "gauge", "Readers of what is older than memory that are at work"),
    Family("resumes", "counter", "Sessions that began in the past, by where from", "source"),
    Family("auth_failures", "counter", "Refused tokens", "reason"),
    Family("sockets", "gauge", "Sockets on the main port, those of requests too"),
    Family("sockets_unauthenticated", "gauge", "Of them, without a session"),
    Family("limits_reached", "counter", "Times that a limit kept somebody out", "limit"),
    Family("internal_errors", "counter", "Internal errors, by what each of them ended", "kind"),
    Family("nats_connected", "gauge", "1 while the relay hears from NATS", across="min"),
    Family("nats_reconnects", "counter", "Connections to NATS after the first"),
    Family("nats_round_trip_seconds", "gauge", "To NATS and back, every 5 s while it answers", across="max"),
    Family("descriptors", "gauge", "Descriptors that are open"),
    Family("descriptors_limit", "gauge", "Descriptors that may be open"),
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


def registry(reading: Callable[[], MetricsSnapshot]) -> CollectorRegistry:
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
