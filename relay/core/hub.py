"""The hub: events go in, frames come out. It owns log, snapshot, fan-out and sessions.

Invariants:

1. Events are published in stream order, each once; the intake sees to it.
2. Whatever a client did is answered to that client alone.
3. After ``bye`` nothing more is written to a session, nor after ``closed``.
4. A session without a grant is sent nothing but ``error`` and ``bye``, and never has a feed.
5. An exception that is raised on behalf of a session ends that session alone; ``relay/core/faults.py`` lists
   the places.
"""

import contextlib
import math
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import Event, format_time
from tickertape.contracts.messages import Auth, Ping, ProtocolError, Subscribe, parse_client
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import Log, Record
from tickertape.relay.core.fanout import encoding as frames
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.faults import REASON, contained
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub_config import HubSettings
from tickertape.relay.core.session import server_messages as messages
from tickertape.relay.core.session.session import (
    RETRY_AFTER_MS,
    Action,
    Link,
    Request,
    Session,
    State,
    close_code,
    decide,
    request_of,
)
from tickertape.relay.core.session.session_start import Starts
from tickertape.relay.core.snapshot import Snapshot

TICK: Final = 1.0
"""Seconds between two calls of ``tick``."""

AUTH_TIMEOUT: Final = 5.0
"""Seconds that a client has to send ``auth``."""

TELL_EXPIRY: Final = 60.0
"""Seconds before the end of a token at which its client is told."""


def _unreported(session: str, error: Exception) -> None:
    """Raise the error, so that it does not pass unseen where no log is read."""
    raise error


class Hub:
    """One log, many cursors.

    Args:
        settings: what an operator sets.
        wake: called when there is something to flush and nothing was before.
        fetch: called when a stretch of the stream is wanted; None when nobody can read it.
        ask: called with a session whose place only the stream can tell; ``located`` answers. Its ``request``
            says what it wants: a cursor that is ahead of the relay, or a time before the relay's memory.
        verify: tells what a token grants, or raises ProtocolError; None where no tokens are asked for.
        report: called once with the id of a session that an internal error ends, and that error.

    Attributes:
        begun: how often it began in a stream, or in what a failure left of one.
    """

    def __init__(
        self,
        settings: HubSettings,
        wake: Callable[[], None],
        fetch: Callable[[], None] | None = None,
        ask: Callable[[Session], None] | None = None,
        verify: Callable[[str], Grant] | None = None,
        report: Callable[[str, Exception], None] = _unreported,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self.log = Log(settings.log_events, settings.log_bytes)
        self.snapshot = Snapshot()
        self.fanout = Fanout(
            self.log, self.snapshot, self.stats, settings.max_catch_up, wake, self.fault, fetch
        )
        self.starts = Starts(settings, self.log, self.snapshot, self.fanout, self.stats, self._write, ask)
        self._verify = verify
        self._report = report
        self.sessions: dict[str, Session] = {}
        self.begun = 0
        self.upstream_connected = False
        self.upstream_since = 0.0
        self._heartbeat_at = 0.0

    def __repr__(self) -> str:
        return f"Hub({self.cursor()}, {len(self.sessions)} sessions, {self.fanout!r}, {self.log!r})"

    @property
    def epoch(self) -> str:
        """Epoch of all cursors; "0" before ``begin``."""
        return self.fanout.epoch

    def cursor(self) -> str:
        """Newest place that the relay has reached."""
        return self.fanout.cursor(self.log.head)

    # What comes from the stream.

    def begin(self, epoch: str, head: int, stored_ns: int | None = None) -> None:
        """Say in which stream, and after which sequence, events will come; first of all calls.

        When it is called again, the stream is another one, or has lost what the relay had of it: sessions are
        told of a ``reset``, and get a fresh snapshot with ``restart_sessions``.

        Args:
            epoch: of all cursors.
            head: sequence of the stream's last message.
            stored_ns: when the stream stored it, UNIX nanoseconds; None when that is not known.
        """
        self.begun += 1
        places = [
            (session, self.fanout.cursor(self.fanout.place(session)))
            for session in self.sessions.values()
            if session.feed is not None
        ]
        self.fanout.epoch = epoch
        self.log.start(head, stored_ns)
        self.snapshot.clear()
        self.fanout.reset()
        for session in self.sessions.values():
            session.cursor = head  # also of those whose place is still asked for
        for session, place in places:
            self._tell(session, messages.reset(place, self.cursor()))
            self.stats.gaps["reset"] += 1

    def restart_sessions(self) -> None:
        """Send all sessions a fresh snapshot, once the newest states of the other stream are loaded."""
        for session in list(self.sessions.values()):
            self._restart(session)

    def refresh_sessions(self, now: float) -> None:
        """Send all sessions the newest states, as of where they stand; some were among deleted events."""
        self.fanout.flush_heads(now)
        for session in list(self.sessions.values()):
            self._restart(session)

    @contained
    def _restart(self, session: Session) -> None:
        if session.feed is not None:
            place = self.fanout.place(session)
            self._write(session, self.starts.snapshot_frames(session.feed, place, session.variant))

    def load_state(self, seq: int, subject: str, event: Event, stored_ns: int) -> bool:
        """Put an event of the stream's newest states into the snapshot; False when it is there already."""
        return event.state and self.snapshot.put(self.record(seq, subject, event, stored_ns))

    def warm(
        self,
        events: Iterable[tuple[int, str, Event, int]],
        floor: int,
        missing: Iterable[tuple[int, int]] = (),
    ) -> int:
        """Fill the log backwards with what the stream held at the start.

        Args:
            events: sequence, subject, event and when it was stored (UNIX nanoseconds); all that follow
                ``floor``, in order.
            floor: place before the first of them.
            missing: ranges of sequences after ``floor``, first to last, that the stream holds no more.

        Returns:
            how many were kept.
        """
        records = [
            self.record(seq, subject, event, stored_ns, stored_ns / 1e9)
            for seq, subject, event, stored_ns in events
        ]
        for record in records:
            if record.state:
                self.snapshot.put(record)
        return self.log.prepend(records, floor, missing)

    def publish(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        now: float,
        traceparent: str | None = None,
    ) -> None:
        """Take in the next event of the stream.

        Args:
            seq: its sequence, greater than all before.
            subject: as clients see it.
            event: decoded.
            stored_ns: when the stream stored it, UNIX nanoseconds.
            now: UNIX seconds.
            traceparent: header of its message, if it had one.
        """
        record = self.record(seq, subject, event, stored_ns, now, traceparent)
        before = self.log.head
        self.log.append(record)
        if event.state:
            self.snapshot.put(record)
            self.stats.received["state"] += 1
        else:
            self.stats.received["log"] += 1
        if record.route.feeds:
            self.fanout.offer(record, before)

    def record(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        received: float | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """Make the record of an event; ``received`` is when the relay took it in, if it just did."""
        route = self.fanout.route(subject)
        item = frames.item(route, seq, event.payload)
        received = stored_ns / 1e9 if received is None else received
        return Record(
            seq, route, item, event.state, event.removed, received, event.timestamp, stored_ns, traceparent
        )

    def skip(self, seq: int, reason: str, stored_ns: int | None = None) -> None:
        """Pass over an event of the stream that breaks the contract."""
        self.log.advance(seq, stored_ns)
        self.stats.rejected[reason] = self.stats.rejected.get(reason, 0) + 1

    def set_upstream(self, connected: bool, now: float) -> None:
        """Say whether the relay hears from NATS; clients are told of changes."""
        if connected == self.upstream_connected and self.upstream_since:
            return
        self.upstream_connected = connected
        self.upstream_since = now
        data = self._upstream()
        for session in list(self.sessions.values()):
            if session.grant is not None:
                self._tell(session, data)

    # What comes from clients.

    def open(self, link: Link, request: Request, now: float, grant: Grant | None = EVERYTHING) -> Session:
        """Begin a session; it is welcomed and started, once it has a grant.

        Args:
            link: where it writes to.
            request: what it follows first.
            now: UNIX seconds.
            grant: what it may do; None when it has yet to show a token.
        """
        session = Session(secrets.token_urlsafe(9), link, request)
        self.sessions[session.id] = session
        if grant is None:
            session.due = now + AUTH_TIMEOUT
        else:
            self._enter(session, grant, now)
        return session

    @contained
    def _enter(self, session: Session, grant: Grant, now: float) -> None:
        try:
            self._admit(session, grant, now)
        except ProtocolError as error:
            self.refuse(session, error, close_code(error))

    def _admit(self, session: Session, grant: Grant, now: float) -> None:
        """Welcome a session and start it."""
        grant.narrow(session.asked.subjects, session.asked.level)  # before anything is said
        self._hold(session, grant, now)
        session.state = State.FOLLOWING
        settings = self.settings
        rate = settings.pace("live", grant)
        self._write(session, messages.welcome(settings.relay, session.id, settings.heartbeat_ms, grant, rate))
        self.starts.start(session, session.asked, self.log.head, now)
        if not self.upstream_connected:
            self._write(session, self._upstream())
        if session.due <= now:
            self._due(session, now)

    def _hold(self, session: Session, grant: Grant, now: float) -> None:
        """Give a session a grant, and see to its end.

        Raises:
            ProtocolError: the grant's subject has connections enough.
        """
        if not session.link.admit(grant):
            raise ProtocolError(
                ErrorCode.TOO_MANY, f"too many connections of {grant.subject[:80]!r}; close one, or wait"
            )
        session.grant = grant
        session.due = math.inf if grant.expires_at is None else grant.expires_at - TELL_EXPIRY

    def _renew(self, session: Session, message: Auth, now: float) -> None:
        """Let a session go on under another grant; where that changes what it gets, from a fresh snapshot."""
        if self._verify is None:
            return
        try:
            grant = self._verify(message.token)
        except ProtocolError as error:
            if error.code is not ErrorCode.UNAVAILABLE:
                raise
            # Keys are being fetched; until they are here, the token that it has goes on.
            error.ref = message.type
            self._write(session, messages.error(error, CloseCode.UNAVAILABLE))
            return
        wanted = grant.narrow(session.asked.subjects, session.asked.level)
        self._hold(session, grant, now)
        feed, asked = session.feed, session.asked
        pace = self.settings.pace(asked.mode, grant)
        if feed is not None and (wanted.key, pace) == (feed.filter.key, feed.key.rate):
            self._write(
                session, self.starts.subscribed(session, feed, self.fanout.place(session), resumed=True)
            )
        elif feed is not None:
            self.fanout.detach(session)
            self.starts.begin(session, asked, session.cursor, now)
        # Otherwise its place is still asked for, and it begins under this grant.
        if session.due <= now:
            self._due(session, now)

    @contained
    def _due(self, session: Session, now: float) -> None:
        """Look after a session whose time has come: no token yet, one that ends soon, or one that ended."""
        if session.grant is None:
            error = ProtocolError(ErrorCode.TIMEOUT, f"no token within {AUTH_TIMEOUT:g} s; send 'auth' first")
            self.refuse(session, error, CloseCode.TIMEOUT)
            return
        ends = session.grant.expires_at
        assert ends is not None
        if now >= ends:
            self.refuse(
                session,
                ProtocolError(ErrorCode.UNAUTHORIZED, "the token has expired"),
                CloseCode.UNAUTHORIZED,
            )
        else:
            self._write(session, messages.token_expiring(ends))
            session.due = ends

    def end_revoked(self, revoked: Callable[[Grant], bool]) -> int:
        """End the sessions whose token was revoked; returns how many."""
        before = len(self.sessions)
        for session in list(self.sessions.values()):
            self._end_if(session, revoked)
        return before - len(self.sessions)

    @contained
    def _end_if(self, session: Session, revoked: Callable[[Grant], bool]) -> None:
        if session.grant is not None and revoked(session.grant):
            error = ProtocolError(ErrorCode.UNAUTHORIZED, "the token was revoked")
            self.refuse(session, error, CloseCode.UNAUTHORIZED)

    def turn_away(self, link: Link, error: ProtocolError, code: CloseCode) -> None:
        """Say ``error`` and ``bye`` to a client that gets no session, and close."""
        self.refuse(Session("", link, Request()), error, code)

    @contained
    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Handle one text message of a client."""
        message = None
        try:
            message = parse_client(text)
            action = decide(session.state, message)
            if action is Action.PONG:
                assert isinstance(message, Ping)
                self._write(session, frames.message("pong", id=message.id))
            elif action is Action.START:
                assert isinstance(message, Subscribe)
                assert session.grant is not None
                request = request_of(message)
                session.grant.narrow(request.subjects, request.level)
                session.asked = request
                self.fanout.detach(session)
                self.starts.start(session, request, session.cursor, now)
            elif action is Action.ADMIT:
                assert isinstance(message, Auth)
                grant = EVERYTHING if self._verify is None else self._verify(message.token)
                self._admit(session, grant, now)
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
            self.refuse(session, error, close_code(error))

    @contained
    def paused(self, session: Session) -> None:
        """A session's socket takes no more: it stays where it is."""
        session.writable = False
        self.fanout.stall(session)

    @contained
    def resumed(self, session: Session) -> None:
        """A session's socket takes data again."""
        session.writable = True
        self.fanout.start(session)

    @contained
    def closed(self, session: Session) -> None:
        """A session's connection is gone, or ends: nothing is written to it from here on."""
        session.request = None
        self.sessions.pop(session.id, None)
        self.fanout.detach(session)
        session.state = State.CLOSING

    @contained
    def refuse(self, session: Session, error: ProtocolError, code: CloseCode) -> None:
        """Answer a client's error, say ``bye`` and close."""
        self._write(session, messages.error(error, code))
        self.bye(session, code, error.message, RETRY_AFTER_MS.get(code))

    @contained
    def bye(self, session: Session, code: CloseCode, reason: str, retry_after_ms: int | None = None) -> None:
        """Say ``bye`` and close a session."""
        if session.state is State.CLOSING:
            return
        try:
            self._write(session, messages.bye(code, reason, retry_after_ms))
        finally:
            self.closed(session)
            session.state = State.CLOSING
        session.link.close(code, reason)

    def fault(self, session: Session, error: Exception) -> None:
        """End a session on whose behalf an exception was raised, and report it once.

        A session that was ending already, or whose end fails too, is cut.
        """
        ending = session.failed or session.state is State.CLOSING
        if not session.failed:
            session.failed = True
            self.stats.errors["session"] += 1
            self._report(session.id, error)
        if not ending:
            self.bye(session, CloseCode.INTERNAL_ERROR, REASON)
            return
        # What cannot be cut either is gone; why the session ends has been reported.
        with contextlib.suppress(Exception):
            session.link.abort()

    def tick(self, now: float) -> None:
        """Send the heartbeat when it would be late at the next call; called every ``TICK`` seconds."""
        for session in [one for one in self.sessions.values() if one.due <= now]:
            self._due(session, now)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + max(0.0, self.settings.heartbeat_ms / 1000 - TICK)
            self.fanout.heartbeat(now)
            for session in list(self.sessions.values()):
                self._tell_waiting(session, now)

    @contained
    def located(self, session: Session, request: Request, place: int | None, now: float) -> None:
        """Answer ``ask``, as ``Starts.located`` has it."""
        self.starts.located(session, request, place, now)

    # Inside.

    @contained
    def _tell_waiting(self, session: Session, now: float) -> None:
        """Give a sign of life to a session whose place is still asked for.

        Its own cursor is the one place from which it loses nothing. With ``since`` there is none yet, and
        any cursor would make it skip or repeat; so it is told once more how the upstream is.
        """
        request = session.request
        if request is None:
            return
        if request.cursor is None:
            self._write(session, self._upstream())
        else:
            self._write(session, messages.heartbeat(str(request.cursor), format_time(now)))

    @contained
    def _tell(self, session: Session, data: bytes) -> None:
        """Write to one of many sessions."""
        self._write(session, data)

    def _write(self, session: Session, data: bytes) -> None:
        if session.state is not State.CLOSING:
            session.send(data)
            self.stats.frames += 1
            self.stats.bytes += len(data)

    def _upstream(self) -> bytes:
        return messages.upstream(self.upstream_connected, self.upstream_since)


__all__ = ["TICK", "Hub", "HubSettings"]
