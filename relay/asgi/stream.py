"""HTTP stream of a mounted feed: a session over ASGI's ``send``; the host's server divides it into chunks.

As for a WebSocket (``connection.py``), each client has a task and a bounded outbox.

Invariants:

1. The outbox is bounded: a client whose socket is full is paused, and keeps only a cursor into the log.
2. What is queued before ``close`` is sent before the end of the body; a client that does not read it in time
   is disconnected.
3. Every admitted client is released once; every connection that was counted as opened is counted as closed.
4. An exception ends this connection, and nothing else; it never reaches the host.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.asgi.connection import BURST_HIGH
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Limit
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.session import Session, close_code
from tickertape.relay.transport import handshake
from tickertape.relay.transport.accounting import Accounting
from tickertape.relay.transport.backpressure import BUFFER_HIGH, BUFFER_LOW, ReadProgress
from tickertape.relay.transport.connections import CLOSE_TIMEOUT, Connections
from tickertape.relay.transport.handshake import Decision
from tickertape.relay.transport.http.responses import (
    SECURITY_HEADERS,
    error_response,
    request_headers,
    request_peer,
)
from tickertape.relay.transport.http_stream.connection import MAX_RETRY_MS, MIN_RETRY_MS
from tickertape.relay.transport.http_stream.request import StreamRequest, is_final_resume, stream_headers

from tickertape.process.tasks import Tasks, race

log = logging.getLogger("tickertape.asgi")


class AsgiStream:
    """Connection of one client of a stream, and the ``Link`` of its session.

    Args:
        connections: connections of the feed.
        path: path below the mount point, one of ``STREAMS``.
        scope, receive, send: ASGI arguments.
    """

    def __init__(
        self, connections: Connections, path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.ping_slot = -1
        query = scope["query_string"].decode("latin-1")
        self._request = StreamRequest.parse(
            f"{path}?{query}", request_headers(scope), scope["method"], scope.get("http_version", "1.1")
        )
        self.transport_name = self._request.kind.transport
        self.encoding = self._request.select_encoding(chunked=False)
        self._connections = connections
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session: Session | None = None
        self._accounting = Accounting(connections)
        self._outbox: deque[bytes] = deque()
        self._unsent = 0  # bytes in the outbox and in the current send
        self._wake = asyncio.Event()
        self._sending = False
        self._paused = False
        self._accepted = 0  # bytes that the server has accepted
        self._progress = ReadProgress()
        self._closing = False
        self._code = 1006  # close code if the client disconnects
        self._timeout: asyncio.Timeout | None = None  # set while the connection is served

    def __repr__(self) -> str:
        return f"AsgiStream({self._session!r}, {self._unsent} bytes unsent)"

    async def serve(self) -> None:
        """Answer the request, and serve the stream until it ends."""
        headers, peer = self._request.headers, request_peer(self._scope)
        admitted = self._connections.accept(peer, headers, self)
        if isinstance(admitted, Limit):
            code = ErrorCode.UNAVAILABLE if admitted in SERVER_LIMITS else ErrorCode.TOO_MANY
            await self._reject(ProtocolError(code, "too many connections; retry later"))
            return
        self._accounting.client_slot = admitted
        try:
            await self._answer(peer)
        except OSError:
            log.debug("client disconnected before its request was answered")
        except Exception as error:
            self._fail(error)
        finally:
            session, self._session = self._session, None
            self._accounting.settle(self, session, self._code, lambda: self._accepted)

    @property
    def sent(self) -> bool:
        """Whether the host's server has accepted everything."""
        return self._unsent == 0

    # From the session.

    def send(self, data: bytes) -> None:
        """Append data to the outbox."""
        # Not rejected when full: a paused session receives no further events, so one batch is the excess.
        self._outbox.append(data)
        self._unsent += len(data)
        self._wake.set()
        self._pause_if_full()

    def admit(self, grant: Grant) -> bool:
        """Bind the client to its token's subject; return False if the subject is at its connection limit."""
        return self._accounting.admit(self._session, grant)

    def close(self, code: int, reason: str) -> None:
        """End the body once the outbox is sent, at the latest after ``CLOSE_TIMEOUT``."""
        self._accounting.record_close(self._session, code)
        if not self._closing:
            self._closing, self._code, self._session = True, code, None
            self._wake.set()
            self._abort_after(CLOSE_TIMEOUT)

    def abort(self) -> None:
        """End the connection immediately; the server sees an incomplete response, and closes the socket."""
        self._abort_after(0.0)

    def ping(self) -> None:
        """Send what clients ignore; close the session if the client has read nothing that waits."""
        if not self._sending:
            self._progress.record_read()
        expired = self._progress.end_interval(self._accepted, waiting=self._sending)
        if self._session is None:
            return
        if expired:
            self._connections.hub.sessions.close(self._session, CloseCode.TIMEOUT, "the client does not read")
        elif not self._paused and (keepalive := self.encoding.keepalive()):
            self.send(keepalive)

    # Internals.

    def _fail(self, error: Exception) -> None:
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
        else:
            self._connections.record_request_error("a request for a stream", error)

    async def _answer(self, peer: str) -> None:
        request, connections = self._request, self._connections
        decision = handshake.decide(
            connections,
            self._accounting.client_slot,
            peer,
            request.headers,
            request.query,
            secure=self._scope["scheme"] == "https",
            read_offer=request.read_offer,
        )
        error = decision.rejection
        if error is not None and (not decision.after_upgrade or is_final_resume(request, error)):
            if decision.after_upgrade:
                self._accounting.record_fault()
            await self._reject(error)
            return
        await self._start(stream_headers(self.encoding))
        if request.head_only:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        retry_ms = random.randint(MIN_RETRY_MS, MAX_RETRY_MS)  # noqa: S311 - jitter, not cryptography
        self.send(self.encoding.begin(retry_ms))
        connections.add(self)
        try:
            # A timeout without a deadline: ``_abort_after`` sets one, whatever the tasks wait for.
            async with asyncio.timeout(None) as self._timeout, Tasks() as tasks:
                writer = tasks.start(self._write(), "tickertape-stream")
                self._open(decision, peer)
                await race(writer, self._read())
        except TimeoutError:
            log.debug("%r did not read the end of the stream in time, or was aborted", self)
        finally:
            self._timeout = None

    def _open(self, decision: Decision, peer: str) -> None:
        connections, request = self._connections, self._request
        if decision.rejection is not None:
            # The browser would give up after any other status.
            connections.handshake_results["rejected"] += 1
            code = close_code(decision.rejection)
            connections.hub.sessions.reject_link(self, decision.rejection, code)
            return
        self._accounting.record_open()
        session = self._accounting.open_session(self, decision, request.kind.transport, peer, request.headers)
        # Opening it may have rejected it, after which it has to stay unassigned.
        if not self._closing:
            self._session = session
            self._pause_if_full()  # the snapshot was queued before the session was assigned

    async def _start(self, headers: Mapping[str, str]) -> None:
        common = self._request.response_headers(self._connections.request_auth)
        lines = [
            (name.lower().encode(), value.encode("latin-1")) for name, value in {**common, **headers}.items()
        ]
        await self._send(
            {"type": "http.response.start", "status": 200, "headers": [*lines, *SECURITY_HEADERS]}
        )

    async def _reject(self, error: ProtocolError) -> None:
        self._connections.handshake_results["rejected"] += 1
        final = is_final_resume(self._request, error)
        response = Response(status_code=204) if final else error_response(error)
        response.headers.update(self._request.response_headers(self._connections.request_auth))
        for name, value in SECURITY_HEADERS:
            response.headers[name.decode()] = value.decode()
        await response(self._scope, self._receive, self._send)

    async def _read(self) -> None:
        """Wait until the client disconnects."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _write(self) -> None:
        """Send the outbox as fast as the server accepts it, then end the body."""
        try:
            while not self._closing or self._outbox:
                await self._wake.wait()
                self._wake.clear()
                await self._send_outbox()
            await self._put(self.encoding.end(), more=False)
        except OSError as error:
            log.debug("%r disconnected: %s", self, error)
        except Exception as error:
            # Without the end of its body, the client notices that something is missing.
            self._fail(error)

    async def _send_outbox(self) -> None:
        self._sending = True
        while self._outbox:
            data = self._outbox.popleft()
            await self._put(data, more=True)
            self._accepted += len(data)
            # Only after the entire batch: a batch in progress is memory, too.
            self._unsent -= len(data)
            if self._unsent <= BUFFER_LOW and self._paused:
                self._paused = False
                if self._session is not None:
                    self._connections.hub.sessions.resume(self._session)
        self._sending = False

    async def _put(self, data: bytes, *, more: bool) -> None:
        try:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except RuntimeError as error:
            # Some servers raise this for a connection that they have closed; ASGI specifies an OSError.
            raise ConnectionError(str(error)) from error

    def _pause_if_full(self) -> None:
        # A send in progress means that the client is waiting for its socket.
        high = BUFFER_HIGH if self._sending else BURST_HIGH
        if self._unsent > high and not self._paused and self._session is not None:
            self._paused = True
            self._connections.hub.sessions.pause(self._session)

    def _abort_after(self, seconds: float) -> None:
        timeout = self._timeout
        # An expired timeout cannot be rescheduled: that raises RuntimeError.
        if timeout is not None and not timeout.expired():
            timeout.reschedule(asyncio.get_running_loop().time() + seconds)
