"""The hub owns log, snapshot, feeds and sessions: events go in, frames come out.

Invariants:

1. Events are published in stream order, each once; the intake sees to it.
2. A session is at its feed's head, or its cursor says where it is; never both, never neither.
3. Whatever a client did is answered to that client alone.

The caller flushes when ``wake`` asks for it and not before ``pacer.earliest()``, and calls ``tick`` at
``heartbeat_at``.
"""

import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from contracts.codes import CLOSE_CODES, CloseCode, ErrorCode, Reconnect
from contracts.events import Event, format_time
from contracts.wire import (
    HEARTBEAT_MS,
    MAX_MESSAGE_BYTES,
    MAX_SUBJECTS,
    SUBPROTOCOL,
    WireError,
    format_cursor,
    parse_client,
)
from relay.core import frames
from relay.core.feed import Feed, FeedKey, Unit, catch_up, lost
from relay.core.filters import MAX_KNOWN_SUBJECTS, Filter, Route
from relay.core.log import Log, Record
from relay.core.pacing import FlushPacer
from relay.core.session import Action, Link, Request, Session, State, close_code, decide, request_of
from relay.core.snapshot import Snapshot
from relay.core.stats import Stats

CATCH_UP_SESSIONS: Final = 256
"""Sessions that may catch up in one flush; the others wait for the next, so that the head stays prompt."""

CATCH_UP_UNITS: Final = 4
"""Units that one of them may get in one flush."""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """What an operator sets.

    Attributes:
        relay: name in ``welcome``.
        rate: log events per second and client; 0 means no limit.
        log_events: most events in the log.
        log_bytes: most bytes in the log.
        max_catch_up: most matching events that a member of mode ``live`` gets when it catches up.
        heartbeat_ms: longest silence.
    """

    relay: str = "relay"
    rate: float = 100.0
    log_events: int = 100_000
    log_bytes: int = 128 * 1024 * 1024
    max_catch_up: int = 1_000
    heartbeat_ms: int = HEARTBEAT_MS


class Hub:
    """One log, many cursors.

    Args:
        settings: what an operator sets.
        wake: called when there is something to flush and nothing was before.
    """

    def __init__(self, settings: HubSettings, wake: Callable[[], None]) -> None:
        self.settings = settings
        self.log = Log(settings.log_events, settings.log_bytes)
        self.snapshot = Snapshot()
        self.pacer = FlushPacer()
        self.stats = Stats()
        self.sessions: dict[str, Session] = {}
        self.feeds: dict[FeedKey, Feed] = {}
        self.epoch = "0"
        self.heartbeat_at = 0.0
        self.upstream_connected = False
        self.upstream_since = 0.0
        self._wake = wake
        self._awake = False
        self._dirty: list[Feed] = []  # feeds with something pending
        self._catching: dict[Session, None] = {}  # writable sessions behind the head
        self._routes: dict[str, Route] = {}

    def __repr__(self) -> str:
        return f"Hub({self.cursor()}, {len(self.sessions)} sessions, {len(self.feeds)} feeds, {self.log!r})"

    def cursor(self) -> str:
        """Newest place that the relay has reached."""
        return format_cursor(self.epoch, self.log.head)

    @property
    def behind(self) -> int:
        """Sessions that are not at their feed's head."""
        return sum(feed.members - len(feed.heads) for feed in self.feeds.values())

    # What comes from the stream.

    def begin(self, epoch: str, head: int, now: float) -> None:
        """Say in which stream, and after which sequence, events will come; first of all calls.

        Sessions that are there already are told of a ``reset`` and start afresh.
        """
        known = self.epoch != "0"
        before = self.cursor()
        self.epoch = epoch
        self.log.start(head)
        self.snapshot.clear()
        if not known:
            return
        for feed in self.feeds.values():
            feed.pending.clear()
            feed.cursor = head
        data = frames.message(
            "gap", **{"from": before, "to": self.cursor()}, dropped=None, by={}, reason="reset"
        )
        for session in self.sessions.values():
            session.cursor = head
            self._write(session, data)

    def restart_sessions(self) -> None:
        """Send everybody a fresh snapshot; after ``begin`` and the loading of the new one."""
        for feed in self.feeds.values():
            feed.snapshot_version = -1
        for session in self.sessions.values():
            if session.feed is not None:
                self._write(session, self._snapshot(session.feed, self.log.head))

    def load_state(self, seq: int, subject: str, event: Event, stored: float) -> None:
        """Put an event of the stream's newest states into the snapshot."""
        if event.state:
            self.snapshot.put(self._record(seq, subject, event, stored, stored))

    def warm(self, events: Iterable[tuple[int, str, Event, float]], floor: int) -> int:
        """Fill the log backwards with what the stream held at the start.

        Args:
            events: sequence, subject, event and when it was stored; all that follow ``floor``, in order.
            floor: place before the first of them.

        Returns:
            how many were kept.
        """
        records = [
            self._record(seq, subject, event, stored, stored) for seq, subject, event, stored in events
        ]
        for record in records:
            if record.state:
                self.snapshot.put(record)
        return self.log.prepend(records, floor)

    def publish(self, seq: int, subject: str, event: Event, stored: float, now: float) -> None:
        """Take in the next event of the stream.

        Args:
            seq: its sequence, greater than all before.
            subject: as clients see it.
            event: decoded.
            stored: when the stream stored it, UNIX seconds.
            now: UNIX seconds.
        """
        route = self._routes.get(subject) or self._route(subject)
        record = Record(
            seq,
            route,
            frames.item(route, seq, event.payload),
            event.state,
            event.removed,
            now,
            event.timestamp,
            stored,
        )
        before = self.log.head
        self.log.append(record)
        if event.state:
            self.snapshot.put(record)
            self.stats.received["state"] += 1
        else:
            self.stats.received["log"] += 1
        if route.feeds:
            for feed in route.feeds:
                if not feed.pending:
                    feed.cursor = before
                    self._dirty.append(feed)
                feed.pending.append(record)
            if not self._awake:  # asked here too: a call for each event would be dear
                self._rouse()

    def skip(self, seq: int, reason: str) -> None:
        """Pass over an event of the stream that breaks the contract."""
        self.log.advance(seq)
        self.stats.rejected[reason] = self.stats.rejected.get(reason, 0) + 1

    def hole(self, end: int, now: float) -> None:
        """Events after the head, up to ``end``, left the stream before the relay could take them in."""
        for feed in self.feeds.values():
            while unit := feed.take(self.log, self.epoch, now, hold=False):
                self._write_head(feed, unit, now)
        hole = self.log.hole(end)
        unit = lost(self.epoch, hole.start, hole.end, "retention")
        for feed in self.feeds.values():
            feed.cursor = hole.end
            for send in feed.writers():
                send(unit.data)

    def set_upstream(self, connected: bool, now: float) -> None:
        """Say whether the relay hears from NATS; clients are told of changes."""
        if connected == self.upstream_connected and self.upstream_since:
            return
        self.upstream_connected = connected
        self.upstream_since = now
        data = self._upstream()
        for session in self.sessions.values():
            self._write(session, data)

    # What comes from clients.

    def open(self, link: Link, request: Request, now: float) -> Session | None:
        """Begin a session; it is welcomed and started, or refused with ``error`` and ``bye``.

        Args:
            link: where it writes to.
            request: what it follows first.
            now: UNIX seconds.

        Returns:
            None when it was refused.
        """
        session = Session(secrets.token_urlsafe(9), link)
        rate = self.settings.rate
        self._write(
            session,
            frames.message(
                "welcome",
                protocol=SUBPROTOCOL,
                relay=self.settings.relay,
                session=session.id,
                heartbeat_ms=self.settings.heartbeat_ms,
                limits={"rate": rate, "max_message_bytes": MAX_MESSAGE_BYTES, "max_subjects": MAX_SUBJECTS},
                grant={"subjects": [">"], "deny": [], "level": "DEBUG", "rate": rate},
                expires_at=None,
            ),
        )
        self.sessions[session.id] = session
        try:
            self._start(session, request, self.log.head, now)
        except WireError as error:
            self.refuse(session, error, close_code(error))
            return None
        if not self.upstream_connected:
            self._write(session, self._upstream())
        return session

    def turn_away(self, link: Link, error: WireError, code: CloseCode) -> None:
        """Say ``error`` and ``bye`` to a client that gets no session, and close."""
        self.refuse(Session("", link), error, code)

    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Handle one text message of a client."""
        try:
            message = parse_client(text)
            action = decide(session.state, message)
            if action is Action.PONG:
                self._write(session, frames.message("pong", id=getattr(message, "id", None)))
            elif action is Action.START:
                self._restart(session, request_of(message), now)  # type: ignore[arg-type]
        except WireError as error:
            self.refuse(session, error, close_code(error))

    def paused(self, session: Session) -> None:
        """A session's socket takes no more: it stays where it is."""
        session.writable = False
        self._catching.pop(session, None)
        feed = session.feed
        if feed is not None and feed.leave(session):
            session.cursor = feed.place(self.log.head)

    def resumed(self, session: Session) -> None:
        """A session's socket takes data again."""
        session.writable = True
        if session.feed is not None:
            self._catch(session, session.feed)

    def closed(self, session: Session) -> None:
        """A session's connection is gone."""
        self._detach(session)
        self.sessions.pop(session.id, None)

    def refuse(self, session: Session, error: WireError, code: CloseCode) -> None:
        """Answer a client's error, say ``bye`` and close."""
        self._write(
            session,
            frames.message(
                "error",
                code=error.code,
                message=error.message,
                retry=CLOSE_CODES[code].reconnect is not Reconnect.NEVER,
                ref=error.ref,
            ),
        )
        self.bye(session, code, error.message)

    def bye(self, session: Session, code: CloseCode, reason: str, retry_after_ms: int | None = None) -> None:
        """Say ``bye`` and close a session."""
        if session.state is State.CLOSING:
            return
        self._detach(session)
        self._write(
            session, frames.message("bye", code=int(code), reason=reason, retry_after_ms=retry_after_ms)
        )
        session.state = State.CLOSING
        self.sessions.pop(session.id, None)
        session.link.close(code, reason)

    # Time.

    def flush(self, now: float) -> None:
        """Hand what is pending to the heads, then let some of those behind catch up."""
        self._awake = False
        dirty, self._dirty = self._dirty, []
        for feed in dirty:
            unit = feed.take(self.log, self.epoch, now)
            if unit is not None:
                self._write_head(feed, unit, now)
            if feed.pending:
                self._dirty.append(feed)
        self._serve_behind(now)
        behind = any(self._can_move(session) for session in self._catching)
        if behind or any(feed.held_until <= now for feed in self._dirty):
            self._rouse()

    def held_until(self) -> float | None:
        """When a feed that holds back must be flushed; None when none does."""
        return min((feed.held_until for feed in self._dirty), default=None)

    def tick(self, now: float) -> None:
        """Send the heartbeat when it is due."""
        if now < self.heartbeat_at:
            return
        self.heartbeat_at = now + self.settings.heartbeat_ms / 1000
        time = format_time(now)
        for feed in self.feeds.values():
            cursor = format_cursor(self.epoch, feed.place(self.log.head))
            data = frames.message("heartbeat", cursor=cursor, time=time)
            for send in feed.writers():
                send(data)
        for session in self._catching:
            cursor = format_cursor(self.epoch, session.cursor)
            self._write(session, frames.message("heartbeat", cursor=cursor, time=time))

    # Inside.

    def _start(self, session: Session, request: Request, place: int, now: float) -> None:
        """Give a session its feed and its place, and say so."""
        if request.mode != "live":
            raise WireError(
                ErrorCode.BAD_MODE, f"this relay serves mode live, not yet {request.mode}", "subscribe"
            )
        snapshot, resumed = True, False
        gap: bytes | None = None
        if request.cursor is not None:
            epoch, seq = request.cursor
            if epoch == self.epoch and seq <= self.log.head:
                place, snapshot, resumed = seq, False, True
                self.stats.resumes["log" if seq >= self.log.floor else "gap"] += 1
            else:
                self.stats.resumes["gap"] += 1
                place = self.log.head
                gap = frames.message(
                    "gap",
                    **{"from": format_cursor(epoch, seq), "to": self.cursor()},
                    dropped=None,
                    by={},
                    reason="reset",
                )
        elif request.since is not None:
            place = self.log.after_time(request.since.at(now))
        key = FeedKey(Filter(request.subjects, request.level).key, request.mode, self.settings.rate)
        feed = self.feeds.get(key) or self._feed(key, request, now)
        feed.members += 1
        session.feed = feed
        session.cursor = place
        session.arrived = False
        self._write(
            session,
            frames.message(
                "subscribed",
                subjects=request.subjects,
                level=request.level,
                mode=request.mode,
                interval_ms=request.interval_ms,
                cursor=format_cursor(self.epoch, place),
                resumed=resumed,
            ),
        )
        if gap is not None:
            self._write(session, gap)
        if snapshot:
            self._write(session, self._snapshot(feed, place))
        if session.writable:
            self._catch(session, feed)

    def _restart(self, session: Session, request: Request, now: float) -> None:
        feed = session.feed
        at_head = feed is not None and session in feed.heads
        place = feed.place(self.log.head) if feed is not None and at_head else session.cursor
        self._detach(session)
        self._start(session, request, place, now)

    def _snapshot(self, feed: Feed, place: int) -> bytes:
        if place < self.log.head:
            return frames.snapshot(self.snapshot.select(feed.filter, place))
        if feed.snapshot_version != self.snapshot.version:
            feed.snapshot_version = self.snapshot.version
            feed.snapshot_frames = frames.snapshot(self.snapshot.select(feed.filter, place))
        return feed.snapshot_frames

    def _feed(self, key: FeedKey, request: Request, now: float) -> Feed:
        feed = self.feeds[key] = Feed(key, Filter(request.subjects, request.level), now)
        for subject, route in self._routes.items():
            if feed.filter.matches(subject):
                route.feeds[feed] = None
                feed.subjects.append(subject)
        return feed

    def _route(self, subject: str) -> Route:
        if len(self._routes) >= MAX_KNOWN_SUBJECTS:
            self._forget(next(iter(self._routes)))
        route = self._routes[subject] = Route(subject)
        for feed in self.feeds.values():
            if feed.filter.matches(subject):
                route.feeds[feed] = None
                feed.subjects.append(subject)
        return route

    def _forget(self, subject: str) -> None:
        for feed in self._routes.pop(subject).feeds:
            feed.subjects.remove(subject)

    def _record(self, seq: int, subject: str, event: Event, stored: float, received: float) -> Record:
        route = self._routes.get(subject) or self._route(subject)
        item = frames.item(route, seq, event.payload)
        return Record(seq, route, item, event.state, event.removed, received, event.timestamp, stored)

    def _detach(self, session: Session) -> None:
        self._catching.pop(session, None)
        feed = session.feed
        if feed is None:
            return
        session.feed = None
        feed.leave(session)
        feed.members -= 1
        if feed.members == 0:
            del self.feeds[feed.key]
            feed.pending.clear()
            for subject in feed.subjects:
                if route := self._routes.get(subject):
                    route.feeds.pop(feed, None)

    def _catch(self, session: Session, feed: Feed) -> None:
        if session.cursor == feed.place(self.log.head):
            session.arrived = True
            feed.join(session)
            return
        self._catching[session] = None
        self._rouse()

    def _serve_behind(self, now: float) -> None:
        for session in list(self._catching)[:CATCH_UP_SESSIONS]:
            self._catching.pop(session, None)
            feed = session.feed
            if feed is None:
                continue
            for _ in range(CATCH_UP_UNITS):
                upto = feed.place(self.log.head)
                unit = catch_up(
                    session,
                    feed.filter,
                    self.log,
                    self.snapshot,
                    self.epoch,
                    upto,
                    self.settings.max_catch_up,
                )
                if unit is None or not session.writable:
                    break
                session.cursor = unit.reached
                if unit.data:
                    self._write(session, unit.data)
                    self._count(unit, 1, now)
            if session.writable:
                self._catch(session, feed)

    def _can_move(self, session: Session) -> bool:
        return session.feed is not None and session.cursor < session.feed.place(self.log.head)

    def _write_head(self, feed: Feed, unit: Unit, now: float) -> None:
        feed.cursor = unit.reached
        feed.writing = True
        writers = feed.writers()
        data = unit.data
        for send in writers:
            send(data)
        feed.writing = False
        self._count(unit, len(writers), now)

    def _count(self, unit: Unit, members: int, now: float) -> None:
        stats = self.stats
        stats.frames += members * unit.frames
        stats.bytes += members * len(unit.data)
        if unit.reason is not None:
            stats.dropped[unit.reason] += members * unit.dropped
        if unit.records:
            delivered = members * len(unit.records)
            stats.delivered += delivered
            # The oldest stands for its batch: one look at the clock for all of them, and never flattering.
            oldest = unit.records[0]
            stats.delay.observe(now - oldest.received, delivered)
            stats.age.observe(now - oldest.timestamp, delivered)

    def _write(self, session: Session, data: bytes) -> None:
        if session.state is not State.CLOSING:
            session.send(data)
            self.stats.frames += 1
            self.stats.bytes += len(data)

    def _upstream(self) -> bytes:
        state = "connected" if self.upstream_connected else "disconnected"
        return frames.message("upstream", state=state, since=format_time(self.upstream_since))

    def _rouse(self) -> None:
        if not self._awake:
            self._awake = True
            self._wake()
