"""The load generator's reader of HTTP streams, on bodies that are split at any byte."""

import pytest

from tests.bench.load.chunks import ChunkCounter, ChunkReader, StreamDecoder, stream_request
from tests.bench.load.decoders import DecodeError
from tests.bench.load.websocket import TEXT

DATA = [b"retry: 1000\n\n", b"x" * 300, b"y", b"z" * 70_000]
BODY = b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in DATA)


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64, 65_536, len(BODY)])
def test_each_chunk_counts_once(step: int) -> None:
    """Counter and reader agree, however the body is split."""
    counter, reader = ChunkCounter(), ChunkReader()
    chunks = []
    for start in range(0, len(BODY), step):
        piece = memoryview(BODY[start : start + step])
        assert counter.feed(piece) == []
        chunks += reader.feed(piece)
    assert chunks == [(TEXT, data) for data in DATA]
    for each in (counter, reader):
        assert (each.frames, each.payload_bytes) == (4, sum(map(len, DATA)))


@pytest.mark.parametrize(
    "chunk",
    [
        b'id: a-2\ndata: {"type":"events","events":[{"event":{"metadata":{"sent":1}}},'
        b'{"event":{"metadata":{"sent":2}}}],"cursor":"a-2"}\n\n',
        b'{"subject":"log.info.x","seq":1,"event":{"metadata":{"sent":1}}}\n'
        b'{"subject":"log.info.x","seq":2,"event":{"metadata":{"sent":2}}}\n{"type":"cursor","cursor":"a-2"}\n',
    ],
)
def test_both_formats_are_decoded(chunk: bytes) -> None:
    """Times are those of the events, gaps are counted, and an error ends the measurement."""
    decoder = StreamDecoder()
    assert decoder.sent_times(b":\n\n" + chunk) == [1, 2]
    assert decoder.sent_times(b'data: {"type":"gap","dropped":3}\n\n') == []
    assert decoder.lost == 3
    with pytest.raises(DecodeError):
        decoder.sent_times(b'{"type":"bye"}\n')


def test_the_request_has_a_token() -> None:
    """The request names its host and carries the token."""
    assert stream_request("h", 1, "/sse", "t").splitlines()[1:3] == [b"Host: h:1", b"Authorization: Bearer t"]
