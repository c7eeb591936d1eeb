"""Catch-up of the members behind the head of their feed: turns, sources, and batches for one member each.

Invariants:

1. A member behind the head is in exactly one set: members that await a turn, members that their own rate
   limit holds back, or members that wait for a replay chunk. A member that cannot be written to is in none.
2. A turn is bounded: a bounded number of members get a bounded number of batches.
3. A member that has a snapshot to read gets it before any event, piece by piece, as its socket accepts them.
"""

from collections.abc import Callable, Sized
from itertools import islice
from typing import Final

from tickertape.contracts.messages import GapReason
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.batch import Batch, batch_with_gap, lost_batch, newest_per_subject
from tickertape.relay.core.fanout.feed import Feed, Member
from tickertape.relay.core.fanout.snapshot_pieces import SnapshotPieces
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, ReplayCache
from tickertape.relay.core.snapshot import Snapshot

TURN_MEMBERS: Final = 32
"""Maximum number of members that catch up in one turn; more would delay the live members."""

TURN_BATCHES: Final = 12
"""Maximum number of batches for one member in one turn."""

TURN_PIECES: Final = 4
"""Maximum number of pieces of a snapshot for one member in one turn; encoding one may take milliseconds."""

PACED_INTERVAL: Final = 0.05
"""Minimum seconds between two batches of a member with a rate limit of its own."""

CATCH_UP_BYTES: Final = 60 * 1024
"""Maximum bytes of events in one catch-up batch; the socket of the member may be full after each batch."""

CATCH_UP_EVENTS: Final = 1_000
"""Maximum number of events in one catch-up batch."""

BLOCK_SEQUENCES: Final = 128
"""Number of sequences in a block, a batch that members share while they catch up; about as large as any
catch-up batch."""

MAX_BLOCKS: Final = 32
"""Maximum number of blocks that one feed caches, from one heartbeat to the next."""

_DENSE: Final = BLOCK_SEQUENCES // 4
"""Minimum number of events in a block that makes sharing the block worthwhile."""


class CatchUp:
    """Catch-up of the members behind the head.

    Args:
        log: event log.
        snapshot: newest states, sent instead of events that the log has evicted or a member skips.
        replay_cache: chunks of the stream, for events older than the log.
        max_behind: maximum number of missed events that a member in mode ``live`` is sent.
        deliver: writes a batch to a member, and counts it.
        send: writes an encoded message to a member, and counts it.
        reposition: called after the turn of a member, which may have reached the head.
    """

    def __init__(
        self,
        log: EventLog,
        snapshot: Snapshot,
        replay_cache: ReplayCache[Member],
        max_behind: int,
        deliver: Callable[[Member, Batch], None],
        send: Callable[[Member, Sized], None],
        reposition: Callable[[Member], None],
    ) -> None:
        self.replay_cache = replay_cache
        self.pieces = SnapshotPieces(snapshot)
        self._log = log
        self._snapshot = snapshot
        self._max_behind = max_behind
        self._deliver = deliver
        self._send = send
        self._reposition = reposition
        # A dict as an ordered set: turns are taken in order of arrival, and removal takes constant time.
        self._ready: dict[Member, None] = {}
        self._paced: dict[Member, float] = {}  # when the rate limit allows the next batch, UNIX seconds

    def __repr__(self) -> str:
        waiting = self.replay_cache.waiting
        return f"CatchUp({len(self._ready)} ready, {len(self._paced)} paced, {waiting} waiting)"

    def add(self, member: Member) -> bool:
        """Add a member that is behind; return whether a flush would advance it."""
        if member.bucket is not None:
            # ``setdefault`` keeps the time that the last turn has set. Such a member also stays here while
            # it is at the position of its feed, since it never joins the live members.
            self._paced.setdefault(member, 0.0)
        else:
            self._ready[member] = None
        return self.can_advance(member)  # a member ahead of the head waits until events reach its cursor

    def remove(self, member: Member) -> None:
        """Remove a member."""
        self._ready.pop(member, None)
        self._paced.pop(member, None)
        self.replay_cache.forget(member)

    def resume(self, members: list[Member]) -> bool:
        """Queue members that waited for a chunk; return whether any member awaits a turn."""
        self._ready.update(dict.fromkeys(members))
        return bool(self._ready)

    def members(self) -> list[Member]:
        """Return all members behind the head that can be written to."""
        return [*self._ready, *self._paced, *self.replay_cache.waiters()]

    def can_advance(self, member: Member) -> bool:
        """Return whether a member is behind its feed, or has a snapshot to read."""
        feed = member.feed  # read once: another thread may read metrics while the member leaves
        return feed is not None and (
            member.reading is not None or member.cursor < feed.position(self._log.head)
        )

    @property
    def paced(self) -> int:
        """Number of members held back only by their own rate limit."""
        # A copy, since an ASGI host may read this from another thread.
        return sum(self.can_advance(member) for member in list(self._paced))

    @property
    def idle(self) -> int:
        """Number of members with a rate limit of their own that are at the position of their feed."""
        return sum(not self.can_advance(member) for member in list(self._paced))

    def next_due(self) -> float | None:
        """Return when a rate limit next allows a batch, UNIX seconds; None if no member is held back."""
        # A member at the position of its feed is always due; counting it would cause flushes without a pause.
        return min((at for member, at in self._paced.items() if self.can_advance(member)), default=None)

    def serve_turns(self, epoch: str, now: float) -> bool:
        """Give a bounded number of members their turn.

        Args:
            epoch: epoch of cursors.
            now: UNIX seconds.

        Returns:
            Whether more members can advance.
        """
        if self._paced:
            # The others stay here: they wait for the time, not for a turn, so they must not cause a flush.
            for member in [m for m, at in self._paced.items() if at <= now and self.can_advance(m)]:
                del self._paced[member]
                self._ready[member] = None
        # A member is removed before its turn, and ``reposition`` adds it at the end if it is still behind,
        # so that all take turns. The list is a copy, and an earlier turn may have detached one of its
        # members.
        for member in list(islice(self._ready, TURN_MEMBERS)):
            self._ready.pop(member, None)
            if member.feed is None:
                continue
            try:
                self._serve(member, member.feed, epoch, now)
                self._reposition(member)
            except Exception as error:
                member.fail(error)
        # Members ahead of the head, with a cursor from another relay, do not count: they wait for events.
        return any(self.can_advance(member) for member in self._ready)

    def send_pieces(self, member: Member, feed: Feed, limit: int) -> None:
        """Send the next pieces of a member's snapshot, as long as its socket accepts them."""
        for _ in range(limit):
            reading = member.reading
            if reading is None or not member.writable:
                return
            piece = self.pieces.take(reading, feed.filter, member.encoding)
            if piece.done:
                member.reading = None
            if piece.data is not None:
                self._send(member, piece.data)

    def _serve(self, member: Member, feed: Feed, epoch: str, now: float) -> None:
        self.send_pieces(member, feed, TURN_PIECES)
        for _ in range(TURN_BATCHES if member.reading is None else 0):
            # Checked before each batch, since the write of a batch pauses the member if it fills the socket.
            if not member.writable or not self._within_rate(member, now):
                break
            source = self._source(member, feed)
            if source is None:
                break
            log, reason = source
            upto = feed.position(self._log.head)
            batch = next_batch(
                member,
                feed,
                log,
                self._snapshot,
                epoch,
                # Events in the log are read from the log, since the stream may have deleted them already.
                upto if log is self._log else min(upto, log.head, self._log.floor),
                # The limit of mode live applies to the log and the chunk before it together.
                self._max_behind if log is self._log else self._capacity(feed),
                reason,
            )
            if batch is None:
                break
            member.cursor = batch.reached
            if member.bucket is not None:
                # The rate limits log events only; state events cost nothing.
                member.bucket.spend(sum(not record.state for record in batch.records))
            if not batch.empty:
                self._deliver(member, batch)

    def _within_rate(self, member: Member, now: float) -> bool:
        """Return whether a member's own rate limit allows a batch; if not, record when it will."""
        bucket = member.bucket
        if bucket is None:
            return True
        bucket.refill(now)
        if bucket.available:
            return True
        self._paced[member] = now + max(PACED_INTERVAL, 1 / bucket.rate)
        return False

    def _source(self, member: Member, feed: Feed) -> tuple[EventLog, GapReason] | None:
        """Return the source of a member's next batch.

        Returns:
            The log or a replay chunk, and the gap reason for events before it; None if the member has to wait
            for a chunk.
        """
        log = self._log
        position = member.cursor
        if position >= log.floor:
            return log, "slow"
        # A member that has been at the head fell behind by itself; until then it asks for history, which is
        # not retained.
        if not self.replay_cache.available:
            return log, "slow" if member.reached_head else "retention"
        if feed.key.mode != "complete":
            # The member skips events anyway, so at most one chunk before the log is read for it.
            if member.reached_head or self._capacity(feed) == 0:
                return log, "slow"
            # The chunk with the last sequence before the log; the log may begin inside this chunk.
            begin = (log.floor - 1) // CHUNK_SEQUENCES * CHUNK_SEQUENCES
            if position < begin:
                # An empty log with its floor at this chunk: everything before is reported as a gap.
                skipped = EventLog(1, 1)
                skipped.reset(begin)
                return skipped, "slow"
        chunk = self.replay_cache.get(position)
        if chunk is None:
            self.replay_cache.wait(member, position)
            return None
        self.replay_cache.prefetch(position, log.floor)
        return chunk, "retention"

    def _capacity(self, feed: Feed) -> int:
        """Return how many events before the log a member may be sent, in addition to those in the log."""
        log = self._log
        if feed.counted_at != log.head:
            # The count is needed for each batch of each member behind, so the feed caches it for all of them.
            found, _ = log.select(feed.filter, log.floor, log.head, self._max_behind, log.max_bytes)
            feed.counted_at, feed.counted = log.head, len(found)
        return max(0, self._max_behind - feed.counted)


def next_batch(
    member: Member,
    feed: Feed,
    log: EventLog,
    snapshot: Snapshot,
    epoch: str,
    upto: int,
    max_behind: int,
    reason: GapReason = "slow",
) -> Batch | None:
    """Build the next batch for a member behind the head, from a log.

    Args:
        member: member to catch up.
        feed: feed of the member.
        log: event log, or a replay chunk.
        snapshot: newest states, sent instead of events that the log has evicted or the member skips.
        epoch: epoch of cursors.
        upto: position of the feed's head, or the end of the chunk.
        max_behind: maximum number of missed events to send in mode ``live``.
        reason: gap reason for events before the log.

    Returns:
        The batch; None if the member is at ``upto`` or ahead.
    """
    start = member.cursor
    if start >= upto:
        return None
    event_filter = feed.filter
    # Ranges that this log does not have come first: no batch may pass them without a gap.
    if start < log.floor:
        end = min(log.floor, upto)  # not beyond the feed's head: pending events follow it
        return lost_batch(epoch, start, end, reason, snapshot.changed(event_filter, start, end))
    if log.missing_ranges and (missing := log.next_missing_range(start, upto)) is not None:
        if missing.start <= start:
            return lost_batch(
                epoch, start, missing.end, "retention", snapshot.changed(event_filter, start, missing.end)
            )
        upto = missing.start  # the events before the range first
    if feed.key.mode == "latest":
        found, _ = log.select(event_filter, start, upto, len(log), log.max_bytes)
        records, replaced = newest_per_subject(found)
        return Batch(epoch, upto, records, conflated=replaced, stored_ns=log.stored_at(upto))
    # The count over all subjects takes only a bisection, and usually saves the scan of the log.
    if feed.key.mode == "live" and log.count_after(start) > max_behind:
        matching, _ = log.select(event_filter, start, upto, len(log), log.max_bytes)
        if len(matching) > max_behind:
            excess = matching[: len(matching) - max_behind]
            kept = [record for record in excess if record.state and snapshot.is_newest(record)]
            kept_ids = set(map(id, kept))
            dropped = [record for record in excess if id(record) not in kept_ids]
            # If all of them are newest states, nothing is skipped, and the usual batches follow.
            if dropped:
                return batch_with_gap(epoch, start, excess[-1].seq, kept, dropped, "slow", log)
    if member.bucket is not None:
        found, reached = log.select(event_filter, start, upto, member.bucket.available, CATCH_UP_BYTES)
        return Batch(epoch, reached, found, stored_ns=log.stored_at(reached))
    # A member that starts inside a block reads to its end alone, and shares batches from there on.
    if feed.members > 1 and feed.dense and (end := (start // BLOCK_SEQUENCES + 1) * BLOCK_SEQUENCES) <= upto:
        return _block(feed, log, epoch, start, end)
    found, reached = log.select(event_filter, start, upto, CATCH_UP_EVENTS, CATCH_UP_BYTES)
    return Batch(epoch, reached, found, stored_ns=log.stored_at(reached))


def _block(feed: Feed, log: EventLog, epoch: str, start: int, end: int) -> Batch:
    """Build the batch up to the end of a block; members at the start of the block share it."""
    complete = end - start == BLOCK_SEQUENCES
    if complete and (cached := feed.blocks.get(start)) is not None:
        return cached
    found, reached = log.select(feed.filter, start, end, BLOCK_SEQUENCES, CATCH_UP_BYTES)
    batch = Batch(epoch, reached, found, stored_ns=log.stored_at(reached))
    # A batch that ``CATCH_UP_BYTES`` ended early is not shared: it leaves its members inside the block.
    if complete and reached == end:
        feed.dense = len(found) >= _DENSE
        if len(feed.blocks) >= MAX_BLOCKS:
            del feed.blocks[next(iter(feed.blocks))]
        feed.blocks[start] = batch
    return batch
