"""Parts of the bodies of HTTP streams: shared, complete on their own, and legal for other libraries."""

import gzip
import zlib
from collections.abc import Sequence

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.filters import Filter
from tickertape.relay.transport.http_stream.encoding import (
    EVENTS,
    LINES,
    StreamEncoding,
    StreamFormat,
    select_encoding,
)

CURSOR = "a-1-5"
SUBSCRIBED = messages.subscribed(Filter((">",)), "live", 1_000, CURSOR, resumed=False, expires_at=None)
RESUMED = messages.subscribed(Filter((">",)), "live", 1_000, CURSOR, resumed=True, expires_at=None)
RESET = messages.gap("b-1", CURSOR, "reset")
GAP = messages.gap("a-0", "a-9", "slow", {"log.info": 9})
EVENT = EncodedEvents([b'{"subject":"log.info.x","seq":1,"event":{}}'], CURSOR)
SNAPSHOT = EncodedSnapshot([b'{"subject":"log.info.x","seq":1,"event":{}}'], True)


def fields(encoding: StreamEncoding, *outgoing: Outgoing) -> list[list[str]]:
    """Return the fields of each event, without ``data``."""
    blocks = encoding.encode(outgoing).decode().split("\n\n")
    assert blocks.pop() == ""
    return [[line for line in block.split("\n") if not line.startswith("data: {")] for block in blocks]


PLAIN = select_encoding(EVENTS, gzip=False, chunked=False)


@pytest.mark.parametrize(
    ("outgoing", "expected"),
    [
        ([EVENT], [[f"id: {CURSOR}"]]),
        ([GAP], [[]]),
        ([GAP, EVENT], [[], [f"id: {CURSOR}"]]),
        ([SUBSCRIBED], [[f"id: {CURSOR}~snapshot"]]),
        ([RESUMED], [[f"id: {CURSOR}"]]),
        ([SUBSCRIBED, RESET], [[], [f"id: {CURSOR}~snapshot"]]),
        ([SNAPSHOT], [[]]),
        ([messages.heartbeat(CURSOR, "2026-01-01T00:00:00Z")], [[f"id: {CURSOR}"]]),
        ([messages.bye(1001, "x", 700)], [["retry: 700"]]),  # type: ignore[arg-type]
        ([messages.bye(4401, "x", None)], [[]]),  # type: ignore[arg-type]
    ],
)
def test_an_id_passes_nothing_that_is_not_sent(
    outgoing: Sequence[Outgoing], expected: list[list[str]]
) -> None:
    """Only a position that the client has reached is an id, and a gap before it comes first."""
    assert fields(PLAIN, *outgoing) == expected


def read_body(encoding: StreamEncoding, *parts: bytes) -> bytes:
    """Return the text of a body, as h11 and zlib read it."""
    body = b"".join(parts)
    if encoding.chunked:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + body)
        assert isinstance(client.next_event(), h11.Response)
        data = b""
        while not isinstance(event := client.next_event(), h11.EndOfMessage):
            assert isinstance(event, h11.Data)
            data += bytes(event.data)
        body = data
    return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body) if encoding.gzip else body


@pytest.mark.parametrize("format", [EVENTS, LINES])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("chunked", [False, True])
def test_every_encoding_has_the_same_text(format: StreamFormat, packed: bool, chunked: bool) -> None:
    """Chunks and compression change nothing in the text, also of parts that are larger than a block."""
    encoding = select_encoding(format, gzip=packed, chunked=chunked)
    assert encoding is select_encoding(format, gzip=packed, chunked=chunked)
    large = EncodedEvents([b'{"subject":"log.info.x","seq":%d,"event":{}}' % n for n in range(5_000)], CURSOR)
    bye = messages.bye(1001, "x" * 70_000, 700)  # type: ignore[arg-type]
    parts: list[list[Outgoing]] = [[SUBSCRIBED], [SNAPSHOT], [GAP, EVENT], [large], [bye]]
    body = [encoding.begin(1_000), *map(encoding.encode, parts), encoding.keepalive(), encoding.end()]
    expected = [format.begin(1_000), *map(format.format, parts), format.keepalive]
    assert read_body(encoding, *body) == b"".join(expected)


@given(st.lists(st.binary(min_size=1, max_size=2_000), max_size=5), st.data())
def test_any_selection_of_compressed_parts_is_a_stream(texts: list[bytes], data: st.DataObject) -> None:
    """A part refers to no other part, so each client may receive a different selection."""
    encoding = select_encoding(LINES, gzip=True, chunked=False)
    parts = [encoding._part(text, shared=data.draw(st.booleans())) for text in texts]
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=8)) if texts else []
    body = encoding.begin(1) + b"".join(parts[index] for index in chosen) + encoding.end()
    expected = b"".join(texts[index] for index in chosen)
    assert zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(body) == expected
    # With the checksum that the relay leaves out, the body is a complete file.
    trailer = zlib.crc32(expected).to_bytes(4, "little") + len(expected).to_bytes(4, "little")
    assert gzip.decompress(body + trailer) == expected
