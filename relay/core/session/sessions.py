"""What clients do, and what time and the stream do to them.

Invariants:

1. Whatever a client did is answered to that client alone.
2. After ``bye`` nothing more is written to a session, nor after ``closed``.
3. A session without a grant is sent nothing but ``error`` and ``bye``, and never has a feed.
4. An exception that is raised on behalf of a session ends that session alone; ``faults.py`` lists the places.
"""

import math
from collections.abc import Callable
from typing import Final

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import (
    Auth,
    Heartbeat,
    Ping,
    ProtocolError,
    Subscribe,
    Upstream,
    parse_client_message,
)
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub_config import HubSettings
from tickertape.relay.core.session.faults import contained
from tickertape.relay.core.session.registry import SessionRegistry
from tickertape.relay.core.session.session import Action, Link, Session, State, decide
from tickertape.relay.core.session.session_start import SessionStart
from tickertape.relay.core.session.subscription import Request, request_from_subscribe
from tickertape.relay.core.snapshot import Snapshot

AUTH_TIMEOUT: Final = 5.0
"""Seconds that a client has to send ``auth``."""

EXPIRY_NOTICE: Final = 60.0
"""Seconds before the end of a token at which its client is told."""


class Sessions(SessionRegistry):
    """The sessions of a hub.

    Args:
        settings: what an operator sets.
        log: what cursors point into.
        snapshot: newest states.
        fanout: the feeds.
        stats: where to count.
        ask: called with a session whose position only the stream can tell; ``located`` answers. Its
            ``locating`` says what it wants: a cursor that is ahead of the relay, or a time before the log.
        verify: tells what a token grants, or raises ProtocolError; None where no tokens are asked for.
        report: called once with the id of a session that an internal error ends, and that error.

    Attributes:
        upstream_connected: whether the relay hears from NATS.
    """

    def __init__(
        self,
        settings: HubSettings,
        log: EventLog,
        snapshot: Snapshot,
        fanout: Fanout,
        stats: Stats,
        ask: Callable[[Session], None] | None,
        verify: Callable[[str], Grant] | None,
        report: Callable[[str, Exception], None],
    ) -> None:
        super().__init__(fanout, stats, report)
        self.upstream_connected = False
        self._upstream_since = 0.0
        self._settings = settings
        self._log = log
        self._verify = verify
        self._start = SessionStart(settings, log, snapshot, fanout, stats, self, ask)

    # What comes from clients.

    def open(
        self,
        link: Link,
        request: Request,
        now: float,
        grant: Grant | None = EVERYTHING,
        wanted: Filter | None = None,
    ) -> Session:
        """Begin a session; it is welcomed and started, once it has a grant.

        Args:
            link: where it writes to.
            request: what it follows first.
            now: UNIX seconds.
            grant: what it may see; None when it has yet to show a token.
            wanted: what the grant leaves of the request; None when that is yet to be computed.
        """
        session = self.add(link, request)
        if grant is None:
            session.deadline = now + AUTH_TIMEOUT
        else:
            self._enter(session, grant, wanted, now)
        return session

    @contained
    def _enter(self, session: Session, grant: Grant, wanted: Filter | None, now: float) -> None:
        try:
            self._admit(session, grant, wanted, now)
        except ProtocolError as error:
            self.reject(session, error)

    @contained
    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Handle one text message of a client."""
        message = None
        try:
            message = parse_client_message(text)
            action = decide(session.state, message)
            if action is Action.PONG:
                assert isinstance(message, Ping)
                self.send(session, messages.pong(message.id))
            elif action is Action.START:
                assert isinstance(message, Subscribe)
                self._subscribe(session, request_from_subscribe(message), now)
            elif action is Action.ADMIT:
                assert isinstance(message, Auth)
                grant = EVERYTHING if self._verify is None else self._verify(message.token)
                self._admit(session, grant, None, now)
            elif action is Action.RENEW:
                assert isinstance(message, Auth)
                self._renew(session, message, now)
            elif action is Action.REFUSE:
                raise ProtocolError(
                    ErrorCode.UNAUTHORIZED, "no token yet; the first message has to be 'auth'"
                )
        except ProtocolError as error:
            if message is not None:
                error.ref = message.type
            self.reject(session, error)

    @contained
    def pause(self, session: Session) -> None:
        """Leave a session where it is: its socket takes no more."""
        self._fanout.pause(session)

    @contained
    def resume(self, session: Session) -> None:
        """Let a session continue: its socket takes data again."""
        self._fanout.resume(session)

    def _subscribe(self, session: Session, request: Request, now: float) -> None:
        assert session.grant is not None
        session.filter = session.grant.intersect(request.subjects, request.level)
        session.request = request
        self._fanout.detach(session)
        self._start.start(session, session.cursor, now)

    # Tokens.

    def _admit(self, session: Session, grant: Grant, wanted: Filter | None, now: float) -> None:
        """Welcome a session and start it."""
        asked = session.request
        if wanted is None:
            wanted = grant.intersect(asked.subjects, asked.level)  # before anything is said
        self._hold(session, grant, wanted)
        session.state = State.FOLLOWING
        settings = self._settings
        rate = settings.rate_for("live", grant)
        welcome = messages.welcome(settings.relay, session.id, settings.heartbeat_ms, grant, rate)
        self.send(session, welcome)
        self._start.start(session, self._log.head, now)
        if not self.upstream_connected:
            self.send(session, self._upstream())
        if session.deadline <= now:
            self._due(session, now)

    def _hold(self, session: Session, grant: Grant, wanted: Filter) -> None:
        """Give a session a grant, and see to its end.

        Raises:
            ProtocolError: the connection limit of the grant's subject is reached.
        """
        if not session.link.admit(grant):
            raise ProtocolError(
                ErrorCode.TOO_MANY, f"too many connections of {grant.subject[:80]!r}; close one, or wait"
            )
        session.grant = grant
        session.filter = wanted
        session.deadline = math.inf if grant.expires_at is None else grant.expires_at - EXPIRY_NOTICE

    def _renew(self, session: Session, message: Auth, now: float) -> None:
        """Continue a session under another grant; where that changes what it gets, from a fresh snapshot."""
        if self._verify is None:
            return
        try:
            grant = self._verify(message.token)
        except ProtocolError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            # Keys are being fetched; until they are here, the token that it has stays good.
            error.ref = message.type
            self.send(session, messages.error(error, CloseCode.UNAVAILABLE))
            return
        feed, asked = session.feed, session.request
        wanted = grant.intersect(asked.subjects, asked.level)
        self._hold(session, grant, wanted)
        pace = self._settings.rate_for(asked.mode, grant)
        if feed is not None and (wanted.key, pace) == (feed.filter.key, feed.key.rate):
            session.filter = feed.filter
            place = self._fanout.position(session)
            self.send(session, self._start.subscribed(session, feed, place, resumed=True))
        elif feed is not None:
            self._fanout.detach(session)
            self._start.begin(session, session.cursor, now)
        # Otherwise its position is still asked for, and it begins under this grant.
        if session.deadline <= now:
            self._due(session, now)

    @contained
    def _due(self, session: Session, now: float) -> None:
        """Look after a session whose time has come: no token yet, one that ends soon, or one that ended."""
        if session.grant is None:
            error = ProtocolError(ErrorCode.TIMEOUT, f"no token within {AUTH_TIMEOUT:g} s; send 'auth' first")
            self.reject(session, error)
            return
        ends = session.grant.expires_at
        assert ends is not None
        if now >= ends:
            self.reject(session, ProtocolError(ErrorCode.UNAUTHORIZED, "the token has expired"))
        else:
            self.send(session, messages.token_expiring(ends))
            session.deadline = ends

    def end_revoked(self, revoked: Callable[[Grant], bool]) -> int:
        """End the sessions whose token was revoked; returns how many."""
        before = len(self)
        for session in self:
            self._end_if(session, revoked)
        return before - len(self)

    @contained
    def _end_if(self, session: Session, revoked: Callable[[Grant], bool]) -> None:
        if session.grant is not None and revoked(session.grant):
            self.reject(session, ProtocolError(ErrorCode.UNAUTHORIZED, "the token was revoked"))

    # Time, and the stream.

    def tick(self, now: float) -> None:
        """Look after tokens and times that end; called once a second."""
        for session in [one for one in self if one.deadline <= now]:
            self._due(session, now)

    def heartbeat(self, now: float) -> None:
        """Give a sign of life to sessions whose position is still asked for."""
        for session in self:
            if session.locating is not None:
                self.notify(session, self._alive(session.locating, now))

    def _alive(self, request: Request, now: float) -> Heartbeat | Upstream:
        """Build a sign of life.

        A session's own cursor is the one position from which it loses nothing. With ``since`` there is none
        yet, and any cursor would make it skip or repeat; so it is told once more how the upstream is.
        """
        if request.cursor is None:
            return self._upstream()
        return messages.heartbeat(str(request.cursor), format_time(now))

    def set_upstream(self, connected: bool, now: float) -> None:
        """Take in whether the relay hears from NATS; clients are told of changes."""
        if connected == self.upstream_connected and self._upstream_since:
            return
        self.upstream_connected = connected
        self._upstream_since = now
        said = self._upstream()
        for session in self:
            if session.grant is not None:
                self.notify(session, said)

    @contained
    def located(self, session: Session, request: Request, place: int | None, now: float) -> None:
        """Answer ``ask``, as ``SessionStart.located`` has it."""
        self._start.located(session, request, place, now)

    def knows(self, cursor: Cursor) -> bool | None:
        """Tell whether a cursor is one of this stream, as ``SessionStart.knows`` has it."""
        return self._start.knows(cursor)

    def positions(self) -> list[tuple[Session, str]]:
        """Return the cursors of all sessions that follow."""
        return [
            (session, self._fanout.cursor(self._fanout.position(session)))
            for session in self
            if session.feed is not None
        ]

    def reset(self, before: list[tuple[Session, str]]) -> None:
        """Tell sessions that all between their positions and the head of a log that started again is lost.

        Args:
            before: their ``positions`` in the log as it was.
        """
        for session in self:
            self._fanout.set_position(session, self._log.head)  # also those whose position is still asked for
        after = self._fanout.cursor(self._log.head)
        for session, place in before:
            self.notify(session, messages.gap(place, after, "reset"))
            self._stats.gaps["reset"] += 1

    def send_snapshots(self) -> None:
        """Send all sessions the newest states, as of where they stand."""
        for session in self:
            self._send_snapshot(session)

    @contained
    def _send_snapshot(self, session: Session) -> None:
        if session.feed is not None:
            self._start.send_snapshot(session, session.feed, self._fanout.position(session))

    def _upstream(self) -> Upstream:
        return messages.upstream(self.upstream_connected, self._upstream_since)
