"""WebSocket connection of a mounted feed: a session over ASGI's ``receive`` and ``send``.

ASGI has no non-blocking write, and takes messages instead of frames. Therefore each client has a task and a
bounded outbox here; the host's server frames, compresses and pings.

Invariants:

1. The outbox is bounded: a client whose socket is full is paused and keeps only a cursor into the log,
   without delaying other clients; nothing is received from it until the outbox has drained.
2. Messages queued before ``close`` are sent before it; a client that does not read them in time is
   disconnected.
3. Every admitted client is released once; every connection that was counted as opened is counted as closed.
4. A client that reads nothing of what waits for it is disconnected.
5. An exception ends this connection, and nothing else; it never reaches the host.
"""

import asyncio
import logging
from collections import deque
from typing import Final

from starlette.types import Message, Receive, Scope, Send
from tickertape.contracts.close_codes import MAX_REASON_BYTES, CloseCode, ErrorCode
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL, ProtocolError
from tickertape.relay.asgi.encoding import TEXT, TextBatch
from tickertape.relay.audit.audit_log import Transport
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Limit
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.core.session.session import Session, State, close_code
from tickertape.relay.transport import handshake
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.backpressure import BUFFER_HIGH, BUFFER_LOW, ReadProgress
from tickertape.relay.transport.connections import CLOSE_TIMEOUT, MAX_AUTH_BYTES, Connections
from tickertape.relay.transport.handshake import Decision
from tickertape.relay.transport.http.responses import error_response, request_headers, request_peer
from tickertape.relay.transport.message_rate import MessageRate, max_frames

from tickertape.process.tasks import Tasks
from tickertape.text import count, truncate

log = logging.getLogger("tickertape.asgi")

BURST_HIGH: Final = 4 * BUFFER_HIGH
"""Bytes that may wait while no send is blocked. They are sent within one event loop iteration, so pausing for
each large batch would only add overhead."""


class AsgiConnection:
    """Connection of one client, and the ``Link`` of its session.

    Args:
        connections: connections of the feed.
        scope, receive, send: ASGI arguments.
    """

    encoding = TEXT
    transport_name: Transport = "asgi"

    def __init__(self, connections: Connections, scope: Scope, receive: Receive, send: Send) -> None:
        self.ping_slot = -1
        self._connections = connections
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session: Session | None = None
        self._accounting = Accounting(connections)
        self._outbox: deque[TextBatch] = deque()
        self._unsent = 0  # bytes in the outbox and in the current send
        self._wake = asyncio.Event()
        self._sending = False
        self._accepted = 0  # bytes that the server has accepted
        self._progress = ReadProgress()
        self._receiving = asyncio.Event()  # cleared while the session is paused
        self._receiving.set()
        self._closing: tuple[int, str] | None = None
        self._timeout: asyncio.Timeout | None = None  # set while the connection is served
        self._code = 1006  # close code if the client disconnects
        self._max_size = MAX_MESSAGE_BYTES
        self._rate = MessageRate()

    def __repr__(self) -> str:
        return f"AsgiConnection({self._session!r}, {self._unsent} bytes unsent)"

    async def serve(self) -> None:
        """Serve the connection from the handshake until it is closed."""
        await self._receive()  # websocket.connect
        connections, address = self._connections, request_peer(self._scope)
        admitted = connections.accept(address, request_headers(self._scope), self)
        if isinstance(admitted, Limit):
            code = ErrorCode.UNAVAILABLE if admitted in SERVER_LIMITS else ErrorCode.TOO_MANY
            await self._reject(ProtocolError(code, "too many connections; retry later"))
            return
        self._accounting.client_slot = admitted
        try:
            await self._handshake(address)
        except OSError:
            log.debug("client disconnected before its handshake was answered")
        except Exception as error:
            self._fail(error)
            await self._answer_failed()
        finally:
            session, self._session = self._session, None
            closed_with = self._closing[0] if self._closing is not None else self._code
            self._accounting.settle(self, session, closed_with, lambda: self._accepted)

    @property
    def sent(self) -> bool:
        """Whether the host's server has accepted all messages."""
        return self._unsent == 0

    # From the session.

    def send(self, data: TextBatch) -> None:
        """Append messages to the outbox."""
        # Not rejected when full: a paused session receives no further events, so one batch is the excess.
        self._outbox.append(data)
        self._unsent += len(data)
        self._wake.set()
        self._pause_if_full()

    def admit(self, grant: Grant) -> bool:
        """Bind the client to its token's subject; return False if the subject is at its connection limit."""
        if not self._accounting.admit(self._session, grant):
            return False
        self._max_size = MAX_MESSAGE_BYTES
        return True

    def close(self, code: int, reason: str) -> None:
        """Close the connection once the outbox is sent, at the latest after ``CLOSE_TIMEOUT``."""
        self._accounting.record_close(self._session, code)
        if self._closing is None:
            self._closing = code, truncate(reason, MAX_REASON_BYTES)
            self._session = None
            self._wake.set()
            self._receiving.set()  # for the disconnect
            self._abort_after(CLOSE_TIMEOUT)

    def abort(self) -> None:
        """End the connection immediately and discard unsent messages; the server closes the socket."""
        self._abort_after(0.0)

    def ping(self) -> None:
        """Close the session if the client has read nothing that waits; ASGI servers send pings themselves."""
        if not self._sending:
            self._progress.record_read()
        expired = self._progress.end_interval(self._accepted, waiting=self._sending)
        if expired and self._session is not None:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "the client does not read")

    # Internals.

    def _fail(self, error: Exception) -> None:
        """Close the connection after an internal error; ``bye`` is sent with the outbox, if possible."""
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
        elif self._closing is None:
            self._connections.record_request_error("a handshake", error)
            self._closing = CloseCode.INTERNAL_ERROR, INTERNAL_ERROR_REASON

    async def _answer_failed(self) -> None:
        """Answer a handshake or connection that failed before it was answered or closed."""
        try:
            if self.ping_slot < 0:
                await reject(
                    ProtocolError(ErrorCode.INTERNAL, INTERNAL_ERROR_REASON),
                    self._scope,
                    self._receive,
                    self._send,
                )
            else:
                await self._put(
                    {
                        "type": "websocket.close",
                        "code": CloseCode.INTERNAL_ERROR,
                        "reason": INTERNAL_ERROR_REASON,
                    }
                )
        except (OSError, RuntimeError):
            log.debug("%r was already answered or closed", self)

    async def _handshake(self, address: str) -> None:
        scope, connections = self._scope, self._connections
        headers, query = request_headers(scope), scope["query_string"].decode("latin-1")
        secure = scope["scheme"] == "wss"
        client_slot = self._accounting.client_slot
        decision = handshake.decide(connections, client_slot, address, headers, query, secure=secure)
        offered = scope.get("subprotocols") or ()
        rejection = decision.rejection
        if rejection is None and offered and SUBPROTOCOL not in offered:
            # The names are left out of the error: one of them may contain a token.
            message = f"none of the {len(offered)} offered subprotocols is {SUBPROTOCOL}"
            rejection = ProtocolError(ErrorCode.BAD_MESSAGE, message)
            self._accounting.record_fault()
        if rejection is not None and not decision.after_upgrade:
            await self._reject(rejection)
            return
        await self._send(
            {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None}
        )
        connections.add(self)
        if rejection is None:
            self._accounting.record_open()
        else:
            connections.handshake_results["rejected"] += 1
        try:
            # A timeout without a deadline: ``_abort_after`` sets one, and thereby ends both directions,
            # whatever they wait for.
            async with asyncio.timeout(None) as self._timeout, Tasks() as tasks:
                tasks.start(self._write(), "tickertape-client")
                self._open(decision)
                # The reader decides when the connection has ended: the server delivers a disconnect even
                # after a close.
                await tasks.until(self._read())
        except TimeoutError:
            log.debug("%r did not read the close message in time, or was aborted", self)
        finally:
            self._timeout = None

    def _open(self, decision: Decision) -> None:
        hub = self._connections.hub
        if decision.rejection is not None:
            # A browser cannot see the status of a failed upgrade, so the reason is sent in the WebSocket.
            code = close_code(decision.rejection)
            hub.sessions.reject_link(self, decision.rejection, code)
            return
        if decision.grant is None:
            self._max_size = MAX_AUTH_BYTES
        peer, headers = request_peer(self._scope), request_headers(self._scope)
        session = self._accounting.open_session(self, decision, "asgi", peer, headers)
        # Opening it may have rejected it, after which it has to stay unassigned.
        if self._closing is None:
            self._session = session
            self._pause_if_full()  # the snapshot was queued before the session was assigned

    async def _reject(self, error: ProtocolError) -> None:
        self._connections.handshake_results["rejected"] += 1
        await reject(error, self._scope, self._receive, self._send)

    async def _read(self) -> None:
        """Pass messages of the client to its session until it disconnects."""
        while True:
            await self._receiving.wait()
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._code = message.get("code") or 1005
                return
            session = self._session
            if session is None:
                continue  # the connection is closing
            try:
                self._handle_message(session, message)
            except Exception as error:
                self._connections.hub.sessions.fail(session, error)

    def _handle_message(self, session: Session, message: Message) -> None:
        connections, text = self._connections, message.get("text")
        data = message.get("bytes") or b"" if text is None else text.encode()
        now = connections.clock()
        self._rate.record_message(now, len(data))
        limit = max_frames(connections.message_rate, authenticated=session.state is not State.WAITING)
        if self._rate.frames > limit:
            self._accounting.close_for_rate(session, f"more than {count(limit, 'message')} per second")
        elif text is None:
            connections.hub.sessions.close(session, CloseCode.UNSUPPORTED_DATA, "text messages only")
        elif len(data) > self._max_size:
            reason = f"message of {len(data)} bytes; the limit is {self._max_size}"
            connections.hub.sessions.close(session, CloseCode.MESSAGE_TOO_BIG, reason)
        else:
            connections.hub.sessions.receive(session, data, now)

    async def _write(self) -> None:
        """Send the outbox as fast as the server accepts it, then close."""
        try:
            try:
                while self._closing is None or self._outbox:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._send_outbox()
            except OSError:
                raise
            except Exception as error:
                self._fail(error)
                self._outbox.clear()
            code, reason = self._closing or (CloseCode.INTERNAL_ERROR, INTERNAL_ERROR_REASON)
            await self._put({"type": "websocket.close", "code": code, "reason": reason})
        except OSError as error:
            log.debug("%r disconnected: %s", self, error)
            self.abort()

    async def _send_outbox(self) -> None:
        self._sending = True
        while self._outbox:
            data = self._outbox.popleft()
            for text in data.texts:
                await self._put({"type": "websocket.send", "text": text})
                self._accepted += len(text)
            # Only after the entire batch: a batch in progress is memory, too.
            self._unsent -= len(data)
            if self._unsent <= BUFFER_LOW and not self._receiving.is_set():
                self._receiving.set()
                if self._session is not None:
                    self._connections.hub.sessions.resume(self._session)
        self._sending = False

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except RuntimeError as error:
            # Some servers raise this for a connection that they have closed; ASGI specifies an OSError.
            raise ConnectionError(str(error)) from error

    def _pause_if_full(self) -> None:
        # A send in progress means that the client is waiting for its socket.
        high = BUFFER_HIGH if self._sending else BURST_HIGH
        if self._unsent > high and self._receiving.is_set() and self._session is not None:
            self._receiving.clear()
            self._connections.hub.sessions.pause(self._session)

    def _abort_after(self, seconds: float) -> None:
        timeout = self._timeout
        # An expired timeout cannot be rescheduled: that raises RuntimeError.
        if timeout is not None and not timeout.expired():
            timeout.reschedule(asyncio.get_running_loop().time() + seconds)


async def reject(
    error: ProtocolError, scope: Scope, receive: Receive, send: Send, status: int | None = None
) -> None:
    """Reject a request or a pending handshake, with an HTTP response if the server supports that.

    Args:
        error: reason for the rejection.
        scope, receive, send: ASGI arguments.
        status: HTTP status; None selects the status of the error's close code.
    """
    if scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or {}):
        await error_response(error, status)(scope, receive, send)
    else:
        reason = truncate(error.message, MAX_REASON_BYTES)
        await send({"type": "websocket.close", "code": close_code(error), "reason": reason})
