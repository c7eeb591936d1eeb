"""ASGI endpoint that silences a gateway: ``POST`` starts or replaces a silence, ``DELETE`` ends it.

Invariants:

1. Only a token in ``Authorization`` whose grant has ``control`` may silence, and only gateways that it may
   see. A browser never sends that header by itself, so no page can do it in a user's name.
2. With an audit log, an attempt is recorded before the silence is published. If it cannot be recorded, there
   is no silence.
3. A gateway that the client may not see is answered like one that does not exist, also while the history is
   being loaded.
"""

from typing import Final

from nats.errors import Error as NatsError
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from tickertape.contracts.audit import Silenced
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.silences import MAX_SILENCE_TEXT, find_reason_error
from tickertape.relay.auth.claims import rejection_reason
from tickertape.relay.auth.request_auth import header_value
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import read_query
from tickertape.relay.core.timeline.changes import STATUS_PREFIX
from tickertape.relay.core.timeline.gateway_filter import GatewayFilter
from tickertape.relay.endpoints.gateway_pages import check_loaded, find_gateway
from tickertape.relay.endpoints.gateway_queries import gateway_of_path
from tickertape.relay.endpoints.read_endpoint import AUTHENTICATED, NotFoundError
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.responses import (
    cors_headers,
    error_response,
    http_error_response,
    request_headers,
    request_peer,
)

from tickertape.durations import is_duration, parse_duration
from tickertape.nats.streams import StreamsError
from tickertape.text import printable

METHODS: Final = ["POST", "DELETE", "OPTIONS"]

MAX_SECONDS: Final = 30 * 86_400.0
"""Maximum duration of a silence: a longer one would be forgotten."""


class SilenceEndpoint:
    """Endpoint of ``/gateways/{type}/{id}/silence`` as an ASGI application.

    Args:
        connections: connections whose authentication and limits apply.
        history: history of gateways, which publishes silences.
    """

    def __init__(self, connections: Connections, history: GatewayHistory) -> None:
        self._connections = connections
        self._history = history

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = request_headers(scope)
        cors = cors_headers(self._connections.request_auth, headers, "POST, DELETE")
        response: Response
        if scope["method"] == "OPTIONS":
            response = Response(status_code=204)
        else:
            try:
                response = JSONResponse(await self._silence(scope))
            except NotFoundError as error:
                response = http_error_response(404, str(error))
            except ProtocolError as error:
                self._count_rejection(error, scope)
                response = error_response(error)
        response.headers.update(cors)
        await response(scope, receive, send)

    async def _silence(self, scope: Scope) -> dict[str, str]:
        """Publish the silence of a request.

        Raises:
            ProtocolError, NotFoundError: the request is rejected.
        """
        ending = scope["method"] == "DELETE"
        grant = self._authorize(scope)
        scope["state"][AUTHENTICATED] = True
        seconds, reason = _parse(scope["query_string"].decode("latin-1"), ending=ending)
        gateway = gateway_of_path(scope["path_params"])
        statuses = GatewayFilter(grant.intersect((STATUS_PREFIX + ">",), "DEBUG"), STATUS_PREFIX)
        check_loaded(self._history)
        key = find_gateway(self._history.timelines, gateway, statuses).gateway
        now = self._connections.hub.stats.unix(self._connections.clock())
        until, by = now + seconds, printable(grant.subject)[:MAX_SILENCE_TEXT]
        audit = self._connections.audit
        if audit is not None:
            end = None if ending else format_time(until)
            name = f"{key.type}/{key.id}"
            if not audit.write(Silenced(**audit.fields(), gateway=name, by=by, reason=reason, until=end)):
                message = "the silence is not stored: the audit log is full because NATS stores no records"
                raise ProtocolError(ErrorCode.UNAVAILABLE, f"{message}; retry later")
        try:
            await self._history.silence(key, until, reason, by)
        except TimeoutError:
            message = "NATS has not confirmed the silence, which may still take effect; repeat the request"
            raise ProtocolError(ErrorCode.UNAVAILABLE, message) from None
        except (StreamsError, NatsError, OSError) as error:
            message = f"the silence is not stored: {error}"
            raise ProtocolError(ErrorCode.UNAVAILABLE, message) from None
        return {
            "gateway_type": key.type,
            "gateway_id": key.id,
            "until": format_time(until),
            "reason": reason,
            "by": by,
        }

    def _authorize(self, scope: Scope) -> Grant:
        """Return the grant of the token in ``Authorization``.

        Raises:
            ProtocolError: there is no valid token, or it does not grant control.
        """
        headers, peer = request_headers(scope), request_peer(scope)
        scheme = (header_value(headers, "authorization") or "").lstrip().partition(" ")[0]
        client_slot = scope["state"].get("client_slot")
        grant = None
        if self._connections.request_auth.verify is not None and scheme.lower() == "bearer":
            grant = self._connections.request_auth.grant(
                peer, headers, certificate=client_slot and client_slot.certificate
            )
        if grant is None:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "token required; send it as 'Authorization: Bearer'")
        if not grant.control:
            raise ProtocolError(
                ErrorCode.FORBIDDEN, f"the {grant.source} does not grant control; mint one with --control"
            )
        return grant

    def _count_rejection(self, error: ProtocolError, scope: Scope) -> None:
        if self._connections.audit is not None and error.code in (
            ErrorCode.UNAUTHORIZED,
            ErrorCode.FORBIDDEN,
        ):
            address = self._connections.request_auth.client_address(
                request_peer(scope), request_headers(scope)
            )
            self._connections.audit.count_rejection(rejection_reason(error), address)


def _parse(query: str, *, ending: bool) -> tuple[float, str]:
    """Return the duration in seconds and the reason; an end has neither.

    Raises:
        ProtocolError: the query is invalid.
    """
    values = read_query(query, () if ending else ("for", "reason"))
    if ending:
        return 0.0, ""
    text, reason = values.get("for", "1h"), values.get("reason", "").strip()
    if not is_duration(text) or not 0 < parse_duration(text) <= MAX_SECONDS:
        message = f"for {text[:40]!r} is not a duration of at most {MAX_SECONDS / 86_400:.0f}d, such as 2h"
        raise ProtocolError(ErrorCode.BAD_QUERY, message)
    problem = find_reason_error(reason) if reason else "reason is required; state why the gateway is silenced"
    if problem is not None:
        raise ProtocolError(ErrorCode.BAD_QUERY, problem)
    return parse_duration(text), reason
