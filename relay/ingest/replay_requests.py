"""Requests of the hub to the stream, recorded until a reader is free to serve them."""

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
        self._sessions: dict[Session, None] = {}

    def __repr__(self) -> str:
        return f"ReplayRequests({len(self._sessions)} sessions)"

    def request_chunk(self) -> None:
        """Signal that the replay cache has a request for a chunk."""
        self.chunk_requested.set()

    def request_positions(self, *sessions: Session) -> None:
        """Queue sessions whose position has to be looked up in the stream."""
        self._sessions.update(dict.fromkeys(sessions))
        self.position_requested.set()

    def take_sessions(self) -> list[Session]:
        """Return the sessions that wait for their position, and clear the queue."""
        self.position_requested.clear()
        sessions, self._sessions = list(self._sessions), {}
        return sessions
