"""Next batch of a member behind the head of its feed, from the event log or a replay chunk.

Invariant: a batch has a bounded number of events and bytes, except the newest states of a lost range.
"""

from typing import Final

from tickertape.contracts.messages import GapReason
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout.batch import Batch, batch_with_gap, lost_batch, newest_per_subject
from tickertape.relay.core.fanout.feed import Feed, Member
from tickertape.relay.core.snapshot import Snapshot

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
