"""ASGI endpoints beside the HTTP streams: the cookie of a session, and preflight requests.

``POST /session`` stores the bearer token of its ``Authorization`` header in a cookie that scripts cannot
read, and ``DELETE /session`` removes it. Neither has a body, and the relay keeps nothing.
"""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.claims import rejection_reason
from tickertape.relay.endpoints.read_endpoint import AUTHENTICATED
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.responses import (
    cors_headers,
    error_response,
    request_headers,
    request_peer,
)
from tickertape.relay.transport.http_stream.session_cookie import clear_cookie, set_cookie

SESSION_METHODS = ["POST", "DELETE", "OPTIONS"]
"""Methods of ``/session``."""


class SessionEndpoint:
    """Endpoint ``/session``.

    Args:
        connections: connections whose authentication applies.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_auth, headers = self._connections.request_auth, request_headers(scope)
        response = Response(status_code=204)
        try:
            if scope["method"] == "POST":
                cookie = self._store(scope)
                if cookie is not None:
                    response.headers["Set-Cookie"] = cookie
                scope["state"][AUTHENTICATED] = True
            elif scope["method"] == "DELETE":
                response.headers["Set-Cookie"] = clear_cookie(scope.get("root_path", ""))
        except ProtocolError as error:
            if self._connections.audit is not None:
                address = request_auth.client_address(request_peer(scope), headers)
                self._connections.audit.count_rejection(rejection_reason(error), address)
            response = error_response(error)
        response.headers.update(cors_headers(request_auth, headers, "POST, DELETE", cookies=True))
        await response(scope, receive, send)

    def _store(self, scope: Scope) -> str | None:
        """Return the cookie with the token of a request; None if the relay requires no token.

        Raises:
            ProtocolError: the token is missing, invalid, or too long for a cookie.
        """
        request_auth, headers = self._connections.request_auth, request_headers(scope)
        token = request_auth.bearer_token(headers)
        client_slot = scope["state"].get("client_slot")
        grant = request_auth.grant(
            request_peer(scope), headers, certificate=client_slot and client_slot.certificate
        )
        if request_auth.verify is None:
            return None
        if token is None or grant is None:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "token required; send it as 'Authorization: Bearer'")
        stats, max_age = self._connections.hub.stats, None
        if grant.expires_at is not None:
            max_age = max(0, int(grant.expires_at - stats.unix(self._connections.clock())))
        return set_cookie(token, scope.get("root_path", ""), max_age)


class StreamPreflight:
    """Endpoint of a stream for the preflight request of a browser.

    Args:
        connections: connections with the origins.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = cors_headers(self._connections.request_auth, request_headers(scope), cookies=True)
        await Response(status_code=204, headers=headers)(scope, receive, send)
