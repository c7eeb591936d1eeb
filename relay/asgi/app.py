"""The feed within another application: the same hub and sessions, mounted in a FastAPI or Starlette app.

For one process and hundreds of clients; ``tickertape serve`` is for thousands. All of it with FastAPI::

    from fastapi import FastAPI

    from tickertape import tickertape_app

    feed = tickertape_app("nats://127.0.0.1:4222", subjects="gateway.>,log.>")
    app = FastAPI(lifespan=feed.lifespan)
    app.mount("/feed", feed)


    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "feed": feed.health()}

Below where it is mounted: the WebSocket at ``/`` and ``/ws``, and over HTTP ``/events`` and ``/health``.
Its metrics are the host's to show: ``prometheus_client.REGISTRY.register(feed.collector)`` puts them beside
those of the host, and ``app.mount("/metrics", prometheus_client.make_asgi_app())`` serves all of them.

Invariants:

1. The host starts, and its own pages answer, whether NATS is there or not; the feed says 503 until it is.
2. A fault of the feed never ends the host: it is logged, and the feed starts again.
3. After ``lifespan`` no task, no connection and no signal handler of the feed is left.
"""

import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.routing import Router
from starlette.types import Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.asgi.connection import AsgiConnection, reject
from tickertape.relay.asgi.runner import MountedCollector, MountedRelay
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Limit
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.connections import Health
from tickertape.relay.transport.http_errors import request_peer

from tickertape.urls import is_loopback

log = logging.getLogger("tickertape.asgi")

START_PATIENCE: Final = 2.0
"""Seconds that a client waits for a feed that is starting; after that it is told to come back."""

_FEEDS: Final = frozenset({"", "/", "/ws"})
_UNKNOWN: Final[Health] = {"status": "unavailable", "upstream": "disconnected", "connections": 0}


class TickertapeApp:
    """A feed as an ASGI application.

    Args:
        settings: what can be set about a relay. What belongs to a process of its own (ports, TLS, the drain's
            time, a NATS server of its own) means nothing here; the host decides it.

    Attributes:
        collector: its metrics, under the names that a relay has, for a ``CollectorRegistry`` of the host's:
            ``REGISTRY.register(feed.collector)``. Each feed needs a registry of its own. It may be asked
            from any thread.

    Raises:
        ConfigurationError: with these settings no token can be verified, or the key cannot be used.
        RevocationsError: the list of revoked tokens cannot be read.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self._open_to_all = settings.auth == "none" and not settings.insecure
        # The server's name is not known here. Whoever asks for no token is reached on loopback addresses
        # only, where a page of any name that leads to one must not count as the host's own.
        origins = Origins(settings.allowed_origins, rebinding=not self._open_to_all)
        self._relay = MountedRelay(settings, origins)
        self.collector: Final[Collector] = MountedCollector(self._relay)
        self._said_exposed = False

    def __repr__(self) -> str:
        return f"TickertapeApp({self._relay!r})"

    # For the host.

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """Start with the host and end with it: ``FastAPI(lifespan=feed.lifespan)``, or, within a lifespan of
        one's own, ``async with feed.lifespan(): yield``.

        Starlette runs no lifespan of what is mounted. Without this the feed starts with its first client, and
        at a shutdown its clients hear no more than what the server says.

        Args:
            host: the application; not needed.
        """
        if self._relay.running:
            raise RuntimeError("this feed runs already; it may be mounted twice, but is started once")
        self._relay.start()
        try:
            yield
        finally:
            await self._relay.stop()

    def health(self) -> Health:
        """What ``/health`` of the feed says, for the host's own: status, upstream, connections."""
        return _UNKNOWN if self._relay.components is None else self._relay.components.connections.health()

    @property
    def ready(self) -> bool:
        """True while clients should be sent here: newest states loaded, NATS up, not shutting down."""
        return self._relay.components is not None and self._relay.components.ready()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; ASGI 3. Alone, without a host, it has a lifespan too."""
        if scope["type"] == "lifespan":
            await Router(lifespan=self.lifespan).lifespan(scope, receive, send)
            return
        if not self._relay.running and not self._relay.leaving:
            log.warning(
                "the feed starts with its first client; FastAPI(lifespan=feed.lifespan) starts and ends it"
                " with the application"
            )
            self._relay.start()
        refused = self._refused(scope)
        if refused is not None:
            await reject(refused, scope, receive, send)
        elif scope["type"] == "websocket":
            await self._feed(scope, receive, send)
        else:
            await self._page(scope, receive, send)

    # Requests.

    async def _feed(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = _path_within(scope)
        if path not in _FEEDS:
            error = ProtocolError(ErrorCode.BAD_QUERY, f"no feed at {path[:80]}; it is at / and /ws")
            await reject(error, scope, receive, send, 404)
            return
        components = await self._relay.opened(START_PATIENCE)
        if components is None:
            await reject(_ended(), scope, receive, send)
            return
        await AsgiConnection(components.connections, scope, receive, send).serve()

    async def _page(self, scope: Scope, receive: Receive, send: Send) -> None:
        components = self._relay.components
        assert components is not None
        admission, now = components.connections.admission, components.connections.clock
        client_slot = admission.accept(request_peer(scope), _Page(), now())
        if isinstance(client_slot, Limit):
            code = ErrorCode.UNAVAILABLE if client_slot in SERVER_LIMITS else ErrorCode.TOO_MANY
            await reject(ProtocolError(code, "too many requests; try again later"), scope, receive, send)
            return
        try:
            state = {**(scope.get("state") or {}), "client_slot": client_slot}
            await self._relay.pages({**scope, "state": state}, receive, send)
        finally:
            admission.release(client_slot)

    def _refused(self, scope: Scope) -> ProtocolError | None:
        """Refuse everybody after the end, and where others can come in though no token is asked for."""
        if self._relay.components is None:
            return _ended()
        server = scope.get("server")
        if not self._open_to_all or (server is not None and is_loopback(server[0])):
            return None
        message = "auth 'none' lets anybody in; use auth='jwt', or say insecure=True if it is meant"
        if not self._said_exposed:
            self._said_exposed = True
            log.error("the feed is closed on %s, which others reach: %s", server and server[0], message)
        return ProtocolError(ErrorCode.FORBIDDEN, message)


def _ended() -> ProtocolError:
    return ProtocolError(ErrorCode.UNAVAILABLE, "the application shuts down")


class _Page:
    """A request over HTTP, as admission knows it."""

    def abort(self) -> None:
        """Answers of ours end by themselves."""


def tickertape_app(
    nats_url: str | None = None,
    *,
    subjects: str | Iterable[str] | None = None,
    subject_prefix: str | None = None,
    client_rate: float | None = None,
    allowed_origins: str | Iterable[str] | None = None,
    auth: Literal["none", "jwt"] | None = None,
    jwt_algorithm: Algorithm | None = None,
    jwt_key: str | SecretStr | None = None,
    jwt_key_file: str | None = None,
    jwt_jwks_url: str | None = None,
    jwt_issuer: str | None = None,
    jwt_audience: str | None = None,
    insecure: bool | None = None,
    settings: RelaySettings | None = None,
) -> TickertapeApp:
    """Build a feed to mount in an application: ``app.mount("/feed", feed)``.

    What is not given is taken from ``TICKERTAPE_<NAME>``, as ``tickertape serve`` does it.

    Args:
        nats_url: of NATS; ``nats://127.0.0.1:4222`` by default.
        subjects: patterns that are taken in; all by default.
        subject_prefix: first tokens of every subject in NATS; clients never see it.
        client_rate: log events per second and client; 100 by default, 0 means no limit.
        allowed_origins: pages that may connect, beside the host's own.
        auth: who may connect: ``none`` lets anybody in, on a loopback address; ``jwt`` asks for a token.
        jwt_algorithm, jwt_key, jwt_key_file, jwt_jwks_url, jwt_issuer, jwt_audience: how tokens are verified.
        insecure: with ``auth="none"``, on addresses that others reach too.
        settings: all that can be set, instead of the arguments above.

    Raises:
        ValueError: something that was set is not legal.
        TypeError: both ``settings`` and another argument.
        KeysError: the key cannot be used.
    """
    given: Mapping[str, Any] = {
        "nats_url": nats_url,
        "subjects": _joined(subjects),
        "subject_prefix": subject_prefix,
        "client_rate": client_rate,
        "allowed_origins": _joined(allowed_origins),
        "auth": auth,
        "jwt_algorithm": jwt_algorithm,
        "jwt_key": jwt_key,
        "jwt_key_file": jwt_key_file,
        "jwt_jwks_url": jwt_jwks_url,
        "jwt_issuer": jwt_issuer,
        "jwt_audience": jwt_audience,
        "insecure": insecure,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if settings is not None and given:
        raise TypeError(f"settings and {', '.join(given)} are given; put all of it into the settings")
    return TickertapeApp(RelaySettings(**given) if settings is None else settings)


def _joined(values: str | Iterable[str] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(values)


def _path_within(scope: Scope) -> str:
    """Path below where the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    rest = path[len(root) :]
    return rest if path.startswith(root) and rest[:1] in ("", "/") else path
