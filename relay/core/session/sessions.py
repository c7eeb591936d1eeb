"""Sessions of a hub: client messages, tokens, timers and changes of the stream.

Invariants:

1. The reply to a client message goes to that client only.
2. Nothing is written to a session after ``bye``, or after ``remove``.
3. A session without a grant is sent nothing but ``error`` and ``bye``, and never has a feed.
4. An exception raised on behalf of a session ends only that session; ``faults.py`` lists the places.
"""

import math
from collections.abc import Callable
from typing import Final

from tickertape.contracts.client_messages import Auth, Ping, Subscribe, parse_client_message
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Heartbeat, ProtocolError, Upstream
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub_settings import HubSettings
from tickertape.relay.core.session.faults import contained
from tickertape.relay.core.session.registry import SessionRegistry
from tickertape.relay.core.session.session import Action, Link, Session, State, decide
from tickertape.relay.core.session.session_start import SessionStart
from tickertape.relay.core.session.subscription import Request, request_from_subscribe
from tickertape.relay.core.where.conditions import Conditions

AUTH_TIMEOUT: Final = 5.0
"""Seconds within which a client has to send ``auth``."""

CLOCK_STEP: Final = 0.5
"""Seconds from which a change of the system clock moves the expiry of tokens."""

EXPIRY_NOTICE: Final = 60.0
"""Seconds before the expiry of a token at which its client receives ``token_expiring``."""


class Sessions(SessionRegistry):
    """Sessions of a hub.

    Args:
        settings: settings of the hub.
        log: event log.
        fanout: fan-out with the feeds.
        conditions: conditions of the filters.
        stats: statistics to update.
        locate: called with a session whose position only the stream knows: ``locating`` has a cursor outside
            the log, or a time before it. The caller answers with ``start_located``.
        verify: returns the grant of a token, or raises ProtocolError; None without authentication.
        report: called once for a session that an internal error ends, with its id and the error.

    Attributes:
        upstream_connected: whether the relay is connected to NATS.
    """

    def __init__(
        self,
        settings: HubSettings,
        log: EventLog,
        fanout: Fanout,
        conditions: Conditions,
        stats: Stats,
        locate: Callable[[Session], None] | None,
        verify: Callable[[str], Grant] | None,
        report: Callable[[str, Exception], None],
    ) -> None:
        super().__init__(fanout, conditions, stats, report)
        self.upstream_connected = False
        self._upstream_since = 0.0
        self._settings = settings
        self._log = log
        self._verify = verify
        self._start = SessionStart(settings, log, fanout, stats, self, locate)

    # Client messages.

    def open(
        self,
        link: Link,
        request: Request,
        now: float,
        grant: Grant | None = EVERYTHING,
        event_filter: Filter | None = None,
    ) -> Session:
        """Open a session; if it has a grant, send ``welcome`` and start it.

        Args:
            link: connection that the session writes to.
            request: first request of the client.
            now: UNIX seconds.
            grant: grant of the client; None if the client has to send a token first.
            event_filter: intersection of request and grant; computed if None.
        """
        session = self.add(link, request)
        if grant is None:
            session.deadline = now + AUTH_TIMEOUT
        else:
            self._try_admit(session, grant, event_filter, now)
        return session

    @contained
    def _try_admit(self, session: Session, grant: Grant, event_filter: Filter | None, now: float) -> None:
        try:
            self._admit(session, grant, event_filter, now)
        except ProtocolError as error:
            self.reject(session, error)

    @contained
    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Handle a text message of a client."""
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
            elif action is Action.REJECT:
                raise ProtocolError(ErrorCode.UNAUTHORIZED, "no token received; send 'auth' first")
        except ProtocolError as error:
            # Without a parsed message there is no type to refer to.
            if message is not None:
                error.ref = message.type
            self.reject(session, error)

    @contained
    def pause(self, session: Session) -> None:
        """Stop delivery to a session whose send buffer is full."""
        self._fanout.pause(session)

    @contained
    def resume(self, session: Session) -> None:
        """Continue delivery to a session whose send buffer has drained."""
        self._fanout.resume(session)

    def _subscribe(self, session: Session, request: Request, now: float) -> None:
        assert session.grant is not None
        event_filter = session.grant.intersect(request.subjects, request.level, request.where)
        session.request = request
        # Detaching moves the position from the feed to ``session.cursor``, where the new filter continues.
        self._fanout.detach(session)
        self.use_filter(session, event_filter)
        self._start.start(session, session.cursor, now)

    # Tokens.

    def _admit(self, session: Session, grant: Grant, event_filter: Filter | None, now: float) -> None:
        """Send ``welcome`` to a session and start it."""
        request = session.request
        if event_filter is None:
            # Computed before anything is sent, since it may raise.
            event_filter = grant.intersect(request.subjects, request.level, request.where)
        self._apply_grant(session, grant, event_filter)
        session.state = State.FOLLOWING
        settings = self._settings
        rate = settings.rate_for("live", grant)
        welcome = messages.welcome(settings.relay, session.id, settings.heartbeat_ms, grant, rate)
        self.send(session, welcome)
        self._start.start(session, self._log.head, now)
        # Without this, an outage of NATS would look like a quiet stream.
        if not self.upstream_connected:
            self.send(session, self._upstream_message())
        # A token that expires within ``EXPIRY_NOTICE`` is announced now, and not with the next ``tick``.
        if session.deadline <= now:
            self._check_deadline(session, now)

    def _apply_grant(self, session: Session, grant: Grant, event_filter: Filter) -> None:
        """Set the grant and filter of a session, and the deadline of its token.

        Raises:
            ProtocolError: the connection limit of the grant's subject is reached.
        """
        if not session.link.admit(grant):
            raise ProtocolError(
                ErrorCode.TOO_MANY,
                f"connection limit of {grant.subject[:80]!r} reached; close a connection or retry later",
            )
        session.grant = grant
        self.use_filter(session, event_filter)
        expires_at = math.inf if grant.expires_at is None else grant.expires_at
        session.deadline = self._deadline_of(expires_at - EXPIRY_NOTICE)

    def _renew(self, session: Session, message: Auth, now: float) -> None:
        """Continue a session under a new grant, with a new snapshot if its filter or rate changes."""
        if self._verify is None:
            return
        try:
            grant = self._verify(message.token)
        except ProtocolError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            # The keys are still being fetched; until they are, the previous token stays valid.
            error.ref = message.type
            self.send(session, messages.error(error, CloseCode.UNAVAILABLE))
            return
        if session.grant is not None and session.grant.certificate is not None:
            grant = grant.restrict(session.grant.certificate)
        feed, request = session.feed, session.request
        # The original request, so that a wider token restores what a narrower one excluded.
        event_filter = grant.intersect(request.subjects, request.level, request.where)
        self._apply_grant(session, grant, event_filter)
        rate = self._settings.rate_for(request.mode, grant)
        if feed is not None and (event_filter.key, rate) == (feed.filter.key, feed.key.rate):
            # The same feed: no snapshot is needed, and nothing is interrupted.
            session.filter = feed.filter
            position = self._fanout.position(session)
            self.send(session, self._start.subscribed(session, feed, position, resumed=True))
        elif feed is not None:
            self._fanout.detach(session)
            # Pending events of the previous feed are read from the log under the new grant. The new snapshot
            # removes what is no longer granted from the client.
            self._start.begin(session, session.cursor, now)
        # A session without a feed is still being located, and starts under this grant.
        if session.deadline <= now:
            self._check_deadline(session, now)

    @contained
    def _check_deadline(self, session: Session, now: float) -> None:
        """Act on a session past its deadline: no token received, token expires soon, or token expired."""
        if session.grant is None:
            error = ProtocolError(
                ErrorCode.TIMEOUT, f"no token received within {AUTH_TIMEOUT:g} s; send 'auth' first"
            )
            self.reject(session, error)
            return
        expires_at = session.grant.expires_at
        assert expires_at is not None
        if self._stats.unix(now) >= expires_at:
            self.reject(
                session, ProtocolError(ErrorCode.UNAUTHORIZED, f"the {session.grant.source} has expired")
            )
        else:
            self.send(session, messages.token_expiring(expires_at))
            session.deadline = self._deadline_of(expires_at)

    def end_revoked(self, revoked: Callable[[Grant], bool]) -> int:
        """End the sessions whose token was revoked, and return their number."""
        before = len(self)
        for session in self:
            self._end_if(session, revoked)
        return before - len(self)

    @contained
    def _end_if(self, session: Session, revoked: Callable[[Grant], bool]) -> None:
        if session.grant is not None and revoked(session.grant):
            self.reject(
                session, ProtocolError(ErrorCode.UNAUTHORIZED, f"the {session.grant.source} was revoked")
            )

    # Timers and the stream.

    def tick(self, now: float) -> None:
        """Check the deadlines of all sessions; call this once per second."""
        for session in [session for session in self if session.deadline <= now]:
            self._check_deadline(session, now)

    def set_clock_skew(self, skew: float) -> None:
        """Set by how much the system clock, by which tokens expire, is ahead of the relay's own."""
        step, self._stats.clock_skew = skew - self._stats.clock_skew, skew
        for session in self if abs(step) >= CLOCK_STEP else ():
            if session.grant is not None:
                session.deadline -= step

    def _deadline_of(self, seconds: float) -> float:
        """Convert a time of the system clock to the relay's own."""
        return seconds - self._stats.clock_skew

    def heartbeat(self, now: float) -> None:
        """Send a keepalive to sessions whose position is still being located."""
        for session in self:
            if session.locating is not None:
                self.notify(session, self._keepalive(session.locating, now))

    def _keepalive(self, request: Request, now: float) -> Heartbeat | Upstream:
        """Build a keepalive message.

        With a cursor, that cursor is the only position from which the session loses nothing. With ``since``
        there is no position yet, and any cursor would make the client skip or repeat events, so the keepalive
        repeats the upstream state. The same applies to a cursor whose snapshot the client lacks.
        """
        if request.cursor is None or request.snapshot:
            return self._upstream_message()
        return messages.heartbeat(str(request.cursor), format_time(self._stats.unix(now)))

    def set_upstream(self, connected: bool, now: float) -> None:
        """Set whether the relay is connected to NATS, and report changes to the clients."""
        # The first call sets the time of the state, even if the state is the initial one.
        if connected == self.upstream_connected and self._upstream_since:
            return
        self.upstream_connected = connected
        self._upstream_since = self._stats.unix(now)
        message = self._upstream_message()
        for session in self:
            if session.grant is not None:
                self.notify(session, message)

    @contained
    def start_located(self, session: Session, request: Request, position: int | None, now: float) -> None:
        """Start a session at the position read from the stream; see ``SessionStart.start_located``."""
        self._start.start_located(session, request, position, now)

    def check_cursor(self, cursor: Cursor) -> bool | None:
        """Return whether a cursor points into the current stream; see ``SessionStart.check_cursor``."""
        return self._start.check_cursor(cursor)

    def reset(self, cursors: list[tuple[Session, str]]) -> None:
        """Report to sessions that everything between their cursors and the head of the new log is lost.

        Args:
            cursors: result of ``cursors`` before the log was restarted.
        """
        for session in self:
            self._fanout.set_position(session, self._log.head)  # also sessions that are still being located
        head = self._fanout.cursor(self._log.head)
        for session, cursor in cursors:
            self.notify(session, messages.gap(cursor, head, "reset"))
            self._stats.gaps["reset"] += 1

    def send_snapshots(self) -> None:
        """Send all sessions the newest states as of their positions."""
        for session in self:
            self._send_snapshot(session)

    @contained
    def _send_snapshot(self, session: Session) -> None:
        if session.feed is not None:
            self._fanout.send_snapshot(session)

    def _upstream_message(self) -> Upstream:
        return messages.upstream(self.upstream_connected, self._upstream_since)
