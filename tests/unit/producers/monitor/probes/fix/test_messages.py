"""Framing and parsing of FIX messages, as venues send them and as other peers do."""

import asyncio
import contextlib

import pytest
from tickertape.producers.monitor.probes.fix.messages import (
    MAX_MESSAGE_BYTES,
    FixError,
    MessageReader,
    PeerClosed,
    encode_message,
    parse_fields,
)

HEARTBEAT = encode_message("FIX.4.4", [(35, "0"), (49, "LME"), (112, "x")])
EMBEDDED = encode_message("FIX.4.2", [(35, "8"), (49, "CME"), (112, "other")]).decode()
REPORT = encode_message("FIX.4.2", [(35, "n"), (49, "LME"), (212, "70"), (213, f"<RTRF>{EMBEDDED}</RTRF>")])


def read(data: bytes, piece: int) -> list[dict[int, str]]:
    """Return the messages in data that arrives in pieces."""

    async def main() -> list[dict[int, str]]:
        stream = asyncio.StreamReader()
        reader = MessageReader(stream)
        found = []

        async def feed() -> None:
            for begin in range(0, len(data), piece):
                stream.feed_data(data[begin : begin + piece])
                await asyncio.sleep(0)
            stream.feed_eof()

        feeding = asyncio.create_task(feed())
        with contextlib.suppress(PeerClosed):
            while True:
                found.append(await reader.read())
        await feeding
        return found

    return asyncio.run(main())


@pytest.mark.parametrize("piece", [1, 7, 64, 100_000])
def test_a_field_with_data_may_contain_a_message(piece: int) -> None:
    """The end of a message is found by its length, and its header is not replaced by what it contains."""
    large = encode_message("FIX.4.4", [(35, "d"), (49, "LME"), (58, "x" * 100_000)])
    found = read(REPORT + (large if piece > 1 else b"") + HEARTBEAT, piece)
    assert [message[35] for message in found] == (["n", "d", "0"] if piece > 1 else ["n", "0"])
    assert [message[49] for message in found] == ["LME"] * len(found)
    assert found[-1][112] == "x"


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "response is not FIX: b'HTTP"),
        (b"8=FIX" + b"x" * 60, "response is not FIX"),
        (HEARTBEAT + b"garbage", "response is not FIX: b'garbage'"),
        (b"8=FIX.4.4\x019=x\x0135=0\x0110=000\x01" + b"y" * 40, "response is not FIX"),
        (HEARTBEAT.replace(b"LME", b"LMF"), "wrong checksum"),
        (HEARTBEAT.replace(b"\x019=", b"\x019=1"), "peer closed"),
        (HEARTBEAT.replace(b"LME", b"LM") + b"8", "wrong length"),
        (b"8=FIX.4.4\x019=%d\x01" % MAX_MESSAGE_BYTES, f"larger than {MAX_MESSAGE_BYTES} bytes"),
    ],
)
def test_other_data_is_an_error(data: bytes, error: str) -> None:
    """It is recognized without waiting for more data."""

    async def main() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(data)
        stream.feed_eof()
        reader = MessageReader(stream)
        while True:
            await reader.read()

    with pytest.raises(FixError, match=error):
        asyncio.run(main())


def test_of_a_repeated_field_the_first_value_counts() -> None:
    """The header precedes what a message contains; parts without a tag belong to data."""
    fields = parse_fields(
        encode_message("FIX.4.4", [(35, "B"), (96, "a\x01b\x0135=0\x01" + "9" * 30 + "=1")])
    )
    assert fields == {8: "FIX.4.4", 9: "50", 35: "B", 96: "a"}
