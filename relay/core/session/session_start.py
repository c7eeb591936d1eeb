"""Start positions of sessions: a cursor, a time, the head, or a position that only the stream knows."""

from collections.abc import Callable

from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Gap, Subscribed
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.fanout.feed import Feed
from tickertape.relay.core.hub_settings import HubSettings
from tickertape.relay.core.session.registry import SessionRegistry
from tickertape.relay.core.session.session import Session, State
from tickertape.relay.core.session.subscription import Request


class SessionStart:
    """Procedure that assigns a position and a feed to a session.

    Args:
        settings: settings of the hub.
        log: event log.
        fanout: fan-out with the feeds.
        stats: statistics to update.
        registry: registry that writes to sessions.
        locate: called with a session whose position only the stream knows; the caller answers with
            ``start_located``.
    """

    def __init__(
        self,
        settings: HubSettings,
        log: EventLog,
        fanout: Fanout,
        stats: Stats,
        registry: SessionRegistry,
        locate: Callable[[Session], None] | None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._fanout = fanout
        self._stats = stats
        self._registry = registry
        self._request_position = locate

    def start(self, session: Session, default: int, now: float) -> None:
        """Start a session at the position in its request, or at a default position."""
        # An earlier request may still be located; its result is ignored from here on.
        request = session.request
        session.locating = None
        if request.cursor is not None:
            known = self.check_cursor(request.cursor)
            if known is None:
                self._locate(session, request)
            elif known:
                seq = request.cursor.sequence
                # A position before the log is read from the stream, or is a gap if that cannot be read.
                older = "stream" if self._fanout.replay_cache.available else "gap"
                self._stats.resumes["log" if seq >= self._log.floor else older] += 1
                self.begin(session, seq, now, resumed=not request.snapshot)
            else:
                self._begin_reset(session, request.cursor, now)
        elif request.since is not None:
            moment = request.since.at(self._stats.unix(now))
            if self._request_position is not None and not self._log.covers(moment):
                self._locate(session, request)
            else:
                self.begin(session, self._log.position_at(moment), now)
        else:
            self.begin(session, default, now)

    def check_cursor(self, cursor: Cursor) -> bool | None:
        """Return whether a cursor points into the current stream; None if only the stream knows.

        A cursor with the time of its message belongs to a lost part of the stream if another message has that
        sequence now. A cursor without a time is assumed to be valid.
        """
        if cursor.epoch != self._fanout.epoch:
            return False
        # Another relay can be ahead of this one; the stream may also have lost its newest messages.
        if cursor.sequence > self._log.head:
            return None if self._request_position is not None else False
        if cursor.stored_ns is None:
            return True
        stored_ns = self._log.stored_at(cursor.sequence)
        # Older than the log, or at a sequence without a message, such as the end of a missing range.
        if stored_ns is None:
            return None if self._request_position is not None else True
        return stored_ns == cursor.stored_ns

    def _locate(self, session: Session, request: Request) -> None:
        assert self._request_position is not None
        session.locating = request
        # A ``subscribe`` that arrives meanwhile without a cursor starts at this position.
        self._fanout.set_position(session, self._log.head)
        self._request_position(session)

    def start_located(self, session: Session, request: Request, position: int | None, now: float) -> None:
        """Start a session at the position that was read from the stream.

        Args:
            session: session to start.
            request: request that was located; if the session has a newer one, the result is ignored.
            position: start position; None if the stream no longer has it.
            now: UNIX seconds.
        """
        if session.locating is not request or session.state is State.CLOSING:
            return
        session.locating = None
        if request.cursor is None:
            assert position is not None
            # The position may be ahead of the log, which lags behind the stream.
            self.begin(session, min(position, self._log.head), now)
        elif position is None:
            self._begin_reset(session, request.cursor, now)
        else:
            self._stats.resumes["stream"] += 1
            self.begin(session, position, now, resumed=not request.snapshot)

    def _begin_reset(self, session: Session, cursor: Cursor, now: float) -> None:
        self._stats.resumes["gap"] += 1
        self._stats.gaps["reset"] += 1
        gap = messages.gap(str(cursor), self._fanout.cursor(self._log.head), "reset")
        self.begin(session, self._log.head, now, gap=gap)

    def begin(
        self, session: Session, position: int, now: float, *, resumed: bool = False, gap: Gap | None = None
    ) -> None:
        """Attach a session to its feed at a position, and send ``subscribed`` and a snapshot."""
        assert session.grant is not None
        assert session.filter is not None
        self._fanout.set_position(session, position)
        feed = self._fanout.attach(
            session,
            session.filter,
            session.request.mode,
            self._settings.rate_for(session.request.mode, session.grant),
            session.request.interval_ms,
            now,
        )
        session.filter = feed.filter  # an equal filter, shared by all members to save memory
        subscribed = self.subscribed(session, feed, position, resumed=resumed)
        self._registry.send(session, subscribed, *([] if gap is None else [gap]))
        # Last, since events follow ``subscribed`` and the snapshot. A client that resumes has the states as
        # of its cursor already.
        if resumed:
            self._fanout.start(session)
        else:
            self._fanout.send_snapshot(session)

    def subscribed(self, session: Session, feed: Feed, position: int, *, resumed: bool) -> Subscribed:
        """Build the reply to a session that follows a feed from a position."""
        assert session.grant is not None
        cursor, request = self._fanout.cursor(position), session.request
        known = self._log.stored_at(position) is not None
        if (
            resumed
            and not known
            and request.cursor is not None
            and request.cursor[:2] == (self._fanout.epoch, position)
        ):
            cursor = str(request.cursor)  # keeps the time in the client's cursor, which the log does not know
        return messages.subscribed(
            feed.filter,
            request.mode,
            request.interval_ms,
            cursor,
            resumed=resumed,
            expires_at=session.grant.expires_at,
        )
