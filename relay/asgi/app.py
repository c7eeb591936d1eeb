"""Feed as an ASGI application: the same hub and sessions, mounted in a FastAPI or Starlette application.

A mounted feed suits one process and hundreds of clients; ``tickertape serve`` suits thousands. A complete
example with FastAPI::

    from fastapi import FastAPI

    from tickertape import tickertape_app

    feed = tickertape_app("nats://127.0.0.1:4222", subjects="gateway.>,log.>")
    app = FastAPI(lifespan=feed.lifespan)
    app.mount("/feed", feed)


    @app.get("/health")
    async def health() -> dict[str, object]:
        return {"status": "ok", "feed": feed.health()}

Below the mount point, the feed serves the WebSocket at ``/`` and ``/ws``, its HTTP streams at ``/sse`` and
``/stream``, and ``/events``, ``/gateways``, ``/incidents``, ``/state``, ``/session`` and ``/health``. The
host publishes the metrics: ``prometheus_client.REGISTRY.register(feed.collector)`` adds them to its own, and
``app.mount("/metrics", prometheus_client.make_asgi_app())`` serves them all.

Invariants:

1. The host starts and serves its own routes whether NATS is reachable or not; until then the feed answers
   503.
2. An internal error of the feed never stops the host: it is logged, and the feed restarts.
3. After ``lifespan``, no task, connection or signal handler of the feed remains.
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
from tickertape.relay.asgi.stream import AsgiStream
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import Algorithm
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Limit
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.connections import Health
from tickertape.relay.transport.http.responses import request_headers, request_peer
from tickertape.relay.transport.http_stream.request import STREAMS

from tickertape.config.resolve import load
from tickertape.urls import is_loopback

log = logging.getLogger("tickertape.asgi")

START_TIMEOUT: Final = 2.0
"""Seconds that a client waits for a feed that is starting, before it is asked to retry."""

_FEED_PATHS: Final = frozenset({"", "/", "/ws"})
_NOT_STARTED: Final[Health] = {
    "status": "unavailable",
    "upstream": "disconnected",
    "store": "unknown",
    "connections": 0,
}


class TickertapeApp:
    """Feed as an ASGI application.

    Args:
        settings: relay settings. Settings of a separate process (ports, TLS, drain time, embedded NATS
            server) have no effect here; the host decides them.

    Attributes:
        collector: metrics of the feed, with the same names as those of a relay, for a ``CollectorRegistry``
            of the host: ``REGISTRY.register(feed.collector)``. Each feed needs its own registry. The
            collector may be called from any thread.

    Raises:
        ConfigurationError: tokens cannot be verified with these settings, or the key cannot be used.
        RevocationsError: the list of revoked tokens cannot be read.
    """

    def __init__(self, settings: RelaySettings) -> None:
        self._unprotected = settings.auth == "none" and not settings.insecure
        # The server's host name is not known here. Without tokens, the feed serves loopback addresses only,
        # and a page whose host name merely resolves to one (DNS rebinding) must not count as the host's own.
        origins = Origins(settings.allowed_origins, rebinding=not self._unprotected)
        self._relay = MountedRelay(settings, origins)
        self.collector: Final[Collector] = MountedCollector(self._relay)
        self._exposure_logged = False

    def __repr__(self) -> str:
        return f"TickertapeApp({self._relay!r})"

    # Interface for the host.

    @asynccontextmanager
    async def lifespan(self, host: object = None) -> AsyncIterator[None]:
        """Run the feed for the lifetime of the host.

        Use it as ``FastAPI(lifespan=feed.lifespan)``, or as ``async with feed.lifespan(): yield`` within the
        host's own lifespan.

        Starlette does not run the lifespan of mounted applications. If it is not run, the feed starts with
        its first client, and at shutdown clients receive only the close code of the server.

        Args:
            host: host application; not used.

        Raises:
            RuntimeError: the feed is already running.
        """
        if self._relay.running:
            raise RuntimeError(
                "the feed is already running; enter its lifespan only once, even if it is mounted twice"
            )
        self._relay.start()
        try:
            yield
        finally:
            await self._relay.stop()

    def health(self) -> Health:
        """Return the response body of ``/health`` for use in the host's own health check."""
        return _NOT_STARTED if self._relay.components is None else self._relay.components.connections.health()

    @property
    def ready(self) -> bool:
        """Whether clients should be sent here: latest states loaded, NATS connected, not shutting down."""
        return self._relay.components is not None and self._relay.components.ready()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request (ASGI 3); without a host, also serve the lifespan protocol."""
        if scope["type"] == "lifespan":
            await Router(lifespan=self.lifespan).lifespan(scope, receive, send)
            return
        # A request that arrives during the shutdown must not start the feed again.
        if not self._relay.running and not self._relay.stopping:
            log.warning(
                "starting the feed with its first client; use FastAPI(lifespan=feed.lifespan) to start"
                " and stop it with the application"
            )
            self._relay.start()
        error = self._check_available(scope)
        if error is not None:
            await reject(error, scope, receive, send)
        elif scope["type"] == "websocket" and _path_below_mount(scope) in _FEED_PATHS:
            await self._serve_feed(scope, receive, send)
        elif _is_stream(scope):
            await self._serve_stream(scope, receive, send)
        else:
            await self._serve_request(scope, receive, send)

    # Requests.

    async def _serve_feed(self, scope: Scope, receive: Receive, send: Send) -> None:
        components = await self._relay.wait_until_open(START_TIMEOUT)
        if components is None:
            await reject(_shutdown_error(), scope, receive, send)
            return
        await AsgiConnection(components.connections, scope, receive, send).serve()

    async def _serve_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        components = await self._relay.wait_until_open(START_TIMEOUT)
        if components is None:
            await reject(_shutdown_error(), scope, receive, send)
            return
        path = _path_below_mount(scope)
        await AsgiStream(components.connections, path, scope, receive, send).serve()

    async def _serve_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        components = self._relay.components
        assert components is not None
        admission = components.connections.admission
        # The sockets belong to the host's server, so a slot is held per request here, not per connection.
        client_slot = components.connections.accept(
            request_peer(scope), request_headers(scope), _HttpRequest()
        )
        if isinstance(client_slot, Limit):
            code = ErrorCode.UNAVAILABLE if client_slot in SERVER_LIMITS else ErrorCode.TOO_MANY
            await reject(ProtocolError(code, "too many requests; retry later"), scope, receive, send)
            return
        try:
            if scope["type"] == "websocket":
                components.connections.record_fault(client_slot)
                path = _path_below_mount(scope)
                error = ProtocolError(ErrorCode.BAD_QUERY, f"no feed at {path[:80]}; connect to / or /ws")
                await reject(error, scope, receive, send, 404)
                return
            # A copy, in which the feed can take notes of this request.
            state = {**(scope.get("state") or {}), "client_slot": client_slot}
            await self._relay.http_app({**scope, "state": state}, receive, send)
        finally:
            admission.release(client_slot)

    def _check_available(self, scope: Scope) -> ProtocolError | None:
        """Return an error if the feed has stopped, or is exposed to other hosts without authentication."""
        if self._relay.components is None:
            return _shutdown_error()
        server = scope.get("server")
        if not self._unprotected or (server is not None and is_loopback(server[0])):
            return None
        message = (
            "auth='none' serves loopback addresses only; use auth='jwt', or allow all with insecure=True"
        )
        if not self._exposure_logged:
            self._exposure_logged = True
            log.error(
                "the feed is closed on %s, which is not a loopback address: %s", server and server[0], message
            )
        return ProtocolError(ErrorCode.FORBIDDEN, message)


def _is_stream(scope: Scope) -> bool:
    return (
        scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and _path_below_mount(scope) in STREAMS
    )


def _shutdown_error() -> ProtocolError:
    return ProtocolError(ErrorCode.UNAVAILABLE, "the application is shutting down")


class _HttpRequest:
    """HTTP request that occupies a client slot."""

    def abort(self) -> None:
        """Do nothing: responses are bounded and finish on their own."""


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
    oidc_issuer: str | None = None,
    jwt_grant_claim: str | None = None,
    jwt_issuer: str | None = None,
    jwt_audience: str | None = None,
    insecure: bool | None = None,
    audit: bool | None = None,
    control: bool | None = None,
    settings: RelaySettings | None = None,
) -> TickertapeApp:
    """Build a feed to mount in an application: ``app.mount("/feed", feed)``.

    Arguments that are not given are read from the sources that ``tickertape serve`` reads.

    Args:
        nats_url: URL of NATS; ``nats://127.0.0.1:4222`` by default.
        subjects: subject patterns to relay; all by default.
        subject_prefix: first tokens of every subject in NATS, which clients never see.
        client_rate: log events per second and client; 100 by default, 0 disables the limit.
        allowed_origins: origins of pages that may connect, in addition to the host's own.
        auth: ``none`` accepts all clients, on loopback addresses only; ``jwt`` requires a token.
        jwt_algorithm, jwt_key, jwt_key_file, jwt_jwks_url, oidc_issuer, jwt_grant_claim, jwt_issuer,
            jwt_audience: settings for verifying tokens.
        insecure: allow ``auth="none"`` on addresses that other hosts can reach.
        audit: record in the stream AUDIT who connects with which grant, and what is rejected.
        control: let clients silence gateways, if their token grants it.
        settings: complete settings, instead of the arguments above.

    Raises:
        ValueError: a setting is invalid.
        TypeError: both ``settings`` and another argument are given.
        ConfigurationError: tokens cannot be verified with these settings, or the key or the list of revoked
            tokens cannot be used.
    """
    arguments: Mapping[str, Any] = {
        "nats_url": nats_url,
        "subjects": _join(subjects),
        "subject_prefix": subject_prefix,
        "client_rate": client_rate,
        "allowed_origins": _join(allowed_origins),
        "auth": auth,
        "jwt_algorithm": jwt_algorithm,
        "jwt_key": jwt_key,
        "jwt_key_file": jwt_key_file,
        "jwt_jwks_url": jwt_jwks_url,
        "oidc_issuer": oidc_issuer,
        "jwt_grant_claim": jwt_grant_claim,
        "jwt_issuer": jwt_issuer,
        "jwt_audience": jwt_audience,
        "insecure": insecure,
        "audit": audit,
        "control": control,
    }
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if settings is not None and arguments:
        raise TypeError(f"both settings and {', '.join(arguments)} are given; pass everything in settings")
    return TickertapeApp(load(RelaySettings, arguments) if settings is None else settings)


def _join(values: str | Iterable[str] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(values)


def _path_below_mount(scope: Scope) -> str:
    """Return the path below the mount point."""
    # Starlette appends the mount point to ``root_path`` and keeps it in ``path``; but behind a proxy
    # ``root_path`` may be a prefix that the path does not have.
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    rest = path[len(root) :]
    return rest if path.startswith(root) and rest[:1] in ("", "/") else path
