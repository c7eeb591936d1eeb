"""Connection limits: keep one client from using the capacity that all clients share.

Invariants:

1. A client is counted from accept to close: once in total, once for its address, and once for the subject of
   its token if it has one.
2. A client is counted against its own limits first: what they reject uses up nothing that all clients share.
3. Established sessions are never evicted to admit new connections; only connections without a session are,
   and of those one of the address that has most.
4. State per address is bounded: an address without connections whose token bucket is full is forgotten.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from tickertape.relay.core.address_limits import AddressLimits
from tickertape.relay.core.limit_counters import ALL, LimitCounters, LocalLimitCounters
from tickertape.relay.core.pending_connections import PendingConnections

REJECTION_COST: Final = 10.0
"""Number of connections that a rejected or unfinished connection counts as, so that untrusted clients use up
their rate limit ten times as fast."""

_SUBJECT: Final = "$"
"""Prefix of the counter keys of token subjects, which differ from those of addresses."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits set by the operator; 0 means no limit.

    Attributes:
        connections: maximum connections on the main port.
        address_connections: maximum connections from one address (IPv6: one /64).
        subject_connections: maximum sessions of one token subject, unless its grant sets another number.
        unauthenticated: maximum connections without a session: handshakes, HTTP requests, clients that have
            not sent a token yet, and clients that still send after their session ended. Beyond the limit, the
            oldest connection of the address with most of them is aborted.
        connection_rate: maximum new connections per second.
        address_rate: maximum new connections and requests per second from one address.
    """

    connections: int = 0
    address_connections: int = 0
    subject_connections: int = 0
    unauthenticated: int = 0
    connection_rate: float = 0.0
    address_rate: float = 0.0


class Limit(StrEnum):
    """Limits, by their names in metrics."""

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
"""Limits of the relay as a whole: exceeding them means 503 (full) instead of 429 (too many requests)."""


class Socket(Protocol):
    """Socket of a counted client."""

    def abort(self) -> None:
        """Abort the connection."""


class ClientSlot:
    """Counted connection on the main port.

    Attributes:
        address: address that the connection is counted under.
        socket: socket to abort if the connection is evicted.
        subject: subject of the client's token; empty without a token.
        accepted_at: time at which the connection was accepted, in seconds.
        certificate: verified client certificate in DER; None without one.
        relayed: whether the peer is a trusted proxy, whose requests name their clients.
        uncharged: whether the rate of all connections has yet to be charged, by the first admitted request.
        exceeded: limit that the last request exceeded; None if it was admitted.
    """

    __slots__ = (
        "accepted_at", "address", "certificate", "exceeded", "relayed", "socket", "subject", "uncharged",
    )  # fmt: skip

    def __init__(
        self, address: str, socket: Socket, accepted_at: float = 0.0, *, relayed: bool = False
    ) -> None:
        self.address = address
        self.accepted_at = accepted_at
        self.socket = socket
        self.subject = ""
        self.certificate: bytes | None = None
        self.relayed = self.uncharged = relayed
        self.exceeded: Limit | None = None


class Admission:
    """Admission control: counts connections and rejects those beyond a limit.

    Args:
        limits: limits set by the operator.
        exempt: returns whether per-address limits do not apply to an address, such as a proxy's.
        counters: limit counters; private to this process by default, shared for relays that share a port.

    Attributes:
        rejected: number of rejections by limit.
        open: number of open connections of this process.
        addresses: limits per address.
        on_reject: called with each limit that a client exceeds, and its address; None to only count it.
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
        self.on_reject: Callable[[Limit, str], None] | None = None
        self._counters = counters or LocalLimitCounters()
        self.addresses = AddressLimits(
            limits.address_connections, limits.address_rate, exempt, self._counters
        )
        self._pending: PendingConnections[ClientSlot] = PendingConnections()

    def __repr__(self) -> str:
        return f"Admission({self.open} open, {len(self._pending)} without a session, {self.limits})"

    @property
    def pending(self) -> int:
        """Number of connections without a session."""
        return len(self._pending)

    def accept(
        self, address: str, socket: Socket, now: float, *, relayed: bool = False
    ) -> ClientSlot | Limit:
        """Count an accepted connection.

        Args:
            address: address of the client as text; empty if unknown.
            socket: socket to abort if the connection is evicted.
            now: time in seconds.
            relayed: whether the address is that of a trusted proxy. The client is then known with the first
                request, and only a request that its limits admit is charged to the rate of all connections.

        Returns:
            The slot of the connection, or the limit that it exceeds.
        """
        key = self.addresses.key(address)
        # Spent first, so that connections rejected by another limit use up the rate of their address, too.
        if self.addresses.spend(key, 1.0, now):
            limit = self._acquire(key, now, relayed=relayed)
        else:
            limit = Limit.ADDRESS_RATE
        if limit is not None:
            self.reject(limit, key)
            return limit
        client_slot = ClientSlot(key, socket, now, relayed=relayed)
        self.open += 1
        self.mark_pending(client_slot)
        return client_slot

    def admit_request(self, client_slot: ClientSlot, address: str, now: float) -> Limit | None:
        """Count a request on an open connection, and the client address that a proxy reported with it.

        Args:
            client_slot: slot of the connection.
            address: address of the client.
            now: time in seconds.

        Returns:
            The limit that the request exceeds, or None.
        """
        key = self.addresses.key(address)
        limit = None if self.addresses.spend(key, 1.0, now) else Limit.ADDRESS_RATE
        # The new address is acquired before the old one is released: if its limit is reached, the connection
        # stays counted as before.
        if limit is None and key != client_slot.address:
            if self.addresses.acquire(key):
                self.addresses.release(client_slot.address)
                self._pending.move(client_slot, key)
            else:
                limit = Limit.ADDRESS_CONNECTIONS
        if limit is None and client_slot.uncharged:
            if self._spend_total(now):
                client_slot.uncharged = False
            else:
                limit = Limit.CONNECTION_RATE
        if limit is not None:
            self.reject(limit, key)
        client_slot.exceeded = limit
        return limit

    def reject(self, limit: Limit, address: str) -> None:
        """Count a limit that a client exceeds."""
        self.rejected[limit] += 1
        if self.on_reject is not None:
            self.on_reject(limit, address)

    def penalize(self, address: str, now: float) -> None:
        """Charge an address extra for a request that was rejected or never completed."""
        # One token has already been spent when the connection or the request was admitted.
        self.addresses.spend(self.addresses.key(address), REJECTION_COST - 1.0, now, allow_debt=True)

    def is_pending(self, client_slot: ClientSlot) -> bool:
        """Return whether a connection has no session."""
        return client_slot in self._pending

    def mark_established(self, client_slot: ClientSlot) -> None:
        """Record that a connection has a session."""
        self._pending.discard(client_slot)

    def mark_pending(self, client_slot: ClientSlot) -> None:
        """Record that a connection has no session: it is new, or its session ended before its socket.

        Beyond the limit, abort the oldest connection of the address that has most of them, so that one client
        cannot displace the others.
        """
        # A connection keeps its place; otherwise it could avoid being the oldest.
        if client_slot in self._pending:
            return
        limit = self.limits.unauthenticated
        if limit and len(self._pending) >= limit:
            # Only the socket is aborted here; its slot is released when the connection reports its end.
            evicted = self._pending.largest()
            self._pending.discard(evicted)
            self.reject(Limit.UNAUTHENTICATED, evicted.address)
            evicted.socket.abort()
        self._pending.add(client_slot)

    def bind(self, client_slot: ClientSlot, subject: str, allowed: int | None) -> bool:
        """Count a connection under the subject of its token, which may change when the token is renewed.

        Args:
            client_slot: slot of the connection.
            subject: subject of the token; empty without a token, which is not counted.
            allowed: maximum connections of that subject; None applies the operator's limit.

        Returns:
            False if the connection limit of the subject is reached.
        """
        if subject == client_slot.subject:
            return True
        limit = self.limits.subject_connections if allowed is None else allowed
        # As in ``admit_request``, the new count is acquired before the old one is released.
        if subject and not self._counters.acquire(_SUBJECT + subject, limit):
            self.reject(Limit.SUBJECT_CONNECTIONS, client_slot.address)
            return False
        if client_slot.subject:
            self._counters.release(_SUBJECT + client_slot.subject)
        client_slot.subject = subject
        return True

    def release(self, client_slot: ClientSlot) -> None:
        """Release the slot of a closed connection; call this once."""
        del client_slot.socket  # breaks the reference cycle with the connection
        self.open -= 1
        self._pending.discard(client_slot)
        self._counters.release(ALL)
        self.addresses.release(client_slot.address)
        if client_slot.subject:
            self._counters.release(_SUBJECT + client_slot.subject)

    def prune(self, now: float) -> None:
        """Forget addresses with full token buckets, least recently used first; call this periodically."""
        self.addresses.prune(now)

    # Internals.

    def _acquire(self, key: str, now: float, *, relayed: bool) -> Limit | None:
        """Count a connection for its address and in total, or not at all if it exceeds a limit."""
        counters = self._counters
        if not self.addresses.acquire(key):
            return Limit.ADDRESS_CONNECTIONS
        if not counters.acquire(ALL, self.limits.connections):
            limit = Limit.CONNECTIONS
        # Spent last, so that what another limit rejects cannot use up the rate of all.
        elif relayed or self._spend_total(now):
            return None
        else:
            limit = Limit.CONNECTION_RATE
            counters.release(ALL)
        self.addresses.release(key)
        return limit

    def _spend_total(self, now: float) -> bool:
        """Charge the rate of all connections; return False if it is exceeded."""
        rate = self.limits.connection_rate
        return not rate or self._counters.spend(ALL, rate, 1.0, now)
