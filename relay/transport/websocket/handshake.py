"""Answer to the request for an upgrade to WebSocket, and the encoding that it selects."""

from http import HTTPStatus
from urllib.parse import unquote

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.transport import handshake
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.handshake import Decision
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN, Frames
from tickertape.relay.transport.websocket.protocol import WebSocket, rejection_response
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.http11 import Request, Response


def answer(
    request: Request,
    headers: Headers,
    conn: WebSocket,
    connections: Connections,
    accounting: Accounting,
    peer: str,
    *,
    secure: bool,
) -> tuple[Response, Decision | None]:
    """Return the response to a handshake, and the decision about it; None if the upgrade is rejected.

    Args:
        request: request of the handshake.
        headers: its headers, with names in lower case.
        conn: protocol of the connection.
        connections: connections of the relay.
        accounting: account of the connection, which is charged for faults of the client.
        peer: address of the socket.
        secure: whether the socket itself is encrypted.
    """
    path, _, query = request.path.partition("?")
    if unquote(path) != "/ws":
        error = ProtocolError(ErrorCode.BAD_QUERY, f"no feed at {path[:80]}; connect to /ws")
        accounting.record_fault()
        return rejection_response(error, HTTPStatus.NOT_FOUND), None
    decision = handshake.decide(connections, accounting.client_slot, peer, headers, query, secure=secure)
    if decision.rejection is not None and not decision.after_upgrade:
        return rejection_response(decision.rejection), None
    response = conn.respond(request)
    if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
        accounting.record_fault()
        return response, None
    return response, decision


def select_encoding(conn: WebSocket) -> Frames:
    """Return the encoding of frames that the client and the relay have agreed on."""
    deflate = [extension for extension in conn.extensions if isinstance(extension, PerMessageDeflate)]
    # A client that requests a smaller window gets uncompressed frames, which are always legal.
    return DEFLATED if any(extension.local_max_window_bits == 15 for extension in deflate) else PLAIN
