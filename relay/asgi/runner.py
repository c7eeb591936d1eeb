"""Relay in the event loop of a host: starts, restarts after errors, and stops with the host.

Invariants: no error here stops the host, and no task remains after ``stop``.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp
from tickertape.relay.asgi import host_signals
from tickertape.relay.asgi.connection import AsgiConnection
from tickertape.relay.asgi.stream import AsgiStream
from tickertape.relay.auth.authority import Authority
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import auth_settings_error
from tickertape.relay.endpoints.routes import mounted_app
from tickertape.relay.metrics.catalog import RelayCollector
from tickertape.relay.relay import Components, assemble
from tickertape.relay.settings import RESERVED_DESCRIPTORS, RelaySettings
from tickertape.relay.transport.connections import CLOSE_TIMEOUT

from tickertape.errors import ConfigurationError
from tickertape.nats import connection
from tickertape.nats.credentials import AccessError
from tickertape.nats.streams import StreamsError
from tickertape.process.limits import descriptor_limits
from tickertape.process.tasks import cancel_and_wait
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.asgi")

RETRY_DELAY: Final = 5.0
"""Seconds before a relay that failed is restarted."""

ABORT_TIMEOUT: Final = 1.0
"""Seconds that the tasks of aborted clients have to end."""

STOP_TIMEOUT: Final = 10.0
"""Seconds that the relay's own tasks have to end."""

BYE_TIMEOUT: Final = 1.0
"""Maximum seconds by which the host's shutdown is delayed, so that clients receive ``bye``."""

_POLL_INTERVAL: Final = 0.02
"""Seconds between two checks that clients have disconnected, or that messages are sent."""


class MountedRelay:
    """Relay that runs as long as its host, and is rebuilt after an error.

    Args:
        settings: relay settings.
        origins: origins of pages that may connect.

    Attributes:
        components: components of the running relay; None before ``start`` and after ``stop``.
        http_app: ASGI application for HTTP requests; set by ``start``.
        stopping: whether the host is shutting down.

    Raises:
        ConfigurationError: tokens cannot be verified with these settings.
        KeysError: the key cannot be used.
        RevocationsError: the list of revoked tokens cannot be read.
    """

    http_app: ASGIApp

    def __init__(self, settings: RelaySettings, origins: Origins) -> None:
        if settings.tls_client_ca is not None or settings.auth == "certificate":
            raise ConfigurationError(
                "tls_client_ca: the host terminates TLS, so a mounted feed cannot authenticate certificates",
                "use auth='jwt', or run tickertape serve",
            )
        if (problem := auth_settings_error(settings)) is not None:
            raise problem
        self.components: Components | None = None
        self.stopping = False
        self._settings = settings
        self._origins = origins
        self._authority()  # fail early if the key cannot be used
        self._task: asyncio.Task[None] | None = None
        self._open_event = asyncio.Event()
        self._restore_signals: Callable[[], None] | None = None
        self._bye_task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"MountedRelay({redact_url(self._url)}, {self.components and self.components.connections!r})"

    @property
    def running(self) -> bool:
        """Whether the relay is started and not stopped, and its event loop is running."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Start the relay in the running event loop, without waiting for NATS."""
        loop = asyncio.get_running_loop()
        self.stopping = False
        self._open_event = asyncio.Event()
        self._task = loop.create_task(self._run(self._build()), name="tickertape")

        def on_signal(forward: Callable[[], None]) -> None:
            def start_bye() -> None:
                self._bye_task = loop.create_task(self._send_bye(forward), name="tickertape-bye")

            try:
                # This runs in a signal handler. ``call_soon`` would not wake a loop that waits for input.
                loop.call_soon_threadsafe(start_bye)
            except RuntimeError:
                forward()  # the event loop is closed

        # The host's server has installed its handlers by now: it starts the lifespan within them.
        self._restore_signals = host_signals.intercept(on_signal)

    async def wait_until_open(self, timeout: float) -> Components | None:  # noqa: ASYNC109 - returns on timeout
        """Wait until the relay accepts clients, and return its components; None if the host has stopped.

        Args:
            timeout: maximum seconds to wait; after that, the components reject the client themselves.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._open_event.wait()
        except TimeoutError:
            log.debug("rejecting a client: NATS is unreachable, or the feed is not ready yet")
        return self.components

    async def _send_bye(self, forward: Callable[[], None]) -> None:
        """Send ``bye`` to all clients, then forward the signal, upon which the host closes their sockets."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BYE_TIMEOUT
        try:
            self.begin_shutdown()
            while self.components is not None and _has_unsent(self.components) and loop.time() < deadline:  # noqa: ASYNC110 - no event covers all clients
                await asyncio.sleep(_POLL_INTERVAL)
        finally:
            # Also after an error, or the host would never see the signal.
            forward()

    def begin_shutdown(self) -> None:
        """Stop accepting clients, and send ``bye`` to all sessions."""
        self.stopping = True
        if self.components is not None:
            self._close_all(self.components)
        self._open_event.set()  # wake up the clients in wait_until_open

    async def stop(self) -> None:
        """Send ``bye``, wait until clients have disconnected, and stop all tasks."""
        self.begin_shutdown()
        if self._restore_signals is not None:
            self._restore_signals()
        if self.components is not None:
            await _wait_for_disconnects(self.components, CLOSE_TIMEOUT)
            for client in self.components.connections.all():
                client.abort()
            await _wait_for_disconnects(self.components, ABORT_TIMEOUT)
        if self._task is not None:
            # Bounded, because the host waits for this before it ends.
            ended = asyncio.ensure_future(cancel_and_wait(self._task))
            _, late = await asyncio.wait({ended}, timeout=STOP_TIMEOUT)
            if late:
                log.error("the feed did not stop within %g s and is abandoned", STOP_TIMEOUT)
        self._task = self.components = None

    # Internals.

    @property
    def _url(self) -> str:
        return self._settings.nats_url or connection.DEFAULT_URL

    def _authority(self) -> Authority | None:
        return Authority(self._settings) if self._settings.auth == "jwt" else None

    def _build(self) -> Components:
        # The limit of the process is the host's decision, so it is not raised here.
        capacity = max(1, descriptor_limits()[0] - RESERVED_DESCRIPTORS)
        components = assemble(self._settings, self._url, self._origins, capacity, self._authority())
        self.components = components
        self.http_app = mounted_app(components.connections, components.history, components.gateways)
        return components

    async def _run(self, components: Components) -> None:
        """Run a relay until cancelled; log the error that ends it, and start a new relay."""
        while True:
            loaded = asyncio.Event()
            opening = asyncio.create_task(self._open(components, loaded), name="tickertape-open")
            try:
                await components.run(loaded)
            except (StreamsError, AccessError) as error:
                log.error("the feed is closed, retrying in %g s: %s", RETRY_DELAY, error)
            except Exception:
                log.exception("the feed failed with an internal error, restarting in %g s", RETRY_DELAY)
            finally:
                await cancel_and_wait(opening)
                # The sessions of a relay that failed would receive nothing more; their clients have to
                # reconnect.
                self._close_all(components)
            await asyncio.sleep(RETRY_DELAY)
            components = self._build()

    async def _open(self, components: Components, loaded: asyncio.Event) -> None:
        """Start accepting clients once the latest states are loaded."""
        await loaded.wait()
        if not self.stopping:
            components.connections.start_accepting()
            self._open_event.set()
            log.info("the feed is ready")

    def _close_all(self, components: Components) -> None:
        """Stop accepting clients, and close all sessions with ``bye``."""
        self._open_event.clear()
        components.connections.stop_accepting()
        components.connections.send_bye(list(components.hub.sessions))


class MountedCollector(Collector):
    """Collector for a registry of the host, with the metrics of the running relay.

    Args:
        relay: relay whose metrics are collected.
    """

    def __init__(self, relay: MountedRelay) -> None:
        self._relay = relay

    def describe(self) -> Iterable[Metric]:
        """Return one name for all metrics, so that a registry rejects a second feed with the same names."""
        return [InfoMetricFamily("tickertape_build", "Version of the relay")]

    def collect(self) -> Iterable[Metric]:
        """Return the relay's metrics; those of the process are left to the host's registry."""
        components = self._relay.components
        if components is None:
            return []
        return RelayCollector(components.metrics_snapshot).collect()


def _has_unsent(components: Components) -> bool:
    """Return whether the host's server has not yet accepted all messages to clients."""
    return not all(
        client.sent
        for client in components.connections.all()
        if isinstance(client, AsgiConnection | AsgiStream)
    )


async def _wait_for_disconnects(components: Components, seconds: float) -> None:
    """Wait until all clients have disconnected, for at most the given seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while len(components.connections) and loop.time() < deadline:  # noqa: ASYNC110 - no event for the last disconnect
        await asyncio.sleep(_POLL_INTERVAL)
