"""A relay that lives in a host's event loop: started, kept running, and stopped with it.

Nothing here may end the host, and nothing may be left when it ends.
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
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import token_settings_error
from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.endpoints.routes import mounted_app
from tickertape.relay.metrics.catalog import RelayCollector
from tickertape.relay.relay import Components, assemble
from tickertape.relay.settings import RESERVED_DESCRIPTORS, RelaySettings
from tickertape.relay.transport.connections import CLOSE_TIMEOUT

from tickertape.nats import connection
from tickertape.nats.credentials import AccessError
from tickertape.nats.streams import StreamsError
from tickertape.process.limits import descriptor_limits
from tickertape.process.tasks import cancel_and_wait
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.asgi")

RETRY_DELAY: Final = 5.0
"""Seconds after which a relay that could not run is started again."""

ABORT_TIMEOUT: Final = 1.0
"""Seconds that the tasks of clients have to end when they were cut."""

GOODBYE_TIMEOUT: Final = 1.0
"""Seconds that the host's shutdown waits at most for clients to take their goodbye."""

_LOOK: Final = 0.02


class MountedRelay:
    """A relay's parts, for as long as the host runs.

    Args:
        settings: what was set.
        origins: pages that may connect.

    Attributes:
        components: those of the relay that runs; None before ``start`` and after ``stop``.
        leaving: True once the host shuts down.

    Raises:
        ConfigurationError: with these settings no token can be verified.
        KeysError: the key cannot be used.
        RevocationsError: the list of revoked tokens cannot be read.
    """

    pages: ASGIApp

    def __init__(self, settings: RelaySettings, origins: Origins) -> None:
        if settings.auth == "jwt" and (problem := token_settings_error(settings)) is not None:
            raise problem
        self.components: Components | None = None
        self.leaving = False
        self._settings = settings
        self._origins = origins
        self._authority()  # a key that cannot be used is said where it was given
        self._keeper: asyncio.Task[None] | None = None
        self._opened = asyncio.Event()
        self._deaf: Callable[[], None] | None = None
        self._going: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"MountedRelay({redact_url(self._url)}, {self.components and self.components.connections!r})"

    @property
    def running(self) -> bool:
        """True from ``start`` to ``stop``, or to the end of the event loop."""
        return self._keeper is not None and not self._keeper.done()

    def start(self) -> None:
        """Start in this event loop; whether NATS is there shows later."""
        loop = asyncio.get_running_loop()
        self.leaving = False
        self._opened = asyncio.Event()
        self._keeper = loop.create_task(self._keep(self._build()), name="tickertape")

        def heard(then: Callable[[], None]) -> None:
            def leave() -> None:
                self._going = loop.create_task(self._say_goodbye(then), name="tickertape-goodbye")

            try:
                loop.call_soon_threadsafe(leave)
            except RuntimeError:
                then()  # the loop has ended

        self._deaf = host_signals.hear(heard)

    async def opened(self, patience: float) -> Components | None:
        """The components, once clients are let in, or after so many seconds; None when the host has ended."""
        try:
            async with asyncio.timeout(patience):
                await self._opened.wait()
        except TimeoutError:
            log.debug("a client is sent away: NATS is not there, or not ready yet")
        return self.components

    async def _say_goodbye(self, then: Callable[[], None]) -> None:
        """Let ``bye`` go out, as far as clients take it soon, before the host closes their sockets."""
        loop = asyncio.get_running_loop()
        until = loop.time() + GOODBYE_TIMEOUT
        try:
            self.leave()
            while self.components is not None and _unsent(self.components) and loop.time() < until:  # noqa: ASYNC110 - no event for all
                await asyncio.sleep(_LOOK)
        finally:
            then()

    def leave(self) -> None:
        """The host shuts down: let nobody in any more, and say ``bye`` to those who are there."""
        self.leaving = True
        if self.components is not None:
            self._shut(self.components)
        self._opened.set()  # whoever waits need not wait any longer

    async def stop(self) -> None:
        """Say ``bye``, wait until it is read, and end everything."""
        self.leave()
        if self._deaf is not None:
            self._deaf()
        if self.components is not None:
            await _emptied(self.components, CLOSE_TIMEOUT)
            for member in self.components.connections.all():
                member.abort()
            await _emptied(self.components, ABORT_TIMEOUT)
        if self._keeper is not None:
            await cancel_and_wait(self._keeper)
        self._keeper = self.components = None

    # Inside.

    @property
    def _url(self) -> str:
        return self._settings.nats_url or connection.DEFAULT_URL

    def _authority(self) -> TokenService | None:
        return TokenService(self._settings) if self._settings.auth == "jwt" else None

    def _build(self) -> Components:
        capacity = max(1, descriptor_limits()[0] - RESERVED_DESCRIPTORS)
        components = assemble(self._settings, self._url, self._origins, capacity, self._authority())
        self.components, self.pages = components, mounted_app(components.connections, components.history)
        return components

    async def _keep(self, components: Components) -> None:
        """Keep a relay running until cancelled; what ends one is said, and another is started."""
        while True:
            loaded = asyncio.Event()
            opening = asyncio.create_task(self._open(components, loaded), name="tickertape-open")
            try:
                await components.run(loaded)
            except (StreamsError, AccessError) as error:
                log.error("the feed is closed, and tried again in %g s: %s", RETRY_DELAY, error)
            except Exception:
                log.exception("a fault ends the feed; it starts again in %g s", RETRY_DELAY)
            finally:
                await cancel_and_wait(opening)
                self._shut(components)
            await asyncio.sleep(RETRY_DELAY)
            components = self._build()

    async def _open(self, components: Components, loaded: asyncio.Event) -> None:
        await loaded.wait()
        if not self.leaving:
            components.connections.start_accepting()
            self._opened.set()
            log.info("the feed is ready")

    def _shut(self, components: Components) -> None:
        self._opened.clear()
        components.connections.stop_accepting()
        components.connections.send_bye(list(components.hub.sessions))


class MountedCollector(Collector):
    """Metrics of the relay that runs now, for a registry of the host's; none while there is none.

    Args:
        relay: that they are of.
    """

    def __init__(self, relay: MountedRelay) -> None:
        self._relay = relay

    def describe(self) -> Iterable[Metric]:
        """One name for all: a registry that has it must refuse a second feed, whose names are the same."""
        return [InfoMetricFamily("tickertape_build", "Version of the relay")]

    def collect(self) -> Iterable[Metric]:
        """All that ``/metrics`` of a relay says of itself; of the process the host's registry tells."""
        components = self._relay.components
        if components is None:
            return []
        return RelayCollector(components.metrics_snapshot).collect()


def _unsent(components: Components) -> bool:
    """Tell whether something that was said to a client is not yet with the host's server."""
    return not all(
        client.sent for client in components.connections.all() if isinstance(client, AsgiConnection)
    )


async def _emptied(components: Components, seconds: float) -> None:
    """Wait until all clients are gone, but not longer."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while len(components.connections) and loop.time() < until:  # noqa: ASYNC110 - no client knows whether it is the last
        await asyncio.sleep(_LOOK)
