"""A relay's parts, put together from its settings: the same for a process of its own and for a host's.

What is around them differs: ``relay/server.py`` listens on ports and heeds signals, ``relay/asgi/app.py``
lives in another application.
"""

import asyncio
import itertools
import logging
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tickertape.relay.auth.client_address import Networks
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.core.connection_limits import Admission
from tickertape.relay.core.hub import TICK, Hub, HubSettings
from tickertape.relay.endpoints.history import History
from tickertape.relay.ingest.ingest import Ingest
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.ingest.replay_requests import ReplayRequests
from tickertape.relay.metrics.snapshot import MetricsSnapshot, read_snapshot
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.flush_loop import FlushLoop, clock
from tickertape.relay.worker_context import WorkerContext

from tickertape.process.tasks import Tasks, race

log = logging.getLogger("tickertape")

TIDY_EVERY: Final = 5
"""Ticks between two looks at what can be forgotten of addresses."""


@dataclass(frozen=True, slots=True)
class Components:
    """What a relay is made of, whoever it listens to.

    Attributes:
        hub: the log and its sessions.
        connections: who may come in; closed until somebody opens it.
        intake: reads NATS into the hub.
        flush_loop: writes what the hub has for its sessions.
        history: for ``GET /events``.
        authority: verifies tokens; None where none are asked for.
    """

    hub: Hub
    connections: Connections
    ingest: Ingest
    flush_loop: FlushLoop
    history: History
    authority: TokenService | None

    def ready(self) -> bool:
        """Tell whether clients should be sent here: newest states loaded, NATS up, not draining."""
        return self.ingest.loaded and self.connections.healthy

    def failures(self) -> Mapping[str, int]:
        """Tokens that were refused, by reason."""
        return {} if self.authority is None else self.authority.failures

    def metrics_snapshot(self) -> MetricsSnapshot:
        """All numbers of this relay now."""
        return read_snapshot(self.connections, self.ingest.upstream_status(), self.failures())

    async def run(self, loaded: asyncio.Event) -> None:
        """Do what goes on behind the connections, until cancelled.

        Args:
            loaded: set once the newest states are loaded and events flow.

        Raises:
            StreamsError: JetStream is off, or a stream breaks the contract.
            AccessError: a file with credentials for NATS cannot be used.
        """
        async with Tasks() as tasks:
            components = [
                tasks.start(self.ingest.run(loaded), name="ingest"),
                tasks.start(self.flush_loop.run(), name="flush"),
                tasks.start(self._tick(), name="tick"),
            ]
            if self.authority is not None:
                components.append(tasks.start(self._watch(self.authority), name="tokens"))
            await race(*components)  # without one of them, however it ended, there is no relay
            for part in components:
                if part.done():
                    await part

    async def _tick(self) -> None:
        clock, lag = self.connections.clock, self.hub.stats.loop_lag
        for turn in itertools.count(1):
            due = clock() + TICK
            await asyncio.sleep(TICK)
            lag.observe(clock() - due)
            self.hub.tick(self.connections.clock())
            self.connections.ping_batch()
            self.connections.rejections.tick(self.connections.clock(), self.connections.admission.rejected)
            if turn % TIDY_EVERY == 0:
                self.connections.admission.prune(self.connections.clock())

    async def _watch(self, authority: TokenService) -> None:
        """Keep keys and revocations up to date, and end the sessions of tokens that were revoked."""
        await authority.run(self.end_revoked)

    def end_revoked(self) -> None:
        """End the sessions of tokens that were revoked; called when another list of them counts."""
        if self.authority is not None and (ended := self.hub.sessions.end_revoked(self.authority.is_revoked)):
            log.info("%d sessions ended: their tokens were revoked", ended)


def assemble(
    settings: RelaySettings,
    url: str,
    origins: Origins,
    capacity: int,
    authority: TokenService | None,
    worker: WorkerContext | None = None,
) -> Components:
    """Put a relay's parts together; called within a running event loop.

    Args:
        settings: what the operator set.
        url: of NATS.
        origins: pages that may connect.
        capacity: for how many connections there are descriptors.
        authority: verifies tokens; None lets everybody in.
        worker: among other relays on the same port; None stands alone.
    """
    now = clock()
    names = settings.names()
    patterns = tuple(names.subject(pattern) for pattern in settings.patterns())
    wanted, requests = asyncio.Event(), ReplayRequests()
    verify = None if authority is None else authority.verify
    hub = Hub(
        HubSettings(
            relay=worker.relay if worker else socket.gethostname(),
            rate=settings.client_rate,
            complete_rate=settings.complete_rate,
            log_events=settings.log_size,
            log_bytes=settings.log_bytes,
            max_catch_up=settings.max_catch_up,
        ),
        wanted.set,
        requests.request_chunk,
        requests.request_positions,
        verify,
        session_failed,
    )
    readers = ReplayReaders(hub, requests, names, patterns, now)
    ingest = Ingest(hub, now, url, names, patterns, readers, settings.access())
    flush_loop = FlushLoop(hub.fanout, hub.stats, wanted, now, ingest.pause_reading)
    trusted, unlimited = Networks(settings.trusted_proxies), Networks(settings.unlimited_addresses)
    limits = settings.limits(capacity)
    if worker:
        limits = worker.limits(settings.limits(capacity * worker.workers))
    admission = Admission(
        limits,
        lambda address: address in unlimited or address in trusted,
        worker.limit_counters(capacity) if worker else None,
    )
    request_auth = RequestAuth(verify, origins, trusted)
    connections = Connections(hub, now, request_auth, admission, settings.message_rate, accepting=False)
    return Components(hub, connections, ingest, flush_loop, History(hub, readers), authority)


def session_failed(session: str, error: Exception) -> None:
    """Log an internal error that ends a session, with the session's id."""
    log.error("session %s ended with an internal error", session, exc_info=error, extra={"session": session})
