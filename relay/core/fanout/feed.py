"""Feeds: groups of members that share filter, mode and rate, and the events pending for them.

Invariant: every live member (one at the head of the feed) has been sent every matching event up to the
position of the feed, or a gap in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tickertape.contracts.messages import Mode
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import (
    Batch,
    Encoding,
    batch_with_gap,
    newest_per_subject,
    split_by_bytes,
)
from tickertape.relay.core.fanout.flush_pacer import GAP_HOLD, TokenBucket
from tickertape.relay.core.filters import Filter, FilterKey
from tickertape.relay.core.snapshot import Reading

BATCH_BYTES: Final = 1024 * 1024
"""Maximum bytes of events in one batch of a feed; the rest follows with the next flush."""

_CONFLATE_FROM: Final = 256
"""Minimum number of pending events in mode ``latest`` before replaced events are discarded."""

Writers = dict[Encoding, list[Callable[[Any], None]]]
"""``send`` callables of members, by encoding."""


class Member:
    """Client as the fan-out sees it: a position in the log, and a way to write.

    Once the member is attached to a feed, only the fan-out changes these fields; before that, ``cursor`` is
    the start position.

    Args:
        send: writes what ``encoding`` encodes; never blocks.
        encoding: encoding of messages to the client.
        on_failure: called with the member and an exception raised on its behalf; it ends the member.

    Attributes:
        feed: feed that the member is attached to; None before ``attach`` and after ``detach``.
        cursor: position while the member is behind the head; at the head, the feed has the position.
        reading: snapshot that the member receives before any event; None once it is complete.
        reached_head: whether the member has been at the head; until then, it catches up on history that the
            client requested.
        writable: False while the send buffer of its socket is full.
        bucket: the member's own rate limit, in mode ``complete`` under a grant with a rate; otherwise None.
        examined: position up to which the condition of its filter has been evaluated, while it catches up.
    """

    __slots__ = (
        "_on_failure", "bucket", "cursor", "encoding", "examined", "feed", "reached_head", "reading", "send",
        "writable",
    )  # fmt: skip

    def __init__(
        self, send: Callable[[Any], None], encoding: Encoding, on_failure: Callable[[Any, Exception], None]
    ) -> None:
        self.send = send
        self.encoding = encoding
        self.feed: Feed | None = None
        self.cursor = self.examined = 0
        self.reading: Reading | None = None
        self.reached_head = False
        self.writable = True
        self.bucket: TokenBucket | None = None
        self._on_failure = on_failure

    @property
    def owner(self) -> str:
        """Client that the member belongs to; clients take turns in reading history."""
        return ""

    def fail(self, error: Exception) -> None:
        """End the member, since an exception was raised on its behalf."""
        self._on_failure(self, error)


@dataclass(frozen=True, slots=True)
class FeedKey:
    """Key of a feed: what its members have in common."""

    filter: FilterKey
    mode: Mode
    rate: float
    interval_ms: int = 0


class Feed:
    """Feed of the members with one filter, mode and rate.

    Args:
        key: key of the feed.
        event_filter: filter of the members.
        now: UNIX seconds.
    """

    __slots__ = (
        "_conflate_at", "_conflated", "_writers", "blocks", "bucket", "counted", "counted_at", "cursor",
        "dense", "examined", "filter", "held_until", "key", "live", "members", "pending", "writing",
    )  # fmt: skip

    def __init__(self, key: FeedKey, event_filter: Filter, now: float) -> None:
        self.key = key
        self.filter = event_filter
        self.bucket = TokenBucket(key.rate, now) if key.rate > 0 and key.mode == "live" else None
        self.live: dict[Member, None] = {}  # members at the head
        self.members = 0  # number of members, live and behind
        self.pending: list[Record] = []
        self.cursor = 0  # position of live members while events are pending; otherwise the log's head is
        self.writing = False
        self.held_until = 0.0
        self.counted = 0  # matching events in the log, up to a bound, as of the head ``counted_at``
        self.counted_at = -1
        self.examined = 0  # position up to which its condition has been evaluated for the events in the log
        self.blocks: dict[int, Batch] = {}  # shared catch-up batches by start position
        self.dense = True  # whether blocks are worth sharing; assumed until a sparse block shows otherwise
        self._writers: Writers | None = None
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM

    def __repr__(self) -> str:
        at_head = f"{len(self.live)} of {self.members} at the head"
        return f"Feed({self.filter!r}, {self.key.mode}, {at_head}, {len(self.pending)} pending)"

    def position(self, head: int) -> int:
        """Return the position of the live members, given the head of the log."""
        # With nothing pending, no event after ``cursor`` matched: the members are at the head of the log
        # without a write, so events outside of the filter cost a feed nothing.
        return self.cursor if self.pending or self.writing else head

    def join(self, member: Member) -> None:
        """Add a live member."""
        self.live[member] = None
        self._writers = None

    def leave(self, member: Member) -> bool:
        """Remove a live member; return False if the member is not live."""
        if member not in self.live:
            return False
        del self.live[member]
        self._writers = None
        return True

    def writers(self) -> Writers:
        """Return the ``send`` of all live members; changes create new lists, so iteration is safe."""
        if self._writers is None:
            self._writers = {}
            for member in self.live:
                self._writers.setdefault(member.encoding, []).append(member.send)
        return self._writers

    def reset(self) -> None:
        """Discard everything derived from the log, which restarts."""
        self.clear()
        self.blocks.clear()
        self.examined = 0

    def take_batch(
        self, log: EventLog, epoch: str, now: float, *, hold: bool = True, shared: Batch | None = None
    ) -> Batch | None:
        """Take the next batch for the live members from the pending events.

        Args:
            log: event log.
            epoch: epoch of cursors.
            now: UNIX seconds.
            hold: whether a batch may be delayed until the interval of mode ``latest`` ends, or to merge gaps.
            shared: batch of another feed in this flush, returned if it equals the batch of this feed.

        Returns:
            The batch; None if there is nothing to send now. If events are still pending in that case,
            ``held_until`` is the time of the next attempt.
        """
        pending = self.pending
        if not pending:
            return None
        # Members that are behind read these events from the log.
        if not self.live:
            self.clear()
            return None
        if self.key.mode == "latest":
            return self._take_latest(log, epoch, now, hold)
        if self.bucket is None and shared is not None and shared.complete and shared.records == pending:
            # Different filters often match the same events; comparing the same objects is cheap.
            self.pending = []
            return shared
        # Without a rest the batch reaches the head: no event after its last one matches the filter.
        records, rest = split_by_bytes(pending, BATCH_BYTES)
        reached = records[-1].seq if rest else log.head
        if self.bucket is None:
            self.pending = rest
            return Batch(epoch, reached, records, stored_ns=log.stored_at(reached))
        return self._take_limited(self.bucket, records, rest, log, epoch, now, hold)

    def _take_limited(
        self,
        bucket: TokenBucket,
        records: list[Record],
        rest: list[Record],
        log: EventLog,
        epoch: str,
        now: float,
        hold: bool,
    ) -> Batch | None:
        bucket.refill(now)
        delivered: list[Record] = []
        dropped: list[Record] = []
        for record in records:
            (delivered if record.state or bucket.take(record.route.rank) else dropped).append(record)
        if hold and not delivered:
            # No token has been taken yet, so the next attempt decides again about the same events.
            self.held_until = records[0].received + GAP_HOLD
            if now < self.held_until:
                return None
        self.pending = rest
        reached = records[-1].seq if rest else log.head
        return batch_with_gap(epoch, self.cursor, reached, delivered, dropped, "rate", log)

    def _take_latest(self, log: EventLog, epoch: str, now: float, hold: bool) -> Batch | None:
        if hold and now < self.held_until:
            if len(self.pending) >= self._conflate_at:
                # Bounds the pending events by the number of subjects instead of the events of an interval.
                self.pending, replaced = newest_per_subject(self.pending)
                self._conflated += replaced
                # Doubled, so that conflation takes amortized constant time per event.
                self._conflate_at = max(_CONFLATE_FROM, 2 * len(self.pending))
            return None
        records, replaced = newest_per_subject(self.pending)
        stored_ns = log.stored_at(log.head)
        batch = Batch(epoch, log.head, records, conflated=self._conflated + replaced, stored_ns=stored_ns)
        self.clear()
        self.held_until = now + self.key.interval_ms / 1000
        return batch

    def clear(self) -> None:
        """Discard pending events."""
        # A new list, here and elsewhere: a batch may hold the previous one as its records.
        self.pending = []
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM
