"""Middleware around the routes of both ports: security headers, origins, and host names."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.request_auth import header_value
from tickertape.relay.endpoints.read_endpoint import AUTHENTICATED
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.responses import (
    NO_STORE,
    SECURITY_HEADERS,
    error_response,
    request_headers,
    request_peer,
)

from tickertape.net.host_names import HostNames


class SecurityHeaders:
    """Middleware that adds the security headers to every response.

    Args:
        app: application.
        hsts: seconds for which browsers are told to use only TLS, in responses over TLS; 0 sends nothing.
    """

    def __init__(self, app: ASGIApp, hsts: int = 0) -> None:
        self._app = app
        self._hsts = (b"strict-transport-security", f"max-age={hsts}".encode()) if hsts else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *SECURITY_HEADERS]
                names = {name.lower() for name, _ in headers}
                if b"cache-control" not in names:
                    # A relay upgrade changes the page: without this, browsers may cache the old one for days.
                    # All else depends on the token, or on the moment.
                    headers.append((b"cache-control", b"no-cache" if b"etag" in names else NO_STORE.encode()))
                if self._hsts is not None and scope["scheme"] == "https":
                    headers.append(self._hsts)
                message["headers"] = headers
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class Guard:
    """Middleware that rejects requests by host name and origin before they are routed.

    Whichever resource rejects a request of an unauthenticated client, it is charged extra to the client here.

    Args:
        app: application.
        connections: connections whose limits and origins apply.
    """

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app = app
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_auth, headers = self._connections.request_auth, request_headers(scope)
        peer = request_peer(scope)

        async def charge(message: Message) -> None:
            started = message["type"] == "http.response.start"
            if started and _is_fault(message["status"]) and not scope["state"].get(AUTHENTICATED):
                self._connections.penalize(request_auth.client_address(peer, headers))
            await send(message)

        app = self._app
        try:
            request_auth.check_origin(peer, headers, secure=scope["scheme"] == "https")
        except ProtocolError as error:
            app = error_response(error)  # a response is an ASGI application, too
            if self._connections.audit is not None:
                address = request_auth.client_address(peer, headers)
                self._connections.audit.count_rejection("origin_not_allowed", address)
        await app(scope, receive, charge)


class HostCheck:
    """Middleware that rejects requests for a host name that is not the server's.

    Args:
        app: application.
        names: names of the server.
    """

    def __init__(self, app: ASGIApp, names: HostNames) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            # A request without a host is not one of a browser: HTTP/1.1 requires it.
            host = header_value(request_headers(scope), "host") or ""
            if not self._names.allows(host):
                message = f"{host[:80]!r} is not a name of this port; use an address, or --ops-allowed-hosts"
                app = error_response(ProtocolError(ErrorCode.FORBIDDEN, message))
        await app(scope, receive, send)


def _is_fault(status: int) -> bool:
    # Not a request beyond a limit: the limit has charged it.
    return 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS
