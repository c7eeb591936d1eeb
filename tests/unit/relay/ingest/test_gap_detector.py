"""Messages in order, and the deleted ranges between them in their places."""

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


class Bench:
    """A detector, and what it hands on: sequences of messages, and ranges that are missing."""

    def __init__(self, *patterns: str) -> None:
        self.source = RangeReader(Names(), patterns or STREAM_SUBJECTS)
        self.head = 0
        self.told: list[int | Range] = []
        self.reasons: list[str] = []
        self.detector = GapDetector(
            self.source, lambda: self.head, self._take, self._missing, self.reasons.append
        )
        self.detector.restart()

    def _take(self, delivery: Delivery) -> None:
        assert delivery.seq > self.head
        self.head = delivery.seq
        self.told.append(delivery.seq)

    def _missing(self, end: int) -> None:
        assert end > self.head
        self.told.append((self.head + 1, end))
        self.head = end

    def receive(self, *seqs: int) -> None:
        """Let messages come."""
        for seq in seqs:
            self.detector.receive(Delivery(seq, "log.info.x", b"{}", seq, 0, None))

    async def answer(self, *ranges: Range | Exception) -> list[tuple[int, int, list[int]]]:
        """Answer what the stream is asked, once; returns what it was asked."""
        asked: list[tuple[int, int, list[int]]] = []
        answered = asyncio.Event()

        async def missing(nc: Any, first: int, last: int, seen: Iterable[int]) -> list[Range]:
            asked.append((first, last, list(seen)))
            answered.set()
            found = [one for one in ranges if not isinstance(one, Exception)]
            for one in ranges:
                if isinstance(one, Exception):
                    raise one
            return found

        self.source.deleted.find = missing  # type: ignore[method-assign]
        client: Any = None
        task = asyncio.create_task(self.detector.run(client))
        await answered.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return asked


def test_a_stream_that_is_read_whole_explains_itself() -> None:
    """Each jump is a range that will never come, told before what follows."""
    bench = Bench()
    bench.receive(1, 2, 5, 6, 10)
    assert bench.told == [1, 2, (3, 4), 5, 6, (7, 9), 10]


@given(st.sets(st.integers(1, 40)))
def test_whatever_comes_all_is_told_in_order(seqs: set[int]) -> None:
    """Messages and ranges cover every sequence up to the last message once."""
    bench = Bench()
    bench.receive(*sorted(seqs))
    spans = [(one, one) if isinstance(one, int) else one for one in bench.told]
    covered = [seq for first, last in spans for seq in range(first, last + 1)]
    assert covered == list(range(1, max(seqs, default=0) + 1))


@pytest.mark.parametrize("patterns", [(), ("log.>",)])
def test_a_sequence_that_came_already_is_another_message(patterns: tuple[str, ...]) -> None:
    """The stream was grown again: nothing more is handed on until it is known from where."""
    bench = Bench(*patterns)
    bench.receive(1, 2, 3, 2, 3, 4)
    assert bench.told == [1, 2, 3]
    assert bench.detector.sequences_reused
    assert len(bench.reasons) == 1
    bench.detector.restart()
    bench.receive(4)
    assert bench.told == [1, 2, 3, 4]


def test_behind_a_filter_the_stream_is_asked() -> None:
    """What comes behind a jump waits; what the stream deleted is told in its place."""

    async def check() -> None:
        bench = Bench("log.>")
        bench.receive(1, 2, 5, 9)
        assert bench.told == [1, 2]
        assert await bench.answer((4, 4), (6, 8)) == [(3, 9, [5, 9])]
        assert bench.told == [1, 2, (3, 4), 5, (6, 8), 9]
        bench.receive(10)
        assert bench.told[-1] == 10

    asyncio.run(check())


def test_what_comes_while_the_stream_answers_waits_for_the_next_answer() -> None:
    """Unless it follows without a jump."""

    async def check() -> None:
        bench = Bench("log.>")
        bench.receive(3)
        task_seen: list[int] = []

        async def missing(nc: Any, first: int, last: int, seen: Iterable[int]) -> list[Range]:
            task_seen.append(last)
            if last == 3:
                bench.receive(4, 7)
            return []

        bench.source.deleted.find = missing  # type: ignore[method-assign]
        client: Any = None
        task = asyncio.create_task(bench.detector.run(client))
        while bench.told != [3, 4, 7]:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task_seen == [3, 7]

    asyncio.run(check())


def test_a_stream_that_does_not_answer_loses_nothing() -> None:
    """The consumer is created again, behind what was handed on."""

    async def check() -> None:
        bench = Bench("log.>")
        bench.receive(1, 5)
        await bench.answer(StreamsError("it is away", "look", transient=True))
        assert bench.told == [1]
        assert len(bench.reasons) == 1
        bench.receive(6)
        assert bench.told == [1], "not before the consumer is created again"
        bench.detector.restart()
        bench.receive(2)
        assert bench.told == [1, 2]

    asyncio.run(check())


def test_what_waits_is_bounded() -> None:
    """Past the bound it is read again later."""
    bench = Bench("log.>")
    bench.receive(*range(2, 2 * MAX_HELD + 6, 2))
    assert len(bench.reasons) == 1
    assert "0 held" in repr(bench.detector)
    assert bench.told == []
