"""Connections without a session: a bounded pool that one client cannot take from the others.

Invariant: the connection that has to make way is the oldest one of the address that has most of them.
"""

from collections import Counter, OrderedDict
from typing import Final, Generic, Protocol, TypeVar


class Pending(Protocol):
    """Connection as the pool sees it; its address changes only through ``PendingConnections.move``."""

    address: str


P = TypeVar("P", bound=Pending)


class PendingConnections(Generic[P]):
    """Pool of connections without a session."""

    def __init__(self) -> None:
        self._connections: Final[OrderedDict[P, None]] = OrderedDict()  # oldest first
        self._counts: Final[Counter[str]] = Counter()  # by address; none is 0

    def __repr__(self) -> str:
        return f"PendingConnections({len(self)} of {len(self._counts)} addresses)"

    def __len__(self) -> int:
        return len(self._connections)

    def __contains__(self, connection: object) -> bool:
        return connection in self._connections

    def add(self, connection: P) -> None:
        """Add a connection that is not in the pool."""
        self._connections[connection] = None
        self._counts[connection.address] += 1

    def discard(self, connection: P) -> None:
        """Remove a connection if it is in the pool."""
        if connection not in self._connections:
            return
        del self._connections[connection]
        self._count_down(connection.address)

    def move(self, connection: P, address: str) -> None:
        """Change the address of a connection; if it is in the pool, it keeps its place."""
        if connection in self._connections:
            self._count_down(connection.address)
            self._counts[address] += 1
        connection.address = address

    def largest(self) -> P:
        """Return the oldest connection of the address that has most; the pool must not be empty."""
        counts = self._counts
        if len(counts) == len(self._connections):
            return next(iter(self._connections))  # each address has one, as in a flood from many addresses
        address = max(counts, key=counts.__getitem__)
        return next(connection for connection in self._connections if connection.address == address)

    def _count_down(self, address: str) -> None:
        self._counts[address] -= 1
        if not self._counts[address]:
            del self._counts[address]
