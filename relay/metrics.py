"""Every metric: its name, its help and its unit, read from plain counters when Prometheus asks."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from relay.core.admission import Limit
from relay.core.stats import DELAY_BUCKETS, Histogram
from relay.gate import Gate


def package_version() -> str:
    """Version of the installed package."""
    try:
        return version("tickertape")
    except PackageNotFoundError:
        return "0"


class RelayCollector(Collector):
    """Turns the relay's counters into metrics.

    Args:
        gate: the connections, and through it the hub.
        lag: events that the stream holds and the relay has not taken in yet.
        failures: refused tokens by reason.
    """

    def __init__(
        self, gate: Gate, lag: Callable[[], int], failures: Callable[[], Mapping[str, int]] = dict
    ) -> None:
        self._gate = gate
        self._lag = lag
        self._failures = failures

    def collect(self) -> Iterable[Metric]:
        hub, gate = self._gate.hub, self._gate
        stats = hub.stats
        yield _gauge("connections", "WebSocket connections that are open", len(gate))
        yield _handshakes(gate.results)
        yield _counter(
            "disconnects",
            "Ended connections by close code",
            "code",
            {str(k): n for k, n in list(gate.codes.items())},
        )
        yield _counter("events_received", "Events taken in from NATS", "kind", stats.received)
        yield _counter("events_rejected", "Events that broke the contract", "reason", stats.rejected)
        yield _total("events_delivered", "Events written to clients, once per client", stats.delivered)
        yield _counter("events_dropped", "Events told in a gap, once per client", "reason", stats.dropped)
        yield _total("events_conflated", "Events replaced by newer ones in mode latest", stats.conflated)
        yield _total("frames_sent", "Messages written to clients", stats.frames)
        yield _total("bytes_sent", "Bytes of messages written to clients", stats.bytes)
        yield _histogram("delivery_delay_seconds", "From intake to the socket write", stats.delay)
        yield _histogram("event_age_seconds", "From the event's timestamp to the socket write", stats.age)
        yield _gauge("feeds", "Groups of clients that share filter, mode and rate", len(hub.fanout.feeds))
        yield _gauge("clients_behind", "Clients that are not at the head of their feed", hub.fanout.behind)
        yield _gauge("log_events", "Events in memory", len(hub.log))
        yield _gauge("log_bytes", "Bytes of the events in memory", hub.log.bytes)
        yield _gauge("intake_lag_events", "Events of the stream that are not taken in yet", self._lag())
        yield _counter("resumes", "Sessions that began in the past, by where from", "source", stats.resumes)
        yield _counter("auth_failures", "Refused tokens", "reason", dict(self._failures()))
        yield _gauge("sockets", "Sockets on the main port, those of requests too", gate.admission.open)
        yield _gauge("sockets_unauthenticated", "Of them, without a session", gate.admission.pending)
        limits = {str(limit): gate.admission.refused[limit] for limit in Limit}
        yield _counter("limits_reached", "Times that a limit kept somebody out", "limit", limits)
        yield _gauge("nats_connected", "1 while the relay hears from NATS", int(hub.upstream_connected))
        build = InfoMetricFamily("tickertape_build", "Version of the relay")
        build.add_metric([], {"version": package_version()})
        yield build


def registry(
    gate: Gate, lag: Callable[[], int], failures: Callable[[], Mapping[str, int]] = dict
) -> CollectorRegistry:
    """All metrics of a relay: its own, and those of its process."""
    made = CollectorRegistry(auto_describe=False)
    made.register(RelayCollector(gate, lag, failures))
    ProcessCollector(registry=made)
    PlatformCollector(registry=made)
    GCCollector(registry=made)
    return made


def render(source: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Text of all metrics, and its content type, in the format that ``Accept`` asks for."""
    encoder, content_type = choose_encoder(accept)
    return encoder(source), content_type


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tickertape_{name}", text, value=value)


def _total(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"tickertape_{name}", text, value=value)


def _counter(name: str, text: str, label: str, values: dict[str, int]) -> Metric:
    family = CounterMetricFamily(f"tickertape_{name}", text, labels=[label])
    # A copy: a host may ask from a thread, while the loop counts.
    for key, value in list(values.items()):
        family.add_metric([key], value)
    return family


def _handshakes(results: dict[str, int]) -> Metric:
    # A counter's family would be called like the gauge's, which OpenMetrics forbids; so it is of no type.
    family = Metric("tickertape_connections_total", "Handshakes of WebSocket connections", "unknown")
    for result, count in list(results.items()):
        family.add_sample("tickertape_connections_total", {"result": result}, count)
    return family


def _histogram(name: str, text: str, values: Histogram) -> Metric:
    family = HistogramMetricFamily(f"tickertape_{name}", text)
    family.add_metric([], list(_cumulated(values)), values.total)
    return family


def _cumulated(values: Histogram) -> Iterator[tuple[str, float]]:
    so_far = 0
    for bound, count in zip((*map(str, DELAY_BUCKETS), "+Inf"), values.counts, strict=True):
        so_far += count
        yield bound, so_far
