"""uvicorn's HTTP protocol with limits: one set of rules for every request head, on every path.

Invariants:

1. A head gets the same response however it is split into reads, on every port and path, also before an
   upgrade.
2. A head is limited to ``MAX_HEAD_BYTES`` and ``HEAD_TIMEOUT``; no request has a body.
3. Every error is JSON with ``code`` and ``message``, and closes the connection.
4. A response that closes the connection reaches its client, whatever the client sends after its request.
"""

import asyncio
import re
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NoReturn

import httptools
import orjson
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.http_responses import WEBSOCKET_VERSION, http_error_body
from tickertape.relay.transport.lingering_close import LingeringTransport
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request head; uvicorn itself has no timeout."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Maximum bytes of a request head; uvicorn's parser has no limit."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds from a request head to the end of its response, however slowly a client reads: 4 MiB at 70 KB/s."""

MAX_PIPELINED: Final = 16
"""Maximum requests on one socket that wait for earlier responses; one read can contain ten thousand."""

_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")
_ALLOW: Final = {"Allow": "GET, HEAD"}
_VERSIONS: Final = ("1.0", "1.1")
_BLANK_LINE: Final = b"\r\n\r\n"
_ABSOLUTE_TARGET: Final = re.compile(rb"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


class GuardedHttp(HttpToolsProtocol):
    """HTTP protocol of one socket.

    Attributes:
        client_slot: slot of the connection; None on the ops port, and after a WebSocket upgrade.
        acceptor: acceptor of the connection; None on the ops port.
        wire: transport of the socket below TLS; None if there is no acceptor.
    """

    client_slot: ClientSlot | None = None
    wire: asyncio.Transport | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _last = False  # set once a request asks to close the connection after its response
    _head_bytes = 0  # bytes since the end of the previous head
    _requested_upgrade: bytes | None = None  # protocol that the head asks to upgrade to
    _tail = b""  # last bytes of the head so far: a blank line may be split across reads
    _error: tuple[int, str, Mapping[str, str]] = (400, "not an HTTP request", {})

    def __init__(self, *args: Any, acceptor: Acceptor | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.acceptor = acceptor
        self._responses: deque[RequestResponseCycle] = deque()  # in progress, in request order

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
        self._head_bytes += len(chunk)
        self._tail = b"" if chunk.endswith(_BLANK_LINE) else (self._tail + chunk)[-len(_BLANK_LINE) + 1 :]
        try:
            self.parser.feed_data(chunk)
        except httptools.HttpParserUpgrade as upgrade:
            offset += upgrade.args[0]
            if not self._should_upgrade():
                return offset  # unsupported protocol: handled as an ordinary request (RFC 9110, 7.8)
            self._upgrade(data[offset:])
            return len(data)
        except httptools.HttpParserError:
            # Also for an error that ``_fail`` raises in a callback: httptools wraps it.
            self.send_400_response("")
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
        self._cancel_timer()
        self._check_head()
        while self._responses and self._responses[0].response_complete:
            self._responses.popleft()
        if self._responses and self.parser.should_upgrade() and self._should_upgrade():
            # The upgrade would take over the socket, so the pending response would not notice its close.
            self._fail(400, "upgrade request while a response is pending; wait for the response")
        # uvicorn creates a new cycle for each request, but none for an upgrade.
        previous = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not previous:
            self._responses.append(self.cycle)
            self._last = not self.cycle.keep_alive
        # Not cancelled when the response is complete: the next head replaces it, and without a next head
        # uvicorn's keep-alive timeout closes the connection earlier.
        self._timer = self.loop.call_later(RESPONSE_TIMEOUT, self.abort)

    def _check_head(self) -> None:
        """Reject requests that no resource of this server can serve."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._fail(505, "unsupported HTTP version; use HTTP/1.1")
        if self.parser.get_method() not in _METHODS:
            self._fail(405, "method not allowed; use GET", _ALLOW)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._fail(400, f"more than {MAX_PIPELINED} pipelined requests; wait for responses")
        for name, value in self.headers:
            # No resource accepts a body, and a disagreement with a proxy about its end allows request
            # smuggling.
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0")):
                self._fail(400, "request bodies are not accepted")
        hosts = [value.strip(b" \t") for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            self._fail(400, f"{len(hosts) or 'no'} Host headers; send exactly one")
        self._check_target(hosts[0] if hosts else None)
        self._requested_upgrade = self._find_upgrade(version)

    def _check_target(self, host: bytes | None) -> None:
        """Reduce the target to path and query (RFC 9112, 3.2)."""
        if not self.url.isascii() or b"#" in self.url:
            self._fail(400, "invalid request target; remove the fragment and percent-encode non-ASCII bytes")
        if self.url.startswith(b"/"):
            return
        absolute = _ABSOLUTE_TARGET.fullmatch(self.url)
        if absolute is None:
            self._fail(400, "invalid request target; send a path or an http:// or https:// URL")
        scheme, authority, rest = absolute.groups()
        port = _DEFAULT_PORTS[scheme.lower()]
        if not authority or (
            host is not None and authority.lower().removesuffix(port) != host.lower().removesuffix(port)
        ):
            # The host of the target would take precedence, but origins are checked against the Host header.
            self._fail(400, "the host of the request target differs from the Host header")
        self.url = rest if rest.startswith(b"/") else b"/" + rest

    # Upgrades.

    def _get_upgrade(self) -> bytes | None:
        """Return ``websocket`` if the request head asks for that upgrade, or None."""
        return self._requested_upgrade

    def _find_upgrade(self, version: str) -> bytes | None:
        """Return the requested upgrade, which may be spread over several header lines."""
        if version != "1.1" or b"upgrade" not in self._header_tokens(b"connection"):
            return None  # RFC 9110, 7.8
        return b"websocket" if b"websocket" in self._header_tokens(b"upgrade") else None

    def _header_tokens(self, name: bytes) -> set[bytes]:
        values = (value for header, value in self.headers if header == name)
        return {part.strip(b" \t").lower() for value in values for part in value.split(b",")}

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
        status, message, headers = self._error
        self._send_error(status, message, headers)

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
        self._cancel_timer()
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_head_timeout(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._send_error(HTTPStatus.REQUEST_TIMEOUT, "", {}, Limit.HEAD_TIME)

    def _fail(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> NoReturn:
        """Abort parsing with an error, which ``send_400_response`` sends."""
        self._error = (status, message, headers or {})
        raise ValueError(message)

    def _send_error(
        self, status: int, message: str, headers: Mapping[str, str], limit: Limit | None = None
    ) -> None:
        phrase = HTTPStatus(status).phrase
        body = orjson.dumps(http_error_body(status, message or phrase.lower()))
        extra = dict(headers)
        if status == HTTPStatus.BAD_REQUEST and self.headers and self._header_tokens(b"upgrade"):
            extra["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
        lines = "".join(f"{name}: {value}\r\n" for name, value in extra.items())
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
            b"connection: close\r\n\r\n%b" % (status, phrase.encode(), len(body), lines.encode(), body)
        )
        self._cancel_responses()
        self._cancel_timer()
        self.transport.close()
        self._leave_server()
        # A client that does not read earlier responses could otherwise hold the socket indefinitely.
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self.abort)
        if self.acceptor is not None and limit is not None:
            self.acceptor.admission.rejected[limit] += 1
        self._record_fault()

    def _record_fault(self) -> None:
        if self.client_slot is not None and self.acceptor is not None:
            self.acceptor.admission.penalize(self.client_slot.address, self.acceptor.clock())
