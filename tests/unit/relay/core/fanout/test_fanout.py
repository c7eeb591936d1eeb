"""Feeds with different filters that want the same events share what is encoded, and only then."""

import pytest
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.fanout.fanout import MAX_TRACE_CHECKS
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import Stage, nanoseconds, seqs
from tests.support.clients.feed_client import line


def test_what_different_filters_want_alike_is_encoded_once() -> None:
    """Two clients with filters of their own get the very same bytes while the same events match."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    for seq in (1, 2, 3):
        stage.log(seq)
    stage.flush()
    assert one.sent[-1] is two.sent[-1]
    assert seqs(one.read()) == seqs(two.read()) == [1, 2, 3]


def test_what_differs_in_between_is_not_shared() -> None:
    """Same first event and same number of events, yet each client gets its own."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    stage.log(1)
    stage.status(2, "a")
    stage.status(3, "b")
    stage.log(4)
    stage.flush()
    assert (seqs(one.read()), seqs(two.read())) == ([1, 2, 4], [1, 3, 4])


def test_a_part_of_a_batch_is_not_taken_for_the_whole() -> None:
    """A batch too large for one unit is told in parts to each feed, in order, whoever was first."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    for seq in range(1, 9):
        stage.log(seq, size=200_000)
    stage.settle()
    assert seqs(one.read()) == seqs(two.read()) == list(range(1, 9))


def test_a_limited_feed_counts_for_itself() -> None:
    """What an unlimited feed of mode complete got is not what the rate lets pass in mode live."""
    stage = Stage(rate=2.0)
    whole, _ = stage.follow(Request(("log.>",), mode="complete"))
    limited, _ = stage.follow(Request(("log.>",)))
    for seq in range(1, 6):
        stage.log(seq, "error")
    stage.settle()
    assert seqs(whole.read()) == [1, 2, 3, 4, 5]
    assert seqs(limited.read()) == [1, 2]


def test_few_events_of_a_flush_are_looked_at_for_their_trace() -> None:
    """However many feeds there are; those that begin with the same event share the look."""
    stage = Stage()
    feeds = MAX_TRACE_CHECKS + 5
    for number in range(feeds):
        stage.follow(Request((f"log.info.own{number}",)))
    for number in range(feeds):
        publish_traced(stage, number + 1, f"own{number}")
    stage.flush(1.0)
    exemplars = stage.hub.stats.delay.exemplars
    assert sum(stage.hub.stats.delay.counts) == feeds
    ((exemplar, seconds),) = exemplars.values()
    assert (exemplar.record.seq, exemplar.at) == (MAX_TRACE_CHECKS, stage.now)
    assert seconds == pytest.approx(1.0)
    publish_traced(stage, 50, "own0")
    stage.flush(1.0)
    ((exemplar, _),) = exemplars.values()
    assert exemplar.record.seq == 50


def test_feeds_that_begin_with_the_same_event_share_a_look() -> None:
    """More feeds than looks, and yet the last one's delivery has its exemplar."""
    stage = Stage()
    for number in range(MAX_TRACE_CHECKS + 5):
        stage.follow(Request(("log.info.shared", f"log.info.own{number}")))
    publish_traced(stage, 1, "shared")
    stage.log(2, "info", "own3")
    stage.flush()
    ((exemplar, _),) = stage.hub.stats.delay.exemplars.values()
    assert exemplar.record.seq == 1


def publish_traced(stage: Stage, seq: int, source: str) -> None:
    """An event whose message has a traceparent."""
    event = line("traced", source=source)
    found = decode(event.subject, event.encode())
    assert isinstance(found, Event)
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    stage.hub.publish(seq, event.subject, found, nanoseconds(stage.now), stage.now, parent)
