"""Cursors carry the timestamp of their message, so cursors of events that the stream lost are recognized."""

import orjson
import pytest
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, FakeLink, Stage, log_event, nanoseconds, texts

NOW_NS = nanoseconds(NOW)


def cursors(link: FakeLink) -> list[Cursor]:
    """Return every cursor that a client received, in order."""
    messages = [orjson.loads(text) for data in link.sent for text in texts(data)]
    return [parse_cursor(message["cursor"]) for message in messages if "cursor" in message]


def test_events_and_heartbeats_carry_the_timestamp() -> None:
    """The cursors of events and heartbeats carry the stream's timestamp of the message, in nanoseconds."""
    stage = Stage()
    link, _ = stage.open()
    stage.now += 0.25
    stage.log(1)
    stage.settle()
    stage.tick(after=60)
    received = cursors(link)
    at = nanoseconds(NOW + 0.25)
    assert received == [Cursor("e", 0), Cursor("e", 1, at), Cursor("e", 1, at)]


def test_each_frame_carries_the_timestamp_of_its_last_event() -> None:
    """Each frame of a large batch carries the timestamp of its own last event."""
    stage = Stage()
    link, _ = stage.open()
    for seq in range(1, 5):
        stage.now += 1
        stage.log(seq, size=40_000)
    stage.settle()
    assert cursors(link)[1:] == [Cursor("e", seq, nanoseconds(NOW + seq)) for seq in range(1, 5)]


def test_a_position_without_a_message_has_no_timestamp() -> None:
    """A position without a message, such as the end of a missing range, has a cursor without a timestamp."""
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
def test_a_timestamp_that_differs_from_the_log_is_a_reset(stored_ns: int | None, resumed: bool) -> None:
    """A cursor whose timestamp differs from the log's is reset, since its message has been replaced."""
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


def test_a_cursor_older_than_the_log_is_checked_against_the_stream() -> None:
    """A cursor older than the log is checked against the stream."""
    stage = Stage(stream=True, log_events=2)
    for seq in range(1, 6):
        stage.log(seq)
    requested = Cursor("e", 1, 99)
    link, session = stage.open(Request(cursor=requested))
    assert stage.requested == [session]
    assert link.kinds() == ["welcome"]
    stage.hub.sessions.start_located(session, session.request, 1, stage.now)
    assert cursors(link)[-1] == requested, "the client gets back its own cursor and timestamp"
    assert link.kinds() == ["subscribed"]


def test_without_a_stream_an_old_cursor_is_accepted() -> None:
    """Without access to the stream, a cursor older than the log is accepted as it is."""
    stage = Stage(log_events=2)
    for seq in range(1, 6):
        stage.log(seq)
    link, _ = stage.open(Request(cursor=Cursor("e", 1, 99)))
    assert "subscribed" in link.kinds()


def test_a_reset_gives_a_cursor_with_its_timestamp() -> None:
    """A reset gives the client a cursor with a timestamp, so that its next resume can be checked too."""
    stage = Stage()
    stage.log(1)
    link, _ = stage.open()
    stage.hub.begin("e", 7, 1234)
    gap = orjson.loads(texts(link.sent[-1])[-1])
    assert (gap["reason"], gap["to"]) == ("reset", "e-7-1234")
    false, _ = stage.open(Request(cursor=Cursor("e", 7, 4321)))
    assert cursors(false) == [Cursor("e", 7, 1234)]


def test_replayed_events_have_timestamps() -> None:
    """Events replayed from the stream have cursors with the timestamps of their messages."""
    stage = Stage(stream=True, log_events=2)
    for seq in range(1, 11):
        stage.now = NOW + seq
        stage.log(seq)
    link, _ = stage.open(Request(cursor=Cursor("e", 0), mode="complete"))
    stage.settle()
    while stage.read():
        stage.settle()
    received = cursors(link)[1:]
    assert received
    assert all(cursor.stored_ns == nanoseconds(NOW + cursor.sequence) for cursor in received)
    assert received[-1].sequence == 10


def test_a_warm_start_reports_missing_ranges() -> None:
    """Missing ranges found by a warm start are reported as gaps between the events around them."""
    stage = Stage(head=10)
    tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW) + seq) for seq in (3, 4, 7, 8)]
    stage.warm(tail, 2, [(5, 6), (9, 10)])
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
    assert [str(item).replace(times[0], "").replace(times[1], "") for item in found] == [
        "3", "4", "('e-4', 'e-6', 'retention', None)", "7", "8", "('e-8', 'e-10', 'retention', None)",
    ]  # fmt: skip


def test_each_restart_of_the_hub_has_its_own_generation() -> None:
    """The hub's generation changes with each restart, even in the same epoch, to recognize stale reads."""
    stage = Stage()
    generation = stage.hub.generation
    stage.hub.begin("e", 3, 5)
    assert stage.hub.generation == generation + 1
