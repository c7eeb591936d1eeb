"""Ranges of the stream: the messages read and the ranges that are missing."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.relay.ingest import deleted_sequences, stream_reader
from tickertape.relay.ingest.range_reader import Range, RangeReader

from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery
from tickertape.nats.streams import StreamsError


def read(
    monkeypatch: pytest.MonkeyPatch,
    consumer: list[int],
    leader: list[int],
    last: int,
    skipped: tuple[int, ...] = (),
    patterns: tuple[str, ...] = STREAM_SUBJECTS,
    stop: int = 1_000,
) -> list[Range]:
    """Read from 1 to a sequence, and return the missing ranges.

    The consumer's server may have other messages than the stream's leader.
    """

    async def replay(*arguments: Any) -> AsyncGenerator[list[Delivery], None]:
        for seq in skipped:
            arguments[-1](seq)
        yield [Delivery(seq, "log.info.x", b"{}", seq, 0, None) for seq in consumer]

    deleted = sorted(set(range(leader[0], leader[-1])) - set(leader))
    state = {"first_seq": leader[0], "last_seq": leader[-1], "num_deleted": len(deleted), "deleted": deleted}

    async def stream_info(*_: Any) -> dict[str, Any]:
        return {"created": "now", "state": state}

    monkeypatch.setattr(stream_reader, "read", replay)
    monkeypatch.setattr(deleted_sequences, "stream_info", stream_info)
    monkeypatch.setattr(deleted_sequences, "request", stream_info)
    client: Any = None
    reader = RangeReader(Names(), patterns)
    return asyncio.run(reader.read(client, 1, last, lambda delivery: delivery.seq < stop))


def test_a_lagging_server_is_not_reported_as_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that only the stream's leader has are a temporary error, so they are not reported as a gap."""
    with pytest.raises(StreamsError, match="lags behind at message 8"):
        read(monkeypatch, [1, 2, 3, 4, 6, 7], [1, 2, 3, 4, 6, 7, 8, 9], 9)
    with pytest.raises(StreamsError, match="lags behind at message 8"):
        read(monkeypatch, [1, 2, 3, 4, 6, 7], [1, 2, 3, 4, 6, 7, 10], 10)


def test_a_deleted_end_is_a_missing_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages deleted at the end of a range or before the first message are a missing range."""
    assert read(monkeypatch, [3, 5, 6], [3, 5, 6, 9], 8) == [(1, 2), (4, 4), (7, 8)]
    assert read(monkeypatch, [], [9], 8) == [(1, 8)]


@pytest.mark.parametrize("patterns", [STREAM_SUBJECTS, ("log.>",)])
def test_an_unparsable_message_is_a_missing_range(
    monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...]
) -> None:
    """An unparsable message is a missing range and is not read again, even at the end of a range."""
    assert read(monkeypatch, [1, 3], [1, 2, 3], 3, (2,), patterns) == [(2, 2)]
    assert read(monkeypatch, [1, 2], [1, 2, 3], 3, (3,), patterns) == [(3, 3)]
    assert read(monkeypatch, [1, 2], [1, 2, 3, 9], 3, (9,), ("log.>",)) == []
    assert read(monkeypatch, [2], [2, 3], 3, (3,), patterns) == [(1, 1), (3, 3)]


def test_a_lagging_server_is_detected_after_a_skipped_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lagging server is detected after a skipped message, since it may lack all later messages."""
    with pytest.raises(StreamsError, match="lags behind at message 3"):
        read(monkeypatch, [1], [1, 2, 3, 4], 4, (2,))


def test_reading_stops_when_enough_was_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last event that is taken, neither events nor missing ranges are returned."""
    messages = [1, 2, 5, 8, 9]
    assert read(monkeypatch, messages, [*messages, 12], 11, stop=5) == [(3, 4)]
    assert read(monkeypatch, messages, [*messages, 12], 11, (7,), stop=5) == [(3, 4)]
