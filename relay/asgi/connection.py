"""One client of a mounted feed: a session over ASGI's ``receive`` and ``send``.

ASGI has no write that does not wait, and takes messages, not frames. So each client has a task and a bounded
outbox here, and its server frames, compresses and pings on its own.

Invariants:

1. The outbox is bounded: a client whose socket is full is paused, becomes a cursor in the log, and holds
   nobody up; it goes on when the outbox has room again.
2. What was said before ``close`` goes out before it; a client that does not take it in time is given up.
3. Every client that came in leaves once; every connection that was counted as opened is counted as closed.
4. An exception ends this connection, and nothing else; the host is told of none.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from starlette.types import Message, Receive, Scope, Send
from tickertape.contracts.close_codes import MAX_REASON_BYTES, CloseCode, ErrorCode
from tickertape.contracts.encode import Outgoing, encode_message
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL, ProtocolError
from tickertape.relay.core.connection_limits import SERVER_LIMITS, ClientSlot, Limit
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.faults import REASON
from tickertape.relay.core.session.session import Session, State, close_code
from tickertape.relay.transport.connections import (
    BUFFER_HIGH,
    BUFFER_LOW,
    CLOSE_TIMEOUT,
    MAX_AUTH_BYTES,
    Connections,
    Decision,
)
from tickertape.relay.transport.http_errors import error_response, request_headers, request_peer
from tickertape.relay.transport.message_rate import MessageRate, max_frames

from tickertape.process.tasks import Tasks
from tickertape.text import truncate

log = logging.getLogger("tickertape.asgi")

BURST_HIGH: Final = 4 * BUFFER_HIGH
"""Bytes that may wait while the server still takes what it is given: all of it goes out within a turn of the
loop, and pausing for every large batch would only cost."""


class TextBatch:
    """Text messages, for a server that frames them itself; their length is in bytes.

    Args:
        texts: in their order, UTF-8.
    """

    __slots__ = ("_size", "texts")

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = [str(text, "utf-8") for text in texts]
        self._size = sum(map(len, texts))

    def __len__(self) -> int:
        return self._size


class TextEncoding:
    """Messages as texts."""

    def encode(self, messages: Sequence[Outgoing]) -> TextBatch:
        """Return the texts of messages, in their order."""
        return TextBatch([encode_message(message).join() for message in messages])


TEXT: Final = TextEncoding()


class AsgiConnection:
    """A connection; also the ``Link`` of its session.

    Args:
        connections: of the feed.
        scope, receive, send: of ASGI.
    """

    encoding = TEXT

    def __init__(self, connections: Connections, scope: Scope, receive: Receive, send: Send) -> None:
        self.ping_slot = -1
        self._connections = connections
        self._scope = scope
        self._receive = receive
        self._send = send
        self._session: Session | None = None
        self._client_slot: ClientSlot | None = None
        self._outbox: deque[TextBatch] = deque()
        self._waiting = 0  # bytes in it, and on their way
        self._wake = asyncio.Event()
        self._sending = False
        self._paused = False
        self._closing: tuple[int, str] | None = None
        self._patience: asyncio.Timeout | None = None  # while it is served
        self._code = 1006
        self._most = MAX_MESSAGE_BYTES
        self._rate = MessageRate()

    def __repr__(self) -> str:
        return f"AsgiConnection({self._session!r}, {self._waiting} bytes wait)"

    async def serve(self) -> None:
        """Serve the connection from its handshake to its end."""
        await self._receive()  # websocket.connect
        connections, address = self._connections, request_peer(self._scope)
        arrived = connections.admission.accept(address, self, connections.clock())
        if isinstance(arrived, Limit):
            code = ErrorCode.UNAVAILABLE if arrived in SERVER_LIMITS else ErrorCode.TOO_MANY
            await self._refuse(ProtocolError(code, "too many connections; try again later"))
            return
        self._client_slot = arrived
        try:
            await self._handshake(address)
        except OSError:
            log.debug("a client left before its handshake was answered")
        except Exception as error:
            self._fault(error)
            await self._end_failed()
        finally:
            session, self._session = self._session, None
            awaiting_auth = session is not None and session.state is State.WAITING
            if session is not None:
                connections.hub.sessions.remove(session)
            connections.release(arrived, awaiting_auth=awaiting_auth)
            if self.ping_slot >= 0:
                connections.discard(self)
                connections.close_counts[self._closing[0] if self._closing is not None else self._code] += 1

    @property
    def sent(self) -> bool:
        """True when all that was written is with the host's server."""
        return self._waiting == 0

    # From the session.

    def send(self, data: TextBatch) -> None:
        """Put messages into the outbox."""
        self._outbox.append(data)
        self._waiting += len(data)
        self._wake.set()
        self._pause_if_full()

    def admit(self, grant: Grant) -> bool:
        """Count it as one of its token's subject; False when that has connections enough."""
        if not self._connections.admit(self._client_slot, grant):
            return False
        self._most = MAX_MESSAGE_BYTES
        return True

    def close(self, code: int, reason: str) -> None:
        """Close the connection when the outbox has gone out; not later than ``CLOSE_TIMEOUT``."""
        session = self._session.id if self._session is not None else ""
        self._connections.record_close(self._client_slot, code, session)
        if self._closing is None:
            self._closing = code, truncate(reason, MAX_REASON_BYTES)
            self._session = None
            self._wake.set()
            self._give_up(CLOSE_TIMEOUT)

    def abort(self) -> None:
        """End it, whatever is still to be said; the server cuts the connection."""
        self._give_up(0.0)

    def ping(self) -> None:
        """ASGI servers ping on their own."""

    # Inside.

    def _fault(self, error: Exception) -> None:
        """End it on an internal error; ``bye`` goes out with the outbox, if anything still does."""
        if self._session is not None:
            self._connections.hub.sessions.fail(self._session, error)
        elif self._closing is None:
            self._connections.record_request_error("a handshake", error)
            self._closing = CloseCode.INTERNAL_ERROR, REASON

    async def _end_failed(self) -> None:
        """Answer what is left without an answer."""
        try:
            if self.ping_slot < 0:
                await reject(
                    ProtocolError(ErrorCode.INTERNAL, REASON), self._scope, self._receive, self._send
                )
            else:
                await self._put(
                    {"type": "websocket.close", "code": CloseCode.INTERNAL_ERROR, "reason": REASON}
                )
        except (OSError, RuntimeError):
            log.debug("%r had been answered or was gone", self)

    async def _handshake(self, address: str) -> None:
        scope, connections = self._scope, self._connections
        headers, query = request_headers(scope), scope["query_string"].decode("latin-1")
        secure = scope["scheme"] == "wss"
        decision = connections.decide(self._client_slot, address, headers, query, secure=secure)
        offered = scope.get("subprotocols") or ()
        refused = decision.rejection
        if refused is None and offered and SUBPROTOCOL not in offered:
            # Without what they are called: one may hold a token.
            message = f"none of the {len(offered)} subprotocols offered is {SUBPROTOCOL}"
            refused = ProtocolError(ErrorCode.BAD_MESSAGE, message)
        if refused is not None and not decision.after_upgrade:
            await self._refuse(refused)
            return
        await self._send(
            {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None}
        )
        connections.add(self)
        if refused is None:
            connections.record_open(self._client_slot)
        else:
            connections.handshake_results["rejected"] += 1
        try:
            async with asyncio.timeout(None) as self._patience, Tasks() as tasks:
                tasks.start(self._write(), "tickertape-client")
                self._open(decision)
                await tasks.until(self._read())
        except TimeoutError:
            log.debug("%r did not take its close in time, or was cut", self)
        finally:
            self._patience = None

    def _open(self, decision: Decision) -> None:
        hub = self._connections.hub
        if decision.rejection is not None:
            # A browser cannot see the status of a failed upgrade, so it is told inside.
            code = close_code(decision.rejection)
            hub.sessions.reject_link(self, decision.rejection, code)
            return
        if decision.grant is None:
            self._most = MAX_AUTH_BYTES
        session = hub.sessions.open(
            self, decision.request, self._connections.clock(), decision.grant, decision.filter
        )
        if self._closing is None:
            self._session = session
            self._pause_if_full()  # the snapshot came before there was a session to tell

    async def _refuse(self, error: ProtocolError) -> None:
        self._connections.handshake_results["rejected"] += 1
        await reject(error, self._scope, self._receive, self._send)

    async def _read(self) -> None:
        """Hand on what the client says, until it is gone."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._code = message.get("code") or 1005
                return
            session = self._session
            if session is None:
                continue  # it is on its way out
            try:
                self._handle_message(session, message)
            except Exception as error:
                self._connections.hub.sessions.fail(session, error)

    def _handle_message(self, session: Session, message: Message) -> None:
        connections, text = self._connections, message.get("text")
        data = message.get("bytes") or b"" if text is None else text.encode()
        now = connections.clock()
        self._rate.record_message(now, len(data))
        allowed = max_frames(connections.message_rate, authenticated=session.state is not State.WAITING)
        if self._rate.frames > allowed:
            connections.admission.rejected[Limit.MESSAGE_RATE] += 1
            reason = f"more than {allowed} messages in a second"
            connections.hub.sessions.close(session, CloseCode.TOO_MANY, reason, 1_000)
        elif text is None:
            connections.hub.sessions.close(session, CloseCode.UNSUPPORTED_DATA, "text messages only")
        elif len(data) > self._most:
            reason = f"a message of {len(data)} bytes; at most {self._most}"
            connections.hub.sessions.close(session, CloseCode.MESSAGE_TOO_BIG, reason)
        else:
            connections.hub.sessions.receive(session, data, now)

    async def _write(self) -> None:
        """Send what is in the outbox, as fast as the server takes it."""
        try:
            try:
                while self._closing is None or self._outbox:
                    await self._wake.wait()
                    self._wake.clear()
                    await self._send_outbox()
            except OSError:
                raise
            except Exception as error:
                self._fault(error)
                self._outbox.clear()
            code, reason = self._closing or (CloseCode.INTERNAL_ERROR, REASON)
            await self._put({"type": "websocket.close", "code": code, "reason": reason})
        except OSError as error:
            log.debug("%r is gone: %s", self, error)
            self.abort()

    async def _send_outbox(self) -> None:
        self._sending = True
        while self._outbox:
            data = self._outbox.popleft()
            for text in data.texts:
                await self._put({"type": "websocket.send", "text": text})
            self._waiting -= len(data)
            if self._paused and self._waiting <= BUFFER_LOW:
                self._paused = False
                if self._session is not None:
                    self._connections.hub.sessions.resume(self._session)
        self._sending = False

    async def _put(self, message: Message) -> None:
        try:
            await self._send(message)
        except RuntimeError as error:
            # What some servers say of a connection that they closed; in ASGI's own words it is an OSError.
            raise ConnectionError(str(error)) from error

    def _pause_if_full(self) -> None:
        # Whoever is met in the middle of a send waits for its socket.
        high = BUFFER_HIGH if self._sending else BURST_HIGH
        if self._waiting > high and not self._paused and self._session is not None:
            self._paused = True
            self._connections.hub.sessions.pause(self._session)

    def _give_up(self, after: float) -> None:
        patience = self._patience
        if patience is not None and not patience.expired():
            patience.reschedule(asyncio.get_running_loop().time() + after)


async def reject(
    error: ProtocolError, scope: Scope, receive: Receive, send: Send, status: int | None = None
) -> None:
    """Refuse a request, or a handshake that was not accepted, as well as the server can.

    Args:
        error: why.
        scope, receive, send: of ASGI.
        status: of the answer; None takes the one that goes with the error's close code.
    """
    if scope["type"] == "http" or "websocket.http.response" in (scope.get("extensions") or {}):
        await error_response(error, status)(scope, receive, send)
    else:
        reason = truncate(error.message, MAX_REASON_BYTES)
        await send({"type": "websocket.close", "code": close_code(error), "reason": reason})
