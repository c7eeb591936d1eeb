"""Decision about a handshake, for every transport; each transport sends it in its own way."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
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
class Offer:
    """Parts of a handshake that depend on the transport.

    Attributes:
        token: token from a place that only this transport has; None without one.
        needs_token: error of a handshake without the token that it needs; None if the token may follow.
        resume: position that replaces the one in the query; None without one.
        snapshot: whether the client lacks a snapshot as of that position.
        after_upgrade: whether a rejection can be sent as messages.
    """

    token: str | None = None
    needs_token: str | None = None
    resume: Cursor | None = None
    snapshot: bool = False
    after_upgrade: bool = False


def websocket_offer(headers: Headers) -> Offer:
    """Return what a WebSocket client offers in its subprotocols.

    Raises:
        ProtocolError: it offers several tokens.
    """
    offer = parse_subprotocols(value for name, value in headers if name == "sec-websocket-protocol")
    return Offer(offer.token, after_upgrade=offer.supported)


@dataclass(frozen=True, slots=True)
class Decision:
    """Result of a handshake.

    Attributes:
        request: subscription that the client requests; meaningless after a rejection.
        grant: permissions of the client's token; None until the client authenticates.
        filter: requested filter, restricted to the grant; None without a grant.
        rejection: reason for rejecting the handshake; None if it is accepted.
        after_upgrade: whether the rejection is sent as messages, since a browser cannot see the status of a
            failed upgrade, or of a stream that it resumes.
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
    read_offer: Callable[[Headers], Offer] = websocket_offer,
) -> Decision:
    """Accept or reject a handshake; a fault of the client that precedes the upgrade is counted here.

    Args:
        connections: connections of the relay.
        client_slot: slot that the connection occupies; None if it is not subject to limits.
        peer: address of the socket.
        headers: request headers.
        query: query string, undecoded.
        secure: whether the socket itself is encrypted.
        read_offer: reads what depends on the transport from the headers, or raises ProtocolError.
    """
    request, after_upgrade = Request(), False
    # The code ``forbidden`` alone would not distinguish a wrong origin from an empty grant in the log.
    reason = "origin_not_allowed"
    try:
        # Checked first, so that pages of other sites cannot probe tokens or limits.
        connections.request_auth.check_origin(peer, headers, secure=secure)
        reason = ""
        offer = read_offer(headers)
        after_upgrade = offer.after_upgrade
        decision = _authorize(connections, client_slot, peer, headers, query, offer)
    except ProtocolError as error:
        code = close_code(error)
        # After the upgrade, ``record_close`` counts the fault when the connection is closed.
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
    offer: Offer,
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
    if offer.resume is not None:
        request = replace(request, cursor=offer.resume, since=None, snapshot=offer.snapshot)
    certificate = None if client_slot is None else client_slot.certificate
    grant = connections.request_auth.grant(peer, headers, offer.token, certificate)
    if grant is None and offer.needs_token is not None:
        raise ProtocolError(ErrorCode.UNAUTHORIZED, offer.needs_token)
    filter = None
    if grant is not None:
        # May reject the handshake, therefore before the client occupies one of its subject's connections.
        filter = grant.intersect(request.subjects, request.level, request.where)
        if client_slot is not None and not connections.admission.bind(
            client_slot, grant.subject, grant.connections
        ):
            raise ProtocolError(
                ErrorCode.TOO_MANY,
                f"connection limit of {grant.subject[:80]!r} reached; close a connection or retry later",
            )
    return Decision(request, grant, filter)
