"""From one log to many cursors: which feeds an event goes to, when it goes, and who is behind.

Invariants:

1. A session that follows is at its feed's head, or its cursor says where it is; never both or neither. One
   with a pace of its own is never at the head: it walks alone.
2. An event is offered to the feeds of its subject only; matching was paid when subject and feed first met.
3. One flush is bounded: the heads get a unit each, and a bounded number of those behind a bounded share.
4. An exception ends the session on whose behalf it was raised, through ``fault``; one in the making of a unit
   ends those at the feed's head. The other feeds are served.

The caller flushes when ``wake`` asks for it, not before ``pacer.earliest()``, and at ``held_until()``.
"""

from collections.abc import Callable, Iterator
from typing import Final

from tickertape.contracts.events import format_time
from tickertape.contracts.messages import GapReason, Mode, format_cursor
from tickertape.relay.core.counters import Example, Stats
from tickertape.relay.core.event_log import Log, Record
from tickertape.relay.core.fanout.encoding import Variant
from tickertape.relay.core.fanout.feed import Feed, FeedKey, Unit, catch_up, lost
from tickertape.relay.core.fanout.filters import MAX_KNOWN_SUBJECTS, Filter, Route
from tickertape.relay.core.fanout.flush_pacer import FlushPacer, TokenBucket
from tickertape.relay.core.fanout.subject_index import Patterns, Subjects
from tickertape.relay.core.replay_cache import STRETCH, Archive
from tickertape.relay.core.session import server_messages as messages
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.trace_context import may_be_traced

CATCH_UP_SESSIONS: Final = 32
"""Sessions that may catch up in one turn; the others wait for the next, so that the head stays prompt."""

CATCH_UP_UNITS: Final = 12
"""Units that one of them may get in one turn."""

PACED_TURN: Final = 0.05
"""Seconds between two units of a session that has a pace of its own."""

LOOKS: Final = 16
"""Events of one flush that are looked at for their trace, as examples of a delay; most feeds share them."""

_VARIANTS: Final = tuple(Variant)


class Fanout:
    """The feeds, and the sessions in them.

    Args:
        log: what cursors point into.
        snapshot: newest states, for those who fell behind.
        stats: where to count.
        max_catch_up: most matching events that a session of mode ``live`` gets when it catches up.
        wake: called when there is something to flush and nothing was before.
        fault: ends a session on whose behalf an exception was raised.
        fetch: called when a stretch of the stream is wanted; None when nobody can read it.
    """

    def __init__(
        self,
        log: Log,
        snapshot: Snapshot,
        stats: Stats,
        max_catch_up: int,
        wake: Callable[[], None],
        fault: Callable[[Session, Exception], None],
        fetch: Callable[[], None] | None = None,
    ) -> None:
        self.epoch = "0"
        self.feeds: dict[FeedKey, Feed] = {}
        self.pacer = FlushPacer()
        self.archive = Archive(fetch)
        self._log = log
        self._snapshot = snapshot
        self._stats = stats
        self._max_catch_up = max_catch_up
        self._wake = wake
        self._fault = fault
        self._awake = False
        self._looks = 0  # at events for their traces, in this flush
        self._looked_at: Record | None = None
        self._example: Example | None = None  # that one, if it may be traced
        self._dirty: list[Feed] = []  # feeds with something pending
        self._catching: dict[Session, None] = {}  # writable sessions behind the head
        self._paced: dict[
            Session, float
        ] = {}  # writable sessions with a pace of their own: when it lets them go on
        self._routes: dict[str, Route] = {}
        self._patterns: Patterns[Feed] = Patterns()
        self._subjects: Subjects[Route] = Subjects()

    def __repr__(self) -> str:
        return f"Fanout({len(self.feeds)} feeds, {len(self._dirty)} dirty, {len(self._catching)} catching up)"

    # Events.

    def route(self, subject: str) -> Route:
        """What a subject means; made when it is first seen."""
        route = self._routes.get(subject)
        if route is None:
            if len(self._routes) >= MAX_KNOWN_SUBJECTS:
                self._forget(next(iter(self._routes)))
            route = self._routes[subject] = Route(subject)
            self._subjects.add(subject, route)
            for feed in self._patterns.matching(subject):
                if feed.filter.passes(route):
                    route.feeds[feed] = None
                    feed.routes[route] = None
        return route

    def offer(self, record: Record, before: int) -> None:
        """Hand an event to the feeds that want it.

        Args:
            record: in the log already.
            before: the log's head before it came.
        """
        for feed in record.route.feeds:
            if not feed.pending:
                feed.cursor = before
                self._dirty.append(feed)
            feed.pending.append(record)
        if not self._awake:  # asked here too: a call for each event would be dear
            self._rouse()

    def hole(self, end: int, now: float) -> None:
        """Events after the log's head, up to ``end``, will never come: say so to all, in order."""
        self.flush_heads(now)
        hole = self._log.hole(end)
        unit = lost(self.epoch, hole.start, hole.end, "retention")
        for feed in list(self.feeds.values()):  # a session that fails may be the last of its feed
            self._write_head(feed, unit, now)

    def flush_heads(self, now: float) -> None:
        """Hand all that is pending to the heads, whatever the pacing would hold back."""
        for feed in list(self.feeds.values()):
            while unit := self._taken(feed, now, hold=False):
                self._write_head(feed, unit, now)
        self._dirty.clear()

    def place(self, session: Session) -> int:
        """Where a session stands."""
        feed = session.feed
        return feed.place(self._log.head) if feed is not None and session in feed.heads else session.cursor

    def cursor(self, place: int) -> str:
        """Cursor of a place, with the time of the message there when the log knows it."""
        return format_cursor(self.epoch, place, self._log.stored_at(place))

    def reset(self) -> None:
        """Forget what is pending: the log was started anew, and everybody stands at its head."""
        for feed in self.feeds.values():
            feed.clear()
            feed.blocks.clear()
            feed.snapshot_version = -1
        self._dirty.clear()
        for session in self.archive.clear():
            self._catching[session] = None
        if self._catching:
            self._rouse()

    def loaded(self, number: int, stretch: Log) -> None:
        """A stretch of the stream was read: those who waited for it go on."""
        for session in self.archive.loaded(number, stretch):
            self._catching[session] = None
        if self._catching:
            self._rouse()

    # Sessions.

    def attach(
        self, session: Session, wanted: Filter, mode: Mode, rate: float, interval_ms: int, now: float
    ) -> Feed:
        """Make a session a member of the feed of its filter, mode and pace; ``start`` comes next.

        Args:
            session: its ``cursor`` says where it begins.
            wanted: its filter.
            mode: how gaps and speed are traded.
            rate: log events per second; 0 means no limit, and always does so in mode ``latest``.
            interval_ms: least time between two batches in mode ``latest``.
            now: UNIX seconds.
        """
        key = FeedKey(wanted.key, mode, rate, interval_ms if mode == "latest" else 0)
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed(key, wanted, now)
            for pattern in wanted.subjects:
                self._patterns.add(pattern, feed)
                for route in self._subjects.matching(pattern):
                    if wanted.passes(route):
                        route.feeds[feed] = None
                        feed.routes[route] = None
        feed.members += 1
        session.feed = feed
        if mode != "complete" or rate == 0:
            session.bucket = None
        elif (
            session.bucket is None or session.bucket.rate != rate
        ):  # else asking again would bring a new burst
            session.bucket = TokenBucket(rate, now)
        session.arrived = False
        return feed

    def detach(self, session: Session) -> None:
        """Take a session out of its feed, if it has one; its cursor says where it stood."""
        feed = session.feed
        if feed is None:
            return
        self.stall(session)
        session.feed = None
        feed.members -= 1
        if feed.members == 0:
            del self.feeds[feed.key]
            feed.clear()
            for pattern in feed.filter.subjects:
                self._patterns.discard(pattern, feed)
            for route in feed.routes:
                del route.feeds[feed]

    def start(self, session: Session) -> None:
        """Let a session go on from its cursor: at the head if it stands there, else behind it."""
        feed = session.feed
        if feed is None or not session.writable or session in feed.heads or session in self.archive:
            return
        if session.bucket is not None:
            if session.cursor == feed.place(self._log.head):
                session.arrived = True
            self._paced.setdefault(session, 0.0)
            if self._can_move(session):
                self._rouse()
        elif session.cursor == feed.place(self._log.head):
            session.arrived = True
            feed.join(session)
        else:
            self._catching[session] = None
            if self._can_move(session):  # one that is ahead moves with the events that it waits for
                self._rouse()

    def stall(self, session: Session) -> None:
        """Leave a session where it is: its socket takes no more."""
        self._catching.pop(session, None)
        self._paced.pop(session, None)
        self.archive.forget(session)
        feed = session.feed
        if feed is not None and feed.leave(session):
            session.cursor = feed.place(self._log.head)

    @property
    def behind(self) -> int:
        """Sessions that are not at their feed's head."""
        # Copies: a host may ask from a thread of its own, while the loop lets sessions come and go.
        not_at_head = sum(feed.members - len(feed.heads) for feed in list(self.feeds.values()))
        return not_at_head - sum(not self._can_move(session) for session in list(self._paced))

    @property
    def paced(self) -> int:
        """Sessions that their own pace keeps from going on."""
        return sum(self._can_move(session) for session in list(self._paced))

    # Time.

    def flush(self, now: float) -> None:
        """Hand what is pending to the heads, then let some of those behind catch up."""
        self._awake = False
        self._looks, self._looked_at, self._example = LOOKS, None, None
        dirty, self._dirty = self._dirty, []
        alike: dict[tuple[int, int], Unit] = {}  # by first sequence and number of records
        for feed in dirty:
            wanted = (feed.pending[0].seq, len(feed.pending)) if feed.pending else (0, 0)
            unit = self._taken(feed, now, alike=alike.get(wanted))
            if unit is not None:
                alike.setdefault(wanted, unit)
                self._write_head(feed, unit, now)
            if feed.pending:
                self._dirty.append(feed)
        behind = self.serve_behind(now)
        if behind or any(feed.held_until <= now for feed in self._dirty):
            self._rouse()

    def held_until(self) -> float | None:
        """When a feed that holds back must be flushed, or a pace lets somebody go on; None when neither."""
        held = [feed.held_until for feed in self._dirty]
        held += [at for session, at in self._paced.items() if self._can_move(session)]
        return min(held, default=None)

    def heartbeat(self, now: float) -> None:
        """Tell every session that can be written to where it stands."""
        time = format_time(now)
        for feed in list(self.feeds.values()):
            feed.blocks.clear()  # those who needed them have read them
            data = self._heartbeat(feed.place(self._log.head), time)
            for senders in feed.writers():
                self._send(feed, senders, data)
        waiting = [*self._catching, *self._paced, *self.archive.sessions()]
        for session in waiting:  # a write can fill a socket, and that changes who catches up
            try:
                session.send(self._heartbeat(session.cursor, time))
            except Exception as error:
                self._fault(session, error)

    # Inside.

    def _heartbeat(self, place: int, time: str) -> bytes:
        return messages.heartbeat(self.cursor(place), time)

    def serve_behind(self, now: float) -> bool:
        """Let some of those behind catch up, between two flushes too.

        Returns:
            True when there are more who can.
        """
        if self._paced:
            for session in [one for one, at in self._paced.items() if at <= now and self._can_move(one)]:
                del self._paced[session]
                self._catching[session] = None
        for session in list(self._turns()):
            self._catching.pop(session, None)
            if session.feed is None:
                continue
            try:
                self._serve(session, session.feed, now)
                self.start(session)
            except Exception as error:
                self._fault(session, error)
        return any(self._can_move(session) for session in self._catching)

    def _serve(self, session: Session, feed: Feed, now: float) -> None:
        """Give a session that is behind its share of one turn."""
        for _ in range(CATCH_UP_UNITS):
            if not session.writable or not self._in_pace(session, now):
                break
            source = self._source(session, feed)
            if source is None:
                break
            log, reason = source
            upto = feed.place(self._log.head)
            unit = catch_up(
                session,
                feed,
                log,
                self._snapshot,
                self.epoch,
                # What the log has comes from the log: the stream may have let it go already.
                upto if log is self._log else min(upto, log.head, self._log.floor),
                self._max_catch_up if log is self._log else self._room(feed),
                reason,
            )
            if unit is None:
                break
            session.cursor = unit.reached
            if session.bucket is not None:
                session.bucket.spend(sum(not record.state for record in unit.records))
            if not unit.empty:
                session.send(unit.data(session.variant))
                self._count(unit, 1, session.variant)

    def _in_pace(self, session: Session, now: float) -> bool:
        """Tell whether a session's own pace, if it has one, lets it go on; else it is told when to."""
        bucket = session.bucket
        if bucket is None:
            return True
        bucket.refill(now)
        if bucket.available:
            return True
        self._paced[session] = now + max(PACED_TURN, 1 / bucket.rate)
        return False

    def _source(self, session: Session, feed: Feed) -> tuple[Log, GapReason] | None:
        """Where a session that is behind reads on, and why what lies before that is lost to it.

        Returns:
            the log, or a stretch of the stream; None when it has to wait for a stretch.
        """
        log = self._log
        place = session.cursor
        if place >= log.floor:
            return log, "slow"
        if not self.archive.available:
            return log, "slow" if session.arrived else "retention"
        if feed.key.mode != "complete":
            # It is moved forward anyway: the stretch before the log is read again for it, and no more.
            if session.arrived or self._room(feed) == 0:
                return log, "slow"
            begin = (log.floor - 1) // STRETCH * STRETCH
            if place < begin:
                skipped = Log(1, 1)
                skipped.start(begin)
                return skipped, "slow"
        found = self.archive.get(place)
        if found is None:
            self.archive.wait(session)
            return None
        self.archive.prefetch(place, log.floor)
        return found, "retention"

    def _room(self, feed: Feed) -> int:
        """How many events before the log a session may still get one by one, after those in the log."""
        log = self._log
        if feed.counted_at != log.head:
            # Asked for each unit of each member that comes back; counted once for all of them.
            found, _ = log.select(feed.filter, log.floor, log.head, self._max_catch_up, log.max_bytes)
            feed.counted_at, feed.counted = log.head, len(found)
        return max(0, self._max_catch_up - feed.counted)

    def _turns(self) -> Iterator[Session]:
        for _, session in zip(range(CATCH_UP_SESSIONS), self._catching, strict=False):
            yield session

    def _can_move(self, session: Session) -> bool:
        return session.feed is not None and session.cursor < session.feed.place(self._log.head)

    def _taken(self, feed: Feed, now: float, *, hold: bool = True, alike: Unit | None = None) -> Unit | None:
        """Take the next unit of a feed; None, and the end of its members at the head, where that fails."""
        try:
            return feed.take(self._log, self.epoch, now, hold=hold, alike=alike)
        except Exception as error:
            self._fail(feed, error)
            return None

    def _fail(self, feed: Feed, error: Exception) -> None:
        """End the members of a feed that stand at its head; those behind have a turn of their own."""
        feed.clear()
        for session in list(feed.heads):
            self._fault(session, error)

    def _send(self, feed: Feed, senders: list[Callable[[bytes], None]], data: bytes) -> None:
        """Write to members of a feed that stand at its head; one whose write fails ends alone."""
        rest = iter(senders)
        done = False
        while not done:
            try:
                for send in rest:  # the tightest loop of all: what guards it is outside
                    send(data)
                done = True
            except Exception as error:
                for session in [one for one in feed.heads if one.send is send]:
                    self._fault(session, error)

    def _write_head(self, feed: Feed, unit: Unit, now: float) -> None:
        feed.cursor = unit.reached
        feed.writing = True
        members = 0
        try:
            for variant, senders in zip(_VARIANTS, feed.writers(), strict=True):
                if senders:
                    self._send(feed, senders, unit.data(variant))
                    members += len(senders)
                    self._count(unit, len(senders), variant)
        except Exception as error:
            self._fail(feed, error)
        finally:
            feed.writing = False
        if unit.records:
            # The oldest stands for its batch: one look for all of them, and never a flattering one.
            oldest, delivered = unit.records[0], members * len(unit.records)
            if oldest is not self._looked_at and self._looks:
                self._looks -= 1
                self._looked_at = oldest
                self._example = Example(oldest, now) if may_be_traced(oldest) else None
            example = self._example if oldest is self._looked_at else None
            self._stats.delay.observe(now - oldest.received, delivered, example)
            self._stats.observe_age(now - oldest.timestamp, delivered, example)

    def _count(self, unit: Unit, members: int, variant: Variant) -> None:
        stats = self._stats
        stats.frames += members * ((unit.gap is not None) + bool(unit.records))
        stats.bytes += members * len(unit.data(variant))
        stats.delivered += members * len(unit.records)
        if unit.gap is not None:
            stats.gaps[unit.gap.reason] += members
            stats.dropped[unit.gap.reason] += members * unit.gap.dropped
        if unit.conflated:
            stats.conflated += members * unit.conflated

    def _forget(self, subject: str) -> None:
        route = self._routes.pop(subject)
        self._subjects.discard(subject, route)
        for feed in route.feeds:
            del feed.routes[route]
        route.feeds.clear()

    def _rouse(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake()
