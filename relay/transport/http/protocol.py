"""uvicorn's HTTP protocol with limits: one set of rules for every request head, on every path.

Invariants:

1. A head gets the same response however it is split into reads, on every port and path, also before an
   upgrade.
2. A head is limited to ``MAX_HEAD_BYTES`` and ``HEAD_TIMEOUT``; no request has a body.
3. Every error is JSON with ``code`` and ``message``, and closes the connection.
4. A response that closes the connection reaches its client, whatever the client sends after its request.
5. On the main port, a request is charged to its client before anything else is done with it, and so is its
   rejection: to the address that a trusted proxy reports, never to the previous client of the proxy's socket.
"""

import asyncio
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import httptools
from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.transport.acceptor import Acceptor, socket_peer
from tickertape.relay.transport.closing_responses import closing_response, limit_response
from tickertape.relay.transport.http.head_reader import HeadReader
from tickertape.relay.transport.http.pending_responses import PendingResponses
from tickertape.relay.transport.http.request_charges import LimitExceeded, RequestCharges
from tickertape.relay.transport.http.request_head import (
    NOT_HTTP,
    HeadError,
    check_head,
    find_upgrade,
    handshake_headers,
    header_tokens,
    is_stream,
    split_head,
)
from tickertape.relay.transport.http.responses import WEBSOCKET_VERSION
from tickertape.relay.transport.http.stream_protocol import StreamProtocol
from tickertape.relay.transport.lingering_close import LingeringTransport
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request head; uvicorn itself has no timeout."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds from a request head to the end of its response, and of those that are pipelined behind it, however
slowly a client reads: 4 MiB at 70 KB/s."""

MAX_PIPELINED: Final = 16
"""Maximum requests on one socket that wait for earlier responses; one read can contain ten thousand."""


class GuardedHttp(HttpToolsProtocol):
    """HTTP protocol of one socket.

    Args:
        acceptor: acceptor of the connection; None without one.
        stream_protocol: factory of the protocols for streams; None if this port has no streams.

    Attributes:
        client_slot: slot of the connection; None on the ops port, and after a WebSocket upgrade.
        acceptor: acceptor of the connection; None on the ops port.
        wire: transport of the socket below TLS; None if there is no acceptor.
    """

    client_slot: ClientSlot | None = None
    wire: asyncio.Transport | None = None
    _timer: asyncio.TimerHandle | None = None  # for the head, or for closing
    _response_timer: asyncio.TimerHandle | None = None
    _in_head = True
    _last = False  # set once a request asks to close the connection after its response
    _requested_upgrade: bytes | None = None  # protocol that the head asks to upgrade to
    _requested_stream = False

    def __init__(
        self,
        *args: Any,
        acceptor: Acceptor | None = None,
        stream_protocol: Callable[[], StreamProtocol] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.acceptor = acceptor
        self._stream_protocol = stream_protocol
        self._responses = PendingResponses()
        self._head = HeadReader()
        self._charges = RequestCharges(acceptor)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # uvicorn closes its transport in several places; the wrapper turns each into a lingering close.
        super().connection_made(LingeringTransport(transport, self.wire or transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._cancel_responses()
        if self.client_slot is not None and self.acceptor is not None:
            if self._in_head and self.cycle is None:
                self._record_fault()  # the client never sent a request
            self.acceptor.admission.release(self.client_slot)
            self.client_slot = None
        super().connection_lost(exc)

    # Parsing.

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        offset = 0
        # One head at a time, so that its limits apply however many heads a read contains.
        # An upgrade drops the parser and passes the rest of the data on itself.
        while offset < len(data) and self.parser is not None and not self.transport.is_closing():
            if self._last:
                # Not processed as a request (RFC 9112, 9.6); discarded after the response.
                self.transport.pause_reading()
                return
            offset = self._read_head(data, offset)

    def _read_head(self, data: bytes, offset: int) -> int:
        """Parse to the end of a head or of the data, and return the offset after it."""
        if self._head.size == 0:
            self._charges.begin()
        chunk, complete = self._head.read(data, offset)
        stop = offset + len(chunk)
        if not self._head.has_valid_line:
            self._reject(NOT_HTTP, chunk)
            return len(data)
        try:
            self.parser.feed_data(chunk)
        except httptools.HttpParserUpgrade as upgrade:
            offset += upgrade.args[0]
            if not self._should_upgrade():
                return offset  # unsupported protocol: handled as an ordinary request (RFC 9110, 7.8)
            self._upgrade(data[offset:])
            return len(data)
        except httptools.HttpParserError as error:
            # httptools wraps an error that a callback raises.
            self._reject(error.__context__, chunk)
            return len(data)
        if self._requested_stream:
            self._start_stream(data[stop:])
            return len(data)
        # After parsing: an error within the limit takes precedence, however the head is split (invariant 1).
        if not complete:
            self._send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "", {}, Limit.HEAD_BYTES)
            return len(data)
        return stop

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["client_slot"] = self.client_slot
        # The timer of the first head has been running since the connection was made.
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head.end()
        self._cancel_head_timer()
        self._requested_upgrade = find_upgrade(self.parser.get_http_version(), self.headers)
        method = self.parser.get_method()
        stream = self._stream_protocol is not None and is_stream(method, self.url)
        self._charge(self._decoded_headers(), hand_over=stream or self._requested_upgrade is not None)
        self._check_head()
        pending = self._responses.in_progress()
        upgrade = self.parser.should_upgrade() and self._should_upgrade()
        if pending and (upgrade or stream):
            # They take over the socket, so the pending response would not notice its close.
            what = "upgrade" if upgrade else "stream"
            raise HeadError(400, f"{what} request while a response is pending; wait for the response")
        if stream and not upgrade:
            self._requested_stream = True
            return
        # uvicorn creates a new cycle for each request, but none for an upgrade.
        previous = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not previous:
            self._responses.add(self.cycle)
            self._last = not self.cycle.keep_alive
        # Not cancelled when the response is complete: the next head replaces it, and without a next head
        # uvicorn's keep-alive timeout closes the connection earlier. Heads that are pipelined must not give a
        # client that does not read more time.
        if self._response_timer is None or not pending:
            self._cancel_timer()
            self._response_timer = self.loop.call_later(RESPONSE_TIMEOUT, self.abort)

    def on_message_complete(self) -> None:
        if not self._requested_stream:  # uvicorn has no response to it
            super().on_message_complete()

    def _charge(self, headers: Headers, *, hand_over: bool = False) -> None:
        """Charge the request to its client, and abort it if that exceeds a limit."""
        if self.client_slot is not None:
            self._charges.charge(self.client_slot, socket_peer(self.transport), headers, upgrade=hand_over)

    def _decoded_headers(self) -> Headers:
        return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers]

    def _check_head(self) -> None:
        """Reject requests that no resource of this server can serve."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        self.url = check_head(version, method, self.url, self.headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise HeadError(400, f"more than {MAX_PIPELINED} pipelined requests; wait for responses")

    # Upgrades and streams.

    def _get_upgrade(self) -> bytes | None:
        """Return ``websocket`` if the request head asks for that upgrade, or None."""
        return self._requested_upgrade

    def _upgrade(self, early: bytes) -> None:
        """Hand the socket over to a WebSocket, with the bytes received after the request."""
        factory: Any = self.ws_protocol_class
        protocol = factory(config=self.config, server_state=self.server_state, app_state=self.app_state)
        self._prepare_hand_over()
        protocol.connection_made(self.transport)
        protocol.handshake(
            self.url.decode("ascii"),
            handshake_headers(self.headers),
            self.parser.get_method().decode("ascii"),
        )
        self._finish_hand_over(protocol, early)

    def _start_stream(self, early: bytes) -> None:
        """Hand the socket over to a stream, with the bytes received after the request."""
        assert self._stream_protocol is not None
        protocol = self._stream_protocol()
        self._prepare_hand_over()
        protocol.connection_made(self.transport)
        protocol.answer_head(
            self.url.decode("ascii"),
            [(name, value.strip(" \t")) for name, value in self._decoded_headers()],
            self.parser.get_method().decode("ascii"),
            self.parser.get_http_version(),
        )
        self._finish_hand_over(protocol, early)

    def _prepare_hand_over(self) -> None:
        self._cancel_timer()
        # uvicorn's shutdown would close this socket; a session gets its ``bye`` from the drain.
        self.connections.discard(self)

    def _finish_hand_over(self, protocol: Any, early: bytes) -> None:
        # The parser and this protocol form a reference cycle, which only the garbage collector would break.
        self.parser = None  # type: ignore[assignment]
        if early and not self.transport.is_closing():
            protocol.data_received(early)

    # Closing.

    def send_400_response(self, msg: str) -> None:
        """Send the JSON error of an invalid request; uvicorn calls this after a parser error."""
        self._reject(NOT_HTTP, b"")

    def _reject(self, error: BaseException | None, chunk: bytes) -> None:
        """Answer a head that is rejected, and charge its client, also if the head could not be parsed."""
        unknown = self.client_slot is not None and self._charges.is_client_unknown(self.client_slot)
        try:
            # Only a complete head: the last address in an incomplete one may be the client's invention.
            if unknown and self._head.is_whole(chunk):
                self._charge(split_head(chunk))
        except LimitExceeded as exceeded:
            error = exceeded
        if isinstance(error, LimitExceeded):
            names = b"".join(b"\r\n%b:" % name for name, _ in self.headers)
            self._send_last(limit_response(error.limit, b"GET %b %b" % (self.url, names)))
            return
        head_error = error if isinstance(error, HeadError) else NOT_HTTP
        self._send_error(head_error.status, head_error.message, head_error.headers)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._leave_server()

    def shutdown(self) -> None:
        super().shutdown()
        self._leave_server()

    def _leave_server(self) -> None:
        """Unregister a closing connection, so that a shutdown does not wait for the client's side."""
        if self.transport.is_closing():
            self.connections.discard(self)

    def abort(self) -> None:
        """Close the connection immediately."""
        self._cancel_timer()
        self._cancel_responses()
        self.transport.abort()

    def _expect_head(self) -> None:
        self._cancel_head_timer()
        self._in_head = True
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self._on_head_timeout)

    def _cancel_responses(self) -> None:
        """Stop all responses in progress."""
        self._responses.cancel()
        self.pipeline.clear()

    def _cancel_timer(self) -> None:
        self._cancel_head_timer()
        if self._response_timer is not None:
            self._response_timer.cancel()
            self._response_timer = None

    def _cancel_head_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_head_timeout(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._send_error(HTTPStatus.REQUEST_TIMEOUT, "", {}, Limit.HEAD_TIME)

    def _send_error(
        self, status: int, message: str, headers: Mapping[str, str], limit: Limit | None = None
    ) -> None:
        extra = dict(headers)
        if status == HTTPStatus.BAD_REQUEST and self.headers and header_tokens(self.headers, b"upgrade"):
            extra["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
        self._send_last(closing_response(status, message, extra))
        if self.acceptor is not None and limit is not None and self.client_slot is not None:
            self.acceptor.admission.reject(limit, self.client_slot.address)
        self._record_fault()

    def _send_last(self, response: bytes) -> None:
        """Send a response and close the connection."""
        self.transport.write(response)
        self._cancel_responses()
        self._cancel_timer()
        self.transport.close()
        self._leave_server()
        # A client that does not read earlier responses could otherwise hold the socket indefinitely.
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self.abort)

    def _record_fault(self) -> None:
        if self.client_slot is not None:
            self._charges.record_fault(self.client_slot)
