"""One HTTP stream: Server-Sent Events or JSON lines, written to the socket of a request.

``http/protocol.py`` reads the head of the request like that of any request, and hands the socket to this
class, as with an upgrade: a response of the HTTP protocol has a deadline, and a task. A stream has neither.

Invariants:

1. The head is written once, before any message; after the end of the body nothing is written.
2. The session is paused as soon as the transport is full, and resumed as soon as it has drained.
3. Every connection that was counted as opened is counted as closed, with one close code.
4. A client whose system acknowledges nothing of what was sent to it is disconnected.
5. An exception in a callback of the transport or of a timer ends this connection, and nothing else.
6. What a client sends after its request is discarded, within a bound.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final, cast

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.audit.audit_log import Transport
from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON, contained_in_connection
from tickertape.relay.core.session.session import Session, close_code
from tickertape.relay.transport import handshake
from tickertape.relay.transport.acceptor import socket_peer
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.backpressure import (
    BUFFER_HIGH,
    BUFFER_LOW,
    ReadProgress,
    accepted_bytes,
    acknowledged_bytes,
)
from tickertape.relay.transport.connections import CLOSE_TIMEOUT, Connections
from tickertape.relay.transport.handshake import Decision
from tickertape.relay.transport.http_stream.encoding import EVENTS, StreamEncoding, select_encoding
from tickertape.relay.transport.http_stream.request import Heads, StreamRequest, is_final_resume

MAX_DISCARDED: Final = 64 * 1024
"""Bytes that a client may send after its request: it has nothing to say, but may have pipelined requests."""

MIN_RETRY_MS: Final = 1_000
MAX_RETRY_MS: Final = 5_000
"""Bounds of the milliseconds after which an ``EventSource`` reconnects if its relay has vanished. They are
random, so that its clients do not arrive together at the next one."""


def stream_protocol(connections: Connections, hsts: int = 0) -> Callable[[], "StreamConnection"]:
    """Return the factory of the protocols for streams.

    Args:
        connections: connections of the relay.
        hsts: seconds for which browsers are told to use only TLS; 0 sends nothing.
    """
    heads = Heads(connections.request_auth, hsts)
    return lambda: StreamConnection(connections, heads)


class StreamConnection(asyncio.Protocol):
    """Connection of one client of a stream, and the ``Link`` of its session.

    Args:
        connections: connections of the relay.
        heads: builds the head of the response.
    """

    __slots__ = (
        "_accounting",
        "_close_timer",
        "_code",
        "_connections",
        "_discarded",
        "_heads",
        "_paused",
        "_progress",
        "_session",
        "_started",
        "_transport",
        "encoding",
        "ping_slot",
        "send",
        "transport_name",
    )

    send: Callable[[bytes], None]
    encoding: StreamEncoding
    transport_name: Transport

    def __init__(self, connections: Connections, heads: Heads) -> None:
        self._connections = connections
        self._heads = heads
        self._session: Session | None = None
        self._accounting = Accounting(connections)
        self._transport: asyncio.Transport
        self._close_timer: asyncio.TimerHandle | None = None  # set once the body has ended
        self._code = 1006  # close code if the client disconnects
        self._started = False  # whether the head is written
        self._paused = False
        self._discarded = 0
        self._progress = ReadProgress()
        self.ping_slot = -1
        self.encoding = select_encoding(EVENTS, gzip=False, chunked=False)
        self.transport_name = "sse"

    def __repr__(self) -> str:
        return f"StreamConnection({self.encoding!r}, {self._session!r})"

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
        transport.set_protocol(self)
        self.send = transport.write

    @contained_in_connection
    def answer_head(self, target: str, headers: Headers, method: str, version: str) -> None:
        """Answer a request.

        Args:
            target: path and query, undecoded; ASCII.
            headers: headers, with names in lower case.
            method: ``GET`` or ``HEAD``.
            version: version of HTTP.
        """
        self._answer(StreamRequest.parse(target, headers, method, version))

    def _answer(self, request: StreamRequest) -> None:
        connections, peer = self._connections, socket_peer(self._transport)
        secure = self._transport.get_extra_info("sslcontext") is not None
        self.transport_name = request.kind.transport
        self.encoding = request.select_encoding()
        decision = handshake.decide(
            connections,
            self._accounting.client_slot,
            peer,
            request.headers,
            request.query,
            secure=secure,
            read_offer=request.read_offer,
        )
        error = decision.rejection
        if error is not None and (not decision.after_upgrade or is_final_resume(request, error)):
            connections.handshake_results["rejected"] += 1
            if decision.after_upgrade:
                self._accounting.record_fault()
            self._write_last(self._heads.rejection(request, error, secure=secure))
            return
        head = self._heads.stream(request, self.encoding, secure=secure)
        if request.head_only:
            self._write_last(head)
            return
        self._started = True
        retry_ms = random.randint(MIN_RETRY_MS, MAX_RETRY_MS)  # noqa: S311 - jitter, not cryptography
        self._transport.write(head + self.encoding.begin(retry_ms))
        self._open(request, decision, peer)

    def data_received(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > MAX_DISCARDED and self._session is not None:
            self._accounting.close_for_rate(self._session, "data after the request of a stream")

    @contained_in_connection
    def pause_writing(self) -> None:
        self._paused = True
        if self._session is not None:
            self._connections.hub.sessions.pause(self._session)

    @contained_in_connection
    def resume_writing(self) -> None:
        self._paused = False
        if self._session is not None:
            self._connections.hub.sessions.resume(self._session)

    @contained_in_connection
    def connection_lost(self, exc: Exception | None) -> None:
        session, self._session = self._session, None
        if self._close_timer is not None:
            self._close_timer.cancel()
            self._close_timer = None
        self._accounting.settle(self, session, self._code, self._sent_bytes)

    # From the session.

    def admit(self, grant: Grant) -> bool:
        """Bind the client to its token's subject; return False if the subject is at its connection limit."""
        return self._accounting.admit(self._session, grant)

    def close(self, code: int, reason: str) -> None:
        """End the body after ``bye``; a client that does not close its side in time is disconnected."""
        # Before anything else: ``_end`` may mark the slot as pending, which would count as a fault.
        self._accounting.record_close(self._session, code)
        self._code, self._session = code, None
        self._transport.write(self.encoding.end())
        self._end()

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""
        self._transport.abort()

    @contained_in_connection
    def ping(self) -> None:
        """Send what clients ignore; close the session if nothing was acknowledged since the last pings."""
        accepted, waiting = acknowledged_bytes(self._transport)
        if not waiting:
            self._progress.record_read()
        expired = self._progress.end_interval(accepted, waiting=waiting)
        if self._session is None:
            return
        if expired:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "the client does not read")
        elif not self._paused and (keepalive := self.encoding.keepalive()):
            self._transport.write(keepalive)

    def fail(self, error: Exception) -> None:
        """Close the connection after an internal error; without a session, answer as far as possible."""
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
            return
        self._connections.record_request_error("a request for a stream", error)
        if self._started:
            self._transport.abort()  # the client sees that the body is incomplete
            return
        failed = ProtocolError(ErrorCode.INTERNAL, INTERNAL_ERROR_REASON)
        self._write_last(self._heads.failure(failed))

    # Internals.

    def _open(self, request: StreamRequest, decision: Decision, peer: str) -> None:
        connections = self._connections
        connections.add(self)
        if decision.rejection is not None:
            # The browser would give up after any other status.
            connections.handshake_results["rejected"] += 1
            code = close_code(decision.rejection)
            connections.hub.sessions.reject_link(self, decision.rejection, code)
            return
        self._accounting.record_open()
        session = self._accounting.open_session(self, decision, request.kind.transport, peer, request.headers)
        # Opening it may have closed it.
        if self._close_timer is not None:
            return
        self._session = session
        if self._paused:  # the first messages filled the socket before the session was assigned
            connections.hub.sessions.pause(session)

    def _sent_bytes(self) -> int | None:
        accepted = accepted_bytes(self._transport)[0]
        return accepted if accepted >= 0 else None  # negative if the system does not count them

    def _write_last(self, data: bytes) -> None:
        """Write a complete response."""
        self._transport.write(data)
        self._end()

    def _end(self) -> None:
        """Close the connection, leaving the client time to read what it was sent."""
        # A lingering connection counts towards the limit of unauthenticated connections.
        self._accounting.mark_pending()
        self._transport.close()
        # The first deadline stays: whatever happens while closing, it does not extend the time.
        self._close_timer = self._close_timer or asyncio.get_running_loop().call_later(
            CLOSE_TIMEOUT, self.abort
        )
