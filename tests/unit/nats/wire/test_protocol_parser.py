"""The parser of the NATS client protocol: complete input, byte by byte, cut anywhere, and beyond its
limits.
"""

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.nats.wire import protocol_parser
from tickertape.nats.wire.protocol_parser import (
    Info,
    Message,
    Operation,
    ParserError,
    Ping,
    Pong,
    ProtocolParser,
    ServerError,
)

FORWARDED = bytes(byte for byte in range(256) if byte not in b" \t\r\n")
"""Bytes that a nats-server 2.15 stores in a subject and forwards in a reply subject; found by trying all."""

STREAM = (
    b'INFO {"max_payload":1048576} \r\n'
    b"PING\r\n"
    b"+OK\r\n"
    b"MSG log.info.x 1 5\r\nhello\r\n"
    b"MSG log.info.x 12 $JS.ACK.E.c.1.2.3.4.5 0\r\n\r\n"
    b"MSG " + FORWARDED + b" 3 " + FORWARDED + b" 4\r\n\r\n\r\n\r\n"
    b"HMSG a 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
    b"HMSG a.\xff 1 b.\xfe 0 2\r\nhi\r\n"
    b"HMSG a 1 3 3\r\n\x00\r\n\r\n"
    b"-ERR 'Permissions Violation for Publish to \"a\"'\r\n"
    b"PONG\r\n"
)
OPERATIONS: list[Operation] = [
    Info(b'{"max_payload":1048576}'),
    Ping(),
    Message(1, b"log.info.x", b"", None, b"hello"),
    Message(12, b"log.info.x", b"$JS.ACK.E.c.1.2.3.4.5", None, b""),
    Message(3, FORWARDED, FORWARDED, None, b"\r\n\r\n"),
    Message(1, b"a", b"", b"NATS/1.0\r\n\r\n", b"hi"),
    Message(1, b"a.\xff", b"b.\xfe", b"", b"hi"),
    Message(1, b"a", b"", b"\x00\r\n", b""),
    ServerError(b"'Permissions Violation for Publish to \"a\"'"),
    Pong(),
]


def parsed(*pieces: bytes) -> list[Operation]:
    """Parse pieces one after the other; return all operations."""
    parser = ProtocolParser()
    return [operation for piece in pieces for operation in parser.receive_data(piece)]


def test_it_reads_a_whole_stream() -> None:
    """All operations are returned in order."""
    assert parsed(STREAM) == OPERATIONS


def test_it_reads_byte_by_byte() -> None:
    """Parsing byte by byte gives the same operations."""
    assert parsed(*(bytes([byte]) for byte in STREAM)) == OPERATIONS


@pytest.mark.parametrize("cut", range(len(STREAM)))
def test_it_reads_a_stream_that_is_cut_anywhere(cut: int) -> None:
    """At any cut the complete operations are returned first, the others with the rest."""
    assert parsed(STREAM[:cut], STREAM[cut:]) == OPERATIONS


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_it_reads_a_stream_in_any_pieces(cuts: list[int]) -> None:
    """The number of pieces makes no difference."""
    positions = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[start:end] for start, end in pairwise(positions)]
    assert parsed(*pieces) == OPERATIONS


def test_what_follows_is_kept() -> None:
    """An incomplete operation is kept until its rest arrives, and is visible."""
    parser = ProtocolParser()
    assert list(parser.receive_data(b"PING\r\nMSG a 1 5\r\nhel")) == [Ping()]
    assert repr(parser) == "ProtocolParser(14 bytes buffered, 18 needed)"
    assert list(parser.receive_data(b"l")) == []
    assert list(parser.receive_data(b"o\r\nPO")) == [Message(1, b"a", b"", None, b"hello")]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.binary(min_size=1).map(lambda b: bytes(FORWARDED[byte % len(FORWARDED)] for byte in b)),
            st.binary().map(lambda b: bytes(FORWARDED[byte % len(FORWARDED)] for byte in b)),
            st.none() | st.binary(),
            st.binary(),
        ),
        max_size=5,
    ),
    st.integers(1, 64),
)
def test_any_message_comes_out_as_it_went_in(
    messages: list[tuple[int, bytes, bytes, bytes | None, bytes]], piece: int
) -> None:
    """Subjects, reply subjects, header blocks and bodies of any bytes survive a round trip."""
    wire = b""
    for sid, subject, reply, headers, data in messages:
        block = headers or b""
        wire += b" ".join(
            [
                b"MSG" if headers is None else b"HMSG",
                subject,
                b"%d" % sid,
                *([reply] if reply else []),
                *([] if headers is None else [b"%d" % len(block)]),
                b"%d\r\n" % len(block + data),
            ]
        )
        wire += block + data + b"\r\n"
    pieces = [wire[start : start + piece] for start in range(0, len(wire), piece)]
    assert parsed(*pieces) == [Message(*fields) for fields in messages]


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 1\r\n",
        b"MSG a 1 b c 0\r\n",
        b"MSG a  1 0\r\n",
        b"MSG a\t1\t0\r\n",
        b"MSG a 1 +1\r\nx\r\n",
        b"MSG a 1 1_0\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a x 1\r\nx\r\n",
        b"MSG a 1 \r\n",
        b"MSG a 1 9999999999\r\n",
        b"MSG a 1 999999999\r\n",
        b"HMSG a 1 3 2\r\nabc\r\n",
        b"HMSG a 1 x 2\r\nab\r\n",
        b"HMSG a 1 12345678901 2\r\nab\r\n",
        b"HMSG a 1 1 2 3 4\r\n",
        b"MSG a 1 2\r\nabc\r\n",
        b"msg a 1 0\r\n\r\n",
        b"\r\n",
        b"GET / HTTP/1.1\r\n",
        b"\x00\r\n",
        b"PING\nPING\r\n",
    ],
)
def test_what_is_not_the_protocol_is_an_error(line: bytes) -> None:
    """Operations before a protocol violation are returned first."""
    operations = ProtocolParser().receive_data(b"PING\r\n" + line)
    assert next(operations) == Ping()
    with pytest.raises(ParserError):
        next(operations)


@pytest.mark.parametrize(
    ("begin", "limit"), [(b"MSG a", protocol_parser.MAX_LINE), (b"INFO {", protocol_parser.MAX_INFO)]
)
def test_a_line_without_end_is_an_error(begin: bytes, limit: int) -> None:
    """Buffered input is limited, and the limit itself is accepted."""
    parser = ProtocolParser()
    assert list(parser.receive_data(begin.ljust(limit, b"x"))) == []
    with pytest.raises(ParserError, match=str(limit)):
        list(parser.receive_data(b"x"))


@given(st.lists(st.binary(), max_size=6))
def test_any_bytes_are_operations_or_an_error(pieces: list[bytes]) -> None:
    """Any bytes are operations or a protocol error; no other exception is raised."""
    with contextlib.suppress(ParserError):
        parsed(*pieces)


def test_lines_without_content_are_accepted() -> None:
    """An error without text, an INFO without content and a PING with a space are accepted."""
    assert parsed(b"-ERR\r\nINFO\r\nPING \r\nPONG \r\n+OK \r\n") == [
        ServerError(b""), Info(b""), Ping(), Pong()
    ]  # fmt: skip
