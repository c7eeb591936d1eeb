"""Messages in order, with the missing ranges between them."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.relay.ingest.deleted_sequences import Range
from tickertape.relay.ingest.gap_detector import MAX_HELD, GapDetector
from tickertape.relay.ingest.range_reader import RangeReader

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError


class Harness:
    """Gap detector that records its output: sequences of messages and missing ranges."""

    def __init__(self, *patterns: str) -> None:
        self.source = RangeReader(Names(), patterns or STREAM_SUBJECTS)
        self.head = 0
        self.output: list[int | Range] = []
        self.reasons: list[str] = []
        self.detector = GapDetector(
            self.source, lambda: self.head, self._deliver, self._report_missing, self.reasons.append
        )
        self.detector.restart()

    def _deliver(self, delivery: Delivery) -> None:
        assert delivery.seq > self.head
        self.head = delivery.seq
        self.output.append(delivery.seq)

    def _report_missing(self, end: int) -> None:
        assert end > self.head
        self.output.append((self.head + 1, end))
        self.head = end

    def receive(self, *seqs: int) -> None:
        """Deliver messages with these sequences."""
        for seq in seqs:
            self.detector.receive(Delivery(seq, "log.info.x", b"{}", seq, 0, None))

    async def answer_query(self, *ranges: Range | Exception) -> list[tuple[int, int, list[int]]]:
        """Answer the next query for missing ranges and return the queries."""
        queries: list[tuple[int, int, list[int]]] = []
        queried = asyncio.Event()

        async def find(nc: Any, first: int, last: int, seen: Iterable[int]) -> list[Range]:
            queries.append((first, last, list(seen)))
            queried.set()
            found = [item for item in ranges if not isinstance(item, Exception)]
            for item in ranges:
                if isinstance(item, Exception):
                    raise item
            return found

        self.source.deleted.find = find  # type: ignore[method-assign]
        client: Any = None
        task = asyncio.create_task(self.detector.run(client))
        await queried.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return queries


def test_without_a_filter_a_jump_is_a_missing_range() -> None:
    """Without a filter, each jump in the sequences is a missing range, reported before the next message."""
    harness = Harness()
    harness.receive(1, 2, 5, 6, 10)
    assert harness.output == [1, 2, (3, 4), 5, 6, (7, 9), 10]


@given(st.sets(st.integers(1, 40)))
def test_messages_and_ranges_cover_every_sequence(seqs: set[int]) -> None:
    """Messages and missing ranges together cover every sequence up to the last message exactly once."""
    harness = Harness()
    harness.receive(*sorted(seqs))
    spans = [(item, item) if isinstance(item, int) else item for item in harness.output]
    covered = [seq for first, last in spans for seq in range(first, last + 1)]
    assert covered == list(range(1, max(seqs, default=0) + 1))


@pytest.mark.parametrize("patterns", [(), ("log.>",)])
def test_a_repeated_sequence_stops_the_detector(patterns: tuple[str, ...]) -> None:
    """A repeated sequence was reused by the stream, so no message is delivered until a restart."""
    harness = Harness(*patterns)
    harness.receive(1, 2, 3, 2, 3, 4)
    assert harness.output == [1, 2, 3]
    assert harness.detector.sequences_reused
    assert len(harness.reasons) == 1
    harness.detector.restart()
    harness.receive(4)
    assert harness.output == [1, 2, 3, 4]


def test_with_a_filter_the_stream_is_queried() -> None:
    """With a filter, messages after a jump wait until the stream states which sequences it deleted."""

    async def scenario() -> None:
        harness = Harness("log.>")
        harness.receive(1, 2, 5, 9)
        assert harness.output == [1, 2]
        assert await harness.answer_query((4, 4), (6, 8)) == [(3, 9, [5, 9])]
        assert harness.output == [1, 2, (3, 4), 5, (6, 8), 9]
        harness.receive(10)
        assert harness.output[-1] == 10

    asyncio.run(scenario())


def test_a_message_during_a_query_waits_for_the_next_one() -> None:
    """A message that arrives during a query waits for the next one, unless it follows without a jump."""

    async def scenario() -> None:
        harness = Harness("log.>")
        harness.receive(3)
        query_ends: list[int] = []

        async def find(nc: Any, first: int, last: int, seen: Iterable[int]) -> list[Range]:
            query_ends.append(last)
            if last == 3:
                harness.receive(4, 7)
            return []

        harness.source.deleted.find = find  # type: ignore[method-assign]
        client: Any = None
        task = asyncio.create_task(harness.detector.run(client))
        while harness.output != [3, 4, 7]:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert query_ends == [3, 7]

    asyncio.run(scenario())


def test_a_failed_query_loses_no_message() -> None:
    """If a query fails, the consumer is recreated after the last accepted message, so none is lost."""

    async def scenario() -> None:
        harness = Harness("log.>")
        harness.receive(1, 5)
        await harness.answer_query(StreamsError("stream is unreachable", "retry", transient=True))
        assert harness.output == [1]
        assert len(harness.reasons) == 1
        harness.receive(6)
        assert harness.output == [1], "messages are ignored until the consumer is recreated"
        harness.detector.restart()
        harness.receive(2)
        assert harness.output == [1, 2]

    asyncio.run(scenario())


def test_held_messages_are_bounded() -> None:
    """Beyond the maximum number of held messages, the consumer is recreated and messages are read again."""
    harness = Harness("log.>")
    harness.receive(*range(2, 2 * MAX_HELD + 6, 2))
    assert len(harness.reasons) == 1
    assert "0 held" in repr(harness.detector)
    assert harness.output == []
