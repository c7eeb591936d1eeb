"""Cursors carry the time of their message, so that one of a part that the stream lost is told from others."""

import orjson
import pytest
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, FakeLink, Stage, log_event, nanoseconds, texts

NOW_NS = nanoseconds(NOW)


def cursors(link: FakeLink) -> list[Cursor]:
    """Every cursor that a client was told, in the order in which they came."""
    messages = [orjson.loads(text) for data in link.sent for text in texts(data)]
    return [parse_cursor(message["cursor"]) for message in messages if "cursor" in message]


def test_events_and_heartbeats_name_the_time() -> None:
    """The stream's own, to the nanosecond, of the message at the position."""
    stage = Stage()
    link, _ = stage.open()
    stage.now += 0.25
    stage.log(1)
    stage.settle()
    stage.tick(after=60)
    told = cursors(link)
    at = nanoseconds(NOW + 0.25)
    assert told == [Cursor("e", 0), Cursor("e", 1, at), Cursor("e", 1, at)]


def test_each_frame_of_a_large_batch_names_the_time_of_its_last_event() -> None:
    """A client may leave between any two of them."""
    stage = Stage()
    link, _ = stage.open()
    for seq in range(1, 5):
        stage.now += 1
        stage.log(seq, size=40_000)
    stage.settle()
    assert cursors(link)[1:] == [Cursor("e", seq, nanoseconds(NOW + seq)) for seq in range(1, 5)]


def test_a_position_without_a_message_has_none() -> None:
    """Where the stream let events go, and before the first."""
    stage = Stage()
    stage.hub.fanout.publish_missing(5, NOW)
    assert stage.hub.cursor() == "e-5"
    stage.hub.reject(6, "bad_json", 17)
    assert stage.hub.cursor() == "e-6-17"
    stage.hub.log.advance(7)
    assert stage.hub.cursor() == "e-7"


@pytest.mark.parametrize(
    ("stored_ns", "resumed"),
    [(NOW_NS + 2, True), (NOW_NS + 3, False), (NOW_NS + 1, False), (None, True)],
)  # fmt: skip
def test_another_time_than_the_logs_is_a_reset(stored_ns: int | None, resumed: bool) -> None:
    """The sequence was given to another message; what followed the lost one cannot be known."""
    stage = Stage()
    for seq in range(1, 4):
        stage.hub.publish(seq, "log.info.x", log_event(), NOW_NS + seq, NOW)
    link, _ = stage.open(Request(cursor=Cursor("e", 2, stored_ns)))
    stage.settle()
    kinds = link.kinds()
    if resumed:
        assert kinds == ["welcome", "subscribed", "events"]
    else:
        assert kinds == ["welcome", "subscribed", "gap", "snapshot"]


def test_before_the_memory_the_stream_is_asked() -> None:
    """It alone knows which message it has there."""
    stage = Stage(stream=True, log_events=2)
    for seq in range(1, 6):
        stage.log(seq)
    asked = Cursor("e", 1, 99)
    link, session = stage.open(Request(cursor=asked))
    assert stage.asked == [session]
    assert link.kinds() == ["welcome"]
    stage.hub.sessions.start_located(session, session.request, 1, stage.now)
    assert cursors(link)[-1] == asked, "its own, with the time that the relay does not know"
    assert link.kinds() == ["subscribed"]


def test_without_a_stream_to_ask_what_is_not_known_is_believed() -> None:
    """Nothing disproves it."""
    stage = Stage(log_events=2)
    for seq in range(1, 6):
        stage.log(seq)
    link, _ = stage.open(Request(cursor=Cursor("e", 1, 99)))
    assert "subscribed" in link.kinds()


def test_a_reset_gives_a_cursor_of_the_new_end_with_its_time() -> None:
    """So that the next comeback can be checked, too; the client's own false one is not given back."""
    stage = Stage()
    stage.log(1)
    link, _ = stage.open()
    stage.hub.begin("e", 7, 1234)
    gap = orjson.loads(texts(link.sent[-1])[-1])
    assert (gap["reason"], gap["to"]) == ("reset", "e-7-1234")
    false, _ = stage.open(Request(cursor=Cursor("e", 7, 4321)))
    assert cursors(false) == [Cursor("e", 7, 1234)]


def test_the_past_that_was_read_again_has_times() -> None:
    """Of a member that catches up from a stretch of the stream, each cursor has the time of its event."""
    stage = Stage(stream=True, log_events=2)
    for seq in range(1, 11):
        stage.now = NOW + seq
        stage.log(seq)
    link, _ = stage.open(Request(cursor=Cursor("e", 0), mode="complete"))
    stage.settle()
    while stage.read():
        stage.settle()
    told = cursors(link)[1:]
    assert told
    assert all(one.stored_ns == nanoseconds(NOW + one.sequence) for one in told)
    assert told[-1].sequence == 10


def test_a_warm_memory_has_its_holes() -> None:
    """What the stream deleted before the relay came is told where it is missing."""
    stage = Stage(head=10)
    tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW) + seq) for seq in (3, 4, 7, 8)]
    stage.hub.warm(tail, 2, [(5, 6), (9, 10)])
    link, _ = stage.follow(Request(cursor=Cursor("e", 2), mode="complete"))
    stage.settle()
    found: list[object] = []
    for data in link.sent:
        for text in texts(data):
            message = orjson.loads(text)
            if message["type"] == "gap":
                found.append((message["from"], message["to"], message["reason"], message["dropped"]))
            elif message["type"] == "events":
                found += [item["seq"] for item in message["events"]]
    times = [f"-{nanoseconds(NOW) + seq}" for seq in (4, 8)]
    assert [str(one).replace(times[0], "").replace(times[1], "") for one in found] == [
        "3", "4", "('e-4', 'e-6', 'retention', None)", "7", "8", "('e-8', 'e-10', 'retention', None)",
    ]  # fmt: skip


def test_what_was_read_before_a_failure_is_told_from_what_is_read_after() -> None:
    """The epoch stays; readers look at how often the hub began."""
    stage = Stage()
    generation = stage.hub.generation
    stage.hub.begin("e", 3, 5)
    assert stage.hub.generation == generation + 1
