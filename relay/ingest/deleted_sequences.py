"""Sequences that the stream has deleted, by retention, message TTL (``Nats-TTL``), purge or delete.

A reader without a filter sees them as jumps in the sequence. A reader with a filter cannot: a jump may also
be a message outside of the filter, and neither ``pending`` nor the consumer sequence nor heartbeats
distinguish the two (tested). Such a reader queries the stream after it has received the messages.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from nats.aio.client import Client

from tickertape.nats.streams import StreamsError, request, stream_info

Range = tuple[int, int]
"""First and last sequence, both included."""


def missing_ranges(first: int, last: int, seen: Iterable[int]) -> list[Range]:
    """Return the ranges between two sequences, both included, in which no message was seen.

    Args:
        first: first sequence.
        last: last sequence.
        seen: sequences in ascending order; sequences outside of the range are ignored.
    """
    ranges: list[Range] = []
    for seq in seen:
        if seq > last:
            break
        if seq > first:
            ranges.append((first, seq - 1))
        first = max(first, seq + 1)
    if first <= last:
        ranges.append((first, last))
    return ranges


class DeletedSequences:
    """Deleted sequences of a stream, for readers with a filter.

    Reports too many sequences rather than too few: before the stream's first sequence, it is unknown which
    messages the filter would have matched.

    Args:
        stream: name of the stream in NATS.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        # Creation time of the stream, its first sequence, and the number of sequences deleted after that.
        self._version = ("", 0, 0)
        self._last = 0  # last sequence of the stream at the last query
        self._deleted: list[int] = []  # sequences that are deleted, in ascending order

    async def find(self, nc: Client, first: int, last: int, seen: Iterable[int]) -> list[Range]:
        """Return the ranges between two sequences, both included, that the stream has deleted.

        Args:
            nc: connected client.
            first: first sequence.
            last: last sequence, which the stream has reached.
            seen: sequences that were read before their deletion, in ascending order.

        Raises:
            StreamsError: the stream cannot be queried.
        """
        info = await stream_info(nc, self._stream)
        if info is None:
            raise StreamsError(
                f"stream {self._stream} was deleted", "waiting for it to be recreated", transient=True
            )
        state = info["state"]
        stream_first = int(state["first_seq"])
        count = int(state.get("num_deleted") or 0)
        truncated, self._last = int(state["last_seq"]) < self._last, int(state["last_seq"])
        if truncated:
            # The server lost its newest messages, as in a power failure; the cached sequences may be stale.
            self._version = ("", 0, 0)
        if stream_first <= first and not count:
            return []  # the usual case
        # While the stream and its first sequence stay the same, deleted sequences are only added, so an
        # unchanged number means an unchanged set.
        if count and self._version != (info["created"], stream_first, count):
            response = await request(nc, f"STREAM.INFO.{self._stream}", {"deleted_details": True})
            state = response.get("state") or {}
            stream_first, self._deleted = int(state.get("first_seq", 0)), sorted(state.get("deleted") or ())
            self._version = (response.get("created", ""), stream_first, len(self._deleted))
            if len(self._deleted) < int(state.get("num_deleted", 1)):
                stream_first = last + 1  # the list is incomplete: treat every unseen sequence as deleted
        # ``seen`` may be an iterator, and is needed twice.
        seen_set = set(seen)
        before = missing_ranges(first, min(last, stream_first - 1), sorted(seen_set))
        if not count:
            return before
        # The stream may have millions of deleted sequences, of which a range usually contains few.
        start = bisect_left(self._deleted, max(first, stream_first))
        inside = self._deleted[start : bisect_right(self._deleted, last, lo=start)]
        return [*before, *_ranges(seq for seq in inside if seq not in seen_set)]


def _ranges(sequences: Iterable[int]) -> Iterator[Range]:
    first = last = 0
    for seq in sequences:
        if seq != last + 1 or not last:
            if last:
                yield first, last
            first = seq
        last = seq
    if last:
        yield first, last
