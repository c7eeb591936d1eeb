"""The sessions that there are, what is said to them, and how each ends."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sized

from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.messages import Message, ProtocolError
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.session.faults import REASON, contained
from tickertape.relay.core.session.session import RETRY_AFTER_MS, Link, Session, State, close_code
from tickertape.relay.core.session.subscription import Request


class SessionRegistry:
    """All sessions by their ids.

    Args:
        fanout: lets go of those that end.
        stats: where to count.
        report: called once with the id of a session that an internal error ends, and that error.
    """

    def __init__(self, fanout: Fanout, stats: Stats, report: Callable[[str, Exception], None]) -> None:
        self._fanout = fanout
        self._stats = stats
        self._report = report
        self._sessions: dict[str, Session] = {}
        self._failed = self.fail  # one bound method for all sessions

    def __repr__(self) -> str:
        return f"SessionRegistry({len(self)} sessions)"

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))  # what is done for one of them may end it, or another

    def add(self, link: Link, request: Request) -> Session:
        """Begin a session."""
        session = Session(secrets.token_urlsafe(9), link, request, self._failed)
        self._sessions[session.id] = session
        return session

    def send(self, session: Session, *messages: Message) -> None:
        """Send messages to a session, in one write."""
        if session.state is not State.CLOSING:
            self.write(session, session.encoding.encode(messages), len(messages))

    def write(self, session: Session, data: Sized, count: int = 1) -> None:
        """Send what its encoding made of ``count`` messages to a session."""
        if session.state is not State.CLOSING:
            session.send(data)
            self._stats.frames += count
            self._stats.bytes += len(data)

    @contained
    def notify(self, session: Session, said: Message) -> None:
        """Send a message to one of many sessions."""
        self.send(session, said)

    def reject_link(self, link: Link, error: ProtocolError, code: CloseCode) -> None:
        """Say ``error`` and ``bye`` to a client that gets no session, and close."""
        self.reject(Session("", link, Request(), self.fail), error, code)

    @contained
    def reject(self, session: Session, error: ProtocolError, code: CloseCode | None = None) -> None:
        """Answer a client's error, say ``bye`` and close; ``code`` is the error's own unless given."""
        code = close_code(error) if code is None else code
        self.send(session, messages.error(error, code))
        self.close(session, code, error.message, RETRY_AFTER_MS.get(code))

    @contained
    def close(
        self, session: Session, code: CloseCode, reason: str, retry_after_ms: int | None = None
    ) -> None:
        """Say ``bye`` and close a session."""
        if session.state is State.CLOSING:
            return
        try:
            self.send(session, messages.bye(code, reason, retry_after_ms))
        finally:
            self.remove(session)
            session.state = State.CLOSING
        session.link.close(code, reason)

    @contained
    def remove(self, session: Session) -> None:
        """Forget a session whose connection is gone, or ends: nothing is written to it from here on."""
        session.locating = None
        self._sessions.pop(session.id, None)
        self._fanout.detach(session)
        session.state = State.CLOSING

    def fail(self, session: Session, error: Exception) -> None:
        """End a session on whose behalf an exception was raised, and report it once.

        A session that was ending already, or whose end fails too, is cut.
        """
        ending = session.failed or session.state is State.CLOSING
        if not session.failed:
            session.failed = True
            self._stats.errors["session"] += 1
            self._report(session.id, error)
        if not ending:
            self.close(session, CloseCode.INTERNAL_ERROR, REASON)
            return
        # What cannot be cut either is gone; why the session ends has been reported.
        with contextlib.suppress(Exception):
            session.link.abort()
