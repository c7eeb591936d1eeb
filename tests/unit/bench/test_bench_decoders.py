"""Decoding of events in received messages, and validity of the published events."""

import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event

from tests.bench.load.decoders import NATS_PONG, DecodeError, NatsDecoder, TextDecoder
from tests.bench.load.publisher import SUBJECT, Events, message


def _item(sent: int) -> dict[str, object]:
    return {"subject": SUBJECT, "seq": sent, "event": {"metadata": {"sent": sent}}}


def test_batch_of_the_relay_is_read() -> None:
    """Each event of an ``events`` message yields its send time."""
    body = {"type": "events", "events": [_item(5), _item(6)], "cursor": "a-6"}
    assert TextDecoder().sent_times(orjson.dumps(body)) == [5, 6]


def test_bare_event_is_read() -> None:
    """A frame that is an event itself yields its send time."""
    assert TextDecoder().sent_times(Events(300).make(1, 77)) == [77]


def test_gap_is_counted() -> None:
    """Dropped events in a gap are counted; an unknown number counts as none."""
    decoder = TextDecoder()
    assert decoder.sent_times(b'{"type":"gap","dropped":12}') == []
    assert decoder.sent_times(b'{"type":"gap","dropped":null}') == []
    assert decoder.lost == 12


@pytest.mark.parametrize("kind", ["welcome", "subscribed", "heartbeat", "upstream", "snapshot"])
def test_other_messages_hold_no_events(kind: str) -> None:
    """Messages other than live events yield nothing."""
    assert TextDecoder().sent_times(orjson.dumps({"type": kind, "events": []})) == []


def test_refusal_is_shown() -> None:
    """The error contains the relay's rejection."""
    with pytest.raises(DecodeError, match="too many"):
        TextDecoder().sent_times(b'{"type":"bye","code":4429,"reason":"too many connections"}')


@given(st.lists(st.integers(min_value=1, max_value=50), max_size=40))
def test_nats_stream_is_read_in_any_pieces(steps: list[int]) -> None:
    """Messages are found wherever the server cuts its frames, and a ping is answered."""
    data = b'INFO {"server_id":"x"}\r\n'
    for sent in range(3):
        payload = Events(300).make(sent, sent)
        data += b"MSG %b 1 %d\r\n%b\r\n" % (SUBJECT.encode(), len(payload), payload)
        data += b"PING\r\n" if sent == 1 else b""
    decoder = NatsDecoder()
    times = []
    for step in steps:
        times += decoder.sent_times(data[:step])
        data = data[step:]
    times += decoder.sent_times(data)
    assert times == [0, 1, 2]
    assert decoder.reply == NATS_PONG


def test_error_of_nats_is_shown() -> None:
    """The error contains nats-server's rejection."""
    with pytest.raises(DecodeError, match="Authorization"):
        NatsDecoder().sent_times(b"-ERR 'Authorization Violation'\r\n")


@pytest.mark.parametrize("size", [250, 300, 4_000])
def test_published_event_is_valid_and_of_its_size(size: int) -> None:
    """Published events satisfy the contract and have exactly the requested size."""
    payload = Events(size).make(123_456, 10**15)
    assert len(payload) == size
    assert isinstance(decode(SUBJECT, payload), Event)


def test_published_state_is_valid_and_comes_to_each_gateway() -> None:
    """With gateways one event in ten is the state of the next gateway, and all events match their
    subjects.
    """
    events = Events(300, "ERROR", gateways=3)
    made = [(events.subject(number).decode(), events.make(number, 10**15)) for number in range(60)]
    assert all(isinstance(decode(subject, payload), Event) for subject, payload in made)
    states = [subject for subject, _ in made if subject != "log.error.bench"]
    assert states == [f"gateway.status.bench.g{number % 3}" for number in range(6)]


def test_published_text_is_neither_noise_nor_padding() -> None:
    """A batch of events compresses as well as logs do, and no better."""
    events = Events(300)
    batch = b",".join(events.make(number, 10**15 + number * 1_000_317) for number in range(50))
    assert 4 < len(batch) / len(zlib.compress(batch)) < 12
    assert len({events.make(number, 1)[-100:] for number in range(200)}) > 190


def test_message_counts_its_bytes() -> None:
    """The sizes in the protocol text are those of the headers and of the complete message."""
    assert message(b"{}") == b"PUB log.info.bench 2\r\n{}\r\n"
    assert message(b"{}", reply=True) == b"PUB log.info.bench _bench.ack 2\r\n{}\r\n"
    line, _, rest = message(b"{}", msg_id="1-2").partition(b"\r\n")
    head = int(line.split()[-2])
    assert int(line.split()[-1]) == len(rest) - 2
    assert rest[:head] == b"NATS/1.0\r\nNats-Msg-Id: 1-2\r\n\r\n"
