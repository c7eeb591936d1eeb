"""Snapshot of all metrics of a relay at one moment.

Invariants:

1. A snapshot holds only numbers and strings, so that it can be sent to another process as JSON.
2. Every label value comes from a fixed list, never from a client, a subject or free text; anything else
   counts as ``other``. All values exist from the start: ``rate()`` needs the 0 before the first increment.
3. ``catalog.py`` defines what each name means, and how the values of several processes are aggregated.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, get_args

from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.events import RejectionReason
from tickertape.contracts.messages import Mode
from tickertape.relay.auth.claims import Reason
from tickertape.relay.core.connection_limits import Limit
from tickertape.relay.core.counters import Histogram
from tickertape.relay.core.trace_context import trace_id
from tickertape.relay.ingest.gateway_history import HistoryStatus
from tickertape.relay.ingest.upstream import UpstreamStatus
from tickertape.relay.transport.connections import Connections

OTHER: Final = "other"
"""Label value that stands for all values outside of a label's list."""

_CODES: Final = tuple(str(int(code)) for code in sorted({*CloseCode, 1005, 1006}))
"""Close codes with a label value of their own. 1005 stands for a close frame without a code, 1006 for a
connection that ended without a close frame."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """Observation in a histogram, with the trace that its event belongs to.

    Attributes:
        bucket: index of the bucket.
        trace_id: id of the trace.
        seconds: observed value.
        at: time of the observation, UNIX seconds.
    """

    bucket: int
    trace_id: str
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """Snapshot of a histogram.

    Attributes:
        bounds: upper bounds of the buckets, except the last, which has none.
        counts: number of observations in each bucket, not cumulative.
        total: sum of the observed values.
        exemplars: at most one per bucket.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Values of all metrics, by their names in ``relay/metrics/catalog.py``.

    Attributes:
        numbers: counters and gauges, by label value; "" for a metric without a label.
        distributions: histograms.
        process: metrics of the process, by name and label values; empty if collected elsewhere.
    """

    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    process: dict[str, float] = field(default_factory=dict)


def read_snapshot(
    connections: Connections,
    upstream: UpstreamStatus,
    failures: Mapping[str, int],
    sources: Mapping[str, bool] = MappingProxyType({}),
    history: HistoryStatus | None = None,
) -> MetricsSnapshot:
    """Take a snapshot of a relay's metrics.

    A host application may call this in another thread, so mappings are copied with ``dict`` before they are
    iterated: it runs no Python code, during which the event loop could change them. ``list(counts.items())``
    does, since each tuple may start a garbage collection.

    Args:
        connections: connections of the relay, with its hub.
        upstream: state of the connection to NATS.
        failures: number of rejected tokens by reason.
        sources: whether each source of authentication settings is valid.
        history: state of the history of gateways.
    """
    hub = connections.hub
    audit = connections.audit
    stats, log, fanout, admission = hub.stats, hub.log, hub.fanout, connections.admission
    since, pools = log.since, dict(hub.snapshot.pools).items()
    unlabelled: dict[str, float | None] = {
        "connections": len(connections),
        "events_delivered": stats.delivered,
        "events_conflated": stats.conflated,
        "messages_sent": stats.frames,
        "bytes_sent": stats.bytes,
        "feeds": len(fanout.feeds),
        "clients_behind": fanout.behind,
        "log_events": len(log),
        "log_bytes": log.bytes,
        "log_seconds": 0.0 if since is None else max(0.0, connections.clock() - since),
        "ingest_lag_events": upstream.lag,
        "replay_readers": upstream.active_readers,
        "sockets": admission.open,
        "sockets_unauthenticated": admission.pending,
        "nats_connected": int(hub.sessions.upstream_connected),
        "nats_reconnects": upstream.reconnects,
        "nats_round_trip_seconds": upstream.round_trip,
        "nats_store_writable": connections.store.writable,
    }
    if history is not None:
        unlabelled |= {
            "history_loaded": int(history.loaded),
            "history_gateways": history.gateways,
            "history_entries": history.entries,
            "history_truncated_gateways": history.truncated,
            "history_bytes": history.bytes,
        }
    numbers = {name: {"": float(value)} for name, value in unlabelled.items() if value is not None}
    numbers |= {
        "handshakes": _known(connections.handshake_results, ("accepted", "rejected")),
        "transport_connections": {name: float(n) for name, n in connections.transports().items()},
        "disconnects": _known(connections.close_counts, _CODES),
        "sessions": _sessions(connections),
        "events_received": _known(stats.received, ("state", "log")),
        "events_rejected": _known(stats.rejected, tuple(RejectionReason)),
        # The families are those of the contract's state events.
        "states": {family: float(len(pool.records)) for family, pool in pools},
        "states_evicted": {family: float(pool.evicted) for family, pool in pools},
        "states_missing": {family: float(pool.missing) for family, pool in pools},
        "events_dropped": _known(stats.dropped, ("rate", "slow", "retention", "reset")),
        "gaps": _known(stats.gaps, ("rate", "slow", "retention", "reset")),
        "clients_waiting": {
            "socket": sum(not session.writable for session in list(hub.sessions)),
            "stream": fanout.replay_cache.waiting,
            "pace": fanout.paced,
        },
        "resumes": _known(stats.resumes, ("log", "stream", "gap")),
        "audit_records": {"stored": float(audit.stored), "lost": float(audit.lost)} if audit else {},
        "auth_failures": _known(failures, get_args(Reason)),
        "auth_source_valid": {name: float(valid) for name, valid in sources.items()},
        "rejected": _known(admission.rejected, tuple(Limit)),
        "internal_errors": dict(stats.errors),
        "event_age_outliers": dict(stats.age_outliers),
    }
    distributions = {
        "delivery_delay_seconds": _distribution(stats.delay),
        "event_age_seconds": _distribution(stats.age),
        "flush_duration_seconds": _distribution(stats.flush),
        "handshake_duration_seconds": _distribution(connections.handshake_durations),
        "event_loop_lag_seconds": _distribution(stats.loop_lag),
    }
    return MetricsSnapshot(numbers, distributions)


def _known(counts: Mapping[Any, int], values: Collection[str]) -> dict[str, float]:
    """Return counts by the known values of a label, and the sum of all others as ``other``."""
    known = {str(value): 0.0 for value in values}
    other = 0.0
    for key, count in dict(counts).items():
        if str(key) in known:
            known[str(key)] += count
        else:
            other += count
    return {**known, OTHER: other} if other else known


def _sessions(connections: Connections) -> dict[str, float]:
    """Return sessions by mode; those without a feed wait for a token or for their start position."""
    members: Counter[str] = Counter()
    for feed in list(connections.hub.fanout.feeds.values()):
        members[feed.key.mode] += feed.members
    # In another thread, a session may end between the two counts.
    starting = max(0, len(connections.hub.sessions) - members.total())
    return {**{mode: float(members[mode]) for mode in get_args(Mode)}, "starting": float(starting)}


def _distribution(histogram: Histogram) -> Distribution:
    exemplars = []
    for bucket, (exemplar, seconds) in dict(histogram.exemplars).items():
        # Parsed only on a scrape, since most exemplars are replaced before they are read.
        trace = trace_id(exemplar.record)
        if trace is not None:
            exemplars.append(Exemplar(bucket, trace, seconds, exemplar.at))
    return Distribution(histogram.bounds, tuple(histogram.counts), histogram.total, tuple(exemplars))
