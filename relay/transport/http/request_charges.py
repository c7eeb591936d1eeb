"""Charges for requests on the main port, each to the limits of its client.

Invariant: a request and its rejection are charged to the address that a trusted proxy reports, never to the
previous client of the proxy's socket.
"""

from tickertape.relay.auth.request_auth import Headers
from tickertape.relay.core.connection_limits import ClientSlot, Limit
from tickertape.relay.transport.acceptor import Acceptor

from tickertape.errors import TickertapeError


class LimitExceeded(TickertapeError):
    """Error of a request that exceeds a limit of its client, or of the relay."""

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit)
        self.limit = limit


class RequestCharges:
    """Charges for the requests of one connection.

    Args:
        acceptor: acceptor of the connection; None on the ops port, where nothing is charged.
    """

    __slots__ = ("_acceptor", "_client")

    def __init__(self, acceptor: Acceptor | None) -> None:
        self._acceptor = acceptor
        self._client: str | None = None  # address that a trusted proxy reports; None until it is known

    def begin(self) -> None:
        """Forget the client of the previous request."""
        self._client = None

    def is_client_unknown(self, client_slot: ClientSlot) -> bool:
        """Return whether the client of the request is not known yet."""
        return client_slot.relayed and self._client is None

    def charge(self, client_slot: ClientSlot, peer: str, headers: Headers, *, upgrade: bool) -> None:
        """Charge a request to its client.

        Args:
            client_slot: slot of the connection.
            peer: address of the socket.
            headers: headers of the request.
            upgrade: whether the request is a handshake.

        Raises:
            LimitExceeded: the request exceeds a limit.
        """
        if self._acceptor is None:
            return
        if not client_slot.relayed:
            # A handshake is charged with the socket of its client, which it takes over.
            limit = None if upgrade else self._acceptor.admit_request(client_slot)
        else:
            self._client = self._acceptor.request_auth.client_address(peer, headers)
            limit = self._acceptor.admit_request(client_slot, self._client)
        # A browser learns in the WebSocket, from ``handshake.decide``, that it has too many connections.
        if limit is not None and not (upgrade and limit is Limit.ADDRESS_CONNECTIONS):
            raise LimitExceeded(limit)

    def record_fault(self, client_slot: ClientSlot) -> None:
        """Charge a rejected or unfinished request to its client."""
        if self._acceptor is None:
            return
        # The slot of a proxy's socket may still have the address of the previous request's client.
        address = self._client if client_slot.relayed else client_slot.address
        if address is not None:
            self._acceptor.admission.penalize(address, self._acceptor.clock())
