"""What all connections share: the hub, who may come in, who is there.

The decision about a handshake is made here, whatever carries it: ``websocket.py`` on uvicorn's own transport,
``relay/asgi/connection.py`` over a host application's ASGI server. Each tells it in its own way.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypedDict

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth import request_auth as request_auth
from tickertape.relay.auth.claims import TokenError
from tickertape.relay.auth.request_auth import Headers, RequestAuth
from tickertape.relay.core.connection_limits import Admission, ClientSlot, Limit, Limits
from tickertape.relay.core.counters import Histogram
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.session.session import Session, close_code
from tickertape.relay.core.session.subscription import Request, parse_query
from tickertape.relay.transport.rejection_log import RejectionLog

log = logging.getLogger("tickertape.connections")

PING_EVERY: Final = 20
"""Seconds between two pings to a client; two unanswered ones end the connection."""

MESSAGE_RATE: Final = 200
"""Frames that a client may send within a second, pings and fragments too; it needs a few a minute."""

MAX_AUTH_BYTES: Final = 32 * 1024
"""Largest message of a client that has not shown a token yet."""

CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a client has to answer a close."""

BUFFER_HIGH: Final = 64 * 1024
"""Bytes that wait to be sent past which a client counts as slow and stays where it is."""

BUFFER_LOW: Final = 16 * 1024

RETRY_SPREAD_MS: Final = 5_000
"""Clients come back spread over this long after a shutdown, not all in one second."""

_FAULTS: Final = frozenset(code for code, rule in CLOSE_CODES.items() if rule.client_at_fault)

_ORDINARY: Final = frozenset({CloseCode.TIMEOUT, CloseCode.UNAUTHORIZED})
"""Ends of a session that are no news: its client vanished, or its token has run out."""


class ConnectedClient(Protocol):
    """A connection, as ``Connections`` counts it."""

    ping_slot: int

    def ping(self) -> None:
        """Ask whether the client is there."""

    def abort(self) -> None:
        """Cut the connection, whatever is still to be said."""


class Health(TypedDict):
    """What ``/health`` says."""

    status: str
    upstream: str
    connections: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a handshake gets.

    Attributes:
        request: what it asks for; without meaning when it is refused.
        grant: what its token grants; None when it has yet to show one.
        wanted: what the grant leaves of the request; None when there is no grant yet.
        refused: why it gets nothing.
        after_upgrade: whether the rejection is sent inside the WebSocket, since a browser cannot see the
            status of a failed upgrade.
    """

    request: Request
    grant: Grant | None = None
    filter: Filter | None = None
    rejection: ProtocolError | None = None
    after_upgrade: bool = False


class Connections:
    """What all connections share.

    Args:
        hub: gets their sessions.
        clock: UNIX seconds that never go back.
        request_auth: decides who may have a session.
        admission: counts who is there.
        message_rate: frames that a client may send within a second.
        open: whether clients are let in from the start.

    Attributes:
        open: whether clients are let in.
        leaving: whether the relay is about to end: not ready, though clients may still be let in.
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
        self.handshakes = Histogram()
        self.rejections = RejectionLog()
        self._ping_slots: list[set[ConnectedClient]] = [set() for _ in range(PING_EVERY)]
        self._current_slot = 0
        self._added = 0

    def __repr__(self) -> str:
        return f"Connections({len(self)} connections, accepting={self.accepting})"

    def __len__(self) -> int:
        return sum(map(len, self._ping_slots))

    @property
    def healthy(self) -> bool:
        """True while clients should come: they are let in, will be for a while, and events come."""
        return self.accepting and not self.draining and self.hub.sessions.upstream_connected

    def health(self) -> Health:
        """What ``/health`` says."""
        return {
            "status": "ok" if self.healthy else "unavailable",
            "upstream": "connected" if self.hub.sessions.upstream_connected else "disconnected",
            "connections": len(self),
        }

    def record_request_error(self, what: str, error: Exception) -> None:
        """Count and log a request, named by ``what``, that an internal error ended without a session."""
        self.hub.stats.errors["request"] += 1
        log.error("%s ended with an internal error", what, exc_info=error)

    def start_accepting(self) -> None:
        """Let clients in from here on."""
        self.accepting = True

    def stop_accepting(self) -> None:
        """Let no client in any more."""
        self.accepting = False

    def start_draining(self) -> None:
        """Be not ready from here on: the relay ends soon."""
        self.draining = True

    # Who is there.

    def add(self, member: ConnectedClient) -> None:
        """Count a connection, and give it its second to be pinged in."""
        member.ping_slot = self._added % PING_EVERY
        self._added += 1
        self._ping_slots[member.ping_slot].add(member)

    def discard(self, member: ConnectedClient) -> None:
        """Forget a connection."""
        self._ping_slots[member.ping_slot].discard(member)

    def ping_batch(self) -> None:
        """Ping a twentieth of all connections; called once a second."""
        self._current_slot = (self._current_slot + 1) % PING_EVERY
        for member in list(self._ping_slots[self._current_slot]):
            member.ping()

    def all(self) -> list[ConnectedClient]:
        """The connections that are open now."""
        return [member for ping_slot in self._ping_slots for member in ping_slot]

    def send_bye(
        self, sessions: Sequence[Session], part: range | None = None, spread_ms: int = RETRY_SPREAD_MS
    ) -> None:
        """Say ``bye`` because the relay shuts down, with times to come back that are spread over all.

        Args:
            sessions: all that were there.
            part: places of those that are told now; None tells all.
            spread_ms: by how much the last of all is to wait longer than the first.
        """
        for index in range(len(sessions)) if part is None else part:
            wait = 500 + spread_ms * index // len(sessions)
            self.hub.sessions.close(sessions[index], CloseCode.GOING_AWAY, "the relay shuts down", wait)

    # Who comes.

    def decide(
        self, client_slot: ClientSlot | None, peer: str, headers: Headers, query: str, *, secure: bool
    ) -> Decision:
        """What a handshake gets; a refusal that is told before the upgrade is counted as a fault here.

        Args:
            client_slot: who it is counted as.
            peer: address of the socket.
            headers: of the request.
            query: of the request, undecoded.
            secure: whether the socket itself is encrypted.
        """
        request, after_upgrade = Request(), False
        why = "page_not_allowed"
        try:
            # A page of another site learns nothing, whatever it offers.
            self.request_auth.check_origin(peer, headers, secure=secure)
            why = ""
            offered = request_auth.parse_subprotocols(
                value for name, value in headers if name == "sec-websocket-protocol"
            )
            after_upgrade = offered.supported
            decided = self._authorize(client_slot, peer, headers, query, offered.token)
        except ProtocolError as error:
            code = close_code(error)
            if not after_upgrade and code in _FAULTS:
                self._record_failure(client_slot)
            if code in _FAULTS or code is CloseCode.TOO_MANY:
                why = why or (error.reason if isinstance(error, TokenError) else error.code)
                self.rejections.record(code, why, client_slot.address if client_slot else peer)
            rejected = error.with_traceback(None)  # that holds this frame, and the frame the error
            rejected.__context__ = None  # likewise
            return Decision(request, rejection=rejected, after_upgrade=after_upgrade)
        return decided

    def _authorize(
        self, client_slot: ClientSlot | None, peer: str, headers: Headers, query: str, token: str | None
    ) -> Decision:
        """Decide about a handshake from a page that may connect.

        Raises:
            ProtocolError: it may not have it.
        """
        if not self.accepting:
            raise ProtocolError(ErrorCode.UNAVAILABLE, "the relay is starting or shutting down; try again")
        client = self.request_auth.client_address(peer, headers)
        if client_slot is not None and client != peer:
            # Only now is it known who a proxy speaks for.
            limit = self.admission.admit_request(client_slot, client, self.clock())
            if limit is not None:
                raise ProtocolError(
                    ErrorCode.TOO_MANY, f"too many connections from {client}; try again later"
                )
        request = parse_query(query)
        grant = self.request_auth.grant(headers, token)
        wanted = None
        if grant is not None:
            wanted = grant.intersect(request.subjects, request.level)
            if client_slot is not None and not self.admission.bind(
                client_slot, grant.subject, grant.connections
            ):
                raise ProtocolError(
                    ErrorCode.TOO_MANY, f"too many connections of {grant.subject[:80]!r}; close one, or wait"
                )
        return Decision(request, grant, wanted)

    def record_open(self, client_slot: ClientSlot | None) -> None:
        """A handshake is over, and there is a session."""
        self.handshake_results["accepted"] += 1
        if client_slot is not None:
            self.handshakes.observe(self.clock() - client_slot.arrived)

    def admit(self, client_slot: ClientSlot | None, grant: Grant) -> bool:
        """Count a client as one of its token's subject; False when that has connections enough."""
        if client_slot is not None:
            if not self.admission.bind(client_slot, grant.subject, grant.connections):
                return False
            self.admission.mark_established(client_slot)
        return True

    def record_close(self, client_slot: ClientSlot | None, code: int, session: str) -> None:
        """A connection is being closed by us: without a session, that can be its fault.

        Args:
            client_slot: whose it is.
            code: of the close.
            session: id of its session; empty when it has none, and then it was told of as refused.
        """
        if client_slot is None:
            return
        unsettled = self.admission.is_pending(client_slot)
        if code in _FAULTS and unsettled:
            self._record_failure(client_slot)
            if code == CloseCode.TIMEOUT:
                self.admission.rejected[Limit.AUTH_TIME] += 1
        ordinary = code in _ORDINARY and not unsettled
        if session and not ordinary and (code in _FAULTS or code == CloseCode.TOO_MANY):
            self.rejections.record(code, CLOSE_CODES[CloseCode(code)].meaning, client_slot.address, session)

    def release(self, client_slot: ClientSlot, *, waiting: bool) -> None:
        """A client's connection has ended; called once.

        Args:
            client_slot: whose.
            waiting: whether it ended without having shown a token that was waited for.
        """
        if waiting:
            self._record_failure(client_slot)
        self.admission.release(client_slot)

    def _record_failure(self, client_slot: ClientSlot | None) -> None:
        if client_slot is not None:
            self.admission.penalize(client_slot.address, self.clock())
