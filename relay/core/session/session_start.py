"""Where a session begins: at its cursor, at a time, at the head, or where only the stream can tell."""

from collections.abc import Callable

from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Gap, Subscribed
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.batch import snapshot as snapshot_messages
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.fanout.feed import Feed
from tickertape.relay.core.hub_config import HubSettings
from tickertape.relay.core.session.registry import SessionRegistry
from tickertape.relay.core.session.session import Session, State
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.core.snapshot import Snapshot


class SessionStart:
    """Gives sessions their position and their feed.

    Args:
        settings: what an operator sets.
        log: what cursors point into.
        snapshot: newest states.
        fanout: the feeds.
        stats: where to count.
        registry: writes to sessions.
        ask: called with a session whose position only the stream can tell; ``located`` answers.
    """

    def __init__(
        self,
        settings: HubSettings,
        log: EventLog,
        snapshot: Snapshot,
        fanout: Fanout,
        stats: Stats,
        registry: SessionRegistry,
        ask: Callable[[Session], None] | None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._snapshot = snapshot
        self._fanout = fanout
        self._stats = stats
        self._registry = registry
        self._ask = ask

    def start(self, session: Session, place: int, now: float) -> None:
        """Find out where a session begins, and let it; ``place`` is where, when it does not say."""
        request = session.request
        session.locating = None
        if request.cursor is not None:
            here = self.knows(request.cursor)
            if here is None:
                self._locate(session, request)
            elif here:
                seq = request.cursor.sequence
                past = "stream" if self._fanout.replay_cache.available else "gap"
                self._stats.resumes["log" if seq >= self._log.floor else past] += 1
                self.begin(session, seq, now, resumed=True)
            else:
                self._begin_reset(session, request.cursor, now)
        elif request.since is not None:
            moment = request.since.at(now)
            if self._ask is not None and not self._log.reaches(moment):
                self._locate(session, request)
            else:
                self.begin(session, self._log.after_time(moment), now)
        else:
            self.begin(session, place, now)

    def knows(self, cursor: Cursor) -> bool | None:
        """Tell whether a cursor is one of this stream as it is now; None where only the stream can tell.

        A cursor that names the time of its message is of a part that the stream has lost, when another
        message has that sequence now. One that names none cannot be disproved.
        """
        if cursor.epoch != self._fanout.epoch:
            return False
        if cursor.sequence > self._log.head:
            return None if self._ask is not None else False
        if cursor.stored_ns is None:
            return True
        stored_ns = self._log.stored_at(cursor.sequence)
        if stored_ns is None:
            return None if self._ask is not None else True
        return stored_ns == cursor.stored_ns

    def _locate(self, session: Session, request: Request) -> None:
        assert self._ask is not None
        session.locating = request
        self._fanout.set_position(session, self._log.head)
        self._ask(session)

    def located(self, session: Session, request: Request, place: int | None, now: float) -> None:
        """Answer ``ask``.

        Args:
            session: which one.
            request: its ``locating`` at that time; when it asked for something else since, this is too late.
            place: where it begins; None when the stream has no such position any more.
            now: UNIX seconds.
        """
        if session.locating is not request or session.state is State.CLOSING:
            return
        session.locating = None
        if request.cursor is None:
            assert place is not None
            self.begin(session, min(place, self._log.head), now)
        elif place is None:
            self._begin_reset(session, request.cursor, now)
        else:
            self._stats.resumes["stream"] += 1
            self.begin(session, place, now, resumed=True)

    def _begin_reset(self, session: Session, cursor: Cursor, now: float) -> None:
        self._stats.resumes["gap"] += 1
        self._stats.gaps["reset"] += 1
        gap = messages.gap(str(cursor), self._fanout.cursor(self._log.head), "reset")
        self.begin(session, self._log.head, now, gap=gap)

    def begin(
        self, session: Session, place: int, now: float, *, resumed: bool = False, gap: Gap | None = None
    ) -> None:
        """Give a session its feed and its position, and say so."""
        assert session.grant is not None
        assert session.filter is not None
        self._fanout.set_position(session, place)
        feed = self._fanout.attach(
            session,
            session.filter,
            session.request.mode,
            self._settings.rate_for(session.request.mode, session.grant),
            session.request.interval_ms,
            now,
        )
        session.filter = feed.filter  # an equal one, of which there is one for all members
        subscribed = self.subscribed(session, feed, place, resumed=resumed)
        self._registry.send(session, subscribed, *([] if gap is None else [gap]))
        if not resumed:
            self.send_snapshot(session, feed, place)
        self._fanout.start(session)

    def subscribed(self, session: Session, feed: Feed, place: int, *, resumed: bool) -> Subscribed:
        """Build what is said when a session follows a feed from a position on."""
        assert session.grant is not None
        cursor, asked = self._fanout.cursor(place), session.request
        known = self._log.stored_at(place) is not None
        if (
            resumed
            and not known
            and asked.cursor is not None
            and asked.cursor[:2] == (self._fanout.epoch, place)
        ):
            cursor = str(asked.cursor)  # with the time that it brought
        return messages.subscribed(
            feed.filter,
            asked.mode,
            asked.interval_ms,
            cursor,
            resumed=resumed,
            expires_at=session.grant.expires_at,
        )

    def send_snapshot(self, session: Session, feed: Feed, place: int) -> None:
        """Send the newest states that a feed wants, as of a position; at the head made once for all."""
        if place == self._log.head:
            data, count = feed.snapshot(self._snapshot, place, session.encoding)
        else:
            messages = snapshot_messages(self._snapshot.select(feed.filter, place))
            data, count = session.encoding.encode(messages), len(messages)
        self._registry.write(session, data, count)
