"""Messages as JSON lines."""

import json

import pytest
from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, encode_event, encode_event_prefix
from tickertape.contracts.lines import encode_lines, one_line
from tickertape.contracts.messages import Heartbeat


def event(seq: int, payload: bytes = b'{"event_type":"x"}') -> bytes:
    """Return an encoded event."""
    return encode_event(encode_event_prefix("log.info.x"), seq, payload)


def lines(data: bytes) -> list[dict[str, object]]:
    """Parse lines, each of which has to end."""
    assert data.endswith(b"\n")
    return [json.loads(line) for line in data[:-1].split(b"\n")]


def test_events_precede_their_cursor() -> None:
    """Each event is a line without a type, and the cursor follows the last."""
    found = lines(encode_lines(EncodedEvents([event(1), event(2)], "a-2")))
    assert [item.get("seq") for item in found] == [1, 2, None]
    assert [item.get("type") for item in found] == [None, None, "cursor"]
    assert found[-1] == {"type": "cursor", "cursor": "a-2"}
    assert lines(encode_lines(EncodedEvents([event(1)], "a-1", 3)))[-1]["conflated"] == 3


def test_states_of_a_snapshot_are_marked() -> None:
    """A state is not an event of the stream after the start; the end says what is missing."""
    found = lines(encode_lines(EncodedSnapshot([event(1), event(2)], False)))
    assert [item.get("snapshot") for item in found] == [True, True, None]
    assert found[-1] == {"type": "snapshot", "done": False}
    [end] = lines(encode_lines(EncodedSnapshot([], True, {"gateway.status": 2})))
    assert end == {
        "type": "snapshot", "done": True, "truncated": 2, "truncated_by": {"gateway.status": 2},
    }  # fmt: skip


def test_other_messages_are_lines_of_their_own() -> None:
    """A message without events is its JSON."""
    message = Heartbeat(type="heartbeat", cursor="a-1", time="2026-01-01T00:00:00Z")
    assert lines(encode_lines(message)) == [message.model_dump()]


@pytest.mark.parametrize("text", [b'{"a":\r\n1}', b'{\r"a":1\n}', b'{"a":1}'])
def test_line_breaks_become_spaces(text: bytes) -> None:
    """A line break between tokens would end the line; within a string it is escaped."""
    assert b"\n" not in one_line(text)
    assert b"\r" not in one_line(text)
    assert json.loads(one_line(text)) == {"a": 1}
    payload = b'{"event_type":"x",\n"text":"a\\nb"}'
    [first, _] = lines(encode_lines(EncodedEvents([event(1, payload)], "a-1")))
    assert first["event"] == {"event_type": "x", "text": "a\nb"}
