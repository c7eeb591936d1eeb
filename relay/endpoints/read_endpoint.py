"""ASGI endpoint of requests that read: authentication, limits and errors around a page of JSON."""

from abc import ABC, abstractmethod
from typing import Final, Generic, TypeVar

from nats.errors import Error as NatsError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.claims import rejection_reason
from tickertape.relay.auth.request_auth import header_value
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.endpoints.page_budget import PageBudget
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.responses import (
    StreamedResponse,
    cors_headers,
    error_response,
    http_error_response,
    request_headers,
    request_peer,
)

from tickertape.errors import TickertapeError
from tickertape.nats.streams import StreamsError

_REJECTIONS: Final = frozenset({ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN, ErrorCode.TOO_MANY})
"""Errors that the audit log counts: the client was rejected, not its query."""

AUTHENTICATED: Final = "tickertape_authenticated"
"""Key in the state of a request with a valid token, whose rejection costs its client nothing extra."""

Query = TypeVar("Query")


class NotFoundError(TickertapeError):
    """Resource that does not exist, or that the client may not see."""


class ReadEndpoint(ABC, Generic[Query]):
    """Endpoint that answers with a page of JSON.

    Args:
        connections: connections whose authentication and limits apply.
        budget: budget of the pages in memory.
    """

    def __init__(self, connections: Connections, budget: PageBudget) -> None:
        self._connections = connections
        self._budget = budget

    @abstractmethod
    def parse(self, scope: Scope) -> Query:
        """Parse a request.

        Raises:
            ProtocolError: it is invalid.
        """

    @abstractmethod
    def authorize(self, query: Query, grant: Grant) -> Query:
        """Restrict a query to what a grant allows.

        Raises:
            ProtocolError: it allows nothing of that.
        """

    @abstractmethod
    async def read(self, query: Query, client: str) -> bytes:
        """Return a page as JSON.

        Args:
            query: authorized query.
            client: token subject or address of the client.

        Raises:
            ProtocolError, NotFoundError: there is none.
            StreamsError: NATS is unreachable.
        """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = request_headers(scope)
        # Browsers send preflight requests without a token, so they are answered before authentication.
        if scope["method"] == "OPTIONS":
            preflight = Response(
                status_code=204, headers=cors_headers(self._connections.request_auth, headers)
            )
            await preflight(scope, receive, send)
            return
        try:
            query = self.parse(scope)
            client_slot = scope["state"].get("client_slot")
            grant = self._connections.request_auth.grant(
                request_peer(scope), headers, certificate=client_slot and client_slot.certificate
            )
            # On the feed the token may follow in ``auth``; an HTTP request has no later message.
            if grant is None:
                raise ProtocolError(
                    ErrorCode.UNAUTHORIZED, "token required; send it as 'Authorization: Bearer'"
                )
            query = self.authorize(query, grant)
            scope["state"][AUTHENTICATED] = True
            client = self._client_key(scope, grant)
            async with self._budget.reserve(client) as reservation:
                page = await self._page(scope, query, client)
                if self._connections.audit is not None:
                    user_agent = header_value(headers, "user-agent")
                    self._connections.audit.count_read(grant, self._client_address(scope), user_agent)
                response = StreamedResponse(
                    page,
                    media_type="application/json",
                    headers=cors_headers(self._connections.request_auth, headers),
                )
                response.on_progress = reservation.record_progress

                def end() -> None:
                    # The slot has no socket once its connection has ended.
                    if client_slot is not None and hasattr(client_slot, "socket"):
                        client_slot.socket.abort()  # does nothing in a mounted feed
                    response.end()

                reservation.start_sending(len(page), end)
                # This waits until the client has read; meanwhile the page takes memory.
                await response(scope, receive, send)
        except NotFoundError as error:
            missing = http_error_response(
                404, str(error), cors_headers(self._connections.request_auth, headers)
            )
            await missing(scope, receive, send)
        except ProtocolError as error:
            await self._send_error(error, scope, receive, send)

    async def _page(self, scope: Scope, query: Query, client: str) -> bytes:
        """Read a page.

        Raises:
            ProtocolError, NotFoundError: the page cannot be read.
        """
        try:
            return await self.read(query, client)
        except (ProtocolError, NotFoundError):
            raise
        except (StreamsError, NatsError, OSError) as error:
            raise ProtocolError(
                ErrorCode.UNAVAILABLE, str(error) or "NATS does not respond; retry later"
            ) from None
        except Exception as error:
            self._connections.record_request_error(f"a request for {scope['path'][:80]}", error)
            raise ProtocolError(ErrorCode.INTERNAL, INTERNAL_ERROR_REASON) from None

    def _client_key(self, scope: Scope, grant: Grant) -> str:
        """Return the key that a client's pages are counted by: token subject or address (IPv6: its /64)."""
        return grant.subject or self._connections.admission.addresses.key(self._client_address(scope))

    def _client_address(self, scope: Scope) -> str:
        return self._connections.request_auth.client_address(request_peer(scope), request_headers(scope))

    async def _send_error(self, error: ProtocolError, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.audit is not None and error.code in _REJECTIONS:
            self._connections.audit.count_rejection(rejection_reason(error), self._client_address(scope))
        response = error_response(error)
        response.headers.update(cors_headers(self._connections.request_auth, request_headers(scope)))
        await response(scope, receive, send)
