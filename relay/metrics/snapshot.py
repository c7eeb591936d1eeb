"""All numbers of a relay at one moment: read from its parts, added up over processes, turned into metrics.

Invariants:

1. A reading holds plain numbers and text only, so that it can travel between processes as JSON.
2. Every label's value comes from a fixed list, never from a client, a subject or free text; the rest counts
   as ``other``. All of them are there from the start: a rate needs the zero before the one.
3. ``catalog.py`` says what each name means, and how the numbers of several processes become one.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.events import RejectionReason
from tickertape.contracts.messages import Mode
from tickertape.relay.auth.claims import Reason as TokenFault
from tickertape.relay.core.connection_limits import Limit
from tickertape.relay.core.counters import Histogram
from tickertape.relay.core.trace_context import trace_id
from tickertape.relay.ingest.upstream import UpstreamStatus
from tickertape.relay.transport.connections import Connections

OTHER: Final = "other"
_CODES: Final = tuple(str(int(code)) for code in sorted({*CloseCode, 1005, 1006}))
"""Close codes with a label of their own; 1005 is an end without a code, 1006 one without a close."""


@dataclass(frozen=True, slots=True)
class Exemplar:
    """An event of a bucket, and the trace that it belongs to.

    Attributes:
        bucket: its index.
        trace_id: of the trace.
        seconds: what was observed.
        at: when, UNIX seconds.
    """

    bucket: int
    trace_id: str
    seconds: float
    at: float


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram as it was.

    Attributes:
        bounds: of its buckets; one more follows.
        counts: of each bucket, not cumulated.
        total: sum of what was observed.
        exemplars: at most one of each bucket.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: tuple[Exemplar, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """Numbers by the names of ``relay/metrics/catalog.py``.

    Attributes:
        numbers: by the value of the label; one without a label has the value "".
        distributions: the histograms.
        process: the numbers of its process, by name and labels; empty where another has them.
    """

    numbers: dict[str, dict[str, float]] = field(default_factory=dict)
    distributions: dict[str, Distribution] = field(default_factory=dict)
    process: dict[str, float] = field(default_factory=dict)


def read_snapshot(
    connections: Connections, upstream: UpstreamStatus, failures: Mapping[str, int]
) -> MetricsSnapshot:
    """Read a relay's numbers; a host may call this from a thread of its own, hence the copies.

    Args:
        connections: the connections, and through it the hub.
        upstream: how the relay stands with NATS.
        failures: refused tokens by reason.
    """
    hub = connections.hub
    stats, log, fanout, admission = hub.stats, hub.log, hub.fanout, connections.admission
    since = log.since
    single: dict[str, float | None] = {
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
        "replay_readers": upstream.reading,
        "sockets": admission.open,
        "sockets_unauthenticated": admission.pending,
        "nats_connected": int(hub.sessions.upstream_connected),
        "nats_reconnects": upstream.reconnects,
        "nats_round_trip_seconds": upstream.round_trip,
    }
    numbers = {name: {"": float(value)} for name, value in single.items() if value is not None}
    numbers |= {
        "handshakes": _known(connections.handshake_results, ("accepted", "rejected")),
        "disconnects": _known(connections.close_counts, _CODES),
        "sessions": _sessions(connections),
        "events_received": _known(stats.received, ("state", "log")),
        "events_rejected": _known(stats.rejected, tuple(RejectionReason)),
        "events_dropped": _known(stats.dropped, ("rate", "slow", "retention", "reset")),
        "gaps": _known(stats.gaps, ("rate", "slow", "retention", "reset")),
        "clients_waiting": {
            "socket": sum(not session.writable for session in list(hub.sessions)),
            "stream": fanout.replay_cache.waiting,
            "pace": fanout.paced,
        },
        "resumes": _known(stats.resumes, ("log", "stream", "gap")),
        "auth_failures": _known(failures, get_args(TokenFault)),
        "rejected": _known(admission.rejected, tuple(Limit)),
        "internal_errors": dict(stats.errors),
        "event_age_outliers": dict(stats.odd_ages),
    }
    distributions = {
        "delivery_delay_seconds": _distribution(stats.delay),
        "event_age_seconds": _distribution(stats.age),
        "flush_duration_seconds": _distribution(stats.flush),
        "handshake_duration_seconds": _distribution(connections.handshakes),
        "event_loop_lag_seconds": _distribution(stats.loop_lag),
    }
    return MetricsSnapshot(numbers, distributions)


def _known(counts: Mapping[Any, int], values: Collection[str]) -> dict[str, float]:
    """Counts by a label's known values, the rest as one more."""
    found = {str(value): 0.0 for value in values}
    rest = 0.0
    for key, count in list(counts.items()):
        if str(key) in found:
            found[str(key)] += count
        else:
            rest += count
    return {**found, OTHER: rest} if rest else found


def _sessions(connections: Connections) -> dict[str, float]:
    """Sessions by mode; those that have none yet wait for a token, or for their place."""
    members: Counter[str] = Counter()
    for feed in list(connections.hub.fanout.feeds.values()):
        members[feed.key.mode] += feed.members
    starting = max(0, len(connections.hub.sessions) - members.total())
    return {**{mode: float(members[mode]) for mode in get_args(Mode)}, "starting": float(starting)}


def _distribution(histogram: Histogram) -> Distribution:
    exemplars = []
    for bucket, (exemplar, seconds) in list(histogram.exemplars.items()):
        found = trace_id(exemplar.record)
        if found is not None:
            exemplars.append(Exemplar(bucket, found, seconds, exemplar.at))
    return Distribution(histogram.bounds, tuple(histogram.counts), histogram.total, tuple(exemplars))
