"""Who may come in, how many, and how fast: limits that keep one client from taking what is for all.

Invariants:

1. A client is counted from the accept to the end of its socket: once in all, once for its address, and once
   for its token's subject when it has one.
2. Nobody who has a session is ever sent away to let another in: only sockets without one are.
3. What is kept of addresses is bounded: one with no socket whose allowance is full again is forgotten.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Final, Protocol

from tickertape.relay.core.limit_counters import ALL, LimitCounters, LocalLimitCounters

REJECTION_COST: Final = 10.0
"""Connections that a refused or unfinished one counts for: strangers run out ten times as fast as clients."""


_ADDRESS: Final = "@"
_SUBJECT: Final = "$"
"""First character of the keys that something is counted under."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator allows; 0 means no limit.

    Attributes:
        connections: sockets on the main port.
        address_connections: of them, from one address (IPv6: one /64).
        subject_connections: sessions of one token's subject, unless its grant says otherwise.
        unauthenticated: sockets without a session: handshakes, requests for pages, clients that have yet to
            send a token, or whose session has ended while they still send. Past it the oldest of them goes.
        connection_rate: new sockets per second.
        address_rate: new sockets and requests per second from one address.
    """

    connections: int = 0
    address_connections: int = 0
    subject_connections: int = 0
    unauthenticated: int = 0
    connection_rate: float = 0.0
    address_rate: float = 0.0


class Limit(StrEnum):
    """Names of the limits, as metrics tell them."""

    CONNECTIONS = "connections"
    ADDRESS_CONNECTIONS = "address_connections"
    SUBJECT_CONNECTIONS = "subject_connections"
    UNAUTHENTICATED = "unauthenticated"
    CONNECTION_RATE = "connection_rate"
    ADDRESS_RATE = "address_rate"
    MESSAGE_RATE = "message_rate"
    HEAD_TIME = "head_time"
    HEAD_BYTES = "head_bytes"
    AUTH_TIME = "auth_time"


SERVER_LIMITS: Final = frozenset({Limit.CONNECTIONS, Limit.CONNECTION_RATE})
"""Limits that are no fault of whoever meets them: the relay is full (503), not the client too many (429)."""


class Socket(Protocol):
    """What a client is counted for."""

    def abort(self) -> None:
        """Cut it."""


class ClientSlot:
    """One socket on the main port.

    Attributes:
        address: what it is counted under.
        socket: what to cut when it has to make room.
        subject: of its token; empty while it has none.
        arrived: when, seconds.
    """

    __slots__ = ("address", "arrived", "socket", "subject")

    def __init__(self, address: str, socket: Socket, arrived: float = 0.0) -> None:
        self.address = address
        self.arrived = arrived
        self.socket = socket
        self.subject = ""


class Admission:
    """Counts visitors and tells who may not come in.

    Args:
        limits: what an operator allows.
        exempt: tells whether an address has no limits of its own, such as a proxy's with many behind.
        counters: where it is counted; its own by default, and one for all relays that share a port.

    Attributes:
        refused: how often each limit was met.
        open: sockets that are open here.
    """

    def __init__(
        self,
        limits: Limits,
        exempt: Callable[[str], bool] = lambda address: False,
        counters: LimitCounters | None = None,
    ) -> None:
        self.limits = limits
        self.rejected: Counter[Limit] = Counter()
        self.open = 0
        self._exempt = exempt
        self._counters = counters or LocalLimitCounters()
        self._pending: OrderedDict[ClientSlot, None] = OrderedDict()  # without a session, oldest first

    def __repr__(self) -> str:
        return f"Admission({self.open} open, {len(self._pending)} without a session, {self.limits})"

    @property
    def pending(self) -> int:
        """Sockets without a session."""
        return len(self._pending)

    def accept(self, address: str, socket: Socket, now: float) -> ClientSlot | Limit:
        """A socket was accepted.

        Args:
            address: its peer's, in text; "" when that is not known.
            socket: what to cut when it has to make room.
            now: seconds.

        Returns:
            who it is, or the limit that keeps it out.
        """
        key = self._key(address)
        limit = self._spend(key, 1.0, now)
        if limit is None:
            limit = self._enter(key, now)
        if limit is not None:
            self.rejected[limit] += 1
            return limit
        client_slot = ClientSlot(key, socket, now)
        self.open += 1
        self.mark_pending(client_slot)
        return client_slot

    def admit_request(self, client_slot: ClientSlot, address: str, now: float) -> Limit | None:
        """A client asks for something more, or a proxy says who a client is.

        Args:
            client_slot: whose socket it came on.
            address: of the client.
            now: seconds.

        Returns:
            the limit that forbids it.
        """
        key = self._key(address)
        limit = self._spend(key, 1.0, now)
        if limit is None and key != client_slot.address:
            limit = self._join(key)
            if limit is None:
                self._counters.release(_ADDRESS + client_slot.address)
                client_slot.address = key
        if limit is not None:
            self.rejected[limit] += 1
        return limit

    def penalize(self, address: str, now: float) -> None:
        """What came from an address was refused, or never finished: it costs more."""
        self._spend(self._key(address), REJECTION_COST - 1.0, now, allow_debt=True)

    def is_pending(self, client_slot: ClientSlot) -> bool:
        """True while a client has no session."""
        return client_slot in self._pending

    def mark_established(self, client_slot: ClientSlot) -> None:
        """A client has a session."""
        self._pending.pop(client_slot, None)

    def mark_pending(self, client_slot: ClientSlot) -> None:
        """Count a client as one without a session, also when its session has ended before its socket.

        Past the limit the oldest of them is cut.
        """
        if client_slot in self._pending:
            return
        most = self.limits.unauthenticated
        if most and len(self._pending) >= most:
            oldest, _ = self._pending.popitem(last=False)
            self.rejected[Limit.UNAUTHENTICATED] += 1
            oldest.socket.abort()
        self._pending[client_slot] = None

    def bind(self, client_slot: ClientSlot, subject: str, allowed: int | None) -> bool:
        """Count a client for its token's subject; a renewed token may be another's.

        Args:
            client_slot: whose token it is.
            subject: of the token; empty without one, which is not counted.
            allowed: most connections of that subject; None means the operator's limit.

        Returns:
            False when the subject has enough.
        """
        if subject == client_slot.subject:
            return True
        most = self.limits.subject_connections if allowed is None else allowed
        if subject and not self._counters.acquire(_SUBJECT + subject, most):
            self.rejected[Limit.SUBJECT_CONNECTIONS] += 1
            return False
        if client_slot.subject:
            self._counters.release(_SUBJECT + client_slot.subject)
        client_slot.subject = subject
        return True

    def release(self, client_slot: ClientSlot) -> None:
        """A client's socket is closed; called once, and the client has none any more."""
        del client_slot.socket  # it may hold the client
        self.open -= 1
        self._pending.pop(client_slot, None)
        self._counters.release(ALL)
        self._counters.release(_ADDRESS + client_slot.address)
        if client_slot.subject:
            self._counters.release(_SUBJECT + client_slot.subject)

    def prune(self, now: float) -> None:
        """Forget addresses that owe nothing, the longest unheard of first; called now and then."""
        self._counters.prune(self.limits.address_rate, now)

    # Inside.

    def _enter(self, key: str, now: float) -> Limit | None:
        """Count one more in all and for its address, or nothing when a limit forbids it."""
        limits, counters = self.limits, self._counters
        if not counters.acquire(ALL, limits.connections):
            return Limit.CONNECTIONS
        limit = self._join(key)
        if limit is None:
            if not limits.connection_rate or counters.spend(ALL, limits.connection_rate, 1.0, now):
                return None
            limit = Limit.CONNECTION_RATE
            counters.release(_ADDRESS + key)
        counters.release(ALL)
        return limit

    def _join(self, key: str) -> Limit | None:
        most = 0 if self._exempt(key) else self.limits.address_connections
        return None if self._counters.acquire(_ADDRESS + key, most) else Limit.ADDRESS_CONNECTIONS

    def _spend(self, key: str, cost: float, now: float, *, allow_debt: bool = False) -> Limit | None:
        rate = self.limits.address_rate
        if not rate or self._exempt(key):
            return None
        spent = self._counters.spend(_ADDRESS + key, rate, cost, now, allow_debt=allow_debt)
        return None if spent else Limit.ADDRESS_RATE

    def _key(self, address: str) -> str:
        """What an address is counted under: an IPv6 client has a /64 to choose from."""
        if ":" not in address or self._exempt(address):
            return address
        try:
            parsed = IPv6Address(address.partition("%")[0])
        except ValueError:
            return address
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(IPv6Address(int(parsed) >> 64 << 64)) + "/64"
