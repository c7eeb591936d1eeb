"""What the two ports serve beside the feed: the dashboard and health; metrics, probes and status."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.codes import CLOSE_CODES, ErrorCode
from contracts.streams import StreamsError
from contracts.wire import WireError, format_cursor
from relay import metrics
from relay.connection import Gate
from relay.core.session import close_code
from relay.entrance import RETRY_AFTER, Headers, value_of
from relay.history import History, parse

DASHBOARD: Final = Path(__file__).parent / "dashboard"

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

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        gate, headers, peer = self._gate, _headers(scope), _peer(scope)
        try:
            gate.entrance.check_page(peer, headers, secure=scope["scheme"] == "https")
        except WireError as error:
            return _error(error)
        visitor = scope["state"].get("visitor")
        client = gate.entrance.client(peer, headers)
        if visitor is not None and gate.admission.request(visitor, client, gate.clock()):
            return _error(WireError(ErrorCode.TOO_MANY, f"too many requests from {client}; try again later"))
        return None


def _error(error: WireError) -> Response:
    code = close_code(error)
    headers = {"WWW-Authenticate": "Bearer"} if error.code is ErrorCode.UNAUTHORIZED else {}
    if code in RETRY_AFTER:
        headers["Retry-After"] = f"{RETRY_AFTER[code]:.0f}"
    return JSONResponse(
        {"code": error.code, "message": error.message}, CLOSE_CODES[code].http_status or 400, headers=headers
    )


def _headers(scope: Scope) -> Headers:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def _peer(scope: Scope) -> str:
    return scope["client"][0] if scope["client"] else ""


def _cors(gate: Gate, headers: Headers) -> dict[str, str]:
    """What lets a page of the allow list read an answer."""
    origin = value_of(headers, "origin")
    if origin is None or not gate.entrance.origins.listed(origin):
        return {"Vary": "Origin"}
    return {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "authorization",
        "Access-Control-Max-Age": "600",
    }


def main_pages(gate: Gate, history: History, now: Callable[[], float]) -> ASGIApp:
    """Pages of the main port: ``/``, its assets, ``/events`` and ``/health``."""

    async def dashboard(request: Request) -> Response:
        return FileResponse(DASHBOARD / "index.html")

    async def health(request: Request) -> Response:
        well = gate.open and gate.hub.upstream_connected
        return JSONResponse(
            {
                "status": "ok" if well else "unavailable",
                "upstream": "connected" if gate.hub.upstream_connected else "disconnected",
                "connections": len(gate),
            },
            status_code=200 if well else 503,
        )

    async def events(request: Request) -> Response:
        headers = _headers(request.scope)
        cors = _cors(gate, headers)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=cors)
        try:
            query = parse(request.url.query)
            grant = gate.entrance.grant(headers)
            if grant is None:
                raise WireError(ErrorCode.UNAUTHORIZED, "a token is needed; send 'Authorization: Bearer'")
            wanted = grant.narrow(query.request.subjects, query.request.level)
            answer = Response(await history.page(query, wanted, now()), media_type="application/json")
        except WireError as error:
            visitor = request.scope["state"].get("visitor")
            if visitor is not None and error.code in (ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN):
                gate.admission.fault(visitor.address, now())
            answer = _error(error)
        except StreamsError as error:
            answer = _error(WireError(ErrorCode.UNAVAILABLE, str(error)))
        answer.headers.update(cors)
        return answer

    async def feed(request: Request) -> Response:
        return JSONResponse(
            {"code": "upgrade_required", "message": "/ws is a WebSocket: connect with ws:// or wss://"},
            status_code=426,
            headers={"Upgrade": "websocket", "Connection": "Upgrade"},
        )

    return Starlette(
        routes=[
            Route("/", dashboard),
            Route("/ws", feed),
            Route("/events", events, methods=["GET", "OPTIONS"]),
            Route("/health", health),
            Mount("/assets", StaticFiles(directory=DASHBOARD)),
        ],
        middleware=[Middleware(_SecurityHeaders), Middleware(_Guard, gate=gate)],
    )


def ops_pages(
    gate: Gate,
    ready: Callable[[], bool],
    lag: Callable[[], int],
    failures: Callable[[], Mapping[str, int]] = dict,
) -> ASGIApp:
    """Pages of the ops port: ``/metrics``, ``/livez``, ``/readyz`` and ``/statusz``.

    Args:
        gate: the connections.
        ready: whether clients should be sent here.
        lag: events that are in the stream and not taken in yet.
        failures: refused tokens by reason.
    """
    registry = metrics.registry(gate, lag, failures)

    async def all_metrics(request: Request) -> Response:
        body, content_type = metrics.render(registry, request.headers.get("accept", ""))
        return Response(body, headers={"Content-Type": content_type})

    async def live(request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readiness(request: Request) -> Response:
        return PlainTextResponse("ready\n") if ready() else PlainTextResponse("not ready\n", 503)

    async def status(request: Request) -> Response:
        return JSONResponse(_status(gate, ready(), lag()))

    return Starlette(
        routes=[
            Route("/metrics", all_metrics),
            Route("/livez", live),
            Route("/readyz", readiness),
            Route("/statusz", status),
        ]
    )


def _status(gate: Gate, ready: bool, lag: int) -> dict[str, Any]:
    hub = gate.hub
    return {
        "version": metrics.package_version(),
        "relay": hub.settings.relay,
        "ready": ready,
        "upstream": "connected" if hub.upstream_connected else "disconnected",
        "cursor": hub.cursor(),
        "lag": lag,
        "log": {
            "events": len(hub.log),
            "bytes": hub.log.bytes,
            "from": format_cursor(hub.epoch, hub.log.floor),
        },
        "sessions": {"open": len(hub.sessions), "behind": hub.fanout.behind},
        "feeds": [
            {
                "subjects": feed.filter.subjects,
                "level": feed.filter.level,
                "mode": feed.key.mode,
                "rate": feed.key.rate,
                "members": feed.members,
                "behind": feed.members - len(feed.heads),
            }
            for feed in sorted(hub.fanout.feeds.values(), key=lambda feed: -feed.members)[:100]
        ],
    }
