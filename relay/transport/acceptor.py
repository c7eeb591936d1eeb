"""The main port's acceptor: connection limits and TLS, before a byte is read as HTTP.

Whoever is refused here costs an accept and one write: no parser, no task.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any, Final, TypeVar, cast

import orjson
from tickertape.contracts.close_codes import ErrorCode
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Admission, ClientSlot, Limit
from tickertape.relay.transport.lingering_close import linger

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds that a client has for its TLS handshake."""

_ASK_TIME: Final = 1.0
"""Seconds that a refused client has to ask, so that it can read why; one that does not is cut."""

_MAX_LINGERING: Final = 48
"""Refused clients at a time, while they ask and read why: half of the descriptors that are kept from clients,
since a full relay has to reach NATS, and to be asked."""

_MAX_EARLY_BYTES: Final = 64 * 1024


def limit_response(limit: Limit) -> bytes:
    """The whole HTTP answer to whoever meets a limit."""
    status, phrase = (503, "Service Unavailable") if limit in SERVER_LIMITS else (429, "Too Many Requests")
    code = ErrorCode.UNAVAILABLE if limit in SERVER_LIMITS else ErrorCode.TOO_MANY
    message = (
        "the relay has connections enough"
        if limit in SERVER_LIMITS
        else "too many connections from this address"
    )
    body = orjson.dumps({"code": code, "message": f"{message}; try again later"})
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nretry-after: 5\r\n"
        b"connection: close\r\n\r\n%b" % (status, phrase.encode(), len(body), body)
    )


T = TypeVar("T")
_REFUSALS: Final = {limit: limit_response(limit) for limit in Limit}


class Acceptor:
    """Stands before uvicorn's HTTP protocol.

    Args:
        admission: counts who is inside.
        clock: seconds.
        inside: builds the HTTP protocol; has ``client_slot`` and ``wire`` to set, and takes the arguments
            of uvicorn's.
        tls: for the main port; None serves plain HTTP.
    """

    def __init__(
        self,
        admission: Admission,
        clock: Callable[[], float],
        inside: Callable[..., Any],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.admission = admission
        self.clock = clock
        self.tls = tls
        self.lingering = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self._inside = inside

    def __repr__(self) -> str:
        return f"Acceptor({self.admission!r}, tls={self.tls is not None})"

    def protocol(self, **of_uvicorn: Any) -> asyncio.Protocol:
        """Build what a new socket is handed to; its signature is uvicorn's."""
        return _PendingConnection(self, lambda: self._inside(acceptor=self, **of_uvicorn))


class _PendingConnection(asyncio.Protocol):
    """A socket that is not yet handed to the HTTP protocol."""

    def __init__(self, acceptor: Acceptor, inside: Callable[[], Any]) -> None:
        self._acceptor = acceptor
        self._inside = inside
        self._transport: asyncio.Transport
        self._client_slot: ClientSlot | None = None
        self._refused: Limit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early = bytearray()  # that came before TLS was ready for it, or right behind its handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        acceptor = self._acceptor
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        decided = acceptor.admission.accept(socket_peer(self._transport), self, acceptor.clock())
        if isinstance(decided, Limit):
            self._turn_away(decided)
            return
        self._client_slot = decided
        if acceptor.tls is None:
            self._enter(self._transport)
        else:
            self._transport.pause_reading()
            task = asyncio.get_running_loop().create_task(self._secure(acceptor.tls))
            acceptor.tasks.add(task)
            task.add_done_callback(acceptor.tasks.discard)

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            if self._timer is not None:
                self._timer.cancel()  # lingering has its own
            self._transport.write(_REFUSALS[self._refused])
            linger(self._transport)
            return
        self._early += data
        if len(self._early) > _MAX_EARLY_BYTES:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._acceptor.lingering -= 1
        self._gone()

    def abort(self) -> None:
        """Cut it."""
        self._transport.abort()

    def _turn_away(self, limit: Limit) -> None:
        acceptor = self._acceptor
        if acceptor.tls is not None or acceptor.lingering >= _MAX_LINGERING:
            self._transport.abort()  # it could not read the answer without a handshake, which is what costs
            return
        self._refused = limit
        acceptor.lingering += 1
        self._timer = asyncio.get_running_loop().call_later(_ASK_TIME, self.abort)

    async def _secure(self, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await _begun(
                loop.start_tls(
                    self._transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
                ),
                lambda: loop.call_soon(self._hand_over),
            )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            self._transport.abort()
            self._gone()
            return
        if secured is None or secured.is_closing():
            self._gone()
            return
        self._enter(secured)

    def _hand_over(self) -> None:
        """Give TLS what came before it was there: uvloop begins to read whatever ``connection_made`` says."""
        tls: Any = self._transport.get_protocol()
        early, self._early = self._early, bytearray()
        while early and not self._transport.is_closing():
            room = tls.get_buffer(len(early))
            size = min(len(room), len(early))
            room[:size] = early[:size]
            tls.buffer_updated(size)
            del early[:size]

    def _enter(self, transport: asyncio.Transport) -> None:
        client_slot, self._client_slot = self._client_slot, None
        if client_slot is None:
            transport.abort()
            return
        inside = self._inside()
        inside.client_slot = client_slot
        inside.wire = self._transport
        client_slot.socket = inside
        transport.set_protocol(inside)
        inside.connection_made(transport)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            inside.data_received(early)

    def _gone(self) -> None:
        """It left before it came in."""
        client_slot, self._client_slot = self._client_slot, None
        if client_slot is not None:
            self._acceptor.admission.penalize(client_slot.address, self._acceptor.clock())
            self._acceptor.admission.release(client_slot)


@coroutine
def _begun(work: Coroutine[Any, Any, T], then: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await a coroutine, and call something as soon as it waits for the first time.

    What it has asked the event loop to do comes before what is asked for then, and nothing is read between.
    """
    steps = work.__await__()
    first = next(steps)
    then()
    try:
        yield first
    except BaseException as error:
        steps.throw(error)
        raise
    return (yield from steps)


def socket_peer(transport: asyncio.BaseTransport) -> str:
    """Address of a socket's peer; empty when it has none."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else ""
