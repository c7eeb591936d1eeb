"""Messages as bytes, read back by websockets' own parser."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import MAX_EVENT_BYTES
from contracts.subjects import MAX_SUBJECT_LENGTH
from contracts.wire import MAX_MESSAGE_BYTES, Events, Snapshot, relay_message
from relay.core import frames
from relay.core.filters import Route
from relay.core.log import Record
from tests.fake_link import texts

ROUTE = Route("log.info.x")


def record(seq: int, payload: bytes = b'{"n":1}', route: Route = ROUTE) -> Record:
    """A record as the hub makes it."""
    return Record(seq, route, frames.item(route, seq, payload), False, False, 0.0, 0.0, 0.0)


def sized(seq: int, size: int) -> Record:
    """A record whose item has exactly so many bytes."""
    empty = len(frames.item(ROUTE, seq, b'{"m":""}'))
    return record(seq, b'{"m":"' + b"x" * (size - empty) + b'"}')


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MAX_MESSAGE_BYTES])
def test_every_length_is_read_back(size: int) -> None:
    """One frame at each boundary of the three length forms."""
    text = b"x" * size
    assert texts(frames.frame(text)) == [text]


@pytest.mark.parametrize(
    ("size", "header"),
    [
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_the_length_takes_the_shortest_form(size: int, header: bytes) -> None:
    """RFC 6455, 5.2: the minimal number of bytes must be used."""
    assert frames.frame(b"x" * size)[: len(header)] == header


def test_a_message_is_its_json() -> None:
    """The type comes first, then the fields."""
    assert texts(frames.message("pong", id="é")) == ['{"type":"pong","id":"é"}'.encode()]


def test_an_item_carries_the_payload_byte_for_byte() -> None:
    """Spaces, escapes and numbers of any length travel as they came."""
    payload = b'{ "n" : 1.50e+400, "s":"\\u00e9\\/" }'
    assert frames.item(ROUTE, 7, payload) == b'{"subject":"log.info.x","seq":7,"event":' + payload + b"}"


def test_one_batch_is_one_frame() -> None:
    """The events in order, and the place after them, which may lie beyond the last."""
    (text,) = texts(frames.events([record(3), record(5)], "e-9"))
    assert orjson.loads(text) == {
        "type": "events",
        "events": [
            {"subject": "log.info.x", "seq": 3, "event": {"n": 1}},
            {"subject": "log.info.x", "seq": 5, "event": {"n": 1}},
        ],
        "cursor": "e-9",
    }


def test_a_large_batch_is_split_and_each_part_has_its_own_place() -> None:
    """A client that leaves between two parts comes back to the right one."""
    records = [sized(seq, 30_000) for seq in (2, 4, 6, 8, 10)]
    found = [relay_message.validate_json(text) for text in texts(frames.events(records, "e-99"))]
    assert all(isinstance(message, Events) for message in found)
    parts = [message for message in found if isinstance(message, Events)]
    assert [[item.seq for item in part.events] for part in parts] == [[2, 4], [6, 8], [10]]
    assert [part.cursor for part in parts] == ["e-4", "e-8", "e-99"]


def test_an_event_larger_than_a_batch_goes_alone() -> None:
    """Its neighbours are not held up in the same frame."""
    records = [record(1), sized(2, frames.BATCH_BYTES + 1), record(3)]
    parts = [orjson.loads(text) for text in texts(frames.events(records, "e-3"))]
    assert [[item["seq"] for item in part["events"]] for part in parts] == [[1], [2], [3]]


def test_the_largest_event_fits_into_a_message() -> None:
    """An event at the contract's limit on the longest subject, alone and among others."""
    route = Route("log." + "a" * (MAX_SUBJECT_LENGTH - 4))
    payload = b'{"m":"' + b"x" * (MAX_EVENT_BYTES - 8) + b'"}'
    large = record(2**63, payload, route)
    for records in ([large], [large] * 3):
        found = texts(frames.events(records, f"{'z' * 16}-{2**64 - 1}"))
        assert [len(text) <= MAX_MESSAGE_BYTES for text in found] == [True] * len(records)
        assert all(orjson.loads(text) for text in found)


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_a_batch_at_the_limit_is_whole(spare: int) -> None:
    """Around the size at which a batch is split, nothing is lost and nothing is broken."""
    half = frames.BATCH_BYTES // 2
    records = [sized(1, half), sized(2, half - 2 - spare)]
    found = [orjson.loads(text) for text in texts(frames.events(records, "e-2"))]
    assert [item["seq"] for part in found for item in part["events"]] == [1, 2]
    assert found[-1]["cursor"] == "e-2"


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.integers(60, 400), st.integers(20_000, 70_000)), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_any_sizes_are_read_back(sizes: list[int], beyond: int) -> None:
    """All events come once and in order, places rise to the last one, frames stay small."""
    records = [sized(index + 1, size) for index, size in enumerate(sizes)]
    end = len(sizes) + beyond
    found = texts(frames.events(records, f"e-{end}"))
    parts = [orjson.loads(text) for text in found]
    assert [item for part in parts for item in part["events"]] == [orjson.loads(r.item) for r in records]
    for text, part in zip(found, parts, strict=True):
        assert len(text) <= frames.BATCH_BYTES + 100 or len(part["events"]) == 1
        assert part["cursor"] == f"e-{end if part is parts[-1] else part['events'][-1]['seq']}"


def test_an_empty_snapshot_is_told() -> None:
    """A client must learn that there is no state, too."""
    assert texts(frames.snapshot([])) == [b'{"type":"snapshot","events":[],"done":true}']


@pytest.mark.parametrize(
    ("sizes", "done"), [([100], [True]), ([100, 200], [True]), ([40_000] * 3, [False, False, True])]
)
def test_only_the_last_part_of_a_snapshot_is_done(sizes: list[int], done: list[bool]) -> None:
    """All states come, in order."""
    records = [sized(index + 1, size) for index, size in enumerate(sizes)]
    found = [relay_message.validate_json(text) for text in texts(frames.snapshot(records))]
    parts = [message for message in found if isinstance(message, Snapshot)]
    assert [part.done for part in parts] == done
    assert [item.seq for part in parts for item in part.events] == list(range(1, len(sizes) + 1))
