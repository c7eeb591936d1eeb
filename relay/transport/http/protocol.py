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
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

import httptools
import orjson
from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.transport.acceptor import LIMIT_RESPONSES, Acceptor, socket_peer
from tickertape.relay.transport.http.request_head import (
    NOT_HTTP,
    HeadError,
    RequestLine,
    check_head,
    find_upgrade,
    header_tokens,
    split_head,
)
from tickertape.relay.transport.http.responses import WEBSOCKET_VERSION, http_error_body
from tickertape.relay.transport.lingering_close import LingeringTransport
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request head; uvicorn itself has no timeout."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Maximum bytes of a request head; uvicorn's parser has no limit."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds from a request head to the end of its response, and of those that are pipelined behind it, however
slowly a client reads: 4 MiB at 70 KB/s."""

MAX_PIPELINED: Final = 16
"""Maximum requests on one socket that wait for earlier responses; one read can contain ten thousand."""

_BLANK_LINE: Final = b"\r\n\r\n"


class _LimitExceeded(ValueError):
    """Error of a request that exceeds a limit of its client, or of the relay."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.limit = limit


class GuardedHttp(HttpToolsProtocol):
    """HTTP protocol of one socket.

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
    _head_bytes = 0  # bytes since the end of the previous head
    _requested_upgrade: bytes | None = None  # protocol that the head asks to upgrade to
    _tail = b""  # last bytes of the head so far: a blank line may be split across reads
    _client: str | None = None  # address that a trusted proxy reports for the request; None until it is known

    def __init__(self, *args: Any, acceptor: Acceptor | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.acceptor = acceptor
        self._responses: deque[RequestResponseCycle] = deque()  # in progress, in request order
        self._line = RequestLine()

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
        end = self._head_end(data, offset)
        stop = min(end, offset + MAX_HEAD_BYTES - self._head_bytes)
        # The parser stores whatever it is fed, so it is never fed more than the limit.
        chunk = data[offset:stop]
        if self._head_bytes == 0:
            self._client = None
        self._head_bytes += len(chunk)
        self._tail = b"" if chunk.endswith(_BLANK_LINE) else (self._tail + chunk)[-len(_BLANK_LINE) + 1 :]
        if not self._line.is_valid_after(chunk):
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
        # After parsing: an error within the limit takes precedence, however the head is split (invariant 1).
        if stop < end:
            self._send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "", {}, Limit.HEAD_BYTES)
            return len(data)
        return stop

    def _head_end(self, data: bytes, offset: int) -> int:
        """Return the offset after the next blank line, or the length of the data."""
        if offset == 0 and self._tail:
            # Only the first head of a read can have begun in an earlier one.
            position = (self._tail + data[: len(_BLANK_LINE) - 1]).find(_BLANK_LINE)
            if position >= 0:
                return position + len(_BLANK_LINE) - len(self._tail)
        position = data.find(_BLANK_LINE, offset)
        return len(data) if position < 0 else position + len(_BLANK_LINE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["client_slot"] = self.client_slot
        # The timer of the first head has been running since the connection was made.
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._line = RequestLine()
        self._cancel_head_timer()
        self._requested_upgrade = find_upgrade(self.parser.get_http_version(), self.headers)
        self._charge([(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.headers])
        self._check_head()
        while self._responses and self._responses[0].response_complete:
            self._responses.popleft()
        if self._responses and self.parser.should_upgrade() and self._should_upgrade():
            # The upgrade would take over the socket, so the pending response would not notice its close.
            raise HeadError(400, "upgrade request while a response is pending; wait for the response")
        # uvicorn creates a new cycle for each request, but none for an upgrade.
        previous, pending = self.cycle, bool(self._responses)
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not previous:
            self._responses.append(self.cycle)
            self._last = not self.cycle.keep_alive
        # Not cancelled when the response is complete: the next head replaces it, and without a next head
        # uvicorn's keep-alive timeout closes the connection earlier. Heads that are pipelined must not give a
        # client that does not read more time.
        if self._response_timer is None or not pending:
            self._cancel_timer()
            self._response_timer = self.loop.call_later(RESPONSE_TIMEOUT, self.abort)

    def _charge(self, headers: Headers) -> None:
        """Charge the request to its client, and abort it if that exceeds a limit."""
        client_slot, acceptor = self.client_slot, self.acceptor
        if client_slot is None or acceptor is None:
            return
        if not client_slot.relayed:
            # A handshake is charged with the socket of its client, which it takes over.
            limit = None if self._requested_upgrade else acceptor.admit_request(client_slot)
        else:
            self._client = acceptor.request_auth.client_address(socket_peer(self.transport), headers)
            limit = acceptor.admit_request(client_slot, self._client)
        # A browser learns in the WebSocket, from ``handshake.decide``, that it has too many connections.
        if limit is not None and not (self._requested_upgrade and limit is Limit.ADDRESS_CONNECTIONS):
            raise _LimitExceeded(limit)

    def _check_head(self) -> None:
        """Reject requests that no resource of this server can serve."""
        version, method = self.parser.get_http_version(), self.parser.get_method()
        self.url = check_head(version, method, self.url, self.headers)
        if len(self.pipeline) >= MAX_PIPELINED:
            raise HeadError(400, f"more than {MAX_PIPELINED} pipelined requests; wait for responses")

    # Upgrades.

    def _get_upgrade(self) -> bytes | None:
        """Return ``websocket`` if the request head asks for that upgrade, or None."""
        return self._requested_upgrade

    def _upgrade(self, early: bytes) -> None:
        """Hand the socket over to a WebSocket, with the bytes received after the request."""
        self._cancel_timer()
        # uvicorn's shutdown would close this socket; a WebSocket gets its ``bye`` from the drain.
        self.connections.discard(self)
        # These headers are already validated; the WebSocket protocol needs only these values.
        hop_by_hop = {"connection": "Upgrade", "upgrade": "websocket"}
        headers = [
            (name.decode("ascii"), value.strip(b" \t").decode("latin-1"))
            for name, value in self.headers
            if name.decode("ascii") not in hop_by_hop
        ]
        factory: Any = self.ws_protocol_class
        protocol = factory(config=self.config, server_state=self.server_state, app_state=self.app_state)
        protocol.connection_made(self.transport)
        protocol.handshake(
            self.url.decode("ascii"),
            [*headers, *hop_by_hop.items()],
            self.parser.get_method().decode("ascii"),
        )
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
        unknown = self._client is None and self.client_slot is not None and self.client_slot.relayed
        # Only a complete head: the last address in an incomplete one may be the client's invention.
        complete = self._head_bytes == len(chunk) and chunk.endswith(_BLANK_LINE)
        try:
            if unknown and complete:
                self._charge(split_head(chunk))
        except _LimitExceeded as exceeded:
            error = exceeded
        if isinstance(error, _LimitExceeded):
            self._send_last(LIMIT_RESPONSES[error.limit])
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
        """Stop all responses in progress.

        uvicorn notifies only the last one, and only when the connection is lost; the others would write to a
        closed transport, and each such write logs a long traceback.
        """
        for response in self._responses:
            response.disconnected = True
            response.message_event.set()
        self._responses.clear()
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
        phrase = HTTPStatus(status).phrase
        body = orjson.dumps(http_error_body(status, message or phrase.lower()))
        extra = dict(headers)
        if status == HTTPStatus.BAD_REQUEST and self.headers and header_tokens(self.headers, b"upgrade"):
            extra["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
        lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
        self._send_last(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
            b"cache-control: no-store\r\nconnection: close\r\n\r\n%b"
            % (status, phrase.encode(), len(body), lines.encode(), body)
        )
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
        client_slot = self.client_slot
        if client_slot is not None and self.acceptor is not None:
            # The slot of a proxy's socket may still have the address of the previous request's client.
            address = self._client if client_slot.relayed else client_slot.address
            if address is not None:
                self.acceptor.admission.penalize(address, self.acceptor.clock())
