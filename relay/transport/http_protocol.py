"""uvicorn's HTTP protocol with bounds: one set of rules for every request head, on every path.

Invariants:

1. A head gets the same answer however it is cut into reads, on every port and path, also before an upgrade.
2. A head has at most ``MAX_HEAD_BYTES`` and ``HEAD_TIMEOUT``; no request has a body.
3. Every refusal is JSON with ``code`` and ``message``, and ends the connection.
4. An answer that ends the connection reaches its client whatever the client sends behind its request.
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
from tickertape.relay.transport.http_errors import WEBSOCKET_VERSION, http_error_body
from tickertape.relay.transport.lingering_close import LingeringTransport
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request's head; uvicorn itself waits without end."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head; uvicorn's parser has no limit."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds from a request's head to the end of its answer, however slowly a client reads: 4 MiB at 70 KB/s."""

MAX_PIPELINED: Final = 16
"""Requests that may wait on one socket for the answer to the one before; one read can hold ten thousand."""

_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")
_ALLOW: Final = {"Allow": "GET, HEAD"}
_VERSIONS: Final = ("1.0", "1.1")
_BLANK_LINE: Final = b"\r\n\r\n"
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}


class GuardedHttp(HttpToolsProtocol):
    """A socket's requests.

    Attributes:
        client_slot: who it is counted as; None on the ops port, and once a WebSocket has taken over.
        acceptor: that the client came through.
        wire: transport of the socket below TLS; None without TLS.
    """

    client_slot: ClientSlot | None = None
    wire: asyncio.Transport | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _last = False  # once a request asked to close the connection after its answer
    _head_bytes = 0  # since the end of the head before
    _wanted: bytes | None = None  # what the head asks to upgrade to
    _tail = b""  # last bytes of them: a blank line may come in pieces
    _why: tuple[int, str, Mapping[str, str]] = (400, "not an HTTP request", {})

    def __init__(self, *args: Any, acceptor: Acceptor | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.acceptor = acceptor
        self._answers: deque[RequestResponseCycle] = deque()  # under way, in the order of their requests

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(LingeringTransport(transport, self.wire or transport))
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._give_up_answers()
        if self.client_slot is not None and self.acceptor is not None:
            if self._in_head and self.cycle is None:
                self._fault()  # it never asked for anything
            self.acceptor.admission.release(self.client_slot)
            self.client_slot = None
        super().connection_lost(exc)

    # Reading.

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        place = 0
        # An upgrade gives the parser away, and hands on what is left itself.
        while place < len(data) and self.parser is not None and not self.transport.is_closing():
            if self._last:
                # No request (RFC 9112, 9.6); it is dropped once the answer is written.
                self.transport.pause_reading()
                return
            place = self._read_head(data, place)

    def _read_head(self, data: bytes, place: int) -> int:
        """Parse to the end of a head, or of the data; return the place behind it."""
        end = self._head_end(data, place)
        cut = min(end, place + MAX_HEAD_BYTES - self._head_bytes)
        piece = data[place:cut]
        self._head_bytes += len(piece)
        self._tail = b"" if piece.endswith(_BLANK_LINE) else (self._tail + piece)[-len(_BLANK_LINE) + 1 :]
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            place += upgrade.args[0]
            if not self._should_upgrade():
                return place  # to a protocol that is not spoken here: an ordinary request (RFC 9110, 7.8)
            self._upgrade(data[place:])
            return len(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return len(data)
        if cut < end:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "", {}, Limit.HEAD_BYTES)
            return len(data)
        return cut

    def _head_end(self, data: bytes, place: int) -> int:
        """Return the place behind the next blank line, or the end of the data."""
        if place == 0 and self._tail:
            across = (self._tail + data[: len(_BLANK_LINE) - 1]).find(_BLANK_LINE)
            if across >= 0:
                return across + len(_BLANK_LINE) - len(self._tail)
        found = data.find(_BLANK_LINE, place)
        return len(data) if found < 0 else found + len(_BLANK_LINE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["client_slot"] = self.client_slot
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._disarm()
        self._check_head()
        while self._answers and self._answers[0].response_complete:
            self._answers.popleft()
        if self._answers and self.parser.should_upgrade() and self._should_upgrade():
            # The socket would get another owner, and the answer's task would never hear of its end.
            self._break_off(400, "an upgrade behind a request without an answer; wait for it")
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not before:
            self._answers.append(self.cycle)
            self._last = not self.cycle.keep_alive
        self._timer = self.loop.call_later(RESPONSE_TIMEOUT, self.abort)

    def _check_head(self) -> None:
        """Refuse what is no request for anything here."""
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            self._break_off(505, "HTTP/1.1 is spoken here")
        if self.parser.get_method() not in _METHODS:
            self._break_off(405, "nothing is taken in over HTTP; GET is all there is", _ALLOW)
        if len(self.pipeline) >= MAX_PIPELINED:
            self._break_off(400, f"more than {MAX_PIPELINED} requests at once; wait for answers")
        for name, value in self.headers:
            # Nothing here takes a body, and two who disagree on where one ends is how requests are smuggled.
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0")):
                self._break_off(400, "a request here has no body")
        hosts = [value.strip(b" \t") for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and version != "1.0"):
            self._break_off(400, f"{len(hosts) or 'no'} Host headers; send one")
        self._check_target(hosts[0] if hosts else None)
        self._wanted = self._find_upgrade(version)

    def _check_target(self, host: bytes | None) -> None:
        """Reduce the target to path and query (RFC 9112, 3.2)."""
        if not self.url.isascii() or b"#" in self.url:
            self._break_off(400, "a target has no fragment, and bytes beyond ASCII are percent-encoded")
        if self.url.startswith(b"/"):
            return
        absolute = _ABSOLUTE.fullmatch(self.url)
        if absolute is None:
            self._break_off(400, "the target is neither a path nor an http:// or https:// address")
        scheme, authority, rest = absolute.groups()
        port = _DEFAULT_PORTS[scheme.lower()]
        if not authority or (
            host is not None and authority.lower().removesuffix(port) != host.lower().removesuffix(port)
        ):
            # The name of the target would count, and the one that pages are checked by would not be it.
            self._break_off(400, "the target names another host than the Host header")
        self.url = rest if rest.startswith(b"/") else b"/" + rest

    # Upgrades.

    def _get_upgrade(self) -> bytes | None:
        """Return ``websocket`` when the head asks for that, else None."""
        return self._wanted

    def _find_upgrade(self, version: str) -> bytes | None:
        """Read what a whole head asks for, in however many header lines."""
        if version != "1.1" or b"upgrade" not in self._listed(b"connection"):
            return None  # RFC 9110, 7.8
        return b"websocket" if b"websocket" in self._listed(b"upgrade") else None

    def _listed(self, name: bytes) -> set[bytes]:
        values = (value for own, value in self.headers if own == name)
        return {part.strip(b" \t").lower() for value in values for part in value.split(b",")}

    def _upgrade(self, early: bytes) -> None:
        """Give the socket to a WebSocket, with what came right behind the request."""
        self._disarm()
        self.connections.discard(self)
        hop = {"connection": "Upgrade", "upgrade": "websocket"}  # that these ask for it is known by now
        headers = [
            (name.decode("ascii"), value.strip(b" \t").decode("latin-1"))
            for name, value in self.headers
            if name.decode("ascii") not in hop
        ]
        factory: Any = self.ws_protocol_class
        protocol = factory(config=self.config, server_state=self.server_state, app_state=self.app_state)
        protocol.connection_made(self.transport)
        protocol.handshake(
            self.url.decode("ascii"), [*headers, *hop.items()], self.parser.get_method().decode("ascii")
        )
        # It holds us, and nothing else would end that before the garbage collector comes.
        self.parser = None  # type: ignore[assignment]
        if early and not self.transport.is_closing():
            protocol.data_received(early)

    # Ends.

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or broken off, in the words of all our answers."""
        status, message, headers = self._why
        self._refuse(status, message, headers)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._leave_server()

    def shutdown(self) -> None:
        super().shutdown()
        self._leave_server()

    def _leave_server(self) -> None:
        """Do not let the server wait for a client that has its answer, and only has yet to end its side."""
        if self.transport.is_closing():
            self.connections.discard(self)

    def abort(self) -> None:
        """Cut it."""
        self._disarm()
        self._give_up_answers()
        self.transport.abort()

    def _expect_head(self) -> None:
        self._disarm()
        self._in_head = True
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self._head_late)

    def _give_up_answers(self) -> None:
        """Let nothing more be written by answers that are under way.

        uvicorn tells the last of them only, and not before the connection is lost; the others would write to
        a closed transport, and each of those is a page of traceback in the log.
        """
        for answer in self._answers:
            answer.disconnected = True
            answer.message_event.set()
        self._answers.clear()
        self.pipeline.clear()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "", {}, Limit.HEAD_TIME)

    def _break_off(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> NoReturn:
        """End the parsing; ``send_400_response`` is called then."""
        self._why = (status, message, headers or {})
        raise ValueError(message)

    def _refuse(
        self, status: int, message: str, headers: Mapping[str, str], limit: Limit | None = None
    ) -> None:
        phrase = HTTPStatus(status).phrase
        body = orjson.dumps(http_error_body(status, message or phrase.lower()))
        more = dict(headers)
        if status == HTTPStatus.BAD_REQUEST and self.headers and self._listed(b"upgrade"):
            more["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
        lines = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
            b"connection: close\r\n\r\n%b" % (status, phrase.encode(), len(body), lines.encode(), body)
        )
        self._give_up_answers()
        self._disarm()
        self.transport.close()
        self._leave_server()
        # Who does not read what was written before would hold the socket for as long as it likes.
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self.abort)
        if self.acceptor is not None and limit is not None:
            self.acceptor.admission.rejected[limit] += 1
        self._fault()

    def _fault(self) -> None:
        if self.client_slot is not None and self.acceptor is not None:
            self.acceptor.admission.penalize(self.client_slot.address, self.acceptor.clock())
