"""Sharing of encoded batches between feeds with different filters."""

import pytest
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.relay.core.fanout.batch_writer import MAX_TRACE_CHECKS
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import Stage, nanoseconds, seqs
from tests.support.clients.feed_client import line


def test_equal_batches_of_different_filters_are_encoded_once() -> None:
    """Feeds with different filters share the encoded bytes of a batch when the same events match."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    for seq in (1, 2, 3):
        stage.log(seq)
    stage.flush()
    assert one.sent[-1] is two.sent[-1]
    assert seqs(one.read()) == seqs(two.read()) == [1, 2, 3]


def test_batches_that_differ_in_between_are_not_shared() -> None:
    """Batches that agree only in their first event and their length are not shared."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    stage.log(1)
    stage.status(2, "a")
    stage.status(3, "b")
    stage.log(4)
    stage.flush()
    assert (seqs(one.read()), seqs(two.read())) == ([1, 2, 4], [1, 3, 4])


def test_a_split_backlog_reaches_each_feed_completely() -> None:
    """A backlog that is split into several batches reaches each feed completely and in order."""
    stage = Stage()
    one, _ = stage.follow(Request(("gateway.status.ctp.a", "log.>")))
    two, _ = stage.follow(Request(("gateway.status.ctp.b", "log.>")))
    for seq in range(1, 9):
        stage.log(seq, size=200_000)
    stage.settle()
    assert seqs(one.read()) == seqs(two.read()) == list(range(1, 9))


def test_a_rate_limited_feed_does_not_share_unlimited_batches() -> None:
    """A rate-limited feed in mode live does not reuse the batch of an unlimited feed in mode complete."""
    stage = Stage(rate=2.0)
    complete, _ = stage.follow(Request(("log.>",), mode="complete"))
    limited, _ = stage.follow(Request(("log.>",)))
    for seq in range(1, 6):
        stage.log(seq, "error")
    stage.settle()
    assert seqs(complete.read()) == [1, 2, 3, 4, 5]
    assert seqs(limited.read()) == [1, 2]


def test_trace_checks_per_flush_are_bounded() -> None:
    """A flush checks a bounded number of events for trace context, however many feeds it serves."""
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


def test_feeds_that_begin_with_the_same_event_share_a_trace_check() -> None:
    """Feeds whose batches begin with the same event share one trace check, so each gets an exemplar."""
    stage = Stage()
    for number in range(MAX_TRACE_CHECKS + 5):
        stage.follow(Request(("log.info.shared", f"log.info.own{number}")))
    publish_traced(stage, 1, "shared")
    stage.log(2, "info", "own3")
    stage.flush()
    ((exemplar, _),) = stage.hub.stats.delay.exemplars.values()
    assert exemplar.record.seq == 1


def publish_traced(stage: Stage, seq: int, source: str) -> None:
    """Publish an event whose message has a traceparent."""
    event = line("traced", source=source)
    decoded = decode(event.subject, event.encode())
    assert isinstance(decoded, Event)
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    stage.hub.publish(seq, event.subject, decoded, nanoseconds(stage.now), stage.now, parent)
