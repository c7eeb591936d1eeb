"""HTTP routes: dashboard, history and health on the main port; metrics, probes and status on the ops port.

A mounted feed serves the routes of the main port without the dashboard.
"""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp
from tickertape.relay.endpoints.gateway_endpoints import gateway_routes
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.history_endpoint import HistoryEndpoint
from tickertape.relay.endpoints.middleware import Guard, SecurityHeaders
from tickertape.relay.endpoints.session_endpoint import SESSION_METHODS, SessionEndpoint, StreamPreflight
from tickertape.relay.endpoints.static_files import Assets
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.metrics import catalog as metrics
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.responses import (
    UPGRADE_HEADERS,
    handle_http_exception,
    handle_internal_error,
    http_error_response,
)

DASHBOARD: Final = Path(__file__).parents[1] / "dashboard"


def main_app(connections: Connections, history: History, gateways: GatewayHistory, hsts: int = 0) -> ASGIApp:
    """Build the application of the main port: the dashboard, ``/events``, ``/gateways`` and ``/health``.

    Args:
        connections: connections of the relay.
        history: history that ``/events`` reads.
        gateways: history that ``/gateways`` reads.
        hsts: seconds for which browsers are told to use only TLS, in responses over TLS; 0 sends nothing.
    """
    assets = Assets(directory=DASHBOARD)

    async def dashboard(request: Request) -> Response:
        return await assets.get_response("built/index.html", request.scope)

    return _guard(
        connections,
        [
            Route("/", dashboard),
            *_common_routes(connections, history, gateways),
            Mount("/assets", assets),
        ],
        hsts,
    )


def mounted_app(connections: Connections, history: History, gateways: GatewayHistory) -> ASGIApp:
    """Build the HTTP application of a mounted feed: ``/events``, ``/gateways`` and ``/health``."""
    routes = _common_routes(connections, history, gateways)
    return _guard(connections, [Route("/", _upgrade_required), *routes])


def _common_routes(connections: Connections, history: History, gateways: GatewayHistory) -> list[BaseRoute]:
    async def health(request: Request) -> Response:
        return JSONResponse(connections.health(), status_code=200 if connections.healthy else 503)

    return [
        Route("/ws", _upgrade_required),
        Route("/events", HistoryEndpoint(connections, history), methods=["GET", "OPTIONS"]),
        *gateway_routes(connections, gateways, history.budget),
        # ``GET`` of these two never arrives here: the transport answers it.
        Route("/sse", StreamPreflight(connections), methods=["OPTIONS"]),
        Route("/stream", StreamPreflight(connections), methods=["OPTIONS"]),
        Route("/session", SessionEndpoint(connections), methods=SESSION_METHODS),
        Route("/health", health),
    ]


async def _upgrade_required(request: Request) -> Response:
    path = request.url.path
    return http_error_response(426, f"{path} is a WebSocket; connect with ws:// or wss://", UPGRADE_HEADERS)


def _guard(connections: Connections, routes: Sequence[BaseRoute], hsts: int = 0) -> ASGIApp:
    # Wrapped around Starlette, so that responses to internal errors have the headers, too.
    return SecurityHeaders(
        json_app(routes, [Middleware(Guard, connections=connections)], _count_errors(connections)), hsts
    )


def _count_errors(connections: Connections) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def count_and_answer(request: Request, error: Exception) -> Response:
        connections.hub.stats.errors["request"] += 1
        return await handle_internal_error(request, error)

    return count_and_answer


def json_app(
    routes: Sequence[BaseRoute],
    middleware: Sequence[Middleware] = (),
    on_error: Callable[[Request, Exception], Awaitable[Response]] = handle_internal_error,
) -> ASGIApp:
    """Build an application whose errors are JSON.

    Args:
        routes: routes of the application.
        middleware: middleware around the routes.
        on_error: builds the response to a request that raised an exception.
    """
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: handle_http_exception, Exception: on_error},
    )


class Readiness(NamedTuple):
    """Response of ``/readyz``.

    A store of NATS that is full makes no relay unready: it serves its clients, resumes and history as before,
    and since the store is that of all relays, a load balancer would be left without any.

    Attributes:
        ready: whether clients should be sent here.
        problem: what does not work; empty if there is nothing.
    """

    ready: bool
    problem: str = ""

    def __str__(self) -> str:
        return ("ready" if self.ready else "not ready") + (f": {self.problem}" if self.problem else "")

    @classmethod
    def parse(cls, status: int, body: str) -> Self:
        """Parse a response."""
        return cls(status == 200, body.strip().partition(": ")[2])


def relay_ops_app(
    connections: Connections,
    gateways: GatewayHistory,
    ready: Callable[[], bool],
    lag: Callable[[], int],
    take_snapshot: Callable[[], MetricsSnapshot],
    alive: Callable[[], bool],
) -> ASGIApp:
    """Build the application of the ops port: ``/metrics``, ``/livez``, ``/readyz`` and ``/statusz``.

    Args:
        connections: connections of the relay.
        gateways: history of gateways.
        ready: returns whether clients should be sent here.
        lag: returns the number of events in the stream that are not ingested yet.
        take_snapshot: returns a snapshot of all metrics of the relay.
        alive: returns whether the relay still runs.
    """
    registry = metrics.make_registry(take_snapshot)

    async def current_registry() -> CollectorRegistry:
        return registry

    async def readiness() -> Readiness:
        problem = connections.store.problem
        return Readiness(ready(), "" if problem is None else str(problem))

    async def status() -> dict[str, Any]:
        return {**_status(connections, ready(), lag()), "history": gateways.status()._asdict()}

    return ops_app(current_registry, readiness, status, alive)


def ops_app(
    registry: Callable[[], Awaitable[CollectorRegistry]],
    ready: Callable[[], Awaitable[Readiness]],
    status: Callable[[], Awaitable[dict[str, Any]]],
    alive: Callable[[], bool],
) -> ASGIApp:
    """Build the application of the ops port for one relay, or for all workers together.

    Args:
        registry: returns the metrics.
        ready: returns whether clients should be sent here, and what does not work.
        status: returns the response body of ``/statusz``.
        alive: returns whether the relay still runs.
    """

    async def all_metrics(request: Request) -> Response:
        body, content_type = metrics.render(await registry(), request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    # Never asks NATS: restarting the relay would end all sessions and not restore NATS.
    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n") if alive() else PlainTextResponse("ending\n", 503)

    async def readiness(request: Request) -> Response:
        state = await ready()
        return PlainTextResponse(f"{state}\n", 200 if state.ready else 503)

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
        "store": str(connections.store.problem or connections.store.state),
        "cursor": hub.cursor(),
        "lag": lag,
        "log": {
            "events": len(hub.log),
            "bytes": hub.log.bytes,
            "from": hub.fanout.cursor(hub.log.floor),
        },
        "states": {
            family: {"known": len(pool.records), "missing": pool.missing, "evicted": pool.evicted}
            for family, pool in hub.snapshot.pools.items()
        },
        "sessions": {"open": len(hub.sessions), "behind": hub.fanout.behind},
        "transports": connections.transports(),
        "feeds": [
            {
                "subjects": feed.filter.subjects,
                "level": feed.filter.level,
                "mode": feed.key.mode,
                "rate": feed.key.rate,
                "members": feed.members,
                "behind": feed.members - len(feed.live),
            }
            # Bounded, since every client can have a filter, and so a feed, of its own.
            for feed in sorted(hub.fanout.feeds.values(), key=lambda feed: -feed.members)[:100]
        ],
    }
