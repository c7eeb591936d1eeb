"""Components of a relay, assembled from its settings, both for a standalone process and for an ASGI host.

``relay/server.py`` serves them on its own ports and handles signals; ``relay/asgi/app.py`` mounts them in
another application.
"""

import asyncio
import itertools
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tickertape.contracts.audit import Revoked
from tickertape.relay.audit.audit_log import AuditLog
from tickertape.relay.auth.authority import Authority
from tickertape.relay.auth.client_address import Networks
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission
from tickertape.relay.core.hub import TICK, Hub, HubSettings
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.page_budget import PageBudget
from tickertape.relay.flush_loop import FlushLoop, clock
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.ingest import Ingest
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.ingest.replay_requests import ReplayRequests
from tickertape.relay.memory_budget import make_budget
from tickertape.relay.metrics.snapshot import MetricsSnapshot, read_snapshot
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.connections import Connections
from tickertape.relay.worker_context import WorkerContext

from tickertape.process.limits import memory_limit
from tickertape.process.tasks import Tasks, race
from tickertape.text import count

log = logging.getLogger("tickertape")

PRUNE_TICKS: Final = 5
"""Number of ticks between two scans for addresses that the connection limits can forget."""


@dataclass(frozen=True, slots=True)
class Components:
    """Components of one relay, independent of the server that they run in.

    Attributes:
        hub: event log and sessions.
        connections: client connections; accepted only after ``start_accepting``.
        ingest: reads events from NATS into the hub.
        flush_loop: writes pending events to the sessions.
        history: answers ``GET /events``.
        gateways: history of gateways.
        authority: authenticates clients; None without authentication.
        audit: audit log; None without one.
    """

    hub: Hub
    connections: Connections
    ingest: Ingest
    flush_loop: FlushLoop
    history: History
    gateways: GatewayHistory
    authority: Authority | None
    audit: AuditLog | None

    def ready(self) -> bool:
        """Return whether to route clients here: states and keys loaded, NATS connected, not draining."""
        return self.ingest.loaded and self.connections.healthy

    def token_failures(self) -> Mapping[str, int]:
        """Return the number of rejected tokens by reason."""
        return {} if self.authority is None else self.authority.failures

    def metrics_snapshot(self) -> MetricsSnapshot:
        """Return a snapshot of all metrics of this relay."""
        sources = {} if self.authority is None else self.authority.sources
        return read_snapshot(
            self.connections,
            self.ingest.upstream_status(),
            self.token_failures(),
            sources,
            self.gateways.status(),
        )

    async def run(self, loaded: asyncio.Event) -> None:
        """Run ingest, flushes and periodic work until cancelled.

        Args:
            loaded: set when the newest states are loaded and events flow.

        Raises:
            StreamsError: JetStream is disabled, or a stream violates the contract.
            AccessError: a file with NATS credentials cannot be used.
        """
        async with Tasks() as tasks:
            running = [
                tasks.start(self.ingest.run(loaded), name="ingest"),
                tasks.start(self.flush_loop.run(), name="flush"),
                tasks.start(self._tick(), name="tick"),
                tasks.start(self.connections.store.run(), name="store"),
            ]
            if self.authority is not None:
                running.append(tasks.start(self._refresh_tokens(self.authority), name="tokens"))
            await race(*running)  # the relay needs all of them, so the end of any task ends the run
            for task in running:
                if task.done():
                    await task  # raises the task's error

    async def _tick(self) -> None:
        clock, lag = self.connections.clock, self.hub.stats.loop_lag
        for tick in itertools.count(1):
            due = clock() + TICK
            await asyncio.sleep(TICK)
            lag.observe(clock() - due)
            self.hub.tick(clock(), time.time() - clock())
            self.connections.ping_batch()
            self.connections.rejections.tick(self.connections.clock(), self.connections.admission.rejected)
            if self.audit is not None:
                self.audit.tick()
            if tick % PRUNE_TICKS == 0:
                self.connections.admission.prune(self.connections.clock())

    async def _refresh_tokens(self, authority: Authority) -> None:
        """Keep keys and revocations up to date, and end the sessions of revoked tokens and certificates."""
        await authority.run(self.end_revoked)

    def end_revoked(self) -> None:
        """End the sessions of revoked tokens and certificates; call this when the revocations change."""
        if self.authority is None:
            return
        ended = self.hub.sessions.end_revoked(self.authority.is_revoked)
        if ended:
            log.info("ended %s: tokens or certificates revoked", count(ended, "session"))
        if self.audit is not None:
            self.audit.write(Revoked(**self.audit.fields(), sessions=ended))


def assemble(
    settings: RelaySettings,
    url: str,
    origins: Origins,
    capacity: int,
    authority: Authority | None,
    worker: WorkerContext | None = None,
) -> Components:
    """Assemble the components of a relay; requires a running event loop.

    Args:
        settings: settings of the relay.
        url: URL of the NATS server.
        origins: origins of pages that may connect.
        capacity: number of connections that there are file descriptors for.
        authority: authenticates clients; None accepts every client.
        worker: context of a worker that shares its port with others; None for a single process.
    """
    now = clock()
    budget = make_budget(memory_limit(), settings.log_bytes, worker.workers if worker else 1)
    budget.report()
    names = settings.names()
    patterns = tuple(names.subject(pattern) for pattern in settings.patterns())
    flush_requested, requests = asyncio.Event(), ReplayRequests()
    verify = None if authority is None else authority.verify
    hub = Hub(
        HubSettings(
            relay=worker.relay if worker else socket.gethostname(),
            rate=settings.client_rate,
            complete_rate=settings.complete_rate,
            log_events=settings.log_size,
            log_bytes=budget.log_bytes,
            replay_bytes=budget.replay_bytes,
            max_catch_up=settings.max_catch_up,
        ),
        flush_requested.set,
        requests.request_chunk,
        requests.request_positions,
        verify,
        session_failed,
    )
    readers = ReplayReaders(hub, requests, names, patterns, now)
    gateways = GatewayHistory(hub, names, patterns, control=settings.control)
    audit = AuditLog(names, hub.settings.relay, now, hub.stats.unix) if settings.audit else None
    store_audit = None if audit is None else audit.run
    ingest = Ingest(hub, now, url, names, patterns, readers, gateways, settings.access(), store_audit)
    flush_loop = FlushLoop(hub.fanout, hub.stats, flush_requested, now, ingest.pause_reading)
    trusted, unlimited = Networks(settings.trusted_proxies), Networks(settings.unlimited_addresses)
    limits = settings.limits(capacity)
    if worker:
        # The total applies to all workers, each of which has descriptors for ``capacity`` connections.
        limits = worker.limits(settings.limits(capacity * worker.workers))
    admission = Admission(
        limits,
        # A trusted proxy stands for many clients, which are counted by the addresses that it forwards.
        lambda address: address in unlimited or address in trusted,
        worker.limit_counters(capacity) if worker else None,
    )
    certificate_grant = None if authority is None else authority.certificate_grant
    request_auth = RequestAuth(
        verify, origins, trusted, certificate_grant, lambda: authority is None or authority.ready
    )
    # Not accepting until the newest states are loaded: a snapshot that is sent before would lack some.
    connections = Connections(hub, now, request_auth, admission, settings.message_rate, accepting=False)
    connections.audit = audit
    connections.store = settings.store_watch()
    admission.on_reject = None if audit is None else audit.count_rejection
    # Of each worker, since a page lies in its memory.
    history = History(hub, readers, PageBudget(budget.page_bytes))
    return Components(hub, connections, ingest, flush_loop, history, gateways, authority, audit)


def session_failed(session: str, error: Exception) -> None:
    """Log an internal error that ended a session, with the session id."""
    log.error("session %s ended with an internal error", session, exc_info=error, extra={"session": session})
