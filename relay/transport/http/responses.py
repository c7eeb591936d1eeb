"""HTTP responses: errors in the terms of the protocol, CORS headers, and large bodies with backpressure.

Every error is a JSON object with ``code`` and ``message``, whichever component rejects the request.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from tickertape.contracts.close_codes import CLOSE_CODES, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.request_auth import Headers, RequestAuth, header_value
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.core.session.session import RETRY_AFTER_MS, close_code
from tickertape.relay.transport.closing_responses import http_error_body

SEND_TIMEOUT: Final = 90.0
"""Seconds in which a client has to read a large response."""

_CHUNK_BYTES: Final = 64 * 1024
"""Bytes of a response body that are sent in one ASGI message."""

WEBSOCKET_VERSION: Final = "13"
UPGRADE_HEADERS: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": WEBSOCKET_VERSION,
}
"""Headers of a 426 (Upgrade Required) response."""

NO_STORE: Final = "no-store"
"""``Cache-Control`` of responses that depend on the token, and of all errors."""


SECURITY_HEADERS: Final = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of all responses on the main port."""


def http_error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Build the response to a request that fails at the HTTP level."""
    return JSONResponse(
        http_error_body(status, message), status, headers={"Cache-Control": NO_STORE, **(headers or {})}
    )


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Answer an error of Starlette: an unknown path, or a method that the path does not support."""
    assert isinstance(error, HTTPException)
    message = {
        HTTPStatus.NOT_FOUND: f"no resource at {request.url.path[:80]}",
        HTTPStatus.METHOD_NOT_ALLOWED: f"{request.method} is not allowed here; see the Allow header",
    }.get(HTTPStatus(error.status_code), str(error.detail).lower())
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        # Starlette omits the header for static files, and lists methods in any order for other routes.
        headers["Allow"] = ", ".join(sorted(headers.get("Allow", "GET, HEAD").split(", ")))
    return http_error_response(error.status_code, message, headers)


async def handle_internal_error(request: Request, error: Exception) -> Response:
    """Answer a request that failed with an internal error; Starlette re-raises the error, so it is logged."""
    return http_error_response(HTTPStatus.INTERNAL_SERVER_ERROR, INTERNAL_ERROR_REASON)


def error_response(error: ProtocolError, status: int | None = None) -> Response:
    """Build the response for a protocol error.

    Args:
        error: error to report.
        status: HTTP status; None selects the status of the error's close code.
    """
    code = close_code(error)
    headers = {"Cache-Control": NO_STORE}
    if error.code is ErrorCode.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if code in RETRY_AFTER_MS:
        headers["Retry-After"] = str(RETRY_AFTER_MS[code] // 1000)
    body = {"code": error.code, "message": error.message}
    return JSONResponse(body, status or CLOSE_CODES[code].http_status or 400, headers=headers)


def request_headers(scope: Scope) -> Headers:
    """Return the headers of a request in the form that ``RequestAuth`` reads."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def request_peer(scope: Scope) -> str:
    """Return the address of a request's socket, or an empty string if it has none."""
    return scope["client"][0] if scope["client"] else ""


def cors_headers(
    request_auth: RequestAuth, headers: Headers, methods: str = "GET", *, cookies: bool = False
) -> dict[str, str]:
    """Return the CORS headers that let pages on the allow list read a response.

    Args:
        request_auth: knows the allow list.
        headers: headers of the request.
        methods: methods of the resource.
        cookies: whether the resource uses the cookie of a session, and the position of an ``EventSource``.
    """
    origin = header_value(headers, "origin")
    if origin is None or not request_auth.origins.is_listed(origin):
        # Sent in any case: a cache must not answer one origin with the response to another.
        return {"Vary": "Origin"}
    allowed = {
        "Vary": "Origin",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": methods,
        "Access-Control-Allow-Headers": "authorization, last-event-id" if cookies else "authorization",
        "Access-Control-Max-Age": "600",
    }
    # Only to pages with a name: all sandboxed pages share the origin ``null``.
    return allowed | {"Access-Control-Allow-Credentials": "true"} if cookies and "://" in origin else allowed


class StreamedResponse(Response):
    """Response that is sent as fast as the client reads, so that its completion is known here.

    A client that reads for longer than ``SEND_TIMEOUT`` gets no more, which ends its connection.

    Attributes:
        on_progress: called when the client has made room for another part of the body.
    """

    on_progress: Callable[[], None] | None = None
    _timeout: asyncio.Timeout | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The relay's own server aborts such a connection earlier; the server of a host may not.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SEND_TIMEOUT) as self._timeout:
                await self._send(send)

    def end(self) -> None:
        """Send no more of the body."""
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for start in range(0, len(self.body), _CHUNK_BYTES):
            chunk = bytes(self.body[start : start + _CHUNK_BYTES])
            # Waits while the socket's buffer is full. A single send would return before the client has read
            # anything, and the limit of concurrent pages would no longer bound the memory of their bodies.
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if self.on_progress is not None:
                self.on_progress()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
