"""One WebSocket connection: websockets' Sans-I/O protocol inside an asyncio.Protocol.

``http_protocol.py`` reads the head of an upgrade request, as of any other, and hands it to this class.
From then on the transport is ours: no task, no queue and no timer of its own for each connection.

Invariants:

1. A shared frame is written only in state OPEN; what the protocol itself has to send goes out first.
2. The session is told at once when the transport is full and when it has room again.
3. Every connection that was counted as opened is counted as closed, with one code.
4. What a client sent is answered in its order: a pong goes out before the answer to a later message.
5. An exception in what the transport or the clock calls ends this connection, and nothing else.
6. Once the connection ends, nothing is parsed or written any more; ``lingering_close.py`` has what is left.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import wraps
from http import HTTPStatus
from typing import Any, Concatenate, Final, ParamSpec, cast
from urllib.parse import unquote

from tickertape.contracts.close_codes import MAX_REASON_BYTES, CloseCode, ErrorCode
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, ProtocolError
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import REASON
from tickertape.relay.core.session.session import Session, State, close_code
from tickertape.relay.transport.acceptor import socket_peer
from tickertape.relay.transport.connections import (
    BUFFER_HIGH,
    BUFFER_LOW,
    CLOSE_TIMEOUT,
    MAX_AUTH_BYTES,
    Connections,
)
from tickertape.relay.transport.encoding import DEFLATED, PLAIN
from tickertape.relay.transport.message_rate import MessageRate, max_frames
from tickertape.relay.transport.websocket_protocol import (
    WebSocket,
    handshake_request,
    is_large_fragment,
    rejection_response,
)
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN

from tickertape.text import truncate

MAX_MISSED: Final = 2
"""Unanswered pings after which a client is given up."""

PIECE: Final = 512
"""Bytes that are parsed before frames are counted: one read may hold forty thousand pings."""

_PING: Final = b"\x89\x00"

P = ParamSpec("P")


def _contained(
    method: Callable[Concatenate["Connection", P], None],
) -> Callable[Concatenate["Connection", P], None]:
    """Let an exception end the connection that it comes from, and nothing else."""

    @wraps(method)
    def guarded(connection: "Connection", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(connection, *args, **kwargs)
        except Exception as error:
            connection.fault(error)

    return guarded


def websocket_protocol(connections: Connections) -> Callable[..., "Connection"]:
    """What uvicorn builds its WebSocket protocols with; the arguments that it gives are not needed."""
    return lambda **of_uvicorn: Connection(connections)


class Connection(asyncio.Protocol):
    """One client's socket; also the ``Link`` of its session."""

    __slots__ = (
        "_client_slot",
        "_conn",
        "_connections",
        "_cut",
        "_missed",
        "_rate",
        "_session",
        "_transport",
        "encoding",
        "ping_slot",
        "send",
    )

    send: Callable[[bytes], None]

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._conn = WebSocket()
        self._session: Session | None = None
        self._client_slot: ClientSlot | None = None
        self._transport: asyncio.Transport
        self._cut: asyncio.TimerHandle | None = None  # once the closing handshake has begun
        self._missed = 0
        self._rate = MessageRate()
        self.ping_slot = -1
        self.encoding = PLAIN

    def __repr__(self) -> str:
        return f"Connection({self._conn.state.name}, {self._session!r})"

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._transport = transport
        # The acceptor has counted it; from here on its slot is ours.
        http: Any = transport.get_protocol()
        self._client_slot = getattr(http, "client_slot", None)
        if self._client_slot is not None:
            http.client_slot = None
            self._client_slot.socket = self
        transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)
        # uvicorn does this after it has fed us the request; a pause before that would be told to it, not us.
        transport.set_protocol(self)
        self.send = transport.write

    @_contained
    def handshake(self, target: str, headers: Sequence[tuple[str, str]], method: str = "GET") -> None:
        """Answer an upgrade request.

        Args:
            target: path and query, undecoded; ASCII.
            headers: names and values, in order.
            method: of the request.
        """
        self._handshake(handshake_request(target, headers, method))

    @_contained
    def data_received(self, data: bytes) -> None:
        if self._conn.state is CONNECTING:
            return  # its handshake was refused, or has a fault
        self._missed = 0
        if len(data) <= PIECE:
            self._parse(data)
            return
        for place in range(0, len(data), PIECE):
            self._parse(data[place : place + PIECE])

    def _parse(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        conn = self._conn
        conn.receive_data(data)
        events: list[Any] = conn.events_received()
        last = conn.data_to_send()  # of a frame that breaks the protocol, behind all others
        flooded = self._exceeds_rate(events, len(data))
        for event in events:
            if not isinstance(event, Frame):
                self._put(event)
            elif not flooded:
                text = conn.complete_message(event)
                if text is not None and self._session is not None:
                    self._connections.hub.sessions.receive(self._session, text, self._connections.clock())
                if conn.writes:
                    self._send_own()  # it was the last: what came behind it is not answered
        if flooded:
            self._flooded()
        for data in last:
            self._put(data)
        self._send_own()

    @_contained
    def eof_received(self) -> None:
        if self._conn.state is not CONNECTING:
            self._conn.receive_eof()

    def pause_writing(self) -> None:
        if self._session is not None:
            self._connections.hub.sessions.pause(self._session)

    def resume_writing(self) -> None:
        if self._session is not None:
            self._connections.hub.sessions.resume(self._session)

    @_contained
    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session = self._session, None
        waiting = session is not None and session.state is State.WAITING
        if session is not None:
            self._connections.hub.sessions.remove(session)
        client_slot, self._client_slot = self._client_slot, None
        if client_slot is not None:
            self._connections.release(client_slot, waiting=waiting)
        if self._cut is not None:
            self._cut.cancel()
            self._cut = None
        if self.ping_slot >= 0:
            self._connections.discard(self)
            self.ping_slot = -1
            sent, received = self._conn.close_sent, self._conn.close_rcvd
            code = sent.code if sent is not None else received.code if received is not None else 1006
            self._connections.close_counts[code] += 1
        # These hold the protocol that holds them: without this they wait for the garbage collector, which
        # seldom comes here, and a crowd of strangers would be tens of megabytes.
        self._conn.parser.close()
        self._conn.parser_exc = self._conn.handshake_exc = None

    # From the session.

    def admit(self, grant: Grant) -> bool:
        """Count it as one of its token's subject; False when that has connections enough."""
        if not self._connections.admit(self._client_slot, grant):
            return False
        self._conn.limit(MAX_MESSAGE_BYTES)
        return True

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; a client that does not answer in time is cut off."""
        session = self._session.id if self._session is not None else ""
        self._connections.record_close(self._client_slot, code, session)
        if self._conn.state is OPEN:
            self._conn.send_close(code, truncate(reason, MAX_REASON_BYTES))
        # Also when a broken frame has begun to close it in the same read that is too much.
        self._send_own()
        self._cut_later()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be said."""
        self._transport.abort()

    @_contained
    def ping(self) -> None:
        """Ask whether the client is there; give it up when it answered none of the last ones."""
        if self._missed >= MAX_MISSED and self._session is not None:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "no answer to pings")
            return
        self._missed += 1
        if self._conn.state is OPEN:
            self._put(_PING)

    def fault(self, error: Exception) -> None:
        """End it on an internal error; what has no session yet is answered as far as it can be."""
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
            return
        self._connections.record_request_error("a handshake", error)
        try:
            if self._conn.state is CONNECTING:
                self._refuse(rejection_response(ProtocolError(ErrorCode.INTERNAL, REASON)))
            elif self._conn.state is OPEN:
                self._conn.send_close(CloseCode.INTERNAL_ERROR, REASON)
                self._send_own()
        finally:
            self._end()

    # Inside.

    def _exceeds_rate(self, events: list[Any], size: int) -> bool:
        counted = unpacked = 0
        for event in events:
            if isinstance(event, Frame):
                unpacked += len(event.data)
                counted += not is_large_fragment(event)
        self._rate.read(self._connections.clock(), size, counted, unpacked)
        waiting = self._session is not None and self._session.state is State.WAITING
        return self._rate.spent > max_frames(self._connections.message_rate, known=not waiting)

    def _flooded(self) -> None:
        """Tell a client that it sends too much, and parse nothing more of it."""
        if self._session is not None:
            self._connections.admission.rejected[Limit.MESSAGE_RATE] += 1
            if self._conn.state is not OPEN:
                return  # it has said goodbye itself, or a broken frame did
            reason = f"more than {self._connections.message_rate} frames in a second"
            self._connections.hub.sessions.close(self._session, CloseCode.TOO_MANY, reason, 1_000)
        self._end()  # also when it was told goodbye before, and its answer is still to come

    def _handshake(self, request: Request) -> None:
        path, _, query = request.path.partition("?")
        if unquote(path) != "/ws":
            error = ProtocolError(ErrorCode.BAD_QUERY, f"no feed at {path[:80]}; it is at /ws")
            self._refuse(rejection_response(error, HTTPStatus.NOT_FOUND))
            return
        headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
        secure = self._transport.get_extra_info("sslcontext") is not None
        peer = socket_peer(self._transport)
        decision = self._connections.decide(self._client_slot, peer, headers, query, secure=secure)
        if decision.rejection is not None and not decision.after_upgrade:
            self._refuse(rejection_response(decision.rejection))
            return
        response = self._conn.respond(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._refuse(response)
            return
        self._conn.send_response(response)
        self._send_own()
        found = [one for one in self._conn.extensions if isinstance(one, PerMessageDeflate)]
        if any(one.local_max_window_bits == 15 for one in found):
            # A client that wants a smaller window gets plain frames, which are always legal.
            self.encoding = DEFLATED
        hub = self._connections.hub
        self._connections.add(self)
        if decision.rejection is None:
            self._connections.record_open(self._client_slot)
            if decision.grant is None:
                self._conn.limit(MAX_AUTH_BYTES)
            self._session = hub.sessions.open(
                self, decision.request, self._connections.clock(), decision.grant, decision.filter
            )
            if self._transport.get_write_buffer_size() > BUFFER_HIGH:
                # The snapshot filled the socket before there was a session to tell.
                hub.sessions.pause(self._session)
        else:
            # A browser cannot see the status of a failed upgrade, so it is told inside.
            self._connections.handshake_results["rejected"] += 1
            hub.sessions.reject_link(self, decision.rejection, close_code(decision.rejection))

    def _refuse(self, response: Response) -> None:
        """Answer over HTTP, and end."""
        self._connections.handshake_results["rejected"] += 1
        self._conn.send_response(response)
        self._send_own()

    def _put(self, data: bytes) -> None:
        """Write what the protocol itself has to say; an empty piece means: end the connection."""
        if not data:
            self._end()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        """Close the connection, with time for its client to read why."""
        if self._client_slot is not None and self._conn.close_rcvd is None:
            self._connections.admission.mark_pending(
                self._client_slot
            )  # it may take its time, at the cost of its own kind
        self._transport.close()
        self._cut_later()

    def _cut_later(self) -> None:
        self._cut = self._cut or asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self.abort)

    def _send_own(self) -> None:
        for data in self._conn.data_to_send():
            self._put(data)
        if self._conn.state is not OPEN and self._session is not None:
            # The closing handshake has begun: nothing may be written by a feed any more.
            self._connections.hub.sessions.remove(self._session)
            self._session = None
