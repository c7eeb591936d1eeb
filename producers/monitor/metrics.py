"""The monitor's own metrics; those of probes carry the names that blackbox_exporter gave them.

Read when they are asked for, from the monitor's state: nothing is counted twice.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tickertape.contracts.events import Status
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.monitor import Monitor
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

_LABELS = ("gateway", "type", "probe")


class MonitorCollector(Collector):
    """Reads a monitor. Its labels are bounded by the file's gateways."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        yield from probe_metrics(self._monitor.watches())
        yield from self._gateways()
        monitor = self._monitor
        yield CounterMetricFamily(
            "tickertape_monitor_probes", "Looks at gateways.", value=monitor.probing.probed
        )
        yield CounterMetricFamily(
            "tickertape_monitor_transitions",
            "Changes that NATS has acknowledged.",
            value=monitor.telling.told,
        )
        yield CounterMetricFamily(
            "tickertape_monitor_config_errors", "Times a changed file was refused.", value=monitor.refused
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_pending_transitions",
            "Status transitions that NATS has not acknowledged yet.",
            value=monitor.telling.pending,
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_online",
            "1 when the monitor's own connectivity is well, or is not checked.",
            value=float(monitor.probing.reaches),
        )
        yield from monitor.probing.lag.collect()
        yield GaugeMetricFamily(
            "tickertape_monitor_event_loop_lag_seconds",
            "How late the event loop's last turn of housekeeping was.",
            value=monitor.loop_lag,
        )
        # Metrics have a thread of their own: they answer even while nothing is watched any more.
        yield GaugeMetricFamily(
            "tickertape_monitor_last_loop_timestamp_seconds",
            "When the event loop's last turn of housekeeping was.",
            value=monitor.turned,
        )

    def _gateways(self) -> Iterator[Metric]:
        labels = _LABELS[:2]
        state = GaugeMetricFamily(
            "tickertape_gateway_status", "1 for the status that a gateway has.", labels=(*labels, "status")
        )
        flapping = GaugeMetricFamily("tickertape_gateway_flapping", "1 while it flaps.", labels=labels)
        silenced = GaugeMetricFamily(
            "tickertape_gateway_silenced", "1 while alerts on it are not wanted.", labels=labels
        )
        for watch in self._monitor.watches():
            own = (watch.gateway.id, watch.gateway.type)
            for status in Status:
                state.add_metric((*own, str(status)), float(status is watch.status))
            flapping.add_metric(own, float(watch.flaps))
            silenced.add_metric(own, float(watch.silence is not None))
        yield from (state, flapping, silenced)


def probe_metrics(watches: Iterable[MonitoredGateway]) -> Iterator[Metric]:
    """Make the metrics of probes, each labelled with the probe's name."""
    success = GaugeMetricFamily("probe_success", "1 when the last look found it well.", labels=_LABELS)
    duration = GaugeMetricFamily("probe_duration_seconds", "Seconds until it answered.", labels=_LABELS)
    expiry = GaugeMetricFamily(
        "probe_ssl_earliest_cert_expiry", "When its certificate ends, UNIX seconds.", labels=_LABELS
    )
    for watch in watches:
        for check, result in zip(watch.gateway.checks, watch.results, strict=True):
            if result is None:
                continue
            labels = (watch.gateway.id, watch.gateway.type, check.probe.name)
            success.add_metric(labels, float(result.outcome is not Outcome.FAILED))
            if result.latency is not None:
                duration.add_metric(labels, result.latency)
            if result.expires is not None:
                expiry.add_metric(labels, result.expires)
    yield from (success, duration, expiry)
