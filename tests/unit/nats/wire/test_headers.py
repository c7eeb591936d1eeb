"""Header blocks of NATS messages, well-formed and malformed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.nats.wire.headers import Headers, server_header

SOURCE = "EVENTS 2 gateway.status.>\x0csystem.health.> gateway.status.ctp.a XjBvZz0V"


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NATS/1.0\r\nA:b\r\nC: \t d \r\n\r\n", {"A": "b", "C": "d"}),
        (b"NATS/1.0\r\nA: b: c\r\nEmpty:\r\n\r\n", {"A": "b: c", "Empty": ""}),
        (b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", {"A": "2"}),
        ("NATS/1.0\r\nA: é\u2028\r\n\r\n".encode(), {"A": "é\u2028"}),
        (f"NATS/1.0\r\nNats-Stream-Source: {SOURCE}\r\n\r\n".encode(), {"Nats-Stream-Source": SOURCE}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503"}),
        (b"NATS/1.0 404 Message Not Found\r\n\r\n", {"Status": "404", "Description": "Message Not Found"}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n",
            {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "7"},
        ),
        # A producer's own header is not a status.
        (b"NATS/1.0\r\nStatus: 503\r\nDescription: x\r\nA: b\r\n\r\n", {"A": "b"}),
    ],
)
def test_a_well_formed_block(block: bytes, headers: dict[str, str]) -> None:
    """Names and values, the status of a server message, and headers that the server adds are parsed."""
    found = Headers(block)
    assert (dict(found), found.well_formed, found.raw) == (headers, True, block)


@pytest.mark.parametrize(
    ("block", "headers"),
    [
        (b"", {}),
        (b"x", {}),
        (b"NATS/1.0", {}),
        (b"NATS/1.0\r\n", {}),
        (b"NATS/1.0\r\nA: b", {"A": "b"}),
        (b"NATS/1.0\r\nA: b\r\n", {"A": "b"}),
        (b"NATS/1.0\r\nA: b\r\n\r\nC: d\r\n\r\n", {"A": "b", "C": "d"}),
        (b"NATS/2.0\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NATS/1.0 5\r\nA: b\r\n\r\n", {"A": "b"}),
        (b"NATS/1.0\r\n: b\r\n\r\n", {}),
        (b"NATS/1.0\r\nA\r\nC: d\r\n\r\n", {"C": "d"}),
        (b"NATS/1.0\r\nA : b\r\nC: d\r\n\r\n", {"C": "d"}),
        (b"NATS/1.0\r\n\xc3\xa9: b\r\nC: d\r\n\r\n", {"C": "d"}),
        (b"NATS/1.0\r\nA: \xff\r\n\r\n", {"A": "\N{REPLACEMENT CHARACTER}"}),
        (b"NATS/1.0\r\nA: b\nC: d\r\n\r\n", {"A": "b\nC: d"}),
        (b"NATS/1.0\nA: b\n\n", {}),
        (b"\x00\r\n\r\n", {}),
        (b"\r\n\r\n", {}),
    ],
)
def test_a_block_that_breaks_the_format(block: bytes, headers: dict[str, str]) -> None:
    """A malformed block is marked as such, and its readable part is parsed."""
    found = Headers(block)
    assert (dict(found), found.well_formed, found.raw) == (headers, False, block)


@given(st.binary())
def test_any_block_can_be_read(block: bytes) -> None:
    """Any bytes can be parsed without an exception, and all text can be encoded as UTF-8."""
    for name, value in Headers(block).items():
        assert (name + value).encode()


@pytest.mark.parametrize("before", [b"NATS/1.0\r\n", b"NATS/1", b"\xff\x00", b"", b"NATS/1.0\r\nA:"])
def test_what_a_server_adds_is_found_behind_anything(before: bytes) -> None:
    """Headers added by a server are found, although it cuts two bytes and appends in the middle of a line."""
    block = before + b"Nats-Stream-Source: EVENTS 2 x\r\n\r\n"
    assert server_header(block, "Nats-Stream-Source") == "EVENTS 2 x"


def test_what_a_producer_wrote_itself_is_not_what_the_server_added() -> None:
    """The last occurrence counts, so that a producer cannot forge a header that the server adds."""
    assert server_header(b"NATS/1.0\r\nNats-Sequence: 1\r\nNats-Sequence: 2\r\n\r\n", "Nats-Sequence") == "2"
    assert server_header(b"NATS/1.0\r\nX: 1\r\n\r\n", "Nats-Sequence") == ""
    assert server_header(None, "Nats-Sequence") == ""
