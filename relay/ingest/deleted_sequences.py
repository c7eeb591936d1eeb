"""Sequences that the stream holds no more: retention, an age of their own (``Nats-TTL``), a purge, a delete.

Who reads a stream whole sees them as jumps of the sequence. Who reads it through a filter cannot: a jump may
as well be a subject that the filter leaves out, and neither ``pending`` nor the consumer's own sequence nor
heartbeats tell one from the other (tried). So the stream is asked, after the messages came.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from nats.aio.client import Client

from tickertape.nats.streams import StreamsError, request, stream_info

Range = tuple[int, int]
"""First and last sequence."""


def missing(first: int, last: int, seen: Iterable[int]) -> list[Range]:
    """Return the ranges between two sequences, both included, in which nothing was seen.

    Args:
        first: sequence to begin with.
        last: sequence to end with.
        seen: sequences in ascending order; those outside are passed over.
    """
    found: list[Range] = []
    for seq in seen:
        if seq > last:
            break
        if seq > first:
            found.append((first, seq - 1))
        first = max(first, seq + 1)
    if first <= last:
        found.append((first, last))
    return found


class DeletedSequences:
    """What a stream has deleted, for readers with a filter.

    Says too much rather than too little: of what lies before the stream's first sequence it cannot be known
    what the filter would have let through.

    Args:
        stream: name in NATS.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        # When the stream was created, its first sequence, and how many are deleted after it.
        self._known = ("", 0, 0)
        self._last = 0  # the stream's last sequence, at the last look
        self._deleted: list[int] = []  # those that are deleted, in order

    async def missing(self, nc: Client, first: int, last: int, seen: Iterable[int]) -> list[Range]:
        """Return the ranges between two sequences, both included, that the stream holds no more.

        Args:
            nc: a connected client.
            first: sequence to begin with.
            last: sequence to end with; the stream is known to have reached it.
            seen: sequences that were read before they went, in ascending order.

        Raises:
            StreamsError: the stream cannot be asked.
        """
        there = await stream_info(nc, self._stream)
        if there is None:
            raise StreamsError(f"stream {self._stream} is gone", "it is created again", transient=True)
        state = there["state"]
        begins = int(state["first_seq"])
        count = int(state.get("num_deleted") or 0)
        regrown, self._last = int(state["last_seq"]) < self._last, int(state["last_seq"])
        if regrown:
            self._known = ("", 0, 0)  # a power failure has taken some, with what was deleted among them
        if begins <= first and not count:
            return []  # nearly always
        # They only become more while the stream and its first sequence stay: as many are the same ones.
        if count and self._known != (there["created"], begins, count):
            answer = await request(nc, f"STREAM.INFO.{self._stream}", {"deleted_details": True})
            state = answer.get("state") or {}
            begins, self._deleted = int(state.get("first_seq", 0)), sorted(state.get("deleted") or ())
            self._known = (answer.get("created", ""), begins, len(self._deleted))
            if len(self._deleted) < int(state.get("num_deleted", 1)):
                begins = last + 1  # it does not list them: nothing that was not seen can be vouched for
        read = set(seen)
        before = missing(first, min(last, begins - 1), sorted(read))
        if not count:
            return before
        begin = bisect_left(self._deleted, max(first, begins))
        inside = self._deleted[begin : bisect_right(self._deleted, last, lo=begin)]
        return [*before, *_ranges(seq for seq in inside if seq not in read)]


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
