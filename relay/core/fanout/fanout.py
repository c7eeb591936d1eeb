"""Fan-out from one event log to many cursors: which feeds receive an event, and when.

Invariants:

1. The position of a member is either the head of its feed or its own cursor, never both. A member with a rate
   limit of its own is never at the head.
2. An event is offered only to the feeds of its subject, which are matched when both first meet.
3. A flush is bounded: each feed gets one batch, and a bounded number of members that are behind get a
   bounded number of batches.
4. An exception raised while a batch is built fails the live members of the feed; all other feeds are served.
   ``batch_writer.py`` contains exceptions that are raised while a batch is written.

The caller flushes when ``wake`` requests it, not before ``pacer.earliest()``, and at ``next_due()``.
"""

from collections.abc import Callable

from tickertape.contracts.cursors import format_cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Mode
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import Batch, lost_batch
from tickertape.relay.core.fanout.batch_writer import BatchWriter
from tickertape.relay.core.fanout.catch_up import CatchUp
from tickertape.relay.core.fanout.feed import Feed, FeedKey, Member
from tickertape.relay.core.fanout.feed_index import FeedIndex
from tickertape.relay.core.fanout.flush_pacer import FlushPacer, TokenBucket
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.replay_cache import MAX_BYTES, ChunkRequest, ReplayCache
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.where.condition import view_of


class Fanout:
    """Feeds and their members.

    Args:
        log: event log.
        snapshot: newest states, for members that fell behind.
        stats: statistics to update.
        max_catch_up: maximum number of missed events that a member in mode ``live`` is sent.
        wake: called when a flush is needed; not called again before that flush.
        fetch: called when a replay chunk is requested; None if the stream cannot be read.
        replay_bytes: maximum bytes of replayed chunks.
    """

    def __init__(
        self,
        log: EventLog,
        snapshot: Snapshot,
        stats: Stats,
        max_catch_up: int,
        wake: Callable[[], None],
        fetch: Callable[[], None] | None = None,
        replay_bytes: int = MAX_BYTES,
    ) -> None:
        self.epoch = "0"
        self.pacer = FlushPacer()
        self.replay_cache: ReplayCache[Member] = ReplayCache(
            fetch, replay_bytes, owner=lambda member: member.owner
        )
        self._index = FeedIndex()
        self._writer = BatchWriter(stats)
        self._stats = stats
        self._catch_up = CatchUp(
            log,
            snapshot,
            self.replay_cache,
            max_catch_up,
            self._writer.deliver,
            self._writer.send_message,
            self.start,
        )
        self._log = log
        self._snapshot = snapshot
        self._wake = wake
        self._flush_requested = False
        self._dirty: list[Feed] = []  # feeds with pending events

    def __repr__(self) -> str:
        return f"Fanout({len(self.feeds)} feeds, {len(self._dirty)} dirty, {self._catch_up!r})"

    @property
    def feeds(self) -> dict[FeedKey, Feed]:
        """All feeds by key."""
        return self._index.feeds

    # Events.

    def route(self, subject: str) -> Route:
        """Return the route of a subject, created when the subject is first seen."""
        return self._index.route(subject)

    def offer(self, record: Record, before: int) -> None:
        """Add an event to the pending events of all matching feeds.

        Args:
            record: event, already in the log.
            before: head of the log before the event.
        """
        route = record.route
        if route.version != self._index.version:
            self._index.update(route)
        feeds = self._evaluate(record) if route.conditional else route.feeds
        if not feeds:
            return
        for feed in feeds:
            if not feed.pending:
                feed.cursor = before  # until now, the head of the log was its position
                self._dirty.append(feed)
            feed.pending.append(record)
        if not self._flush_requested:  # also checked here, to save a call for each event
            self._request_flush()

    def _evaluate(self, record: Record) -> list[Feed]:
        """Return the feeds of an event; each condition is evaluated once, before any rate applies."""
        route = record.route
        feeds = list(route.feeds)
        # A state matches every condition. The event is parsed once for all of them.
        view = None if record.state else view_of(record)
        for condition, conditional in route.conditional.items():
            try:
                if view is None or condition.evaluate(record, view):
                    feeds += conditional
            except Exception as error:
                for feed in conditional:
                    self._writer.fail_live(feed, error)
        return feeds

    def publish_missing(self, end: int, now: float) -> None:
        """Report to all members, in order, that events after the log's head, up to ``end``, are missing."""
        self.flush_live(now)
        missing = self._log.append_missing(end)  # members that are behind find it in the log
        batch = lost_batch(self.epoch, missing.start, missing.end, "retention")
        for feed in list(self.feeds.values()):  # a copy: a failing member may remove its feed
            self._writer.write_live(feed, batch, now)

    def flush_live(self, now: float) -> None:
        """Send all pending events to the live members, ignoring intervals and hold times."""
        for feed in list(self.feeds.values()):
            while batch := self._take_batch(feed, now, hold=False):  # each batch is bounded in bytes
                self._writer.write_live(feed, batch, now)
        self._dirty.clear()

    def reset(self, epoch: str) -> None:
        """Discard pending events, after the log restarted with another epoch."""
        self.epoch = epoch
        for feed in self.feeds.values():
            feed.reset()
        self._dirty.clear()
        # Chunks of the previous stream never arrive; their waiters continue in the new one.
        if self._catch_up.resume(self.replay_cache.clear()):
            self._request_flush()

    def add_chunk(self, request: ChunkRequest, chunk: EventLog) -> None:
        """Add a replay chunk, and queue the members that waited for it."""
        if self._catch_up.resume(self.replay_cache.add(request, chunk)):
            self._request_flush()

    # Members.

    def position(self, member: Member) -> int:
        """Return the position of a member."""
        feed = member.feed
        return feed.position(self._log.head) if feed is not None and member in feed.live else member.cursor

    def cursor(self, position: int) -> str:
        """Return the cursor of a position, with the time of the message there if the log knows it."""
        return format_cursor(self.epoch, position, self._log.stored_at(position))

    def set_position(self, member: Member, position: int) -> None:
        """Set the position of a member that has no feed yet, or whose log restarted."""
        member.cursor = position
        member.examined = 0
        member.reading = None

    def attach(
        self, member: Member, event_filter: Filter, mode: Mode, rate: float, interval_ms: int, now: float
    ) -> Feed:
        """Add a member to the feed of its filter, mode and rate; call ``start`` next.

        Args:
            member: member, whose ``cursor`` is its start position.
            event_filter: filter of the member.
            mode: delivery mode.
            rate: maximum log events per second; 0 means no limit, as always in mode ``latest``.
            interval_ms: minimum milliseconds between two batches in mode ``latest``.
            now: UNIX seconds.
        """
        key = FeedKey(event_filter.key, mode, rate, interval_ms if mode == "latest" else 0)
        feed = self._index.feed(key, event_filter, now)
        feed.members += 1
        member.feed = feed
        # Nothing is dropped in mode complete, so members progress at different speeds: each has a bucket.
        if mode != "complete" or rate == 0:
            member.bucket = None
        elif member.bucket is None or member.bucket.rate != rate:
            # An unchanged rate keeps the bucket: subscribing again must not grant a new burst.
            member.bucket = TokenBucket(rate, now)
        member.reached_head = False
        member.examined = 0
        return feed

    def detach(self, member: Member) -> None:
        """Remove a member from its feed, if it has one; its cursor keeps the position."""
        feed = member.feed
        if feed is None:
            return
        self._stall(member)  # first: a live member has its position from the feed
        member.feed = member.reading = None
        feed.members -= 1
        if feed.members == 0:
            self._index.remove(feed)

    def send_snapshot(self, member: Member) -> None:
        """Send a member the newest states as of its position before any further event, then continue it.

        A snapshot that the member is still reading is replaced.
        """
        feed = member.feed
        assert feed is not None
        self._stall(member)
        member.reading = self._snapshot.read(member.cursor)
        # A small snapshot is complete with this piece; the others are sent in turns.
        self._catch_up.send_pieces(member, feed, 1)
        self.start(member)

    def start(self, member: Member) -> None:
        """Continue a member: as a live member at the head, otherwise by catching up, a snapshot first."""
        feed = member.feed
        if feed is None or not member.writable or member in feed.live or member in self.replay_cache:
            return
        at_head = member.cursor == feed.position(self._log.head)  # a member ahead waits
        if at_head:
            member.reached_head = True
        if at_head and member.bucket is None and member.reading is None:
            feed.join(member)
        elif self._catch_up.add(member):
            self._request_flush()

    def pause(self, member: Member) -> None:
        """Stop delivery to a member whose send buffer is full."""
        member.writable = False
        self._stall(member)

    def resume(self, member: Member) -> None:
        """Continue delivery to a member whose send buffer has drained."""
        member.writable = True
        self.start(member)

    def _stall(self, member: Member) -> None:
        self._catch_up.remove(member)
        feed = member.feed
        if feed is not None and feed.leave(member):
            member.cursor = feed.position(self._log.head)

    @property
    def behind(self) -> int:
        """Number of members that lag behind the head of their feed."""
        # Copies, since an ASGI host may read this from another thread while members come and go.
        return sum(feed.members - len(feed.live) for feed in list(self.feeds.values())) - self._catch_up.idle

    @property
    def paced(self) -> int:
        """Number of members held back only by their own rate limit."""
        return self._catch_up.paced

    # Time.

    def flush(self, now: float) -> None:
        """Send pending events to the live members, then let a bounded number of other members catch up."""
        self._flush_requested = False  # first: a member that stays behind may request the next flush
        self._writer.start_flush()
        dirty, self._dirty = self._dirty, []
        batches: dict[tuple[int, int], Batch] = {}  # by first sequence and number of records
        for feed in dirty:
            key = (feed.pending[0].seq, len(feed.pending)) if feed.pending else (0, 0)
            batch = self._take_batch(feed, now, shared=batches.get(key))
            if batch is not None:
                batches.setdefault(key, batch)  # a candidate: ``take_batch`` compares the events
                self._writer.write_live(feed, batch, now)
            if feed.pending:
                self._dirty.append(feed)
        more_behind = self.catch_up(now)
        if more_behind or any(feed.held_until <= now for feed in self._dirty):
            self._request_flush()

    def catch_up(self, now: float) -> bool:
        """Let a bounded number of members catch up; return whether more can advance.

        This may also be called between two flushes.
        """
        return self._catch_up.serve_turns(self.epoch, now)

    def next_due(self) -> float | None:
        """Return when the next held feed or rate-limited member is due, UNIX seconds, or None."""
        held = [feed.held_until for feed in self._dirty]
        paced = self._catch_up.next_due()
        return min(held if paced is None else [*held, paced], default=None)

    def heartbeat(self, now: float) -> None:
        """Send a heartbeat with its position to every member that can be written to."""
        time = format_time(self._stats.unix(now))
        self._catch_up.pieces.clear()  # as with the blocks below
        for feed in list(self.feeds.values()):
            feed.blocks.clear()  # the members that shared them have read them by now
            message = messages.heartbeat(self.cursor(feed.position(self._log.head)), time)
            for encoding, senders in feed.writers().items():
                self._writer.write(feed, senders, encoding.encode([message]))
        for member in self._catch_up.members():  # a copy: a write may fill a socket and pause its member
            if member.reading is not None:
                continue  # the pieces of its snapshot show that the relay is alive
            try:
                message = messages.heartbeat(self.cursor(member.cursor), time)
                member.send(member.encoding.encode([message]))
            except Exception as error:
                member.fail(error)

    # Internals.

    def _take_batch(
        self, feed: Feed, now: float, *, hold: bool = True, shared: Batch | None = None
    ) -> Batch | None:
        """Return the next batch of a feed; if building it fails, fail its live members and return None."""
        try:
            return feed.take_batch(self._log, self.epoch, now, hold=hold, shared=shared)
        except Exception as error:
            self._writer.fail_live(feed, error)
            return None

    def _request_flush(self) -> None:
        if not self._flush_requested:
            self._flush_requested = True
            self._wake()
