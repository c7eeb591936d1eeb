"""Ranges of the stream: what is read, and what is gone."""

import asyncio
from collections.abc import AsyncIterator
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
    passed: tuple[int, ...] = (),
    patterns: tuple[str, ...] = STREAM_SUBJECTS,
) -> list[Range]:
    """Read from 1 to a sequence: the consumer's server has some messages, and the stream's leader others."""

    async def replayed(*arguments: Any) -> AsyncIterator[list[Delivery]]:
        for seq in passed:
            arguments[-1](seq)
        yield [Delivery(seq, "log.info.x", b"{}", seq, 0, None) for seq in consumer]

    gone = sorted(set(range(leader[0], leader[-1])) - set(leader))
    state = {"first_seq": leader[0], "last_seq": leader[-1], "num_deleted": len(gone), "deleted": gone}

    async def asked(*_: Any) -> dict[str, Any]:
        return {"created": "now", "state": state}

    monkeypatch.setattr(stream_reader, "read", replayed)
    monkeypatch.setattr(deleted_sequences, "stream_info", asked)
    monkeypatch.setattr(deleted_sequences, "request", asked)
    client: Any = None
    reader = RangeReader(Names(), patterns)
    return asyncio.run(reader.read(client, 1, last, lambda _: None))


def test_what_a_lagging_server_lacks_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the range is there, at the stream's leader: it is read again, not told of as a gap."""
    with pytest.raises(StreamsError, match="lags behind at message 8"):
        read(monkeypatch, [1, 2, 3, 4, 6, 7], [1, 2, 3, 4, 6, 7, 8, 9], 9)
    with pytest.raises(StreamsError, match="lags behind at message 8"):
        read(monkeypatch, [1, 2, 3, 4, 6, 7], [1, 2, 3, 4, 6, 7, 10], 10)


def test_an_end_that_was_deleted_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As is what the stream let go before its first message."""
    assert read(monkeypatch, [3, 5, 6], [3, 5, 6, 9], 8) == [(1, 2), (4, 4), (7, 8)]
    assert read(monkeypatch, [], [9], 8) == [(1, 8)]


@pytest.mark.parametrize("patterns", [STREAM_SUBJECTS, ("log.>",)])
def test_what_cannot_be_parsed_never_comes(
    monkeypatch: pytest.MonkeyPatch, patterns: tuple[str, ...]
) -> None:
    """Though the stream has it: it is told of in its place, also at the end, and nothing is read again."""
    assert read(monkeypatch, [1, 3], [1, 2, 3], 3, (2,), patterns) == [(2, 2)]
    assert read(monkeypatch, [1, 2], [1, 2, 3], 3, (3,), patterns) == [(3, 3)]
    assert read(monkeypatch, [1, 2], [1, 2, 3, 9], 3, (9,), ("log.>",)) == []
    assert read(monkeypatch, [2], [2, 3], 3, (3,), patterns) == [(1, 1), (3, 3)]


def test_a_lagging_server_is_noticed_behind_what_cannot_be_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was passed over is known to be there."""
    with pytest.raises(StreamsError, match="lags behind at message 3"):
        read(monkeypatch, [1], [1, 2, 3, 4], 4, (2,))
