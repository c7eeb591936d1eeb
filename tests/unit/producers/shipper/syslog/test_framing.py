"""Framing of syslog: frames are found however their bytes arrive, and what is not syslog is an error."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.shipper.syslog.addresses import parse_address
from tickertape.producers.shipper.syslog.framing import (
    MAX_FRAME_BYTES,
    Framing,
    FramingError,
    RelpFraming,
    TcpFraming,
    to_line,
)

MESSAGES = st.lists(
    st.builds(
        lambda priority, text: b"<%d>%b" % (priority, text), st.integers(0, 191), st.binary(max_size=30)
    ),
    max_size=8,
)


def counted(message: bytes) -> bytes:
    """Return a frame that begins with its length."""
    return b"%d %b" % (len(message), message)


def relp(number: int, command: str, body: bytes) -> bytes:
    """Return a frame of RELP."""
    return b"%d %b %d%b\n" % (number, command.encode(), len(body), b" " + body if body else b"")


def feed(framing: Framing, data: bytes, cuts: list[int]) -> list[bytes]:
    """Feed data in pieces that end at the cuts; return all messages."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    found = [message for begin, end in pairwise(places) for message in framing.feed(data[begin:end])]
    return found + framing.finish()


@given(MESSAGES, st.lists(st.booleans(), min_size=8, max_size=8), st.lists(st.integers(0), max_size=12))
def test_frames_do_not_depend_on_chunks(messages: list[bytes], modes: list[bool], cuts: list[int]) -> None:
    """Each frame of a connection may have a length or end with a line break."""
    lines = [message.replace(b"\n", b"") for message in messages]
    pairs = list(zip(messages, lines, modes, strict=False))
    data = b"".join(counted(message) if mode else line + b"\n" for message, line, mode in pairs)
    expected = [message if mode else line for message, line, mode in pairs]
    assert feed(TcpFraming(), data, cuts) == expected


@given(MESSAGES, st.lists(st.integers(0), max_size=12))
def test_frames_of_relp_do_not_depend_on_chunks(messages: list[bytes], cuts: list[int]) -> None:
    """Every message is acknowledged, and a session is closed as it was opened."""
    framing = RelpFraming()
    data = relp(1, "open", b"relp_version=0\ncommands=syslog")
    for number, message in enumerate(messages, 2):
        data += relp(number, "syslog", message)
    last = len(messages) + 2
    assert feed(framing, data + relp(last, "close", b""), cuts) == messages
    offers = b"200 OK\nrelp_version=0\nrelp_software=tickertape\ncommands=syslog"
    expected = relp(1, "rsp", offers) + b"".join(relp(n, "rsp", b"200 OK") for n in range(2, last))
    assert framing.responses() == expected + b"%d rsp 0\n0 serverclose 0\n" % last
    assert framing.is_closed


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"12 monkeys\n", [b"12 monkeys"]),
        (b"2025-06-15 no priority\n<3>x", [b"2025-06-15 no priority", b"<3>x"]),
        (b"1\n22\n", [b"1", b"22"]),
        (b"\n\n<3>x\r\n", [b"", b"", b"<3>x\r"]),
        (b"4 <3>x5 <", [b"<3>x"]),
        (b"\x00\xff\n", [b"\x00\xff"]),
    ],
)
def test_lines_that_look_like_counts(data: bytes, expected: list[bytes]) -> None:
    """Only a number before a priority is a length."""
    for cut in range(len(data) + 1):
        assert feed(TcpFraming(), data, [cut]) == expected


@pytest.mark.parametrize(
    ("framing", "data"),
    [
        (TcpFraming, b"2147483647 <3>x"),
        (TcpFraming, b"x" * (MAX_FRAME_BYTES + 100)),
        (TcpFraming, b"%d <" % (MAX_FRAME_BYTES + 1)),
        (RelpFraming, b"GET / HTTP/1.1\r\nHost: a-host-with-a-name-that-is-long\r\n\r\n"),
        (RelpFraming, b"1 open 2147483647 x"),
        (RelpFraming, relp(1, "syslog", b"<3>before the session is open")),
        (RelpFraming, relp(1, "open", b"x") + relp(2, "reboot", b"")),
        (RelpFraming, b"1 open 1 xy\n"),
    ],
)
def test_what_is_not_syslog_is_an_error(framing: type[Framing], data: bytes) -> None:
    """A connection that cannot be understood, or announces too much, is not read further."""
    with pytest.raises(FramingError):
        framing().feed(data)


def test_a_message_is_one_line() -> None:
    """Line breaks within a message are kept as rsyslog writes them."""
    assert to_line(b"<3>a\r\nb\nc\r\n\0") == b"<3>a#012b#012c"
    assert to_line(b"\n") == b""


@pytest.mark.parametrize(
    ("text", "shown", "is_open"),
    [
        ("udp://127.0.0.1", "udp://127.0.0.1:514", False),
        ("tls://[::]:0", "tls://[::]:0", False),
        ("tcp://0.0.0.0:5514", "tcp://0.0.0.0:5514", True),
        ("relp://localhost", "relp://localhost:2514", False),
    ],
)
def test_addresses(text: str, shown: str, is_open: bool) -> None:
    """An address has a standard port; without a certificate it is open to other machines."""
    address = parse_address(text)
    assert (str(address), address.is_open) == (shown, is_open)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "udp",
        "127.0.0.1:514",
        "udp://",
        "http://h:1",
        "udp://h:x",
        "udp://h:99999",
        "tcp://h/p",
        "udp://u@h",
    ],
)
def test_what_is_not_an_address_is_an_error(text: str) -> None:
    """The error names the text, and an example."""
    with pytest.raises(ValueError, match="is not an address such as udp://"):
        parse_address(text)
