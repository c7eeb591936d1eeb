"""What the hub wants from the stream, noted until a reader has time for it."""

import asyncio

from tickertape.relay.core.session.session import Session


class ReplayRequests:
    """Replay chunks that are wanted, and sessions whose position only the stream can tell.

    Attributes:
        chunks: set while the hub's archive may want a chunk.
        asked: set while there are sessions that asked.
    """

    def __init__(self) -> None:
        self.chunks = asyncio.Event()
        self.asked = asyncio.Event()
        self._asking: dict[Session, None] = {}

    def __repr__(self) -> str:
        return f"ReplayRequests({len(self._asking)} sessions)"

    def fetch(self) -> None:
        """Note that a chunk is wanted."""
        self.chunks.set()

    def ask(self, *sessions: Session) -> None:
        """Note sessions whose position is wanted."""
        self._asking.update(dict.fromkeys(sessions))
        self.asked.set()

    def take(self) -> list[Session]:
        """Return the sessions that asked, and forget them."""
        self.asked.clear()
        sessions, self._asking = list(self._asking), {}
        return sessions
