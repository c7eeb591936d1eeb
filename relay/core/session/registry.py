"""Registry of sessions: sends messages to them and closes them."""

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sized

from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.messages import Message, ProtocolError
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON, contained
from tickertape.relay.core.session.session import RETRY_AFTER_MS, Link, Session, State, close_code
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.core.where.conditions import Conditions


class SessionRegistry:
    """Registry of all sessions by id.

    Args:
        fanout: fan-out that the sessions are members of.
        conditions: conditions of their filters.
        stats: statistics to update.
        report: called once for a session that an internal error ends, with its id and the error.
    """

    def __init__(
        self,
        fanout: Fanout,
        conditions: Conditions,
        stats: Stats,
        report: Callable[[str, Exception], None],
    ) -> None:
        self._fanout = fanout
        self._conditions = conditions
        self._stats = stats
        self._report = report
        self._sessions: dict[str, Session] = {}
        self._on_failure = self.fail  # one bound method object for all sessions, to save memory

    def __repr__(self) -> str:
        return f"SessionRegistry({len(self)} sessions)"

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))  # a copy, since the loop body may end sessions

    def add(self, link: Link, request: Request) -> Session:
        """Create and register a session."""
        session = Session(secrets.token_urlsafe(9), link, request, self._on_failure)
        self._sessions[session.id] = session
        return session

    def cursors(self) -> list[tuple[Session, str]]:
        """Return all sessions that follow a feed, with their cursors."""
        return [
            (session, self._fanout.cursor(self._fanout.position(session)))
            for session in self
            if session.feed is not None
        ]

    def use_filter(self, session: Session, event_filter: Filter | None) -> None:
        """Set the filter of a session, whose condition is shared with all others that have the same.

        Call this after ``detach`` if the condition changes.

        Raises:
            ProtocolError: there are too many conditions.
        """
        used, client = session.used_condition, session.owner
        session.filter, session.used_condition = event_filter, None
        try:
            if event_filter is not None and event_filter.where is not None:
                event_filter.where = self._conditions.use(event_filter.where, client)
                session.used_condition = (event_filter.where, client)
        finally:
            if used is not None:
                self._conditions.release(*used)

    def send(self, session: Session, *outgoing: Message) -> None:
        """Send messages to a session in one write."""
        if session.state is not State.CLOSING:
            self.write(session, session.encoding.encode(outgoing), len(outgoing))

    def write(self, session: Session, data: Sized, count: int = 1) -> None:
        """Write ``count`` encoded messages to a session."""
        if session.state is not State.CLOSING:
            session.send(data)
            self._stats.frames += count
            self._stats.bytes += len(data)

    @contained
    def notify(self, session: Session, message: Message) -> None:
        """Send a message to one of many sessions; a failure ends only that session."""
        self.send(session, message)

    def reject_link(self, link: Link, error: ProtocolError, code: CloseCode) -> None:
        """Send ``error`` and ``bye`` to a client without a session, and close its link."""
        # The session is not registered; it exists only to send the two messages.
        self.reject(Session("", link, Request(), self.fail), error, code)

    @contained
    def reject(self, session: Session, error: ProtocolError, code: CloseCode | None = None) -> None:
        """Send ``error`` and ``bye``, and close a session; ``code`` overrides the error's close code."""
        code = close_code(error) if code is None else code
        self.send(session, messages.error(error, code))
        self.close(session, code, error.message, RETRY_AFTER_MS.get(code))

    @contained
    def close(
        self, session: Session, code: CloseCode, reason: str, retry_after_ms: int | None = None
    ) -> None:
        """Send ``bye`` and close a session."""
        if session.state is State.CLOSING:
            return
        # If ``bye`` cannot be written, the session ends all the same, and ``fail`` aborts the connection.
        try:
            self.send(session, messages.bye(code, reason, retry_after_ms))
        finally:
            self.remove(session)
            session.state = State.CLOSING
        session.link.close(code, reason)

    @contained
    def remove(self, session: Session) -> None:
        """Remove a session whose connection is closed or closing; nothing is written to it afterwards."""
        # From here on, a position that is still being located is ignored.
        session.locating = None
        self._sessions.pop(session.id, None)
        self._fanout.detach(session)
        self.use_filter(session, None)
        session.state = State.CLOSING

    def fail(self, session: Session, error: Exception) -> None:
        """End a session on whose behalf an exception was raised, and report the exception once.

        If the session is closing already, or closing it fails too, abort its connection.
        """
        closing = session.failed or session.state is State.CLOSING
        if not session.failed:
            session.failed = True
            self._stats.errors["session"] += 1
            self._report(session.id, error)
        if not closing:
            self.close(session, CloseCode.INTERNAL_ERROR, INTERNAL_ERROR_REASON)
            return
        # The first error has been reported; nothing more can be done if the abort fails too.
        with contextlib.suppress(Exception):
            session.link.abort()
