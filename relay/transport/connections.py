"""State that all connections share: the hub, admission, and the open connections.

``handshake.py`` decides about new connections, and ``accounting.py`` accounts for each of them.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypedDict, get_args

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode
from tickertape.relay.audit.audit_log import AuditLog, SessionAudit, Transport
from tickertape.relay.auth.request_auth import Headers, RequestAuth, header_value
from tickertape.relay.core.connection_limits import Admission, ClientSlot, Limit, Limits, Socket
from tickertape.relay.core.counters import Histogram
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.session.session import Session
from tickertape.relay.transport.message_rate import IncompleteMessages
from tickertape.relay.transport.rejection_log import RejectionLog

from tickertape.nats.storage.watch import StoreWatch

log = logging.getLogger("tickertape.connections")

PING_EVERY: Final = 20
"""Seconds between two pings to a client; one that reads nothing for two intervals is disconnected."""

MESSAGE_RATE: Final = 200
"""Maximum frames per second from a client, including pings and fragments; it needs a few per minute."""

MAX_AUTH_BYTES: Final = 32 * 1024
"""Maximum size in bytes of a message from a client that has not authenticated yet."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a client has to answer a close frame."""

RETRY_SPREAD_MS: Final = 5_000
"""Milliseconds over which reconnects are spread after a shutdown, so that they do not arrive together."""

CLIENT_FAULT_CODES: Final = frozenset(code for code, rule in CLOSE_CODES.items() if rule.client_at_fault)
"""Close codes of rejections that are charged to the client."""


class ConnectedClient(Protocol):
    """Open connection as ``Connections`` sees it.

    Attributes:
        ping_slot: second of the ping cycle in which this client is pinged; -1 before it is added.
        transport_name: name of its transport.
    """

    ping_slot: int
    transport_name: Transport

    def ping(self) -> None:
        """Ping the client, and close its session if it does not read."""

    def abort(self) -> None:
        """Close the connection immediately and discard unsent data."""


class Health(TypedDict):
    """Response body of ``/health``."""

    status: str
    upstream: str
    store: str
    connections: int


class Connections:
    """Open connections, with the state and limits that they share.

    Args:
        hub: hub that the sessions belong to.
        clock: returns UNIX seconds that never go back.
        request_auth: authenticates and authorizes handshakes.
        admission: enforces connection limits.
        message_rate: maximum frames per second from a client.
        accepting: whether handshakes are accepted from the start.

    Attributes:
        accepting: whether new handshakes are accepted.
        draining: whether the relay is shutting down: it reports not ready, but may still accept handshakes.
        audit: audit log; None without one.
        store: whether NATS can store events.
        incomplete: incomplete messages of WebSocket clients.
    """

    def __init__(
        self,
        hub: Hub,
        clock: Callable[[], float],
        request_auth: RequestAuth | None = None,
        admission: Admission | None = None,
        message_rate: int = MESSAGE_RATE,
        *,
        accepting: bool = True,
    ) -> None:
        self.hub = hub
        self.clock = clock
        self.request_auth = request_auth or RequestAuth()
        self.admission = admission or Admission(Limits())
        self.message_rate = message_rate
        self.accepting = accepting
        self.draining = False
        self.handshake_results: Counter[str] = Counter()
        self.close_counts: Counter[int] = Counter()
        self.handshake_durations = Histogram()
        self.rejections = RejectionLog()
        self.audit: AuditLog | None = None
        self.store = StoreWatch()
        self.incomplete = IncompleteMessages()
        # One timer pings one slot per second, so that no client needs a timer of its own.
        self._ping_slots: list[set[ConnectedClient]] = [set() for _ in range(PING_EVERY)]
        self._current_slot = 0
        self._added = 0

    def __repr__(self) -> str:
        return f"Connections({len(self)} connections, accepting={self.accepting})"

    def __len__(self) -> int:
        return sum(map(len, self._ping_slots))

    @property
    def healthy(self) -> bool:
        """Whether to send clients here: accepting, not draining, with keys, and connected upstream."""
        usable = self.accepting and not self.draining and self.request_auth.ready()
        return usable and self.hub.sessions.upstream_connected

    def health(self) -> Health:
        """Return the response body of ``/health``."""
        usable = "ok" if self.store.problem is None else "degraded"
        return {
            "status": usable if self.healthy else "unavailable",
            "upstream": "connected" if self.hub.sessions.upstream_connected else "disconnected",
            "store": self.store.state,
            "connections": len(self),
        }

    def record_request_error(self, request: str, error: Exception) -> None:
        """Count and log an internal error outside of a session.

        Args:
            request: description of the failed request for the log, such as "a handshake".
            error: exception that ended it.
        """
        self.hub.stats.errors["request"] += 1
        log.error("%s failed with an internal error", request, exc_info=error)

    def start_accepting(self) -> None:
        """Accept handshakes from now on."""
        self.accepting = True

    def stop_accepting(self) -> None:
        """Reject handshakes from now on."""
        self.accepting = False

    def start_draining(self) -> None:
        """Report not ready from now on, ahead of a shutdown."""
        self.draining = True

    # Open connections.

    def add(self, client: ConnectedClient) -> None:
        """Register a connection and assign its ping slot."""
        # By order of arrival, not by time: clients that reconnect together are pinged at different times.
        client.ping_slot = self._added % PING_EVERY
        self._added += 1
        self._ping_slots[client.ping_slot].add(client)

    def discard(self, client: ConnectedClient) -> None:
        """Unregister a connection."""
        self._ping_slots[client.ping_slot].discard(client)

    def ping_batch(self) -> None:
        """Ping the connections of the next slot; called once a second."""
        self._current_slot = (self._current_slot + 1) % PING_EVERY
        for client in list(self._ping_slots[self._current_slot]):
            client.ping()

    def all(self) -> list[ConnectedClient]:
        """Return the open connections."""
        return [client for slot in self._ping_slots for client in slot]

    def transports(self) -> dict[str, int]:
        """Return the number of open connections by transport."""
        # A copy of each slot, since a host may call this in another thread.
        counts = Counter(client.transport_name for slot in self._ping_slots for client in set(slot))
        return {name: counts[name] for name in get_args(Transport)}

    def send_bye(
        self, sessions: Sequence[Session], batch: range | None = None, spread_ms: int = RETRY_SPREAD_MS
    ) -> None:
        """Close sessions for a shutdown, with reconnect times that are spread evenly.

        Args:
            sessions: all sessions that are closed in this shutdown.
            batch: indexes of the sessions to close in this call; None closes all.
            spread_ms: milliseconds between the first and the last reconnect.
        """
        for index in range(len(sessions)) if batch is None else batch:
            # The index counts all sessions, not those of the batch, so that later batches get later times.
            retry_after_ms = 500 + spread_ms * index // len(sessions)
            self.hub.sessions.close(
                sessions[index], CloseCode.GOING_AWAY, "the relay is shutting down", retry_after_ms
            )

    # Handshakes.

    def accept(self, peer: str, headers: Headers, socket: Socket) -> ClientSlot | Limit:
        """Count a request whose socket belongs to a host, under the address of its client.

        Args:
            peer: address of the socket.
            headers: request headers.
            socket: aborted if the request is evicted.
        """
        return self.admission.accept(self.request_auth.client_address(peer, headers), socket, self.clock())

    def record_rejection(self, code: int, reason: str, address: str, session: str = "") -> None:
        """Log a rejection, and count it in the audit log; see ``RejectionLog.record``."""
        self.rejections.record(code, reason, address, session)
        # ``Admission`` reports limits itself, by their names.
        if self.audit is not None and code != CloseCode.TOO_MANY:
            self.audit.count_rejection(reason, address)

    def audit_session(self, transport: Transport, peer: str, headers: Headers) -> SessionAudit | None:
        """Return the audit log of a new session; None if there is none.

        Args:
            transport: transport of its connection.
            peer: address of the socket.
            headers: headers of its request.
        """
        if self.audit is None:
            return None
        address = self.request_auth.client_address(peer, headers)
        return self.audit.session(transport, address, header_value(headers, "user-agent"))

    def record_fault(self, client_slot: ClientSlot | None) -> None:
        """Charge a client extra for a rejected handshake or a session that it never authenticated."""
        if client_slot is not None:
            self.penalize(client_slot.address)

    def penalize(self, address: str) -> None:
        """Charge a client extra for a rejected request."""
        self.admission.penalize(address, self.clock())
