"""The clients that share filter, mode and rate, and what they all get now.

Invariant: every live member (one at the feed's head) has been sent everything up to the feed's position, or
told of it in a gap.
"""

from collections.abc import Callable, Sized
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
from tickertape.relay.core.fanout.batch import snapshot as snapshot_messages
from tickertape.relay.core.fanout.flush_pacer import GAP_HOLD, TokenBucket
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import Snapshot

BATCH_BYTES: Final = 1024 * 1024
"""Most bytes of events in one batch of a feed; the rest follows with the next flush."""

_CONFLATE_FROM: Final = 256
"""Events pending in a feed of mode ``latest`` from which those that were replaced are let go."""

Writers = dict[Encoding, list[Callable[[Any], None]]]
"""The ``send`` of members, by encoding."""


class Member:
    """One client, as the fan-out knows it: a position in the log, and a way to write.

    The fan-out alone changes these fields once the member is attached to a feed; until then ``cursor`` says
    where it will begin.

    Args:
        send: writes what ``encoding`` makes; never blocks.
        encoding: how it is written to.
        fault: called with it, and with an exception that was raised on its behalf; ends it.

    Attributes:
        feed: that it belongs to; None before it follows one and after it ended.
        cursor: its position while it is behind the head; at the head, the feed's position counts.
        arrived: True once it has been at the head; before, it catches up with a past that it asked for.
        writable: False while its socket takes no more.
        bucket: its own pace, in mode ``complete`` under a grant that sets a rate.
    """

    __slots__ = ("_fault", "arrived", "bucket", "cursor", "encoding", "feed", "send", "writable")

    def __init__(
        self, send: Callable[[Any], None], encoding: Encoding, fault: Callable[[Any, Exception], None]
    ) -> None:
        self.send = send
        self.encoding = encoding
        self.feed: Feed | None = None
        self.cursor = 0
        self.arrived = False
        self.writable = True
        self.bucket: TokenBucket | None = None
        self._fault = fault

    def fail(self, error: Exception) -> None:
        """End it: an exception was raised on its behalf."""
        self._fault(self, error)


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
        "_conflate_at", "_conflated", "_snapshot_version", "_snapshots", "_writers", "blocks", "bucket",
        "counted", "counted_at", "cursor", "dense", "filter", "held_until", "key", "live", "members",
        "pending", "routes", "writing",
    )  # fmt: skip

    def __init__(self, key: FeedKey, wanted: Filter, now: float) -> None:
        self.key = key
        self.filter = wanted
        self.bucket = TokenBucket(key.rate, now) if key.rate > 0 and key.mode == "live" else None
        self.live: dict[Member, None] = {}  # at the head
        self.members = 0  # at the head and behind
        self.pending: list[Record] = []
        self.cursor = 0  # place of the head while there is something pending; else the log's head is
        self.writing = False
        self.held_until = 0.0
        self.counted = 0  # matching events in the log, up to a bound, when its head was at ``counted_at``
        self.counted_at = -1
        self.routes: dict[Route, None] = {}  # that lead here
        self.blocks: dict[int, Batch] = {}  # by the position before them
        self.dense = True  # until a block shows otherwise
        self._snapshot_version = -1
        self._snapshots: dict[Encoding, tuple[Sized, int]] = {}  # as of that version
        self._writers: Writers | None = None
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM

    def __repr__(self) -> str:
        at_head = f"{len(self.live)} of {self.members} at the head"
        return f"Feed({self.filter!r}, {self.key.mode}, {at_head}, {len(self.pending)} pending)"

    def position(self, head: int) -> int:
        """Where members at the head stand, given the log's head."""
        return self.cursor if self.pending or self.writing else head

    def join(self, member: Member) -> None:
        """Put a member at the head."""
        self.live[member] = None
        self._writers = None

    def leave(self, member: Member) -> bool:
        """Take a member from the head; False when it was not there."""
        if member not in self.live:
            return False
        del self.live[member]
        self._writers = None
        return True

    def writers(self) -> Writers:
        """Return the ``send`` of all live members; new lists after each change, safe to iterate."""
        if self._writers is None:
            self._writers = {}
            for member in self.live:
                self._writers.setdefault(member.encoding, []).append(member.send)
        return self._writers

    def snapshot(self, snapshot: Snapshot, head: int, encoding: Encoding) -> tuple[Sized, int]:
        """Encode the newest states that the members want, as of the log's head, once for all of them.

        Returns:
            what their ``send`` takes, and the number of messages in it.
        """
        if self._snapshot_version != snapshot.version:
            self._snapshot_version = snapshot.version
            self._snapshots.clear()
        made = self._snapshots.get(encoding)
        if made is None:
            messages = snapshot_messages(snapshot.select(self.filter, head))
            made = self._snapshots[encoding] = encoding.encode(messages), len(messages)
        return made

    def reset(self) -> None:
        """Let go of all that was made from the log, which starts again."""
        self.clear()
        self.blocks.clear()
        self._snapshot_version = -1

    def take_batch(
        self, log: EventLog, epoch: str, now: float, *, hold: bool = True, alike: Batch | None = None
    ) -> Batch | None:
        """Take the next batch for the head out of what is pending.

        Args:
            log: for its head.
            epoch: of cursors.
            now: UNIX seconds.
            hold: whether a batch may be put off: until the interval of mode ``latest`` is over, or so that
                gaps come merged.
            alike: what another feed took in this flush; used when it is what this one would make.

        Returns:
            None when nothing is to be sent now; ``held_until`` then says until when, if something is pending.
        """
        pending = self.pending
        if not pending:
            return None
        if not self.live:
            self.clear()
            return None
        if self.key.mode == "latest":
            return self._take_latest(log, epoch, now, hold)
        if self.bucket is None and alike is not None and alike.complete and alike.records == pending:
            # Different filters often want the same events: encoded once, and found equal by identity.
            self.pending = []
            return alike
        some, rest = split_by_bytes(pending, BATCH_BYTES)
        reached = some[-1].seq if rest else log.head
        if self.bucket is None:
            self.pending = rest
            return Batch(epoch, reached, some, stored_ns=log.stored_at(reached))
        return self._take_limited(self.bucket, some, rest, log, epoch, now, hold)

    def _take_limited(
        self,
        bucket: TokenBucket,
        some: list[Record],
        rest: list[Record],
        log: EventLog,
        epoch: str,
        now: float,
        hold: bool,
    ) -> Batch | None:
        bucket.refill(now)
        passed: list[Record] = []
        over: list[Record] = []
        for record in some:
            (passed if record.state or bucket.take(record.route.rank) else over).append(record)
        if hold and not passed:
            self.held_until = some[0].received + GAP_HOLD
            if now < self.held_until:
                return None
        self.pending = rest
        reached = some[-1].seq if rest else log.head
        return batch_with_gap(epoch, self.cursor, reached, passed, over, "rate", log)

    def _take_latest(self, log: EventLog, epoch: str, now: float, hold: bool) -> Batch | None:
        if hold and now < self.held_until:
            if len(self.pending) >= self._conflate_at:
                # Bounded by the subjects that there are, not by the events of an interval.
                self.pending, gone = newest_per_subject(self.pending)
                self._conflated += gone
                self._conflate_at = max(_CONFLATE_FROM, 2 * len(self.pending))
            return None
        records, gone = newest_per_subject(self.pending)
        stored_ns = log.stored_at(log.head)
        batch = Batch(epoch, log.head, records, conflated=self._conflated + gone, stored_ns=stored_ns)
        self.clear()
        self.held_until = now + self.key.interval_ms / 1000
        return batch

    def clear(self) -> None:
        """Let go of what is pending."""
        self.pending = []
        self._conflated = 0
        self._conflate_at = _CONFLATE_FROM
