"""Messages encoded as WebSocket frames and read back with the parser of websockets."""

import base64
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.encode import EncodedSnapshot, MessageParts, encode_event
from tickertape.contracts.events import MAX_EVENT_BYTES
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, Events, relay_message
from tickertape.contracts.subjects import MAX_SUBJECT_LENGTH
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.fanout import batch
from tickertape.relay.core.fanout.batch import Batch
from tickertape.relay.core.filters import Route
from tickertape.relay.transport.websocket.encoding import DEFLATE_FROM, DEFLATED, PLAIN, Frames

from tests.support.clients.fake_link import texts

ROUTE = Route("log.info.x")


def frame(text: bytes, encoding: Frames = PLAIN) -> bytes:
    """Return the frame of a text."""
    return encoding.frame(MessageParts(b"", [text], b""))


def events(
    records: list[Record], cursor: str, encoding: Frames = PLAIN, conflated: int | None = None
) -> bytes:
    """Return the frames of a batch."""
    epoch, reached, _ = parse_cursor(cursor)
    return encoding.encode(Batch(epoch, reached, records, conflated=conflated).messages())


def snapshot(records: list[Record], encoding: Frames = PLAIN) -> bytes:
    """Return the frame of a snapshot in one piece."""
    return encoding.encode([EncodedSnapshot([record.encoded for record in records], True)])


def record(seq: int, payload: bytes = b'{"n":1}', route: Route = ROUTE) -> Record:
    """Return a record as the hub creates it."""
    return Record(seq, route, encode_event(route.prefix, seq, payload), False, False, 0.0, 0.0, 0)


def sized(seq: int, size: int) -> Record:
    """Return a record whose encoded event has exactly this many bytes."""
    empty = len(encode_event(ROUTE.prefix, seq, b'{"m":""}'))
    return record(seq, b'{"m":"' + b"x" * (size - empty) + b'"}')


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MAX_MESSAGE_BYTES])
def test_every_frame_length_is_read_back(size: int) -> None:
    """A frame at each boundary of the three length forms is read back unchanged."""
    text = b"x" * size
    assert texts(frame(text)) == [text]


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_has_the_shortest_form(size: int, header: bytes) -> None:
    """The header uses the minimal number of bytes for the length, as RFC 6455, 5.2 requires."""
    assert frame(b"x" * size)[: len(header)] == header


def test_a_message_is_encoded_as_json() -> None:
    """A message is encoded as JSON with the type first, followed by its other fields."""
    assert texts(PLAIN.encode([messages.pong("é")])) == ['{"type":"pong","id":"é"}'.encode()]


def test_an_encoded_event_carries_the_payload_byte_for_byte() -> None:
    """Spaces, escapes and numbers of any length in a payload are relayed unchanged."""
    payload = b'{ "n" : 1.50e+400, "s":"\\u00e9\\/" }'
    assert (
        encode_event(ROUTE.prefix, 7, payload) == b'{"subject":"log.info.x","seq":7,"event":' + payload + b"}"
    )


def test_one_batch_is_one_frame() -> None:
    """A batch has its events in order and the cursor after them, which may lie beyond the last event."""
    (text,) = texts(events([record(3), record(5)], "e-9"))
    assert orjson.loads(text) == {
        "type": "events",
        "events": [
            {"subject": "log.info.x", "seq": 3, "event": {"n": 1}},
            {"subject": "log.info.x", "seq": 5, "event": {"n": 1}},
        ],
        "cursor": "e-9",
    }


def test_a_large_batch_is_split_and_each_part_has_its_own_cursor() -> None:
    """Each part has the cursor of its last event, so a client can resume after any of them."""
    records = [sized(seq, 30_000) for seq in (2, 4, 6, 8, 10)]
    found = [relay_message.validate_json(text) for text in texts(events(records, "e-99"))]
    assert all(isinstance(message, Events) for message in found)
    parts = [message for message in found if isinstance(message, Events)]
    assert [[item.seq for item in part.events] for part in parts] == [[2, 4], [6, 8], [10]]
    assert [part.cursor for part in parts] == ["e-4", "e-8", "e-99"]


def test_an_event_larger_than_a_batch_is_sent_alone() -> None:
    """An event larger than the message size does not share a frame with the events around it."""
    records = [record(1), sized(2, batch.MESSAGE_BYTES + 1), record(3)]
    parts = [orjson.loads(text) for text in texts(events(records, "e-3"))]
    assert [[item["seq"] for item in part["events"]] for part in parts] == [[1], [2], [3]]


def test_the_largest_event_fits_into_a_message() -> None:
    """An event at the contract's size limit on the longest subject fits, both alone and among others."""
    route = Route("log." + "a" * (MAX_SUBJECT_LENGTH - 4))
    payload = b'{"m":"' + b"x" * (MAX_EVENT_BYTES - 8) + b'"}'
    large = record(2**63, payload, route)
    for records in ([large], [large] * 3):
        found = texts(events(records, f"{'z' * 16}-{2**64 - 1}"))
        assert [len(text) <= MAX_MESSAGE_BYTES for text in found] == [True] * len(records)
        assert all(orjson.loads(text) for text in found)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_a_batch_at_the_limit_is_complete(spare: int) -> None:
    """No event is lost or corrupted around the size at which a batch is split."""
    half = batch.MESSAGE_BYTES // 2
    records = [sized(1, half), sized(2, half - 2 - spare)]
    found = [orjson.loads(text) for text in texts(events(records, "e-2"))]
    assert [item["seq"] for part in found for item in part["events"]] == [1, 2]
    assert found[-1]["cursor"] == "e-2"


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.integers(60, 400), st.integers(20_000, 70_000)), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_batches_of_any_size_are_read_back(sizes: list[int], beyond: int) -> None:
    """Every event is sent once and in order, cursors rise to the last one, and frames stay small."""
    records = [sized(index + 1, size) for index, size in enumerate(sizes)]
    end = len(sizes) + beyond
    found = texts(events(records, f"e-{end}"))
    parts = [orjson.loads(text) for text in found]
    assert [item for part in parts for item in part["events"]] == [orjson.loads(r.encoded) for r in records]
    for text, part in zip(found, parts, strict=True):
        assert len(text) <= batch.MESSAGE_BYTES + 100 or len(part["events"]) == 1
        assert part["cursor"] == f"e-{end if part is parts[-1] else part['events'][-1]['seq']}"


def noise(size: int) -> bytes:
    """Return a text that hardly compresses and is the same in every run."""
    return base64.b64encode(random.Random(7).randbytes(size))[:size]


def payload_size(data: bytes) -> int:
    """Return the payload size that the header of a frame declares, in bytes."""
    if data[1] < 126:
        return data[1]
    return int.from_bytes(data[2:4] if data[1] == 126 else data[2:10], "big")


def deflated_to(size: int) -> bytes:
    """Return a text whose deflated frame has a payload of exactly this many bytes."""
    length = size
    for filler in range(300, 400):
        text = noise(length) + b"x" * filler
        found = payload_size(frame(text, DEFLATED))
        if found == size:
            return text
        length += size - found
    raise AssertionError(f"no text is squeezed to {size} bytes")


@pytest.mark.parametrize(
    "size",
    [
        DEFLATE_FROM,
        DEFLATE_FROM + 1,
        65_534,
        65_535,
        65_536,
        65_537,
        MAX_MESSAGE_BYTES,
    ],
)
@pytest.mark.parametrize("content", ["same", "noise"])
def test_every_deflated_length_is_read_back(size: int, content: str) -> None:
    """A frame of `DEFLATE_FROM` bytes or more is compressed even if it does not become smaller."""
    text = b"x" * size if content == "same" else noise(size)
    data = frame(text, DEFLATED)
    assert data[0] == 0xC1
    assert texts(data, DEFLATED) == [text]


@pytest.mark.parametrize("size", [125, 126, 65_535, 65_536, 65_537])
def test_a_deflated_frame_at_each_boundary_is_read_back(size: int) -> None:
    """The three length forms of the header count the bytes after compression."""
    text = deflated_to(size)
    data = frame(text, DEFLATED)
    assert data[1] == (size if size < 126 else 126 if size < 65_536 else 127)
    assert len(data) - payload_size(data) == (2 if size < 126 else 4 if size < 65_536 else 10)
    assert texts(data, DEFLATED) == [text]


@pytest.mark.parametrize("size", [0, 1, 125, 126, DEFLATE_FROM - 1])
def test_a_small_frame_is_not_deflated(size: int) -> None:
    """A small frame is sent uncompressed, which a client that negotiated compression accepts too."""
    text = b"x" * size
    data = frame(text, DEFLATED)
    assert data == frame(text)
    assert texts(data, DEFLATED) == [text]


def test_no_context_is_kept_between_frames() -> None:
    """Equal texts are encoded to equal bytes, and each frame is read without those before it."""
    text = noise(2_000)
    first, second = frame(text, DEFLATED), frame(text, DEFLATED)
    assert first == second
    assert texts(second, DEFLATED) == [text]
    assert texts(first + second, DEFLATED) == [text, text]


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_size_of_the_complete_message_decides_on_compression(spare: int) -> None:
    """The size of the complete message decides whether a batch is compressed."""
    around = len(events([sized(1, 100)], "e-1")) - 4 - 100
    records = [sized(1, DEFLATE_FROM + spare - around)]
    plain = events(records, "e-1")
    (text,) = texts(plain)
    assert len(text) == DEFLATE_FROM + spare
    data = events(records, "e-1", DEFLATED)
    assert (data == plain) is (spare < 0)
    assert texts(data, DEFLATED) == [text]


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.integers(60, 400), st.integers(20_000, 70_000)), min_size=1, max_size=8),
    st.sampled_from([None, 0, 7]),
)
def test_both_encodings_carry_the_same_json(sizes: list[int], conflated: int | None) -> None:
    """Plain and deflated frames of events and snapshots carry the same JSON, however they are split."""
    records = [sized(index + 1, size) for index, size in enumerate(sizes)]
    for plain, deflated in (
        [events(records, "e-99", encoding, conflated) for encoding in (PLAIN, DEFLATED)],
        [snapshot(records, encoding) for encoding in (PLAIN, DEFLATED)],
    ):
        assert texts(deflated, DEFLATED) == texts(plain)


def test_the_conflated_count_is_sent_once() -> None:
    """The conflated count is in the first part only, before any cursor passes the replaced events."""
    records = [sized(seq, 40_000) for seq in (3, 6, 9)]
    found = [relay_message.validate_json(text) for text in texts(events(records, "e-9", conflated=6))]
    assert [message.conflated for message in found if isinstance(message, Events)] == [6, 0, 0]
    (text,) = texts(events(records[:1], "e-3"))
    assert b"conflated" not in text


def test_log_lines_compress_well() -> None:
    """Compression makes a batch of log lines at least six times smaller."""
    lines = [record(seq, b'{"event_type":"system_log","level":"INFO","n":%d}' % seq) for seq in range(500)]
    assert len(events(lines, "e-500")) > 6 * len(events(lines, "e-500", DEFLATED))
