"""Requests of the hub to the stream, recorded until a reader is free to serve them.

Invariant: clients take turns, so that one with many sessions does not delay those of the others.
"""

import asyncio

from tickertape.relay.core.session.session import Session


class ReplayRequests:
    """Pending requests for replay chunks and for positions that only the stream knows.

    Attributes:
        chunk_requested: set while the replay cache may have a request for a chunk.
        position_requested: set while sessions wait for their start position.
    """

    def __init__(self) -> None:
        self.chunk_requested = asyncio.Event()
        self.position_requested = asyncio.Event()
        # By client, such as the subject of a token; the client whose turn is next comes first.
        self._sessions: dict[str, dict[Session, None]] = {}

    def __repr__(self) -> str:
        return f"ReplayRequests({sum(map(len, self._sessions.values()))} sessions)"

    def request_chunk(self) -> None:
        """Signal that the replay cache has a request for a chunk."""
        self.chunk_requested.set()

    def request_positions(self, *sessions: Session) -> None:
        """Queue sessions whose position has to be looked up in the stream."""
        for session in sessions:
            self._sessions.setdefault(session.owner, {})[session] = None
        self.position_requested.set()

    def take_sessions(self, limit: int) -> list[Session]:
        """Return the next sessions that wait for their position, one of each client in turn.

        Args:
            limit: maximum number of sessions.
        """
        taken: list[Session] = []
        while self._sessions and len(taken) < limit:
            owner = next(iter(self._sessions))
            waiting = self._sessions.pop(owner)
            session = next(iter(waiting))
            del waiting[session]
            taken.append(session)
            if waiting:
                self._sessions[owner] = waiting  # at the end
        if not self._sessions:
            self.position_requested.clear()
        return taken
