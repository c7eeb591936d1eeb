"""What a feed hands to its members: events, a gap, or both; encoded once for each encoding.

Invariants:

1. A batch is written whole to a member or not at all; after it, the member stands at ``batch.reached``.
2. No cursor of a batch passes an untold drop: a gap goes first, and counts only what that batch passes over.
"""

from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Final, Protocol

from tickertape.contracts.cursors import format_cursor
from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing
from tickertape.contracts.messages import Gap as GapMessage
from tickertape.contracts.messages import GapReason
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.event_log import EventLog, Record

MESSAGE_BYTES: Final = 64 * 1024
"""Bytes of events put into one message before the next is begun; an event larger than this goes alone."""


class Encoding(Protocol):
    """How a transport writes messages; one object serves all sessions that are written to alike."""

    def encode(self, messages: Sequence[Outgoing]) -> Sized:
        """Return what the ``send`` of a session takes; its length is in bytes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Events after ``start``, up to ``end``, that will not come; without ``by`` they cannot be counted."""

    start: int
    end: int
    reason: GapReason
    by: dict[str, int] | None = None

    @property
    def dropped(self) -> int:
        """How many, as far as it is known."""
        return sum(self.by.values()) if self.by else 0

    def message(self, epoch: str) -> GapMessage:
        """Build what clients are told of it."""
        return messages.gap(
            format_cursor(epoch, self.start), format_cursor(epoch, self.end), self.reason, self.by
        )


class Batch:
    """A gap, events, or both.

    Args:
        epoch: of cursors.
        reached: position in the stream after it.
        records: events in it, in order.
        gap: what it passes over, told before them.
        conflated: in mode ``latest``, events replaced by newer ones of their subject.
        stored_ns: when the stream stored the message at ``reached``, UNIX nanoseconds, if that is known.

    Attributes:
        count: of its messages, once it was encoded.
    """

    __slots__ = ("_encoded", "_epoch", "_stored_ns", "conflated", "count", "gap", "reached", "records")

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
        self.count = 0
        self._encoded: dict[Encoding, Sized] = {}

    def __repr__(self) -> str:
        return f"Batch({len(self.records)} records to {self.reached}, {self.gap!r})"

    @property
    def complete(self) -> bool:
        """True when nothing was passed over or replaced."""
        return self.gap is None and self.conflated is None

    @property
    def empty(self) -> bool:
        """True when there is nothing to write: only the position moves."""
        return not self.records and self.gap is None

    def encoded(self, encoding: Encoding) -> Sized:
        """Return its messages in an encoding; made once, however many members get them."""
        data = self._encoded.get(encoding)
        if data is None:
            made = self.messages()
            self.count = len(made)
            data = self._encoded[encoding] = encoding.encode(made)
        return data

    def messages(self) -> list[Outgoing]:
        """Return its messages: the gap first, then the events, the last with the cursor of ``reached``."""
        found: list[Outgoing] = [] if self.gap is None else [self.gap.message(self._epoch)]
        if not self.records:
            return found
        *parts, last = _split(self.records)
        conflated = self.conflated
        for part in parts:
            cursor = format_cursor(self._epoch, part[-1].seq, part[-1].stored_ns)
            found.append(EncodedEvents([record.encoded for record in part], cursor, conflated))
            conflated = None if conflated is None else 0  # told in the first, before any cursor passes them
        cursor = format_cursor(self._epoch, self.reached, self._stored_ns)
        found.append(EncodedEvents([record.encoded for record in last], cursor, conflated))
        return found


def snapshot(records: Sequence[Record]) -> list[Outgoing]:
    """Return the messages of a snapshot, the last with ``done``; one empty message when there is no state."""
    *parts, last = _split(records)
    found: list[Outgoing] = [EncodedSnapshot([record.encoded for record in part], False) for part in parts]
    found.append(EncodedSnapshot([record.encoded for record in last], True))
    return found


def lost_batch(epoch: str, start: int, end: int, reason: GapReason, states: Sequence[Record] = ()) -> Batch:
    """Return the batch that tells of a range whose events cannot be counted.

    Args:
        epoch: of cursors.
        start: position before the range.
        end: its last sequence.
        reason: why its events will not come.
        states: the newest that lie in it.
    """
    return Batch(epoch, end, states, Gap(start, end, reason))


def batch_with_gap(
    epoch: str,
    start: int,
    reached: int,
    passed: list[Record],
    over: list[Record],
    reason: GapReason,
    log: EventLog,
) -> Batch:
    """Return the batch of some events, and of a gap that counts the others.

    Args:
        epoch: of cursors.
        start: position before all of them.
        reached: position after all of them.
        passed: events that are delivered.
        over: events that are not.
        reason: why not.
        log: knows when the message at ``reached`` was stored.
    """
    stored_ns = log.stored_at(reached)
    if not over:
        return Batch(epoch, reached, passed, stored_ns=stored_ns)
    end = over[-1].seq
    gap = Gap(start, end, reason, dict(Counter(record.route.bucket for record in over)))
    # A gap alone brings its client to its end and no further.
    return Batch(epoch, reached if passed else end, passed, gap, stored_ns=stored_ns)


def newest_per_subject(records: Sequence[Record]) -> tuple[list[Record], int]:
    """Return the newest event of each subject, in stream order, and how many they replace."""
    newest = {record.route.subject: record for record in records}
    if len(newest) == len(records):
        return list(records), 0
    return sorted(newest.values(), key=lambda record: record.seq), len(records) - len(newest)


def split_by_bytes(records: list[Record], max_bytes: int) -> tuple[list[Record], list[Record]]:
    """Split records after as many as have ``max_bytes`` together; at least one is on the left."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.encoded)
        if size > max_bytes and index:
            return records[:index], records[index:]
    return records, []


def _split(records: Sequence[Record]) -> list[Sequence[Record]]:
    """Split records into those of one message each."""
    size = sum(len(record.encoded) + 1 for record in records)
    if size <= MESSAGE_BYTES or len(records) <= 1:
        return [records]
    parts: list[list[Record]] = []
    size = MESSAGE_BYTES + 1
    for record in records:
        size += len(record.encoded) + 1
        if size > MESSAGE_BYTES:
            parts.append([])
            size = len(record.encoded) + 1
        parts[-1].append(record)
    return list(parts)
