"""Decision about a handshake, for every transport; each transport sends it in its own way."""

from dataclasses import dataclass

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.claims import rejection_reason
from tickertape.relay.auth.request_auth import Headers, parse_subprotocols
from tickertape.relay.core.connection_limits import ClientSlot
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.session import close_code
from tickertape.relay.core.session.subscription import Request, parse_query
from tickertape.relay.transport.connections import CLIENT_FAULT_CODES, Connections


@dataclass(frozen=True, slots=True)
class Decision:
    """Result of a handshake.

    Attributes:
        request: subscription that the client requests; meaningless after a rejection.
        grant: permissions of the client's token; None until the client authenticates.
        filter: requested filter, restricted to the grant; None without a grant.
        rejection: reason for rejecting the handshake; None if it is accepted.
        after_upgrade: whether the rejection is sent inside the WebSocket, since a browser cannot see the
            status of a failed upgrade.
    """

    request: Request
    grant: Grant | None = None
    filter: Filter | None = None
    rejection: ProtocolError | None = None
    after_upgrade: bool = False


def decide(
    connections: Connections,
    client_slot: ClientSlot | None,
    peer: str,
    headers: Headers,
    query: str,
    *,
    secure: bool,
) -> Decision:
    """Accept or reject a handshake; a fault of the client that precedes the upgrade is counted here.

    Args:
        connections: connections of the relay.
        client_slot: slot that the connection occupies; None if it is not subject to limits.
        peer: address of the socket.
        headers: request headers.
        query: query string, undecoded.
        secure: whether the socket itself is encrypted.
    """
    request, after_upgrade = Request(), False
    # The code ``forbidden`` alone would not distinguish a wrong origin from an empty grant in the log.
    reason = "origin_not_allowed"
    try:
        # Checked first, so that pages of other sites cannot probe tokens or limits.
        connections.request_auth.check_origin(peer, headers, secure=secure)
        reason = ""
        offer = parse_subprotocols(value for name, value in headers if name == "sec-websocket-protocol")
        after_upgrade = offer.supported
        decision = _authorize(connections, client_slot, peer, headers, query, offer.token)
    except ProtocolError as error:
        code = close_code(error)
        # After the upgrade, ``record_close`` counts the fault when the WebSocket is closed.
        if not after_upgrade and code in CLIENT_FAULT_CODES:
            connections.record_fault(client_slot)
        if code in CLIENT_FAULT_CODES or code is CloseCode.TOO_MANY:
            reason = reason or rejection_reason(error)
            connections.record_rejection(code, reason, client_slot.address if client_slot else peer)
        rejected = error.with_traceback(None)  # the traceback and this frame form a reference cycle
        rejected.__context__ = None  # for the same reason
        return Decision(request, rejection=rejected, after_upgrade=after_upgrade)
    return decision


def _authorize(
    connections: Connections,
    client_slot: ClientSlot | None,
    peer: str,
    headers: Headers,
    query: str,
    token: str | None,
) -> Decision:
    """Authorize a handshake whose origin is allowed.

    Raises:
        ProtocolError: the handshake is rejected.
    """
    if not connections.accepting:
        raise ProtocolError(ErrorCode.UNAVAILABLE, "the relay is starting or shutting down; retry later")
    # Limits come before the token, so that a client beyond its limit cannot make the relay verify
    # signatures.
    if client_slot is not None and client_slot.exceeded is not None:
        client = connections.request_auth.client_address(peer, headers)
        raise ProtocolError(ErrorCode.TOO_MANY, f"too many connections from {client}; retry later")
    request = parse_query(query)
    certificate = None if client_slot is None else client_slot.certificate
    grant = connections.request_auth.grant(peer, headers, token, certificate)
    filter = None
    if grant is not None:
        # May reject the handshake, therefore before the client occupies one of its subject's connections.
        filter = grant.intersect(request.subjects, request.level)
        if client_slot is not None and not connections.admission.bind(
            client_slot, grant.subject, grant.connections
        ):
            raise ProtocolError(
                ErrorCode.TOO_MANY,
                f"connection limit of {grant.subject[:80]!r} reached; close a connection or retry later",
            )
    return Decision(request, grant, filter)
