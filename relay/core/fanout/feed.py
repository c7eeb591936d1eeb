"""The clients that share filter, mode and rate: what they all get now, and what those behind get alone.

Invariants:

1. Every member at the head has been sent everything up to the feed's place, or told of it in a gap.
2. A unit is written whole to a member or not at all; after it, the member stands at ``unit.reached``.
3. No cursor of a unit passes an untold drop: a gap goes first, and counts only what that unit passes over.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tickertape.contracts.messages import GapReason, Mode, format_cursor
from tickertape.relay.core.event_log import Log, Record
from tickertape.relay.core.fanout import encoding as frames
from tickertape.relay.core.fanout.encoding import Variant
from tickertape.relay.core.fanout.filters import Filter, Route
from tickertape.relay.core.fanout.flush_pacer import GAP_HOLD, TokenBucket
from tickertape.relay.core.snapshot import Snapshot

if TYPE_CHECKING:
    from tickertape.relay.core.session.session import Session

UNIT_BYTES: Final = 1024 * 1024
"""Most bytes of items in one unit of a feed; the rest goes with the next flush."""

CATCH_UP_BYTES: Final = 60 * 1024
"""Most bytes of items in one unit of a member that catches up; between units it may turn out to be full."""

CATCH_UP_EVENTS: Final = 1_000
"""Most events in one such unit."""

BLOCK: Final = 128
"""Sequences in a block: what members that catch up share; about as many bytes as one of their units has."""

MAX_BLOCKS: Final = 32
"""Blocks that one feed keeps, from one heartbeat to the next."""

_DENSE: Final = BLOCK // 4
"""Events in a block from which sharing it pays."""

_CONFLATE_FROM: Final = 256
"""Events pending in a feed of mode ``latest`` from which those that were replaced are let go."""

Writers = tuple[list[Callable[[bytes], None]], list[Callable[[bytes], None]]]
"""Ways to write to members, by variant."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events after ``start``, up to ``end``, that will not come; without ``by`` nobody can count them."""

    start: int
    end: int
    reason: GapReason
    by: dict[str, int] | None = None

    @property
    def dropped(self) -> int:
        """How many, as far as it is known."""
        return sum(self.by.values()) if self.by else 0

    def fields(self, epoch: str) -> dict[str, Any]:
        """What clients are told of it, beside its type."""
        return {
            "from": format_cursor(epoch, self.start),
            "to": format_cursor(epoch, self.end),
            "dropped": None if self.by is None else self.dropped,
            "by": self.by or {},
            "reason": self.reason,
        }

    def encode(self, epoch: str) -> bytes:
        """Its frame."""
        return frames.message("gap", **self.fields(epoch))


class Unit:
    """A gap, events, or both: what is written whole to each member.

    Args:
        epoch: of cursors.
        reached: place in the stream after it.
        records: events in it, in order.
        gap: what it passes over, told before them.
        conflated: in mode ``latest``, events replaced by newer ones of their subject.
        stored_ns: when the stream stored the message at ``reached``, UNIX nanoseconds, if that is known.
    """

    __slots__ = ("_data", "_epoch", "_stored_ns", "conflated", "gap", "reached", "records")

    def __init__(
        self,
        epoch: str,
        reached: int,
        records: Sequence[Record],
        gap: Gap | None = None,
        conflated: int | None = None,
        stored_ns: int | None = None,
    ) -> None:
        self.reached = reached
        self.records = records
        self.gap = gap
        self.conflated = conflated
        self._epoch = epoch
        self._stored_ns = stored_ns
        self._data: list[bytes | None] = [None, None]

    def __repr__(self) -> str:
        return f"Unit({len(self.records)} records to {self.reached}, {self.gap!r})"

    @property
    def whole(self) -> bool:
        """True when nothing was passed over or replaced."""
        return self.gap is None and self.conflated is None

    @property
    def empty(self) -> bool:
        """True when there is nothing to write: only the place moves."""
        return not self.records and self.gap is None

    def data(self, variant: Variant) -> bytes:
        """Its frames in a variant; encoded once, however many members get them."""
        data = self._data[variant]
        if data is None:
            data = self.gap.encode(self._epoch) if self.gap is not None else b""
            if self.records:
                cursor = format_cursor(self._epoch, self.reached, self._stored_ns)
                events = frames.events(self.records, cursor, variant, self.conflated)
                data = data + events if data else events
            self._data[variant] = data
        return data


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What members of one feed have in common."""

    filter: tuple[tuple[str, ...], str, tuple[str, ...]]
    mode: Mode
    rate: float
    interval_ms: int = 0


class Feed:
    """Clients with one filter, mode and rate.

    Args:
        key: what they share.
        wanted: their filter.
        now: UNIX seconds.
    """

    __slots__ = (
        "_conflate_at", "_conflated", "_writers", "blocks", "bucket", "counted", "counted_at", "cursor",
        "dense", "filter", "heads", "held_until", "key", "members", "pending", "routes", "snapshot_frames",
        "snapshot_version", "writing",
    )  # fmt: skip

    def __init__(self, key: FeedKey, wanted: Filter, now: float) -> None:
        self.key = key
        self.filter = wanted
        self.bucket = TokenBucket(key.rate, now) if key.rate > 0 and key.mode == "live" else None
        self.heads: dict[Session, None] = {}
        self.members = 0  # at the head and behind
        self.pending: list[Record] = []
        self.cursor = 0  # place of the head while there is something pending; else the log's head is
        self.writing = False
        self.held_until = 0.0
        self.counted = 0  # matching events in the log, up to a bound, when its head was at ``counted_at``
        self.counted_at = -1
        self.routes: dict[Route, None] = {}  # that lead here
        self.blocks: dict[int, Unit] = {}  # by the place before them
        self.dense = True  # until a block shows otherwise
        self.snapshot_version = -1
        self.snapshot_frames: dict[Variant, bytes] = {}
        self._writers: Writers | None = None
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM

    def __repr__(self) -> str:
        at_head = f"{len(self.heads)} of {self.members} at the head"
        return f"Feed({self.filter!r}, {self.key.mode}, {at_head}, {len(self.pending)} pending)"

    def place(self, head: int) -> int:
        """Where members at the head stand, given the log's head."""
        return self.cursor if self.pending or self.writing else head

    def join(self, session: "Session") -> None:
        """Put a member at the head."""
        self.heads[session] = None
        self._writers = None

    def leave(self, session: "Session") -> bool:
        """Take a member from the head; False when it was not there."""
        if session not in self.heads:
            return False
        del self.heads[session]
        self._writers = None
        return True

    def writers(self) -> Writers:
        """Ways to write to the members at the head; new lists after each change, safe to iterate."""
        if self._writers is None:
            self._writers = ([], [])
            for session in self.heads:
                self._writers[session.variant].append(session.send)
        return self._writers

    def take(
        self, log: Log, epoch: str, now: float, *, hold: bool = True, alike: Unit | None = None
    ) -> Unit | None:
        """Take the next unit for the head out of what is pending.

        Args:
            log: for its head.
            epoch: of cursors.
            now: UNIX seconds.
            hold: whether a unit may be put off: until the interval of mode ``latest`` is over, or so that
                gaps come merged.
            alike: what another feed took in this flush; used when it is what this one would make.

        Returns:
            None when nothing is to be sent now; ``held_until`` then says until when, if something is pending.
        """
        pending = self.pending
        if not pending:
            return None
        if not self.heads:
            self.clear()
            return None
        if self.key.mode == "latest":
            return self._take_latest(log, epoch, now, hold)
        if self.bucket is None and alike is not None and alike.whole and alike.records == pending:
            # Different filters often want the same events: encoded once, and found equal by identity.
            self.pending = []
            return alike
        batch, rest = _within(pending, UNIT_BYTES)
        reached = batch[-1].seq if rest else log.head
        if self.bucket is None:
            self.pending = rest
            return Unit(epoch, reached, batch, stored_ns=log.stored_at(reached))
        return self._take_limited(self.bucket, batch, rest, log, epoch, now, hold)

    def _take_limited(
        self,
        bucket: TokenBucket,
        batch: list[Record],
        rest: list[Record],
        log: Log,
        epoch: str,
        now: float,
        hold: bool,
    ) -> Unit | None:
        bucket.refill(now)
        passed: list[Record] = []
        over: list[Record] = []
        for record in batch:
            (passed if record.state or bucket.take(record.route.rank) else over).append(record)
        if hold and not passed:
            self.held_until = batch[0].received + GAP_HOLD
            if now < self.held_until:
                return None
        self.pending = rest
        reached = batch[-1].seq if rest else log.head
        return _passing_over(epoch, self.cursor, reached, passed, over, "rate", log)

    def _take_latest(self, log: Log, epoch: str, now: float, hold: bool) -> Unit | None:
        if hold and now < self.held_until:
            if len(self.pending) >= self._conflate_at:
                # Bounded by the subjects that there are, not by the events of an interval.
                self.pending, gone = newest_per_subject(self.pending)
                self._conflated += gone
                self._conflate_at = max(_CONFLATE_FROM, 2 * len(self.pending))
            return None
        records, gone = newest_per_subject(self.pending)
        stored_ns = log.stored_at(log.head)
        unit = Unit(epoch, log.head, records, conflated=self._conflated + gone, stored_ns=stored_ns)
        self.clear()
        self.held_until = now + self.key.interval_ms / 1000
        return unit

    def clear(self) -> None:
        """Let go of what is pending."""
        self.pending = []
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM


def catch_up(
    session: "Session",
    feed: Feed,
    log: Log,
    snapshot: Snapshot,
    epoch: str,
    upto: int,
    max_behind: int,
    reason: GapReason = "slow",
) -> Unit | None:
    """Make the next unit for a member that is behind the head, from a log.

    Args:
        session: where it stands.
        feed: its feed.
        log: what is remembered, or a stretch of the stream that was read again.
        snapshot: newest states, for what the log has let go or the member passes over.
        epoch: of cursors.
        upto: place of the feed's head, or the end of the stretch.
        max_behind: most matching events that it still gets one by one in mode ``live``.
        reason: why events before the log are lost to it.

    Returns:
        None when it has arrived, or is ahead.
    """
    start = session.cursor
    if start >= upto:
        return None
    wanted = feed.filter
    if start < log.floor:
        # Not beyond the head, where what is pending is still to come.
        return lost(epoch, start, min(log.floor, upto), reason, snapshot, wanted)
    if log.holes and (hole := log.next_hole(start, upto)) is not None:
        if hole.start <= start:
            return lost(epoch, start, hole.end, "retention", snapshot, wanted)
        upto = hole.start
    if feed.key.mode == "latest":
        found, _ = log.select(wanted, start, upto, len(log), log.max_bytes)
        records, gone = newest_per_subject(found)
        return Unit(epoch, upto, records, conflated=gone, stored_ns=log.stored_at(upto))
    if feed.key.mode == "live" and log.count_after(start) > max_behind:
        matching, _ = log.select(wanted, start, upto, len(log), log.max_bytes)
        if len(matching) > max_behind:
            cut = matching[: len(matching) - max_behind]
            kept = [record for record in cut if record.state and snapshot.is_newest(record)]
            keep = set(map(id, kept))
            over = [record for record in cut if id(record) not in keep]
            if over:
                return _passing_over(epoch, start, cut[-1].seq, kept, over, "slow", log)
    if session.bucket is not None:
        found, reached = log.select(wanted, start, upto, session.bucket.available, CATCH_UP_BYTES)
        return Unit(epoch, reached, found, stored_ns=log.stored_at(reached))
    if feed.members > 1 and feed.dense and (end := (start // BLOCK + 1) * BLOCK) <= upto:
        return _block(feed, log, epoch, start, end)
    found, reached = log.select(wanted, start, upto, CATCH_UP_EVENTS, CATCH_UP_BYTES)
    return Unit(epoch, reached, found, stored_ns=log.stored_at(reached))


def _block(feed: Feed, log: Log, epoch: str, start: int, end: int) -> Unit:
    """The unit up to the end of a block, the same one for all who stand at its beginning."""
    whole = end - start == BLOCK
    if whole and (known := feed.blocks.get(start)) is not None:
        return known
    found, reached = log.select(feed.filter, start, end, BLOCK, CATCH_UP_BYTES)
    unit = Unit(epoch, reached, found, stored_ns=log.stored_at(reached))
    if whole and reached == end:
        feed.dense = len(found) >= _DENSE
        if len(feed.blocks) >= MAX_BLOCKS:
            del feed.blocks[next(iter(feed.blocks))]
        feed.blocks[start] = unit
    return unit


def lost(
    epoch: str,
    start: int,
    end: int,
    reason: GapReason,
    snapshot: Snapshot | None = None,
    wanted: Filter | None = None,
) -> Unit:
    """Unit that tells of a range whose events cannot be counted, with the newest states that lie in it."""
    states = snapshot.changed(wanted, start, end) if snapshot is not None and wanted is not None else []
    return Unit(epoch, end, states, Gap(start, end, reason))


def newest_per_subject(records: Sequence[Record]) -> tuple[list[Record], int]:
    """The newest event of each subject, in stream order, and how many were replaced by them."""
    newest = {record.route.subject: record for record in records}
    if len(newest) == len(records):
        return list(records), 0
    return sorted(newest.values(), key=lambda record: record.seq), len(records) - len(newest)


def _passing_over(
    epoch: str,
    start: int,
    reached: int,
    passed: list[Record],
    over: list[Record],
    reason: GapReason,
    log: Log,
) -> Unit:
    stored_ns = log.stored_at(reached)
    if not over:
        return Unit(epoch, reached, passed, stored_ns=stored_ns)
    end = over[-1].seq
    gap = Gap(start, end, reason, dict(Counter(record.route.bucket for record in over)))
    # A gap alone brings its client to its end and no further.
    return Unit(epoch, reached if passed else end, passed, gap, stored_ns=stored_ns)


def _within(records: list[Record], max_bytes: int) -> tuple[list[Record], list[Record]]:
    size = 0
    for index, record in enumerate(records):
        size += len(record.item)
        if size > max_bytes and index:
            return records[:index], records[index:]
    return records, []
