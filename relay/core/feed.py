"""The clients that share filter, mode and rate: what they all get now, and what those behind get alone.

Invariants:

1. Every member at the head has been sent everything up to the feed's place, or told of it in a gap.
2. A unit is written whole to a member or not at all; after it, the member stands at ``unit.reached``.
3. No cursor of a unit passes an untold drop: a gap goes first, and counts only what that unit passes over.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from contracts.wire import GapReason, format_cursor
from relay.core import frames
from relay.core.filters import Filter
from relay.core.log import Log, Record
from relay.core.pacing import MAX_DELAY, TokenBucket
from relay.core.snapshot import Snapshot

if TYPE_CHECKING:
    from relay.core.session import Session

UNIT_BYTES: Final = 1024 * 1024
"""Most bytes of items in one unit of a feed; the rest goes with the next flush."""

CATCH_UP_BYTES: Final = 60 * 1024
"""Most bytes of items in one unit of a member that catches up; between units it may turn out to be full."""

CATCH_UP_EVENTS: Final = 1_000
"""Most events in one such unit."""


class Unit(NamedTuple):
    """Whole frames, and what they mean.

    Attributes:
        data: the bytes to write.
        reached: place in the stream after them.
        records: events in them, in order.
        dropped: events told in their gap; 0 also where the number cannot be known.
        reason: the gap's reason, if there is a gap.
        frames: how many messages they are, roughly: a large batch is counted as one.
    """

    data: bytes
    reached: int
    records: Sequence[Record]
    dropped: int = 0
    reason: GapReason | None = None
    frames: int = 1


@dataclass(frozen=True, slots=True)
class FeedKey:
    """What members of one feed have in common."""

    filter: tuple[tuple[str, ...], str]
    mode: str
    rate: float


class Feed:
    """Clients with one filter, mode and rate.

    Args:
        key: what they share.
        wanted: their filter.
        now: UNIX seconds.
    """

    __slots__ = (
        "_writers", "bucket", "cursor", "filter", "heads", "held_until", "key", "members", "pending",
        "snapshot_frames", "snapshot_version", "subjects", "writing",
    )  # fmt: skip

    def __init__(self, key: FeedKey, wanted: Filter, now: float) -> None:
        self.key = key
        self.filter = wanted
        self.bucket = TokenBucket(key.rate, now) if key.rate > 0 else None
        self.heads: dict[Session, None] = {}
        self.members = 0  # at the head and behind
        self.pending: list[Record] = []
        self.cursor = 0  # place of the head while there is something pending; else the log's head is
        self.writing = False
        self.held_until = 0.0
        self.subjects: list[str] = []  # subjects whose route leads here
        self.snapshot_version = -1
        self.snapshot_frames = b""
        self._writers: list[Callable[[bytes], None]] | None = None

    def __repr__(self) -> str:
        at_head = f"{len(self.heads)} of {self.members} at the head"
        return f"Feed({self.filter!r}, {at_head}, {len(self.pending)} pending)"

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

    def writers(self) -> list[Callable[[bytes], None]]:
        """Ways to write to the members at the head; a new list after each change, safe to iterate."""
        if self._writers is None:
            self._writers = [session.send for session in self.heads]
        return self._writers

    def take(self, log: Log, epoch: str, now: float, *, hold: bool = True) -> Unit | None:
        """Take the next unit for the head out of what is pending.

        Args:
            log: for its head.
            epoch: of cursors.
            now: UNIX seconds.
            hold: whether a unit that would be a gap alone may be put off, so that gaps come merged.

        Returns:
            None when nothing is to be sent now; ``held_until`` then says until when, if something is pending.
        """
        pending = self.pending
        if not pending:
            return None
        if not self.heads:
            pending.clear()
            return None
        batch, rest = _within(pending, UNIT_BYTES)
        reached = batch[-1].seq if rest else log.head
        if self.bucket is None:
            self.pending = rest
            return Unit(frames.events(batch, format_cursor(epoch, reached)), reached, batch)
        return self._take_limited(self.bucket, batch, rest, reached, epoch, now, hold)

    def _take_limited(
        self,
        bucket: TokenBucket,
        batch: list[Record],
        rest: list[Record],
        reached: int,
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
            self.held_until = batch[0].received + MAX_DELAY
            if now < self.held_until:
                return None
        self.pending = rest
        return _unit(epoch, self.cursor, reached, passed, over, "rate")


def catch_up(
    session: "Session",
    wanted: Filter,
    log: Log,
    snapshot: Snapshot,
    epoch: str,
    upto: int,
    max_behind: int,
) -> Unit | None:
    """Make the next unit for a member that is behind the head, from the log.

    Args:
        session: where it stands.
        wanted: its filter.
        log: what is remembered.
        snapshot: newest states, for what the log has let go or the member passes over.
        epoch: of cursors.
        upto: place of the feed's head.
        max_behind: most matching events that it still gets one by one.

    Returns:
        None when it has arrived, or is ahead.
    """
    start = session.cursor
    if start >= upto:
        return None
    if start < log.floor:
        reason: GapReason = "slow" if session.arrived else "retention"
        return _lost(epoch, start, log.floor, snapshot.changed(wanted, start, log.floor), reason)
    if log.holes and (hole := log.next_hole(start, upto)) is not None:
        if hole.start <= start:
            return _lost(epoch, start, hole.end, snapshot.changed(wanted, start, hole.end), "retention")
        upto = hole.start
    if log.count_after(start) > max_behind:
        matching, _ = log.select(wanted, start, upto, len(log), log.max_bytes)
        if len(matching) > max_behind:
            cut = matching[:-max_behind] if max_behind else matching
            kept = [record for record in cut if record.state and snapshot.is_newest(record)]
            keep = set(map(id, kept))
            over = [record for record in cut if id(record) not in keep]
            if over:
                return _unit(epoch, start, cut[-1].seq, kept, over, "slow")
    found, reached = log.select(wanted, start, upto, CATCH_UP_EVENTS, CATCH_UP_BYTES)
    if not found:
        return Unit(b"", reached, found, frames=0)
    return Unit(frames.events(found, format_cursor(epoch, reached)), reached, found)


def lost(epoch: str, start: int, end: int, reason: GapReason) -> Unit:
    """Unit that tells of a range whose events cannot be counted."""
    return _lost(epoch, start, end, (), reason)


def _lost(epoch: str, start: int, end: int, states: Sequence[Record], reason: GapReason) -> Unit:
    data = frames.message(
        "gap",
        **{"from": format_cursor(epoch, start), "to": format_cursor(epoch, end)},
        dropped=None,
        by={},
        reason=reason,
    )
    if states:
        data += frames.events(states, format_cursor(epoch, end))
    return Unit(data, end, states, 0, reason, 2 if states else 1)


def _unit(
    epoch: str,
    start: int,
    reached: int,
    passed: list[Record],
    over: list[Record],
    reason: GapReason,
) -> Unit:
    if not over:
        return Unit(frames.events(passed, format_cursor(epoch, reached)), reached, passed)
    data = frames.message(
        "gap",
        **{"from": format_cursor(epoch, start), "to": format_cursor(epoch, over[-1].seq)},
        dropped=len(over),
        by=Counter(record.route.bucket for record in over),
        reason=reason,
    )
    if passed:
        data += frames.events(passed, format_cursor(epoch, reached))
    elif reached != over[-1].seq:
        reached = over[-1].seq
    return Unit(data, reached, passed, len(over), reason, 2 if passed else 1)


def _within(records: list[Record], max_bytes: int) -> tuple[list[Record], list[Record]]:
    size = 0
    for index, record in enumerate(records):
        size += len(record.item)
        if size > max_bytes and index:
            return records[:index], records[index:]
    return records, []
