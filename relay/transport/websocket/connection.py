"""One WebSocket connection: websockets' Sans-I/O protocol inside an asyncio.Protocol.

``http/protocol.py`` reads the head of an upgrade request like that of any request, and hands it to this
class. From then on this class owns the transport. A connection has no task, no queue and no timer of its own.

Invariants:

1. A shared frame is written only in state OPEN; frames of the protocol itself are sent first.
2. The session is paused as soon as the transport is full, and resumed as soon as it has drained. While it
   is paused nothing is read, and input that was read before is not handled.
3. Every connection that was counted as opened is counted as closed, with one close code.
4. Messages of a client are answered in order: a pong is sent before the answer to a later message.
5. An exception in a callback of the transport or of a timer ends this connection, and nothing else.
6. Once the connection is closing, nothing more is parsed or written; ``lingering_close.py`` does the rest.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from tickertape.contracts.close_codes import MAX_REASON_BYTES, CloseCode, ErrorCode
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, ProtocolError
from tickertape.relay.audit.audit_log import Transport
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON, contained_in_connection
from tickertape.relay.core.session.session import Session, State, close_code
from tickertape.relay.transport.acceptor import socket_peer
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.backpressure import BUFFER_HIGH, BUFFER_LOW, ReadProgress, accepted_bytes
from tickertape.relay.transport.connections import CLOSE_TIMEOUT, MAX_AUTH_BYTES, Connections
from tickertape.relay.transport.message_rate import max_frames
from tickertape.relay.transport.websocket.encoding import PLAIN
from tickertape.relay.transport.websocket.frame_reader import FrameReader
from tickertape.relay.transport.websocket.handshake import answer, select_encoding
from tickertape.relay.transport.websocket.protocol import WebSocket, handshake_request, rejection_response
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN

from tickertape.text import count, truncate

_PING: Final = b"\x89\x00"


def websocket_protocol(connections: Connections) -> Callable[..., "Connection"]:
    """Return the factory for uvicorn's WebSocket protocols; it ignores uvicorn's arguments."""
    return lambda **uvicorn_args: Connection(connections)


class Connection(asyncio.Protocol):
    """WebSocket connection of one client, and the ``Link`` of its session."""

    __slots__ = (
        "_accounting",
        "_close_timer",
        "_conn",
        "_connections",
        "_paused",
        "_progress",
        "_reader",
        "_session",
        "_transport",
        "_unfinished",
        "encoding",
        "ping_slot",
        "send",
    )

    send: Callable[[bytes], None]
    transport_name: Transport = "websocket"

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._conn = WebSocket()
        self._session: Session | None = None
        self._accounting = Accounting(connections)
        self._transport: asyncio.Transport
        self._close_timer: asyncio.TimerHandle | None = None  # set once the closing handshake has started
        self._reader = FrameReader(self._conn)
        self._unfinished = False  # whether one message has been incomplete since the last ping
        self._paused = False
        self._progress = ReadProgress()
        self.ping_slot = -1
        self.encoding = PLAIN

    def __repr__(self) -> str:
        return f"Connection({self._conn.state.name}, {self._session!r})"

    # From the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        self._transport = transport
        # The acceptor has allocated the slot; from here on this connection owns it.
        http: Any = transport.get_protocol()
        self._accounting.client_slot = client_slot = getattr(http, "client_slot", None)
        if client_slot is not None:
            http.client_slot = None
            client_slot.socket = self
        transport.set_write_buffer_limits(BUFFER_HIGH, BUFFER_LOW)
        # uvicorn would do this only after the handshake, and a pause before that would not reach this
        # protocol.
        transport.set_protocol(self)
        self.send = transport.write

    @contained_in_connection
    def handshake(self, target: str, headers: Sequence[tuple[str, str]], method: str = "GET") -> None:
        """Answer an upgrade request.

        Args:
            target: path and query, undecoded; ASCII.
            headers: names and values, in order.
            method: HTTP method.
        """
        self._handshake(handshake_request(target, headers, method))

    @contained_in_connection
    def data_received(self, data: bytes) -> None:
        if self._conn.state is CONNECTING:
            return  # the handshake was rejected or failed
        self._reader.receive(data)
        self._handle_input()

    def _handle_input(self) -> None:
        """Handle what was received, until the client has to read first."""
        while not self._paused and not self._transport.is_closing():
            if self._reader.held:
                self._handle_events(self._reader.take_held())
            elif self._reader.has_input:
                self._parse()
            else:
                return

    def _parse(self) -> None:
        events, last = self._reader.parse(self._connections.clock())
        # Before any frame is handled: the messages of a flood are not answered.
        if self._reader.frames_this_second > self._max_frames():
            for event in events:
                if not isinstance(event, Frame):
                    self._put(event)
            self._close_for_rate(f"more than {count(self._max_frames(), 'frame')} per second")
            events = []
        self._handle_events([*events, *last])
        self._reader.record_incomplete(
            self._connections.incomplete, self._end_incomplete, closing=self._transport.is_closing()
        )

    def _handle_events(self, events: list[Any]) -> None:
        """Handle frames and replies in order; keep those that have to wait for the client to read."""
        for index, event in enumerate(events):
            if self._paused:
                self._reader.hold(events[index:])
                return
            if not isinstance(event, Frame):
                # A reply that ``WebSocket.recv_frame`` has inserted behind the frame that it answers.
                self._put(event)
                continue
            if event.opcode is Opcode.PONG:
                self._progress.record_read()
            text = self._conn.complete_message(event)
            if text is not None and self._session is not None:
                self._unfinished = False
                self._connections.hub.sessions.receive(self._session, text, self._connections.clock())
            if self._conn.writes:
                self._send_own()  # the connection is closing: later messages are not answered
        self._send_own()

    @contained_in_connection
    def eof_received(self) -> None:
        if self._conn.state is not CONNECTING and not self._paused and not self._transport.is_closing():
            self._conn.receive_eof()

    @contained_in_connection
    def pause_writing(self) -> None:
        if not self._transport.is_closing():  # input is then discarded, and has to be read for that
            self._paused = True
            self._transport.pause_reading()
        if self._session is not None:
            self._connections.hub.sessions.pause(self._session)

    @contained_in_connection
    def resume_writing(self) -> None:
        if self._session is not None:
            self._connections.hub.sessions.resume(self._session)
        self._resume_input()

    @contained_in_connection
    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session = self._session, None
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        # A close of the relay takes precedence; 1006 means that there was no closing handshake.
        sent, received = self._conn.close_sent, self._conn.close_rcvd
        code = sent.code if sent is not None else received.code if received is not None else 1006
        self._accounting.settle(self, session, code, self._sent_bytes)
        self._reader.record_incomplete(self._connections.incomplete, self._end_incomplete, closing=True)
        # The parser and the exceptions form reference cycles with the protocol. The garbage collector seldom
        # runs here, so without this a flood of connections would hold tens of megabytes.
        self._conn.parser.close()
        self._conn.parser_exc = self._conn.handshake_exc = None

    # From the session.

    def admit(self, grant: Grant) -> bool:
        """Bind the client to its token's subject; return False if the subject is at its connection limit."""
        if not self._accounting.admit(self._session, grant):
            return False
        self._conn.set_max_size(MAX_MESSAGE_BYTES)
        return True

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; a client that does not answer in time is disconnected."""
        # Recorded before anything is sent: ``_send_own`` may mark the slot as pending, which would count as a
        # fault.
        self._accounting.record_close(self._session, code)
        if self._conn.state is OPEN:
            self._conn.send_close(code, truncate(reason, MAX_REASON_BYTES))
        # Also needed if an invalid frame in the same read has already started the closing handshake.
        self._send_own()
        self._start_close_timer()
        self._resume_input()  # for the client's part of the closing handshake; nothing else is answered

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self._transport.abort()

    @contained_in_connection
    def ping(self) -> None:
        """Ping the client; close the session if it has read nothing since the last pings."""
        accepted, waiting = accepted_bytes(self._transport)
        if self._progress.end_interval(accepted, waiting=waiting) and self._session is not None:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "the client does not read")
        elif self._unfinished and self._session is not None:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "incomplete message")
        elif self._conn.state is OPEN and not self._paused:  # while it is paused, no answer would be read
            self._put(_PING)
        self._unfinished = self._conn.incomplete > 0 and not self._paused

    def fail(self, error: Exception) -> None:
        """Close the connection after an internal error; without a session, answer as far as possible."""
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
            return
        self._connections.record_request_error("a handshake", error)
        try:
            if self._conn.state is CONNECTING:
                self._reject(rejection_response(ProtocolError(ErrorCode.INTERNAL, INTERNAL_ERROR_REASON)))
            elif self._conn.state is OPEN:
                self._conn.send_close(CloseCode.INTERNAL_ERROR, INTERNAL_ERROR_REASON)
                self._send_own()
        finally:
            self._end()

    # Internals.

    def _sent_bytes(self) -> int | None:
        accepted = accepted_bytes(self._transport)[0]
        return accepted if accepted >= 0 else None  # negative if the system does not count them

    @contained_in_connection
    def _end_incomplete(self) -> None:
        """Close the connection of a client whose incomplete message takes too much memory."""
        self._reader.discard_incomplete()
        self._close_for_rate("too many incomplete messages; retry later")

    def _max_frames(self) -> int:
        waiting = self._session is not None and self._session.state is State.WAITING
        return max_frames(self._connections.message_rate, authenticated=not waiting)

    def _close_for_rate(self, reason: str) -> None:
        """Close the connection of a client that sends too much, and parse nothing more."""
        if self._session is not None:
            if self._conn.state is not OPEN:
                self._accounting.record_message_rate()
                return  # the closing handshake has already started
            self._accounting.close_for_rate(self._session, reason)
        self._end()  # also if a close was sent before and is not answered yet

    def _handshake(self, request: Request) -> None:
        secure = self._transport.get_extra_info("sslcontext") is not None
        peer = socket_peer(self._transport)
        headers = [(name.lower(), value) for name, value in request.headers.raw_items()]
        response, decision = answer(
            request, headers, self._conn, self._connections, self._accounting, peer, secure=secure
        )
        if decision is None:
            self._reject(response)
            return
        self._conn.send_response(response)
        self._send_own()
        self.encoding = select_encoding(self._conn)
        hub = self._connections.hub
        self._connections.add(self)
        if decision.rejection is None:
            self._accounting.record_open()
            if decision.grant is None:
                self._conn.set_max_size(MAX_AUTH_BYTES)
            self._session = self._accounting.open_session(self, decision, "websocket", peer, headers)
            if self._paused:  # the first messages filled the socket before the session was assigned
                hub.sessions.pause(self._session)
        else:
            # A browser cannot see the status of a failed upgrade, so the reason is sent in the WebSocket.
            self._connections.handshake_results["rejected"] += 1
            hub.sessions.reject_link(self, decision.rejection, close_code(decision.rejection))

    def _reject(self, response: Response) -> None:
        """Reject the handshake with an HTTP response."""
        self._connections.handshake_results["rejected"] += 1
        self._conn.send_response(response)
        self._send_own()

    def _resume_input(self) -> None:
        """Read again after a pause, and handle the input that waits."""
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
            self._handle_input()

    def _put(self, data: bytes) -> None:
        """Write data of the protocol; empty data closes the connection."""
        if not data:
            self._end()
        elif not self._transport.is_closing():
            self._transport.write(data)

    def _end(self) -> None:
        """Close the connection, leaving the client time to read the reason."""
        if self._conn.close_rcvd is None:
            # A lingering connection counts towards the limit of unauthenticated connections.
            self._accounting.mark_pending()
        self._transport.close()
        self._start_close_timer()

    def _start_close_timer(self) -> None:
        # The first deadline stays: whatever happens while closing, it does not extend the time.
        self._close_timer = self._close_timer or asyncio.get_running_loop().call_later(
            CLOSE_TIMEOUT, self.abort
        )

    def _send_own(self) -> None:
        """Write the frames that the protocol itself has queued."""
        for data in self._conn.data_to_send():
            self._put(data)
        if self._conn.state is not OPEN and self._session is not None:
            # The closing handshake has started: feeds must not write any more.
            self._connections.hub.sessions.remove(self._session)
            self._session = None
