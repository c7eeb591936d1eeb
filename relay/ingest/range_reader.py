"""Reader of ranges of EVENTS, which also returns the sequences in them that the stream has deleted.

A relay that receives all events reads the stream without a filter and discards the few messages that are not
events: then every jump in the sequence is a deleted range. With narrower ``--subjects`` the server filters,
and ``DeletedSequences`` distinguishes deleted sequences from those outside of the filter.
"""

from collections.abc import Callable
from contextlib import aclosing

from nats.aio.client import Client
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.relay.ingest import stream_reader
from tickertape.relay.ingest.deleted_sequences import DeletedSequences, Range, missing_ranges

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError


class RangeReader:
    """Reader of ranges of EVENTS.

    Args:
        names: names of subjects and streams.
        patterns: subject patterns of the relay, as in NATS.

    Attributes:
        stream: name of EVENTS in NATS.
        filters: patterns that the server filters by; empty when all messages are read.
        deleted: deleted sequences of the stream.
    """

    def __init__(self, names: Names, patterns: tuple[str, ...]) -> None:
        self.stream = names.stream("EVENTS")
        unfiltered = {names.subject(pattern) for pattern in STREAM_SUBJECTS} <= set(patterns)
        self.filters = () if unfiltered else patterns
        self.deleted = DeletedSequences(self.stream)
        self._event_prefixes = tuple(names.subject(pattern).removesuffix(">") for pattern in STREAM_SUBJECTS)

    def is_event(self, subject: str) -> bool:
        """Return whether messages on a subject are events; checkpoints of shippers, for example, are not."""
        return subject.startswith(self._event_prefixes)

    async def read(self, nc: Client, first: int, last: int, take: Callable[[Delivery], bool]) -> list[Range]:
        """Read events in order.

        Args:
            nc: connected client.
            first: first sequence.
            last: last sequence, which the stream has reached.
            take: called with each event; returns whether to continue after it.

        Returns:
            The ranges that never arrive, in order, up to the last event that was taken: deleted messages, and
            messages that cannot be parsed.

        Raises:
            StreamsError: the server rejects the request, does not respond, or lags behind the leader.
        """
        seen: list[int] = []
        skipped: list[int] = []  # messages that the stream has, but that cannot be parsed
        messages = stream_reader.read(nc, self.stream, first, last, self.filters, skipped.append)
        # Closed here, so that its consumer stops after the last event that is taken.
        async with aclosing(messages) as batches:
            async for batch in batches:
                for delivery in batch:
                    seen.append(delivery.seq)
                    if self.is_event(delivery.subject) and not take(delivery):
                        last = delivery.seq
                        break
                if seen and seen[-1] == last:
                    break
        # With a filter, the message that is tested next may be beyond the range.
        skipped = [seq for seq in skipped if seq <= last]
        if self.filters:
            deleted = await self.deleted.find(nc, first, last, seen)
            return sorted([*deleted, *((seq, seq) for seq in skipped if not _within(seq, deleted))])
        # Every jump is a deletion, except at the end, which this server may not have received yet.
        missing = missing_ranges(first, last, seen)
        end = missing[-1] if missing and missing[-1][1] == last else None
        # The stream has the skipped messages; only what follows the last one can be deleted or late.
        if end is not None and skipped and skipped[-1] >= end[0]:
            end = (skipped[-1] + 1, last) if skipped[-1] < last else None
        if end is not None and await self.deleted.find(nc, *end, ()) != [end]:
            # The consumer may be on a server that has not yet stored what the leader has.
            raise StreamsError(
                f"server that delivers stream {self.stream} lags behind at message {end[0]}",
                "retrying",
                transient=True,
            )
        return missing


def _within(seq: int, ranges: list[Range]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


__all__ = ["Range", "RangeReader"]
