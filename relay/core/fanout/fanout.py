"""From one log to many cursors: which feeds an event goes to, and when it goes.

Invariants:

1. A member that follows is at its feed's head, or its cursor says where it is; never both or neither. One
   with a pace of its own is never at the head: it walks alone.
2. An event is offered to the feeds of its subject only; matching was paid when subject and feed first met.
3. One flush is bounded: each feed gets a batch, and a bounded number of those behind a bounded share.
4. An exception ends the member on whose behalf it was raised, through its ``fault``; one in the making of a
   batch ends those at the feed's head. The other feeds are served.

The caller flushes when ``wake`` asks for it, not before ``pacer.earliest()``, and at ``held_until()``.
"""

from collections.abc import Callable, Sized
from typing import Any, Final

from tickertape.contracts.cursors import format_cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Mode
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.counters import Exemplar, Stats
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import Batch, lost_batch
from tickertape.relay.core.fanout.catch_up import CatchUp
from tickertape.relay.core.fanout.feed import Feed, FeedKey, Member
from tickertape.relay.core.fanout.feed_index import FeedIndex
from tickertape.relay.core.fanout.flush_pacer import FlushPacer, TokenBucket
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.replay_cache import ReplayCache
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.trace_context import may_be_traced

MAX_TRACE_CHECKS: Final = 16
"""Events of one flush that are looked at for their trace, as examples of a delay; most feeds share them."""


class Fanout:
    """The feeds, and the members in them.

    Args:
        log: what cursors point into.
        snapshot: newest states, for those who fell behind.
        stats: where to count.
        max_catch_up: most matching events that a member of mode ``live`` gets when it catches up.
        wake: called when there is something to flush and nothing was before.
        fetch: called when a replay chunk of the stream is wanted; None when the stream cannot be read.
    """

    def __init__(
        self,
        log: EventLog,
        snapshot: Snapshot,
        stats: Stats,
        max_catch_up: int,
        wake: Callable[[], None],
        fetch: Callable[[], None] | None = None,
    ) -> None:
        self.epoch = "0"
        self.pacer = FlushPacer()
        self.replay_cache: ReplayCache[Member] = ReplayCache(fetch)
        self._index = FeedIndex()
        self._behind = CatchUp(log, snapshot, self.replay_cache, max_catch_up, self._deliver, self.start)
        self._log = log
        self._stats = stats
        self._wake = wake
        self._flush_requested = False
        self._looks = 0  # at events for their traces, in this flush
        self._looked_at: Record | None = None
        self._exemplar: Exemplar | None = None  # that one, if it may be traced
        self._dirty: list[Feed] = []  # feeds with something pending

    def __repr__(self) -> str:
        return f"Fanout({len(self.feeds)} feeds, {len(self._dirty)} dirty, {self._behind!r})"

    @property
    def feeds(self) -> dict[FeedKey, Feed]:
        """All feeds, by what their members share."""
        return self._index.feeds

    # Events.

    def route(self, subject: str) -> Route:
        """Return what a subject means; made when it is first seen."""
        return self._index.route(subject)

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
        if not self._flush_requested:  # asked here too: a call for each event would be dear
            self._request_flush()

    def publish_missing(self, end: int, now: float) -> None:
        """Tell all members, in order, that events after the log's head, up to ``end``, will never come."""
        self.flush_live(now)
        hole = self._log.append_missing(end)
        batch = lost_batch(self.epoch, hole.start, hole.end, "retention")
        for feed in list(self.feeds.values()):  # a member that fails may be the last of its feed
            self._write_live(feed, batch, now)

    def flush_live(self, now: float) -> None:
        """Hand all that is pending to the live members, whatever the pacing would hold back."""
        for feed in list(self.feeds.values()):
            while batch := self._taken(feed, now, hold=False):
                self._write_live(feed, batch, now)
        self._dirty.clear()

    def reset(self, epoch: str) -> None:
        """Forget what is pending: the log starts again with another epoch, and all members at its head."""
        self.epoch = epoch
        for feed in self.feeds.values():
            feed.reset()
        self._dirty.clear()
        if self._behind.resume(self.replay_cache.clear()):
            self._request_flush()

    def add_chunk(self, number: int, stretch: EventLog) -> None:
        """Take in a replay chunk of the stream: those that waited for it get their turn."""
        if self._behind.resume(self.replay_cache.add(number, stretch)):
            self._request_flush()

    # Members.

    def position(self, member: Member) -> int:
        """Return where a member stands."""
        feed = member.feed
        return feed.position(self._log.head) if feed is not None and member in feed.live else member.cursor

    def cursor(self, position: int) -> str:
        """Return the cursor of a place, with the time of the message there when the log knows it."""
        return format_cursor(self.epoch, position, self._log.stored_at(position))

    def set_position(self, member: Member, position: int) -> None:
        """Say where a member begins that has no feed yet, or whose log starts again."""
        member.cursor = position

    def attach(
        self, member: Member, wanted: Filter, mode: Mode, rate: float, interval_ms: int, now: float
    ) -> Feed:
        """Put a member into the feed of its filter, mode and pace; ``start`` comes next.

        Args:
            member: its ``cursor`` says where it begins.
            wanted: its filter.
            mode: how gaps and speed are traded.
            rate: log events per second; 0 means no limit, and always does so in mode ``latest``.
            interval_ms: least time between two batches in mode ``latest``.
            now: UNIX seconds.
        """
        key = FeedKey(wanted.key, mode, rate, interval_ms if mode == "latest" else 0)
        feed = self._index.feed(key, wanted, now)
        feed.members += 1
        member.feed = feed
        if mode != "complete" or rate == 0:
            member.bucket = None
        elif member.bucket is None or member.bucket.rate != rate:
            # Otherwise it keeps the one it has: to subscribe again would bring a new burst.
            member.bucket = TokenBucket(rate, now)
        member.arrived = False
        return feed

    def detach(self, member: Member) -> None:
        """Take a member out of its feed, if it has one; its cursor says where it stood."""
        feed = member.feed
        if feed is None:
            return
        self._stall(member)
        member.feed = None
        feed.members -= 1
        if feed.members == 0:
            self._index.remove(feed)

    def start(self, member: Member) -> None:
        """Let a member continue from its cursor: at the head if it stands there, else behind it."""
        feed = member.feed
        if feed is None or not member.writable or member in feed.live or member in self.replay_cache:
            return
        at_head = member.cursor == feed.position(self._log.head)
        if at_head:
            member.arrived = True
        if at_head and member.bucket is None:
            feed.join(member)
        elif self._behind.add(member):
            self._request_flush()

    def pause(self, member: Member) -> None:
        """Leave a member where it is: its socket takes no more."""
        member.writable = False
        self._stall(member)

    def resume(self, member: Member) -> None:
        """Let a member continue: its socket takes data again."""
        member.writable = True
        self.start(member)

    def _stall(self, member: Member) -> None:
        self._behind.remove(member)
        feed = member.feed
        if feed is not None and feed.leave(member):
            member.cursor = feed.position(self._log.head)

    @property
    def behind(self) -> int:
        """Members that are not at their feed's head, and should be."""
        # Copies: a host may ask from a thread of its own, while the loop lets members come and go.
        return sum(feed.members - len(feed.live) for feed in list(self.feeds.values())) - self._behind.idle

    @property
    def paced(self) -> int:
        """Members that nothing but their own pace holds back."""
        return self._behind.held

    # Time.

    def flush(self, now: float) -> None:
        """Hand what is pending to the live members, then let some of those behind catch up."""
        self._flush_requested = False
        self._looks, self._looked_at, self._exemplar = MAX_TRACE_CHECKS, None, None
        dirty, self._dirty = self._dirty, []
        alike: dict[tuple[int, int], Batch] = {}  # by first sequence and number of records
        for feed in dirty:
            wanted = (feed.pending[0].seq, len(feed.pending)) if feed.pending else (0, 0)
            batch = self._taken(feed, now, alike=alike.get(wanted))
            if batch is not None:
                alike.setdefault(wanted, batch)
                self._write_live(feed, batch, now)
            if feed.pending:
                self._dirty.append(feed)
        behind = self.serve_behind(now)
        if behind or any(feed.held_until <= now for feed in self._dirty):
            self._request_flush()

    def serve_behind(self, now: float) -> bool:
        """Let some of those behind catch up, between two flushes too; True when there are more who can."""
        return self._behind.serve(self.epoch, now)

    def held_until(self) -> float | None:
        """Return when a feed that holds back must be flushed, or a pace lets a member move; None if never."""
        held = [feed.held_until for feed in self._dirty]
        paced = self._behind.next_at()
        return min(held if paced is None else [*held, paced], default=None)

    def heartbeat(self, now: float) -> None:
        """Tell every member that can be written to where it stands."""
        time = format_time(now)
        for feed in list(self.feeds.values()):
            feed.blocks.clear()  # those who needed them have read them
            message = messages.heartbeat(self.cursor(feed.position(self._log.head)), time)
            for encoding, senders in feed.writers().items():
                self._send(feed, senders, encoding.encode([message]))
        for member in self._behind.members():  # a write can fill a socket, and that changes who catches up
            try:
                message = messages.heartbeat(self.cursor(member.cursor), time)
                member.send(member.encoding.encode([message]))
            except Exception as error:
                member.fail(error)

    # Inside.

    def _taken(
        self, feed: Feed, now: float, *, hold: bool = True, alike: Batch | None = None
    ) -> Batch | None:
        """Take the next batch of a feed; None, and the end of its live members, where that fails."""
        try:
            return feed.take_batch(self._log, self.epoch, now, hold=hold, alike=alike)
        except Exception as error:
            self._fail(feed, error)
            return None

    def _fail(self, feed: Feed, error: Exception) -> None:
        """End the live members of a feed; those behind have a turn of their own."""
        feed.clear()
        for member in list(feed.live):
            member.fail(error)

    def _send(self, feed: Feed, senders: list[Callable[[Any], None]], data: Sized) -> None:
        """Write to live members of a feed; one whose write fails ends alone."""
        rest = iter(senders)
        done = False
        while not done:
            try:
                for send in rest:  # the tightest loop of all: what guards it is outside
                    send(data)
                done = True
            except Exception as error:
                for member in [one for one in feed.live if one.send is send]:
                    member.fail(error)

    def _write_live(self, feed: Feed, batch: Batch, now: float) -> None:
        feed.cursor = batch.reached
        feed.writing = True
        members = 0
        try:
            for encoding, senders in feed.writers().items():
                data = batch.encoded(encoding)
                self._send(feed, senders, data)
                members += len(senders)
                self._count(batch, len(senders), len(data))
        except Exception as error:
            self._fail(feed, error)
        finally:
            feed.writing = False
        if batch.records:
            # The oldest stands for its batch: one look for all of them, and never a flattering one.
            oldest, delivered = batch.records[0], members * len(batch.records)
            if oldest is not self._looked_at and self._looks:
                self._looks -= 1
                self._looked_at = oldest
                self._exemplar = Exemplar(oldest, now) if may_be_traced(oldest) else None
            exemplar = self._exemplar if oldest is self._looked_at else None
            self._stats.delay.observe(now - oldest.received, delivered, exemplar)
            self._stats.observe_age(now - oldest.timestamp, delivered, exemplar)

    def _deliver(self, member: Member, batch: Batch) -> None:
        data = batch.encoded(member.encoding)
        member.send(data)
        self._count(batch, 1, len(data))

    def _count(self, batch: Batch, members: int, size: int) -> None:
        stats = self._stats
        stats.frames += members * batch.count
        stats.bytes += members * size
        stats.delivered += members * len(batch.records)
        if batch.gap is not None:
            stats.gaps[batch.gap.reason] += members
            stats.dropped[batch.gap.reason] += members * batch.gap.dropped
        if batch.conflated:
            stats.conflated += members * batch.conflated

    def _request_flush(self) -> None:
        if not self._flush_requested:
            self._flush_requested = True
            self._wake()
