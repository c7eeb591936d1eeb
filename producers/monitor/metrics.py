"""Metrics of the monitor; probe metrics have the names that blackbox_exporter uses.

The collector reads them from the monitor's state on each scrape and keeps no counters of its own.
"""

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from tickertape.contracts.events import Status
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.monitor import Monitor
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.net.outgoing import count_outdated_names

_LABELS = ("gateway", "type", "probe")


class MonitorCollector(Collector):
    """Collector that reads a monitor; the gateways and probes in the file bound its label values."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        """Yield the current value of all metrics."""
        yield from probe_metrics(self._monitor.gateways(), self._monitor.failures)
        yield from self._gateway_metrics()
        monitor = self._monitor
        yield CounterMetricFamily(
            "tickertape_monitor_probes", "Probes run on gateways.", value=monitor.scheduler.probes_run
        )
        yield CounterMetricFamily(
            "tickertape_monitor_transitions",
            "Status transitions that NATS has acknowledged.",
            value=monitor.status_publisher.published,
        )
        yield CounterMetricFamily(
            "tickertape_monitor_config_errors",
            "Invalid files rejected on reload.",
            value=monitor.file.errors,
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_config_last_reload_successful",
            "1 if the latest version of the file is in effect, 0 if it was rejected.",
            value=float(monitor.file.accepted),
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_config_last_reload_success_timestamp_seconds",
            "Time of the latest load of the file that was successful, UNIX seconds.",
            value=monitor.file.accepted_at,
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_pending_transitions",
            "Status transitions that NATS has not acknowledged yet.",
            value=monitor.status_publisher.pending,
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_online",
            "1 if a connectivity check succeeds or none is configured, 0 while all of them fail.",
            value=float(monitor.scheduler.online),
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_peers", "Other monitors that hold a lease.", value=monitor.decisions.peers
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_lease",
            "1 while this monitor holds its lease, so that its votes count.",
            value=float(monitor.decisions.holds_lease),
        )
        yield GaugeMetricFamily(
            "tickertape_monitor_outdated_names",
            "Host names whose last addresses are used, because their look-ups hang or fail.",
            value=count_outdated_names(),
        )
        yield from monitor.scheduler.lag.collect()
        yield GaugeMetricFamily(
            "tickertape_monitor_event_loop_lag_seconds",
            "Delay of the latest housekeeping run on the event loop.",
            value=monitor.loop_lag,
        )
        # Metrics are served by a separate thread, which still answers when the event loop hangs.
        yield GaugeMetricFamily(
            "tickertape_monitor_last_loop_timestamp_seconds",
            "Time of the latest housekeeping run on the event loop, UNIX seconds.",
            value=monitor.housekeeping_at,
        )

    def _gateway_metrics(self) -> Iterator[Metric]:
        labels = _LABELS[:2]
        state = GaugeMetricFamily(
            "tickertape_gateway_status",
            "1 for the current status of the gateway, 0 for all others.",
            labels=(*labels, "status"),
        )
        flapping = GaugeMetricFamily(
            "tickertape_gateway_flapping", "1 while the gateway is flapping.", labels=labels
        )
        silenced = GaugeMetricFamily(
            "tickertape_gateway_silenced", "1 while alerts on the gateway are silenced.", labels=labels
        )
        dissent = GaugeMetricFamily(
            "tickertape_gateway_dissent",
            "Monitors that disagree with the published status; 0 while all monitors agree.",
            labels=labels,
        )
        failed = CounterMetricFamily(
            "tickertape_monitor_gateway_failures",
            "Unexpected errors of this monitor in what it runs for a gateway.",
            labels=(*labels, "activity"),
        )
        for monitored in self._monitor.gateways():
            gateway_labels = (monitored.gateway.id, monitored.gateway.type)
            with self._monitor.failures.isolate(monitored.gateway, "metrics"):
                for status in Status:
                    state.add_metric((*gateway_labels, str(status)), float(status is monitored.status))
                flapping.add_metric(gateway_labels, float(monitored.is_flapping))
                silenced.add_metric(gateway_labels, float(monitored.silence is not None))
                dissent.add_metric(gateway_labels, float(self._monitor.decisions.dissent(monitored)))
        for (gateway_type, gateway_id, activity), number in list(self._monitor.failures.counts.items()):
            failed.add_metric((gateway_id, gateway_type, activity), number)
        yield from (state, flapping, silenced, dissent, failed)


def probe_metrics(gateways: Iterable[MonitoredGateway], failures: Failures) -> Iterator[Metric]:
    """Yield the metrics of all probes, labeled with the name of the probe."""
    success = GaugeMetricFamily(
        "probe_success",
        "1 if the latest probe succeeded, 0 if it failed; absent if it had no verdict.",
        labels=_LABELS,
    )
    duration = GaugeMetricFamily(
        "probe_duration_seconds", "Seconds until the gateway answered.", labels=_LABELS
    )
    expiry = GaugeMetricFamily(
        "probe_ssl_earliest_cert_expiry", "Expiry of the gateway's certificate, UNIX seconds.", labels=_LABELS
    )
    for monitored in gateways:
        with failures.isolate(monitored.gateway, "metrics", "probes"):
            for check, result in zip(monitored.gateway.checks, monitored.own.results, strict=True):
                if result is None:
                    continue
                labels = (monitored.gateway.id, monitored.gateway.type, check.probe.name)
                if result.outcome is not Outcome.UNKNOWN:
                    success.add_metric(labels, float(result.outcome is not Outcome.FAILED))
                if result.latency is not None:
                    duration.add_metric(labels, result.latency)
                if result.expires is not None:
                    expiry.add_metric(labels, result.expires)
    yield from (success, duration, expiry)
