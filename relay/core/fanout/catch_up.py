"""Catch-up of the members behind the head of their feed: turns, sources, and batches for one member each.

Invariants:

1. A member behind the head is in exactly one set: members that await a turn, members that their own rate
   limit holds back, or members that wait for a replay chunk. A member that cannot be written to is in none.
2. A turn is bounded: a bounded number of members get a bounded number of batches, and conditions are
   evaluated a bounded number of times for all of them. Results are kept, so each turn makes progress.
3. A member that has a snapshot to read gets it before any event, piece by piece, as its socket accepts them.
"""

from collections.abc import Callable, Sized
from itertools import islice
from typing import Final

from tickertape.contracts.messages import GapReason
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.batch import Batch
from tickertape.relay.core.fanout.examine import STEP_EVALUATIONS, examine
from tickertape.relay.core.fanout.feed import Feed, Member
from tickertape.relay.core.fanout.next_batch import next_batch
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
        self._evaluations = 0  # evaluations of conditions that are left in this turn

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
        self._evaluations = STEP_EVALUATIONS
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
            if feed.filter.where is not None and not self._examine_log(member, feed):
                break
            source = self._source(member, feed)
            if source is None:
                break
            log, reason = source
            upto = feed.position(self._log.head)
            if log is not self._log:
                # Events in the log are read from the log, since the stream may have deleted them already.
                upto = min(upto, log.head, self._log.floor)
            if feed.filter.where is not None:
                upto = self._examine(member, feed, log, upto)
            batch = next_batch(
                member,
                feed,
                log,
                self._snapshot,
                epoch,
                upto,
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

    def _examine_log(self, member: Member, feed: Feed) -> bool:
        """Evaluate the condition of a feed for the log; return whether the source of a member can be chosen.

        How many events before the log the modes that skip events are sent depends on the number in the log.
        """
        log = self._log
        if feed.key.mode == "complete" or member.cursor >= log.floor:
            return True
        reached, spent = examine(log, feed.filter, max(feed.examined, log.floor), log.head, self._evaluations)
        self._evaluations -= spent
        feed.examined = max(feed.examined, reached)
        return reached >= log.head

    def _examine(self, member: Member, feed: Feed, log: EventLog, upto: int) -> int:
        """Evaluate the condition of a feed for the next events of a member.

        Returns:
            The position up to which batches can be built without another evaluation. In the modes that skip
            events, that is ``upto`` or the cursor of the member: what to skip depends on all of them.
        """
        reached, spent = examine(
            log, feed.filter, max(member.cursor, member.examined), upto, self._evaluations
        )
        self._evaluations -= spent
        member.examined = max(member.examined, reached)
        return upto if member.examined >= upto else reached if feed.key.mode == "complete" else member.cursor

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
