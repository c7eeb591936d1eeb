"""Batches of a feed: events, a gap, or both; encoded once for each encoding.

Invariants:

1. A batch is written to a member completely or not at all; afterwards the member is at ``batch.reached``.
2. No cursor of a batch passes an unreported drop: the gap comes first, and counts only events that this batch
   skips.
"""

from collections import Counter
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Final, Protocol

from tickertape.contracts.cursors import format_cursor
from tickertape.contracts.encode import EncodedEvents, Outgoing
from tickertape.contracts.messages import Gap as GapMessage
from tickertape.contracts.messages import GapReason
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.event_log import EventLog, Record

MESSAGE_BYTES: Final = 64 * 1024
"""Maximum bytes of events in one message; a larger event gets a message of its own."""


class Encoding(Protocol):
    """Encoding of messages by a transport; sessions with the same encoding share one object."""

    def encode(self, messages: Sequence[Outgoing]) -> Sized:
        """Return the encoded messages, for the ``send`` of a session; their length is in bytes."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Undelivered events after ``start``, up to ``end``; without ``by`` their number is unknown."""

    start: int
    end: int
    reason: GapReason
    by: dict[str, int] | None = None

    @property
    def dropped(self) -> int:
        """Number of dropped events, as far as known."""
        return sum(self.by.values()) if self.by else 0

    def message(self, epoch: str) -> GapMessage:
        """Build the message for clients."""
        return messages.gap(
            format_cursor(epoch, self.start), format_cursor(epoch, self.end), self.reason, self.by
        )


class Batch:
    """Batch of events, a gap, or both.

    Args:
        epoch: epoch of cursors.
        reached: position in the stream after the batch.
        records: events in the batch, in order.
        gap: gap, reported before the events.
        conflated: in mode ``latest``, number of events replaced by newer events of their subject.
        stored_ns: time at which the stream stored the message at ``reached``, UNIX nanoseconds, if known.

    Attributes:
        count: number of messages, set when the batch is encoded.
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
        """Whether no event was dropped or replaced."""
        return self.gap is None and self.conflated is None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write and only the position changes."""
        return not self.records and self.gap is None

    def encoded(self, encoding: Encoding) -> Sized:
        """Return the encoded messages; each encoding is computed once, however many members receive it."""
        data = self._encoded.get(encoding)
        if data is None:
            outgoing = self.messages()
            self.count = len(outgoing)
            data = self._encoded[encoding] = encoding.encode(outgoing)
        return data

    def messages(self) -> list[Outgoing]:
        """Return the messages: the gap first, then the events; the last one has the cursor of ``reached``."""
        outgoing: list[Outgoing] = [] if self.gap is None else [self.gap.message(self._epoch)]
        # Without events no message has a cursor: a client resumes from the last cursor that it received, not
        # from the ``to`` of a gap.
        if not self.records:
            return outgoing
        # Only the last message may have the cursor of ``reached``: a client can leave after any other.
        *parts, last = _split(self.records)
        conflated = self.conflated
        for part in parts:
            cursor = format_cursor(self._epoch, part[-1].seq, part[-1].stored_ns)
            outgoing.append(EncodedEvents([record.encoded for record in part], cursor, conflated))
            # The first message counts all replaced events, since its cursor may already pass some.
            conflated = None if conflated is None else 0
        cursor = format_cursor(self._epoch, self.reached, self._stored_ns)
        outgoing.append(EncodedEvents([record.encoded for record in last], cursor, conflated))
        return outgoing


def lost_batch(epoch: str, start: int, end: int, reason: GapReason, states: Sequence[Record] = ()) -> Batch:
    """Return a batch that reports a range with an unknown number of events as lost.

    Args:
        epoch: epoch of cursors.
        start: position before the range.
        end: last sequence of the range.
        reason: why its events are not delivered.
        states: newest states in the range, which are delivered.
    """
    return Batch(epoch, end, states, Gap(start, end, reason))


def batch_with_gap(
    epoch: str,
    start: int,
    reached: int,
    delivered: list[Record],
    dropped: list[Record],
    reason: GapReason,
    log: EventLog,
) -> Batch:
    """Return a batch with the delivered events, and a gap that counts the dropped ones.

    Args:
        epoch: epoch of cursors.
        start: position before all of these events.
        reached: position after all of these events.
        delivered: events to deliver.
        dropped: events to drop.
        reason: why they are dropped.
        log: log with the storage time of the message at ``reached``.
    """
    stored_ns = log.stored_at(reached)
    if not dropped:
        return Batch(epoch, reached, delivered, stored_ns=stored_ns)
    # All drops become one gap, so its range may contain delivered events; ``by`` does not count those.
    end = dropped[-1].seq
    gap = Gap(start, end, reason, dict(Counter(record.route.bucket for record in dropped)))
    # A gap alone advances its client to the end of the gap and no further.
    return Batch(epoch, reached if delivered else end, delivered, gap, stored_ns=stored_ns)


def newest_per_subject(records: Sequence[Record]) -> tuple[list[Record], int]:
    """Return the newest event of each subject, in stream order, and the number of events they replace."""
    newest = {record.route.subject: record for record in records}
    if len(newest) == len(records):
        return list(records), 0
    # A dict keeps a key at the place where it was first inserted, so the values are not in stream order.
    return sorted(newest.values(), key=lambda record: record.seq), len(records) - len(newest)


def split_by_bytes(records: list[Record], max_bytes: int) -> tuple[list[Record], list[Record]]:
    """Split records so that the first part has at most ``max_bytes``, but at least one record."""
    size = 0
    for index, record in enumerate(records):
        size += len(record.encoded)
        if size > max_bytes and index:
            return records[:index], records[index:]
    return records, []


def _split(records: Sequence[Record]) -> list[Sequence[Record]]:
    """Split records into one part for each message."""
    size = sum(len(record.encoded) + 1 for record in records)  # with the comma between events
    if size <= MESSAGE_BYTES or len(records) <= 1:
        return [records]
    parts: list[list[Record]] = []
    size = MESSAGE_BYTES + 1  # starts the first part
    for record in records:
        size += len(record.encoded) + 1
        if size > MESSAGE_BYTES:
            parts.append([])
            size = len(record.encoded) + 1
        parts[-1].append(record)
    return list(parts)
