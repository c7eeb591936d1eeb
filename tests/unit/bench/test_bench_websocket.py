"""The load generator's WebSocket: counting and reading frames, however they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from tests.bench.load.websocket import (
    BINARY,
    CLOSE,
    DEFLATE,
    PING,
    TEXT,
    FrameCounter,
    MessageReader,
    client_frame,
    header,
    upgrade_request,
)

_PAYLOADS = st.lists(st.binary(max_size=300) | st.sampled_from([b"x" * 125, b"x" * 126, b"x" * 65_536]))


def _cut(data: bytes, positions: list[int]) -> list[memoryview]:
    edges = sorted({0, len(data), *(position % (len(data) + 1) for position in positions)})
    return [memoryview(data)[start:end] for start, end in itertools.pairwise(edges)]


def _written(opcode: Opcode, payload: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin=fin).serialize(mask=False)


@given(_PAYLOADS, st.lists(st.integers(min_value=0)))
def test_counter_counts_what_websockets_wrote(payloads: list[bytes], positions: list[int]) -> None:
    """Frames and payload bytes are counted exactly, wherever the input is cut."""
    data = b"".join(_written(Opcode.TEXT, payload) for payload in payloads)
    counter = FrameCounter()
    for piece in _cut(data, positions):
        assert counter.feed(piece) == []
    assert (counter.frames, counter.payload_bytes) == (len(payloads), sum(map(len, payloads)))


@given(_PAYLOADS, st.lists(st.integers(min_value=0)))
def test_reader_returns_what_websockets_wrote(payloads: list[bytes], positions: list[int]) -> None:
    """Messages are returned complete and in order, wherever the input is cut."""
    data = b"".join(_written(Opcode.BINARY, payload) for payload in payloads)
    reader = MessageReader()
    messages = [message for piece in _cut(data, positions) for message in reader.feed(piece)]
    assert messages == [(BINARY, payload) for payload in payloads]
    assert (reader.frames, reader.payload_bytes) == (len(payloads), sum(map(len, payloads)))


@pytest.mark.parametrize("kind", [FrameCounter, MessageReader])
@pytest.mark.parametrize("step", [1, 2, 3, 1000])
def test_control_frames_come_out(kind: type[FrameCounter] | type[MessageReader], step: int) -> None:
    """A ping and a close are returned with their payloads and not counted as data."""
    data = _written(Opcode.TEXT, b"one") + _written(Opcode.PING, b"are you there")
    data += _written(Opcode.TEXT, b"two") + _written(Opcode.CLOSE, b"\x03\xe9bye")
    reader = kind()
    found = [one for at in range(0, len(data), step) for one in reader.feed(memoryview(data)[at : at + step])]
    assert [one for one in found if one[0] & 0x8] == [(PING, b"are you there"), (CLOSE, b"\x03\xe9bye")]
    assert (reader.frames, reader.payload_bytes) == (2, 6)


@given(_PAYLOADS, st.lists(st.integers(min_value=0)))
def test_reader_inflates_what_websockets_compressed(payloads: list[bytes], positions: list[int]) -> None:
    """Compressed and plain frames are returned as they were written, and the compressed ones are counted."""
    squeeze = PerMessageDeflate(True, True, 15, 15)
    frames = [Frame(Opcode.TEXT, payload) for payload in payloads]
    data = b"".join(
        frame.serialize(mask=False, extensions=[squeeze] if number % 2 else [])
        for number, frame in enumerate(frames)
    )
    reader = MessageReader()
    messages = [message for piece in _cut(data, positions) for message in reader.feed(piece)]
    assert messages == [(TEXT, payload) for payload in payloads]
    assert reader.compressed == len(payloads) // 2


def test_upgrade_offers_deflate_without_context() -> None:
    """A real server without context takeover accepts the offer."""
    factory = ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
    server = ServerProtocol(extensions=[factory])
    server.receive_data(upgrade_request("127.0.0.1", 80, "/ws", DEFLATE))
    [request] = server.events_received()
    response = server.accept(request)  # type: ignore[arg-type]
    assert response.status_code == 101
    assert response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


def test_reader_joins_fragments() -> None:
    """A message in three fragments with a ping in between is returned as one message with its first
    opcode.
    """
    data = _written(Opcode.TEXT, b"a", fin=False) + _written(Opcode.CONT, b"b", fin=False)
    data += _written(Opcode.PING, b"") + _written(Opcode.CONT, b"c") + _written(Opcode.TEXT, b"d")
    assert MessageReader().feed(memoryview(data)) == [(PING, b""), (TEXT, b"abc"), (TEXT, b"d")]


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_server_reads_what_a_client_writes(size: int) -> None:
    """A real server accepts the upgrade request and reads the frame after it."""
    server = ServerProtocol(max_size=None)
    server.receive_data(upgrade_request("127.0.0.1", 80, "/ws?subjects=log.%3E"))
    [request] = server.events_received()
    response = server.accept(request)  # type: ignore[arg-type]
    assert response.status_code == 101
    server.send_response(response)
    server.receive_data(client_frame(BINARY, b"x" * size))
    [frame] = server.events_received()
    assert isinstance(frame, Frame)
    assert (frame.opcode, frame.data) == (Opcode.BINARY, b"x" * size)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_header_is_that_of_websockets(size: int) -> None:
    """An unmasked header equals the one of websockets for the same size."""
    payload = b"x" * size
    assert header(TEXT, size, masked=False) + payload == _written(Opcode.TEXT, payload)
