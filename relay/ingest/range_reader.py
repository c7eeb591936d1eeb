"""Messages of EVENTS between two sequences, and which sequences between them the stream holds no more.

A relay that takes in everything reads the stream whole, and drops the few messages that are not events: then
every jump of the sequence is a hole, and nothing has to be asked. With narrower ``--subjects`` the server
filters, and ``DeletedSequences`` tells a hole from what the filter left out.
"""

from collections.abc import Callable

from nats.aio.client import Client
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.relay.ingest import stream_reader as replay
from tickertape.relay.ingest.deleted_sequences import DeletedSequences, Range, missing

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError


class RangeReader:
    """Reads ranges of EVENTS.

    Args:
        names: of subjects and streams.
        patterns: what the relay takes in, as in NATS.

    Attributes:
        filters: patterns that the server filters by; none when the stream is read whole.
    """

    def __init__(self, names: Names, patterns: tuple[str, ...]) -> None:
        self.stream = names.stream("EVENTS")
        whole = {names.subject(pattern) for pattern in STREAM_SUBJECTS} <= set(patterns)
        self.filters = () if whole else patterns
        self.deleted = DeletedSequences(self.stream)
        self._roots = tuple(names.subject(pattern).removesuffix(">") for pattern in STREAM_SUBJECTS)

    def is_event(self, subject: str) -> bool:
        """Tell whether a message is an event, by its subject in NATS; a shipper's checkpoint is none."""
        return subject.startswith(self._roots)

    async def read(self, nc: Client, first: int, last: int, take: Callable[[Delivery], None]) -> list[Range]:
        """Read events in order.

        Args:
            nc: a connected client.
            first: sequence to begin with.
            last: sequence to end with; the stream is known to have reached it.
            take: gets each event.

        Returns:
            the ranges that never come, in order: the stream holds them no more, or they cannot be parsed.

        Raises:
            StreamsError: the server refuses, stops answering, or is behind the stream's leader.
        """
        seen: list[int] = []
        passed: list[int] = []  # that cannot be parsed: the stream has them, and they never come
        async for batch in replay.read(nc, self.stream, first, last, self.filters, passed.append):
            for delivery in batch:
                seen.append(delivery.seq)
                if self.is_event(delivery.subject):
                    take(delivery)
        passed = [seq for seq in passed if seq <= last]
        if self.filters:
            gone = await self.deleted.missing(nc, first, last, seen)
            return sorted([*gone, *((seq, seq) for seq in passed if not _within(seq, gone))])
        gone = missing(first, last, seen)
        end = gone[-1] if gone and gone[-1][1] == last else None
        if end is not None and passed and passed[-1] >= end[0]:
            end = (passed[-1] + 1, last) if passed[-1] < last else None
        if end is not None and await self.deleted.missing(nc, *end, ()) != [end]:
            # The consumer may live at a server that has yet to store what the leader has.
            raise StreamsError(
                f"stream {self.stream} was read from a server that is behind at message {end[0]}",
                "it is tried again",
                transient=True,
            )
        return gone


def _within(seq: int, ranges: list[Range]) -> bool:
    return any(first <= seq <= last for first, last in ranges)


__all__ = ["Range", "RangeReader"]
