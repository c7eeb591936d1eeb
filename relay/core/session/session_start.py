"""Where a session begins: at its cursor, at a time, at the head, or where only the stream can tell."""

from collections.abc import Callable

from tickertape.contracts.messages import Cursor
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import Log
from tickertape.relay.core.fanout import encoding as frames
from tickertape.relay.core.fanout.encoding import Variant
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.fanout.feed import Feed
from tickertape.relay.core.hub_config import HubSettings
from tickertape.relay.core.session import server_messages as messages
from tickertape.relay.core.session.session import Request, Session, State
from tickertape.relay.core.snapshot import Snapshot


class Starts:
    """Gives sessions their place and their feed.

    Args:
        settings: what an operator sets.
        log: what cursors point into.
        snapshot: newest states.
        fanout: the feeds.
        stats: where to count.
        write: sends frames to a session.
        ask: called with a session whose place only the stream can tell; ``located`` answers.
    """

    def __init__(
        self,
        settings: HubSettings,
        log: Log,
        snapshot: Snapshot,
        fanout: Fanout,
        stats: Stats,
        write: Callable[[Session, bytes], None],
        ask: Callable[[Session], None] | None,
    ) -> None:
        self._settings = settings
        self._log = log
        self._snapshot = snapshot
        self._fanout = fanout
        self._stats = stats
        self._write = write
        self._ask = ask

    def start(self, session: Session, request: Request, place: int, now: float) -> None:
        """Find out where a session begins, and let it; ``place`` is where, when it does not say."""
        session.request = None
        if request.cursor is not None:
            here = self.knows(request.cursor)
            if here is None:
                self._locate(session, request, now)
            elif here:
                seq = request.cursor.sequence
                past = "stream" if self._fanout.archive.available else "gap"
                self._stats.resumes["log" if seq >= self._log.floor else past] += 1
                self.begin(session, request, seq, now, resumed=True)
            else:
                self._begin_reset(session, request, now)
        elif request.since is not None:
            moment = request.since.at(now)
            if self._ask is not None and not self._log.reaches(moment):
                self._locate(session, request, now)
            else:
                self.begin(session, request, self._log.after_time(moment), now)
        else:
            self.begin(session, request, place, now)

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

    def _locate(self, session: Session, request: Request, now: float) -> None:
        assert self._ask is not None
        session.request = request
        session.cursor = self._log.head
        self._ask(session)

    def located(self, session: Session, request: Request, place: int | None, now: float) -> None:
        """Answer ``ask``.

        Args:
            session: who asked.
            request: its ``request`` at that time; when it asked for something else since, this is too late.
            place: where it begins; None when the stream has no such place any more.
            now: UNIX seconds.
        """
        if session.request is not request or session.state is State.CLOSING:
            return
        session.request = None
        if place is None:
            self._begin_reset(session, request, now)
        elif request.cursor is not None:
            self._stats.resumes["stream"] += 1
            self.begin(session, request, place, now, resumed=True)
        else:
            self.begin(session, request, min(place, self._log.head), now)

    def _begin_reset(self, session: Session, request: Request, now: float) -> None:
        assert request.cursor is not None
        self._stats.resumes["gap"] += 1
        self._stats.gaps["reset"] += 1
        gap = messages.reset(str(request.cursor), self._fanout.cursor(self._log.head))
        self.begin(session, request, self._log.head, now, gap=gap)

    def begin(
        self,
        session: Session,
        request: Request,
        place: int,
        now: float,
        *,
        resumed: bool = False,
        gap: bytes = b"",
    ) -> None:
        """Give a session its feed and its place, and say so."""
        assert session.grant is not None
        feed = self._fanout.attach(
            session,
            session.grant.narrow(request.subjects, request.level),
            request.mode,
            self._settings.pace(request.mode, session.grant),
            request.interval_ms,
            now,
        )
        session.cursor = place
        subscribed = self.subscribed(session, feed, place, resumed=resumed)
        snapshot = b"" if resumed else self.snapshot_frames(feed, place, session.variant)
        self._write(session, subscribed + gap + snapshot)
        self._fanout.start(session)

    def subscribed(self, session: Session, feed: Feed, place: int, *, resumed: bool) -> bytes:
        """What is said when a session follows a feed from a place on."""
        assert session.grant is not None
        cursor, asked = self._fanout.cursor(place), session.asked.cursor
        known = self._log.stored_at(place) is not None
        if resumed and not known and asked is not None and asked[:2] == (self._fanout.epoch, place):
            cursor = str(asked)  # with the time that it brought
        ends = session.grant.expires_at
        return messages.subscribed(feed.filter, session.asked, cursor, resumed=resumed, ends=ends)

    def snapshot_frames(self, feed: Feed, place: int, variant: Variant) -> bytes:
        """The newest states that a feed wants, as of a place; at the head made once for all its members."""
        if place != self._log.head:
            return frames.snapshot(self._snapshot.select(feed.filter, place), variant)
        if feed.snapshot_version != self._snapshot.version:
            feed.snapshot_version = self._snapshot.version
            feed.snapshot_frames.clear()
        made = feed.snapshot_frames.get(variant)
        if made is None:
            made = frames.snapshot(self._snapshot.select(feed.filter, place), variant)
            feed.snapshot_frames[variant] = made
        return made
