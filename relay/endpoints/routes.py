"""What the two ports serve beside the feed: the dashboard and health; metrics, probes and status.

And what a feed within another application serves beside itself.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.history_endpoint import HistoryEndpoint
from tickertape.relay.endpoints.static_files import Assets
from tickertape.relay.metrics import catalog as metrics
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http_errors import (
    UPGRADE_HEADERS,
    error_response,
    handle_http_exception,
    handle_internal_error,
    http_error_response,
    request_headers,
    request_peer,
)

DASHBOARD: Final = Path(__file__).parents[1] / "dashboard"

_SECURITY: Final = [
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    # A new relay comes with a new page; without this a browser may keep the old one for days.
    (b"cache-control", b"no-cache"),
]


class _SecurityHeaders:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_SECURITY]
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class _Guard:
    """Names that lead here, the rate of requests, and pages of other sites, before any page is made."""

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        connections, headers, address = self._connections, request_headers(scope), request_peer(scope)
        try:
            connections.request_auth.check_origin(address, headers, secure=scope["scheme"] == "https")
        except ProtocolError as error:
            return error_response(error)
        client_slot = scope["state"].get("client_slot")
        client = connections.request_auth.client_address(address, headers)
        if client_slot is not None and connections.admission.admit_request(
            client_slot, client, connections.clock()
        ):
            return error_response(
                ProtocolError(ErrorCode.TOO_MANY, f"too many requests from {client}; try again later")
            )
        return None


def main_app(connections: Connections, history: History) -> ASGIApp:
    """Pages of the main port: ``/``, its assets, ``/events`` and ``/health``."""

    assets = Assets(directory=DASHBOARD)

    async def dashboard(request: Request) -> Response:
        return await assets.get_response("built/index.html", request.scope)

    return _guarded(
        connections,
        [
            Route("/", dashboard),
            *_beside_the_feed(connections, history),
            Mount("/assets", assets),
        ],
    )


def mounted_app(connections: Connections, history: History) -> ASGIApp:
    """Pages of a feed within another application: ``/events`` and ``/health``."""
    return _guarded(connections, [Route("/", _upgrade_required), *_beside_the_feed(connections, history)])


def _beside_the_feed(connections: Connections, history: History) -> list[BaseRoute]:
    async def health(request: Request) -> Response:
        return JSONResponse(connections.health(), status_code=200 if connections.healthy else 503)

    return [
        Route("/ws", _upgrade_required),
        Route("/events", HistoryEndpoint(connections, history), methods=["GET", "OPTIONS"]),
        Route("/health", health),
    ]


async def _upgrade_required(request: Request) -> Response:
    path = request.url.path
    return http_error_response(426, f"{path} is a WebSocket: connect with ws:// or wss://", UPGRADE_HEADERS)


def _guarded(connections: Connections, routes: Sequence[BaseRoute]) -> ASGIApp:
    # The headers are outside of Starlette, so that its answer to a fault has them too.
    return _SecurityHeaders(
        json_app(routes, [Middleware(_Guard, connections=connections)], _counted(connections))
    )


def _counted(connections: Connections) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def counted(request: Request, error: Exception) -> Response:
        connections.hub.stats.errors["request"] += 1
        return await handle_internal_error(request, error)

    return counted


def json_app(
    routes: Sequence[BaseRoute],
    middleware: Sequence[Middleware] = (),
    failed: Callable[[Request, Exception], Awaitable[Response]] = handle_internal_error,
) -> ASGIApp:
    """Build pages whose errors are JSON, as all of ours are.

    Args:
        routes: of the pages.
        middleware: around them.
        failed: answers a request that ends in an exception.
    """
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: handle_http_exception, Exception: failed},
    )


def relay_ops_app(
    connections: Connections,
    ready: Callable[[], bool],
    lag: Callable[[], int],
    reading: Callable[[], MetricsSnapshot],
) -> ASGIApp:
    """Pages of the ops port: ``/metrics``, ``/livez``, ``/readyz`` and ``/statusz``.

    Args:
        connections: the connections.
        ready: whether clients should be sent here.
        lag: events that are in the stream and not taken in yet.
        reading: all numbers of the relay, for ``/metrics``.
    """
    registry = metrics.make_registry(reading)

    async def whole() -> CollectorRegistry:
        return registry

    async def is_ready() -> bool:
        return ready()

    async def status() -> dict[str, Any]:
        return _status(connections, ready(), lag())

    return ops_app(whole, is_ready, status)


def ops_app(
    registry: Callable[[], Awaitable[CollectorRegistry]],
    ready: Callable[[], Awaitable[bool]],
    status: Callable[[], Awaitable[dict[str, Any]]],
) -> ASGIApp:
    """Build the pages of the ops port of one relay, or of all workers together.

    Args:
        registry: makes the metrics.
        ready: whether clients should be sent here.
        status: makes ``/statusz``.
    """

    async def all_metrics(request: Request) -> Response:
        body, content_type = metrics.render(await registry(), request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(request: Request) -> Response:
        return PlainTextResponse("ready\n") if await ready() else PlainTextResponse("not ready\n", 503)

    async def statusz(request: Request) -> Response:
        return JSONResponse(await status())

    return json_app(
        [
            Route("/metrics", all_metrics),
            Route("/livez", live),
            Route("/readyz", readiness),
            Route("/statusz", statusz),
        ]
    )


def _status(connections: Connections, ready: bool, lag: int) -> dict[str, Any]:
    hub = connections.hub
    return {
        "version": metrics.package_version(),
        "relay": hub.settings.relay,
        "ready": ready,
        "upstream": "connected" if hub.sessions.upstream_connected else "disconnected",
        "cursor": hub.cursor(),
        "lag": lag,
        "log": {
            "events": len(hub.log),
            "bytes": hub.log.bytes,
            "from": hub.fanout.cursor(hub.log.floor),
        },
        "sessions": {"open": len(hub.sessions), "behind": hub.fanout.behind},
        "feeds": [
            {
                "subjects": feed.filter.subjects,
                "level": feed.filter.level,
                "mode": feed.key.mode,
                "rate": feed.key.rate,
                "members": feed.members,
                "behind": feed.members - len(feed.live),
            }
            for feed in sorted(hub.fanout.feeds.values(), key=lambda feed: -feed.members)[:100]
        ],
    }
