"""Accounting of one connection: the limits of its client, metrics, the log and the audit log.

Invariant: a connection that was counted as opened is counted as closed, with one close code, and its slot is
released once.
"""

from collections.abc import Callable
from typing import Final

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode
from tickertape.relay.audit.audit_log import SessionAudit, Transport
from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.session import Link, Session, State
from tickertape.relay.transport.connections import CLIENT_FAULT_CODES, ConnectedClient, Connections
from tickertape.relay.transport.handshake import Decision

_EXPECTED_CODES: Final = frozenset({CloseCode.TIMEOUT, CloseCode.UNAUTHORIZED})
"""Codes that are not logged for an established session: its client vanished, or its token expired."""


class Accounting:
    """Account of one connection.

    Args:
        connections: connections of the relay.

    Attributes:
        client_slot: slot of the connection; None if it is not subject to limits.
    """

    __slots__ = ("_audit", "_connections", "client_slot")

    def __init__(self, connections: Connections) -> None:
        self.client_slot: ClientSlot | None = None
        self._connections = connections
        self._audit: SessionAudit | None = None

    def record_open(self) -> None:
        """Count an accepted handshake and its duration."""
        self._connections.handshake_results["accepted"] += 1
        if self.client_slot is not None:
            duration = self._connections.clock() - self.client_slot.accepted_at
            self._connections.handshake_durations.observe(duration)

    def record_fault(self) -> None:
        """Charge the client extra for a rejected handshake."""
        self._connections.record_fault(self.client_slot)

    def open_session(
        self, link: Link, decision: Decision, transport: Transport, peer: str, headers: Headers
    ) -> Session:
        """Open the session of an accepted handshake.

        Args:
            link: connection of the session.
            decision: accepted handshake.
            transport: transport of the connection.
            peer: address of the socket.
            headers: headers of the request.
        """
        connections = self._connections
        audit = connections.audit_session(transport, peer, headers)
        session = connections.hub.sessions.open(
            link, decision.request, connections.clock(), decision.grant, decision.filter
        )
        self._audit = audit
        if audit is not None and session.grant is not None:
            audit.granted(session.id, session.grant)
        return session

    def admit(self, session: Session | None, grant: Grant) -> bool:
        """Bind the client to its token's subject; return False if the subject is at its connection limit."""
        if self.client_slot is not None:
            admission = self._connections.admission
            if not admission.bind(self.client_slot, grant.subject, grant.connections):
                return False
            # From here on, the connection is not evicted for a new one.
            admission.mark_established(self.client_slot)
        if self._audit is not None and session is not None:
            self._audit.granted(session.id, grant)
        return True

    def close_for_rate(self, session: Session, reason: str) -> None:
        """Close the session of a client that sends too much."""
        self.record_message_rate()
        self._connections.hub.sessions.close(session, CloseCode.TOO_MANY, reason, 1_000)

    def record_message_rate(self) -> None:
        """Count that the client sent too much."""
        address = "" if self.client_slot is None else self.client_slot.address
        self._connections.admission.reject(Limit.MESSAGE_RATE, address)

    def record_close(self, session: Session | None, code: int) -> None:
        """Count and log a close that the relay starts.

        Args:
            session: session of the connection; None if there is none, in which case the rejection is already
                logged.
            code: close code.
        """
        client_slot, connections = self.client_slot, self._connections
        if client_slot is None:
            return
        unsettled = connections.admission.is_pending(client_slot)
        if code in CLIENT_FAULT_CODES and unsettled:
            connections.record_fault(client_slot)
            if code == CloseCode.TIMEOUT:
                connections.admission.rejected[Limit.AUTH_TIME] += 1
        expected = code in _EXPECTED_CODES and not unsettled
        if (
            session is not None
            and not expected
            and (code in CLIENT_FAULT_CODES or code == CloseCode.TOO_MANY)
        ):
            meaning = CLOSE_CODES[CloseCode(code)].meaning
            connections.record_rejection(code, meaning, client_slot.address, session.id)

    def mark_pending(self) -> None:
        """Count a connection without a session, which lingers, towards their limit."""
        if self.client_slot is not None:
            self._connections.admission.mark_pending(self.client_slot)

    def settle(
        self, client: ConnectedClient, session: Session | None, code: int, sent: Callable[[], int | None]
    ) -> None:
        """Remove the session of a closed connection, release its slot, and count the close.

        Args:
            client: the connection.
            session: its session, if it still has one.
            code: close code.
            sent: returns the number of bytes that the client has received; None if unknown.
        """
        connections = self._connections
        # Read first, since ``remove`` changes the state.
        awaiting_auth = session is not None and session.state is State.WAITING
        if session is not None:
            connections.hub.sessions.remove(session)
        client_slot, self.client_slot = self.client_slot, None
        if client_slot is not None:
            if awaiting_auth:  # the client disconnected before it sent the required token
                connections.record_fault(client_slot)
            connections.admission.release(client_slot)
        if client.ping_slot >= 0:
            connections.discard(client)
            client.ping_slot = -1
            connections.close_counts[code] += 1
            if self._audit is not None:
                self._audit.ended(code, sent())
