"""Acceptor of the main port: connection limits and TLS, before any byte is parsed as HTTP.

A connection that is rejected here costs one accept and one write: no parser and no task.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any, Final, TypeVar, cast

from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission, ClientSlot, Limit
from tickertape.relay.transport.closing_responses import limit_response
from tickertape.relay.transport.lingering_close import linger

HANDSHAKE_TIMEOUT: Final = 5.0
"""Seconds that a client has to complete its TLS handshake."""

MAX_ADDRESS_HANDSHAKES: Final = 64
"""Maximum number of TLS handshakes of one address that are in progress. Each costs a millisecond; without a
limit, a burst from one client would delay the handshakes of all others by seconds."""

_REQUEST_TIMEOUT: Final = 1.0
"""Seconds that a rejected client has to send a request, so that it can read the reason; then it is
disconnected."""

_MAX_LINGERING: Final = 48
"""Maximum number of rejected clients that linger to read the reason: half of the reserved descriptors, since
a full relay still has to reach NATS and to respond on its ops port."""

_MAX_ADDRESS_LINGERING: Final = 12
"""Maximum number of them from one address, so that one client cannot deny the reason to the others."""

_MAX_EARLY_BYTES: Final = 64 * 1024
"""Maximum bytes that are buffered from a client before its protocol is ready to read them."""

T = TypeVar("T")


class Acceptor:
    """Acceptor in front of uvicorn's HTTP protocol.

    Args:
        admission: enforces connection limits.
        clock: returns seconds.
        protocol_factory: builds the HTTP protocol from the arguments of uvicorn's protocol; the attributes
            ``client_slot`` and ``wire`` of its result are set here.
        tls: returns the TLS context for a new connection to the main port; None serves plain HTTP.
        request_auth: knows the trusted proxies, and the clients behind them.

    Attributes:
        lingering: number of rejected clients that are still connected, by address.
        tasks: running TLS handshakes.
        waiting: number of TLS handshakes that are in progress or wait for their turn, by address.
    """

    def __init__(
        self,
        admission: Admission,
        clock: Callable[[], float],
        protocol_factory: Callable[..., Any],
        tls: Callable[[], ssl.SSLContext] | None = None,
        request_auth: RequestAuth | None = None,
    ) -> None:
        self.admission = admission
        self.clock = clock
        self.request_auth = request_auth or RequestAuth()
        self.tls = tls
        self.lingering: Counter[str] = Counter()
        self.tasks: set[asyncio.Task[None]] = set()
        self._turns: dict[str, asyncio.Semaphore] = {}
        self.waiting: Counter[str] = Counter()
        self._protocol_factory = protocol_factory

    def __repr__(self) -> str:
        return f"Acceptor({self.admission!r}, tls={self.tls is not None})"

    def protocol(self, **uvicorn_args: Any) -> asyncio.Protocol:
        """Build the protocol of a new socket; uvicorn calls this with its own arguments."""
        return _PendingConnection(self, lambda: self._protocol_factory(acceptor=self, **uvicorn_args))

    def admit_request(self, client_slot: ClientSlot, client: str | None = None) -> Limit | None:
        """Count a request; return the limit that it exceeds, or None.

        Args:
            client_slot: slot of the connection.
            client: address that a trusted proxy reports; None for the address of the connection.
        """
        return self.admission.admit_request(client_slot, client or client_slot.address, self.clock())

    @asynccontextmanager
    async def handshake_turn(self, address: str) -> AsyncIterator[None]:
        """Wait until few enough TLS handshakes of an address are in progress."""
        if self.admission.addresses.is_exempt(address):
            yield
            return
        turns = self._turns.get(address)
        if turns is None:
            turns = self._turns[address] = asyncio.Semaphore(MAX_ADDRESS_HANDSHAKES)
        self.waiting[address] += 1
        try:
            async with turns:
                yield
        finally:
            self.waiting[address] -= 1
            if not self.waiting[address]:
                del self.waiting[address], self._turns[address]

    def may_linger(self, address: str) -> bool:
        """Return whether a rejected client may stay to read the reason."""
        own = 0 if self.admission.addresses.is_exempt(address) else self.lingering[address]
        return own < _MAX_ADDRESS_LINGERING and self.lingering.total() < _MAX_LINGERING


class _PendingConnection(asyncio.Protocol):
    """Socket that is not yet handed over to the HTTP protocol."""

    def __init__(self, acceptor: Acceptor, protocol_factory: Callable[[], Any]) -> None:
        self._acceptor = acceptor
        self._protocol_factory = protocol_factory
        self._transport: asyncio.Transport
        self._address = ""  # that limits apply to
        self._client_slot: ClientSlot | None = None
        self._exceeded: Limit | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early = bytearray()  # received before TLS or the HTTP protocol was ready

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        acceptor = self._acceptor
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transports do not inherit from it
        peer = socket_peer(self._transport)
        self._address = acceptor.admission.addresses.key(peer)
        admitted = acceptor.admission.accept(
            peer, self, acceptor.clock(), relayed=acceptor.request_auth.is_proxy(peer)
        )
        if isinstance(admitted, Limit):
            self._reject(admitted)
            return
        self._client_slot = admitted
        if acceptor.tls is None:
            self._hand_over(self._transport)
        else:
            self._transport.pause_reading()
            task = asyncio.get_running_loop().create_task(self._secure(acceptor.tls()))
            acceptor.tasks.add(task)
            task.add_done_callback(acceptor.tasks.discard)

    def data_received(self, data: bytes) -> None:
        if self._exceeded is not None:
            if self._timer is not None:
                # Kept, not set to None: it tells ``connection_lost`` to decrement ``lingering``. This branch
                # runs once, because ``linger`` replaces the socket's protocol.
                self._timer.cancel()  # the lingering close has its own timer
            self._transport.write(limit_response(self._exceeded, data))
            linger(self._transport)
            return
        # First ciphertext that arrives before TLS can read it, later plaintext of the first request; the two
        # never mix, since ``_feed_tls`` empties the buffer in between.
        self._early += data
        if len(self._early) > _MAX_EARLY_BYTES:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            # A plain subtraction would keep every address that was ever rejected.
            self._acceptor.lingering -= Counter((self._address,))
        self._release_slot()

    def abort(self) -> None:
        """Close the connection immediately."""
        self._transport.abort()

    def _reject(self, limit: Limit) -> None:
        acceptor = self._acceptor
        if acceptor.tls is not None or not acceptor.may_linger(self._address):
            # The client could not read a response without a TLS handshake, which is the expensive part.
            self._transport.abort()
            return
        self._exceeded = limit
        acceptor.lingering[self._address] += 1
        self._timer = asyncio.get_running_loop().call_later(_REQUEST_TIMEOUT, self.abort)

    async def _secure(self, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        started = False
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT), self._acceptor.handshake_turn(self._address):
                started = True
                if self._client_slot is None:
                    return  # the client disconnected, or was evicted, while it waited
                secured = await _start(
                    loop.start_tls(
                        self._transport, self, tls, server_side=True, ssl_handshake_timeout=HANDSHAKE_TIMEOUT
                    ),
                    lambda: loop.call_soon(self._feed_tls),
                )
        except (OSError, TimeoutError):  # ssl.SSLError is an OSError
            self._transport.abort()
            self._release_slot(at_fault=started)
            return
        # A client that disconnects in its handshake leaves no transport (asyncio) or a closed one (uvloop).
        # TLS does not call ``connection_lost`` of this protocol then, so its slot has to be released here.
        if secured is None or secured.is_closing():
            self._release_slot()
            return
        if self._client_slot is not None:
            self._client_slot.certificate = secured.get_extra_info("ssl_object").getpeercert(True)
        self._hand_over(secured)

    def _feed_tls(self) -> None:
        """Feed early bytes to TLS: uvloop starts reading even if ``connection_made`` pauses it."""
        tls: Any = self._transport.get_protocol()
        early, self._early = self._early, bytearray()
        while early and not self._transport.is_closing():
            buffer = tls.get_buffer(len(early))
            size = min(len(buffer), len(early))
            buffer[:size] = early[:size]
            tls.buffer_updated(size)
            del early[:size]

    def _hand_over(self, transport: asyncio.Transport) -> None:
        client_slot, self._client_slot = self._client_slot, None
        if client_slot is None:
            # The client disconnected before, and ``connection_lost`` has released the slot.
            transport.abort()
            return
        protocol = self._protocol_factory()
        # Set before ``connection_made``, which needs the wire for a lingering close. From here on, eviction
        # aborts the HTTP protocol, and that protocol releases the slot.
        protocol.client_slot = client_slot
        protocol.wire = self._transport
        client_slot.socket = protocol
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            protocol.data_received(early)

    def _release_slot(self, *, at_fault: bool = True) -> None:
        """Release the slot of a client that disconnected before the handover, and charge its address.

        Args:
            at_fault: whether to charge it; False for a client that waited for its turn in vain.
        """
        # Taken out first, so that the slot is released once: a client that is evicted before TLS starts comes
        # here from ``connection_lost`` and again from ``_secure``.
        client_slot, self._client_slot = self._client_slot, None
        if client_slot is not None:
            if at_fault:
                self._acceptor.admission.penalize(client_slot.address, self._acceptor.clock())
            self._acceptor.admission.release(client_slot)


@coroutine
def _start(coro: Coroutine[Any, Any, T], on_suspend: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await a coroutine, and call ``on_suspend`` when it suspends for the first time.

    Callbacks that the coroutine has scheduled run before those that ``on_suspend`` schedules, and the event
    loop does not read from sockets in between.
    """
    steps = coro.__await__()
    # ``start_tls`` suspends at least once, so this cannot raise StopIteration.
    first = next(steps)
    on_suspend()
    try:
        yield first
    except BaseException as error:
        # A cancellation is passed on, so that ``start_tls`` closes the transport.
        steps.throw(error)
        raise
    return (yield from steps)


def socket_peer(transport: asyncio.BaseTransport) -> str:
    """Return the address of a socket's peer, or an empty string if it has none."""
    name = transport.get_extra_info("peername")
    return str(name[0]) if isinstance(name, tuple) and name else ""
