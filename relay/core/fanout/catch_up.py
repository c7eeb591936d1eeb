"""Those behind the head: whose turn it is, where each reads on, and the batches that it gets alone.

Invariants:

1. A member that is behind is in exactly one place: among those with a turn, those whose pace holds them, or
   those that wait for a replay chunk of the stream. One that cannot be written to is in none.
2. A turn is bounded: a bounded number of members get a bounded number of batches.
"""

from collections.abc import Callable
from typing import Final

from tickertape.contracts.messages import GapReason
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.batch import Batch, batch_with_gap, lost_batch, newest_per_subject
from tickertape.relay.core.fanout.feed import Feed, Member
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES, ReplayCache
from tickertape.relay.core.snapshot import Snapshot

TURN_MEMBERS: Final = 32
"""Members that may catch up in one turn; the others wait for the next, so that the head stays prompt."""

TURN_BATCHES: Final = 12
"""Batches that one of them may get in one turn."""

PACED_TURN: Final = 0.05
"""Seconds between two batches of a member that has a pace of its own."""

CATCH_UP_BYTES: Final = 60 * 1024
"""Most bytes of events in one batch of a member that catches up; after each its socket may be full."""

CATCH_UP_EVENTS: Final = 1_000
"""Most events in one such batch."""

BLOCK: Final = 128
"""Sequences in a block: what members that catch up share; about as many bytes as one of their batches has."""

MAX_BLOCKS: Final = 32
"""Blocks that one feed keeps, from one heartbeat to the next."""

_DENSE: Final = BLOCK // 4
"""Events in a block from which sharing it pays."""


class CatchUp:
    """The members behind the head.

    Args:
        log: what cursors point into.
        snapshot: newest states, for what the log has let go or a member passes over.
        replay_cache: replay chunks of the stream, for what is older than the log.
        max_behind: most matching events that a member of mode ``live`` gets one by one.
        deliver: writes a batch to a member, and counts it.
        arrived: called after a member's turn: it may have arrived at the head.
    """

    def __init__(
        self,
        log: EventLog,
        snapshot: Snapshot,
        replay_cache: ReplayCache[Member],
        max_behind: int,
        deliver: Callable[[Member, Batch], None],
        arrived: Callable[[Member], None],
    ) -> None:
        self.replay_cache = replay_cache
        self._log = log
        self._snapshot = snapshot
        self._max_behind = max_behind
        self._deliver = deliver
        self._arrived = arrived
        self._turns: dict[Member, None] = {}
        self._paced: dict[Member, float] = {}  # when its pace lets it move, UNIX seconds

    def __repr__(self) -> str:
        waiting = self.replay_cache.waiting
        return f"CatchUp({len(self._turns)} in turn, {len(self._paced)} paced, {waiting} waiting)"

    def add(self, member: Member) -> bool:
        """Take in a member that is behind; True when a flush would move it."""
        if member.bucket is not None:
            self._paced.setdefault(member, 0.0)
        else:
            self._turns[member] = None
        return self.can_move(member)  # one that is ahead moves with the events that it waits for

    def remove(self, member: Member) -> None:
        """Forget a member."""
        self._turns.pop(member, None)
        self._paced.pop(member, None)
        self.replay_cache.forget(member)

    def resume(self, members: list[Member]) -> bool:
        """Give members that waited for the stream a turn; True when there is any with a turn."""
        self._turns.update(dict.fromkeys(members))
        return bool(self._turns)

    def members(self) -> list[Member]:
        """Return all members behind the head that can be written to."""
        return [*self._turns, *self._paced, *self.replay_cache.waiters()]

    def can_move(self, member: Member) -> bool:
        """Tell whether a member is behind its feed."""
        return member.feed is not None and member.cursor < member.feed.position(self._log.head)

    @property
    def held(self) -> int:
        """Members that nothing but their own pace holds back."""
        return sum(self.can_move(member) for member in list(self._paced))

    @property
    def idle(self) -> int:
        """Members with a pace of their own that are at their feed's position."""
        return sum(not self.can_move(member) for member in list(self._paced))

    def next_at(self) -> float | None:
        """Return when a pace lets the next member move, UNIX seconds; None when none is held back."""
        return min((at for member, at in self._paced.items() if self.can_move(member)), default=None)

    def serve(self, epoch: str, now: float) -> bool:
        """Give some members their turn.

        Args:
            epoch: of cursors.
            now: UNIX seconds.

        Returns:
            True when there are more who can move.
        """
        if self._paced:
            for member in [one for one, at in self._paced.items() if at <= now and self.can_move(one)]:
                del self._paced[member]
                self._turns[member] = None
        for member in [one for _, one in zip(range(TURN_MEMBERS), self._turns, strict=False)]:
            self._turns.pop(member, None)
            if member.feed is None:
                continue
            try:
                self._serve(member, member.feed, epoch, now)
                self._arrived(member)
            except Exception as error:
                member.fail(error)
        return any(self.can_move(member) for member in self._turns)

    def _serve(self, member: Member, feed: Feed, epoch: str, now: float) -> None:
        for _ in range(TURN_BATCHES):
            if not member.writable or not self._in_pace(member, now):
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
                # What the log has comes from the log: the stream may have let it go already.
                upto if log is self._log else min(upto, log.head, self._log.floor),
                self._max_behind if log is self._log else self._capacity(feed),
                reason,
            )
            if batch is None:
                break
            member.cursor = batch.reached
            if member.bucket is not None:
                member.bucket.spend(sum(not record.state for record in batch.records))
            if not batch.empty:
                self._deliver(member, batch)

    def _in_pace(self, member: Member, now: float) -> bool:
        """Tell whether a member's own pace, if it has one, lets it move; else note when it will."""
        bucket = member.bucket
        if bucket is None:
            return True
        bucket.refill(now)
        if bucket.available:
            return True
        self._paced[member] = now + max(PACED_TURN, 1 / bucket.rate)
        return False

    def _source(self, member: Member, feed: Feed) -> tuple[EventLog, GapReason] | None:
        """Return where a member reads on, and why what lies before that is lost to it.

        Returns:
            the log, or a replay chunk of the stream; None when it has to wait for a chunk.
        """
        log = self._log
        place = member.cursor
        if place >= log.floor:
            return log, "slow"
        if not self.replay_cache.available:
            return log, "slow" if member.arrived else "retention"
        if feed.key.mode != "complete":
            # It is moved forward anyway: the chunk before the log is read again for it, and no more.
            if member.arrived or self._capacity(feed) == 0:
                return log, "slow"
            begin = (log.floor - 1) // CHUNK_SEQUENCES * CHUNK_SEQUENCES
            if place < begin:
                skipped = EventLog(1, 1)
                skipped.reset(begin)
                return skipped, "slow"
        found = self.replay_cache.get(place)
        if found is None:
            self.replay_cache.wait(member, place)
            return None
        self.replay_cache.prefetch(place, log.floor)
        return found, "retention"

    def _capacity(self, feed: Feed) -> int:
        """Return how many events before the log a member may get one by one, beside those in the log."""
        log = self._log
        if feed.counted_at != log.head:
            # Asked for each batch of each member that comes back; counted once for all of them.
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
    """Make the next batch for a member that is behind the head, from a log.

    Args:
        member: where it stands.
        feed: its feed.
        log: what is remembered, or a replay chunk of the stream.
        snapshot: newest states, for what the log has let go or the member passes over.
        epoch: of cursors.
        upto: position of the feed's head, or the end of the chunk.
        max_behind: most matching events that it still gets one by one in mode ``live``.
        reason: why events before the log are lost to it.

    Returns:
        None when it has arrived, or is ahead.
    """
    start = member.cursor
    if start >= upto:
        return None
    wanted = feed.filter
    if start < log.floor:
        end = min(log.floor, upto)  # not beyond the head, where what is pending is still to come
        return lost_batch(epoch, start, end, reason, snapshot.changed(wanted, start, end))
    if log.missing_ranges and (hole := log.next_missing_range(start, upto)) is not None:
        if hole.start <= start:
            return lost_batch(epoch, start, hole.end, "retention", snapshot.changed(wanted, start, hole.end))
        upto = hole.start
    if feed.key.mode == "latest":
        found, _ = log.select(wanted, start, upto, len(log), log.max_bytes)
        records, gone = newest_per_subject(found)
        return Batch(epoch, upto, records, conflated=gone, stored_ns=log.stored_at(upto))
    if feed.key.mode == "live" and log.count_after(start) > max_behind:
        matching, _ = log.select(wanted, start, upto, len(log), log.max_bytes)
        if len(matching) > max_behind:
            cut = matching[: len(matching) - max_behind]
            kept = [record for record in cut if record.state and snapshot.is_newest(record)]
            keep = set(map(id, kept))
            over = [record for record in cut if id(record) not in keep]
            if over:
                return batch_with_gap(epoch, start, cut[-1].seq, kept, over, "slow", log)
    if member.bucket is not None:
        found, reached = log.select(wanted, start, upto, member.bucket.available, CATCH_UP_BYTES)
        return Batch(epoch, reached, found, stored_ns=log.stored_at(reached))
    if feed.members > 1 and feed.dense and (end := (start // BLOCK + 1) * BLOCK) <= upto:
        return _block(feed, log, epoch, start, end)
    found, reached = log.select(wanted, start, upto, CATCH_UP_EVENTS, CATCH_UP_BYTES)
    return Batch(epoch, reached, found, stored_ns=log.stored_at(reached))


def _block(feed: Feed, log: EventLog, epoch: str, start: int, end: int) -> Batch:
    """Make the batch up to the end of a block, the same one for all who stand at its beginning."""
    complete = end - start == BLOCK
    if complete and (known := feed.blocks.get(start)) is not None:
        return known
    found, reached = log.select(feed.filter, start, end, BLOCK, CATCH_UP_BYTES)
    batch = Batch(epoch, reached, found, stored_ns=log.stored_at(reached))
    if complete and reached == end:
        feed.dense = len(found) >= _DENSE
        if len(feed.blocks) >= MAX_BLOCKS:
            del feed.blocks[next(iter(feed.blocks))]
        feed.blocks[start] = batch
    return batch
