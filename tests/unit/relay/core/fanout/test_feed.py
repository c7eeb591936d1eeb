"""Batches for the live members of a feed."""

from itertools import pairwise

from tickertape.contracts.messages import Events, Gap
from tickertape.relay.core.fanout.feed import BATCH_BYTES
from tickertape.relay.core.filters import Filter
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import NOW, FakeLink, gaps, only, seqs
from tests.support.clients.feed_bench import Bench, cursors, member_of, read


def test_a_feed_without_pending_events_has_no_batch() -> None:
    """A feed without pending events has no batch to send."""
    assert Bench().take() is None


def test_live_members_get_all_pending_events_in_one_batch() -> None:
    """Live members get all pending events in one batch, whose cursor also covers filtered-out events."""
    bench = Bench(expected=Filter(("log.>",)))
    for seq, subject in ((1, "log.info.x"), (2, "gateway.status.ctp.a"), (3, "log.info.x")):
        bench.publish(seq, subject)
    bench.log.advance(9)
    batch = bench.take()
    assert batch is not None
    assert (seqs(read(batch)), cursors(read(batch)), batch.reached) == ([1, 3], ["e-9"], 9)
    assert bench.take() is None


def test_a_feed_without_live_members_discards_pending_events() -> None:
    """A feed without live members discards its pending events, since members behind read the log."""
    bench = Bench()
    bench.feed.leave(bench.member)
    bench.publish(1)
    assert bench.take() is None
    assert bench.feed.pending == []


def test_a_large_backlog_is_split_into_batches() -> None:
    """A large backlog is split into bounded batches that neither repeat nor skip events."""
    bench = Bench()
    for seq in range(1, 31):
        bench.publish(seq, size=100_000)
    batches = []
    while (batch := bench.take()) is not None:
        batches.append(batch)
    assert len(batches) == 3
    assert all(sum(len(r.encoded) for r in batch.records) <= BATCH_BYTES for batch in batches)
    assert [seq for batch in batches for seq in seqs(read(batch))] == list(range(1, 31))
    assert [batch.reached for batch in batches] == [batch.records[-1].seq for batch in batches]
    assert batches[-1].reached == 30


def test_the_position_is_the_head_unless_events_are_pending() -> None:
    """The position of a feed is the head of the log, or the last position sent while events are pending."""
    bench = Bench()
    assert bench.feed.position(5) == 5
    bench.publish(7)
    assert bench.feed.position(7) == 0
    bench.feed.pending.clear()
    bench.feed.writing, bench.feed.cursor = True, 6
    assert bench.feed.position(7) == 6


def test_the_gap_of_rate_limited_events_comes_first() -> None:
    """The gap of rate-limited events precedes any cursor beyond it and counts by the first two tokens."""
    bench = Bench(rate=4.0)
    for seq in range(1, 7):
        bench.publish(seq)
    bench.publish(7, "log.error.y")
    bench.publish(8, "gateway.status.ctp.a")
    messages = read(bench.take())
    assert [message.type for message in messages] == ["gap", "events"]
    # INFO keeps a quarter of 4 tokens in reserve: three events pass, and the error takes the last token.
    assert seqs(messages) == [1, 2, 3, 7, 8]
    assert gaps(messages) == [("e-0", "e-6", 3, "rate")]
    assert only(messages, Gap)[0].by == {"log.info": 3}
    assert cursors(messages) == ["e-8"]


def test_state_events_are_not_rate_limited() -> None:
    """State events are exempt from the rate limit."""
    bench = Bench(rate=0.1)
    for seq in range(1, 101):
        bench.publish(seq, "gateway.status.ctp.a")
    assert seqs(read(bench.take())) == list(range(1, 101))


def test_a_gap_without_events_is_held_and_merged() -> None:
    """A gap without events is held for up to 100 ms and merged with those that follow."""
    bench = Bench(rate=2.0)
    for seq in (1, 2, 3):
        bench.publish(seq)
    assert seqs(read(bench.take())) == [1]
    bench.publish(4, at=NOW)
    assert bench.take() is None
    bench.publish(5, at=NOW + 0.05)
    assert bench.take(NOW + 0.05) is None
    assert bench.feed.held_until == NOW + 0.1
    messages = read(bench.take(NOW + 0.1))
    assert gaps(messages) == [("e-3", "e-5", 2, "rate")]
    assert [message.type for message in messages] == ["gap"]


def test_a_held_gap_can_be_flushed_early() -> None:
    """A held gap can be flushed early, so that later messages do not overtake it."""
    bench = Bench(rate=2.0)
    for seq in (1, 2):
        bench.publish(seq)
    bench.take()
    bench.publish(3)
    assert gaps(read(bench.take(hold=False))) == [("e-2", "e-3", 1, "rate")]


def test_a_gap_without_events_ends_at_its_end() -> None:
    """A batch that holds only a gap ends where the gap ends, so the cursors of client and relay agree."""
    bench = Bench(rate=2.0)
    bench.publish(1)
    bench.take()
    bench.publish(2)
    bench.log.advance(9)
    batch = bench.take(NOW + 0.2)
    assert gaps(read(batch)) == [("e-1", "e-2", 1, "rate")]
    assert batch is not None
    assert batch.reached in (2, 9)


def test_the_rate_limit_spans_batches() -> None:
    """Rate limit tokens refill with time, across batches."""
    bench = Bench(rate=10.0)
    passed = 0
    for second in range(1, 11):
        for step in range(100):
            bench.publish(second * 100 + step, "log.error.x", at=NOW + second)
        batch = bench.take(NOW + second, hold=False)
        passed += len(seqs(read(batch)))
    assert passed == 10 + 9 * 10


def test_cursors_increase() -> None:
    """The cursors of successive batches increase for any mix of gaps and events."""
    bench = Bench(rate=5.0)
    reached: list[int] = []
    for seq in range(1, 200):
        bench.publish(seq, "gateway.status.ctp.a" if seq % 7 == 0 else "log.warn.x", at=NOW + seq / 50)
        if batch := bench.take(NOW + seq / 50):
            reached.append(batch.reached)
    assert all(one < other for one, other in pairwise(reached))


def test_writers_follow_the_membership() -> None:
    """A change of membership makes a new list of writers, so a list under iteration is never modified."""
    bench = Bench()
    before = bench.feed.writers()
    other = member_of(FakeLink())
    bench.feed.join(other)
    assert [len(senders) for senders in before.values()] == [1]
    assert [len(senders) for senders in bench.feed.writers().values()] == [2]
    assert bench.feed.leave(other)
    assert not bench.feed.leave(other)
    assert bench.feed.writers() == {PLAIN: [bench.member.send]}


def test_repr() -> None:
    """The repr of a feed names its filter, mode, members and pending events."""
    bench = Bench()
    bench.feed.members = 3
    bench.publish(1)
    assert repr(bench.feed) == "Feed(Filter(> >= DEBUG), live, 1 of 3 at the head, 1 pending)"


def test_latest_sends_the_newest_of_each_subject() -> None:
    """Mode latest sends the newest event of each subject in stream order and counts the replaced ones."""
    bench = Bench(mode="latest", interval_ms=1000)
    for seq, subject in enumerate(("log.info.x", "log.info.y", "log.info.x", "log.info.z", "log.info.y"), 1):
        bench.publish(seq, subject)
    batch = bench.take()
    messages = read(batch)
    assert seqs(messages) == [3, 4, 5]
    assert [message.conflated for message in only(messages, Events)] == [2]
    assert cursors(messages) == ["e-5"]


def test_latest_reports_zero_when_nothing_was_replaced() -> None:
    """Only frames of mode latest have a ``conflated`` count, and they have it even when it is zero."""
    latest, live = Bench(mode="latest", interval_ms=1000), Bench()
    for bench in (latest, live):
        bench.publish(1)
    assert [message.conflated for message in only(read(latest.take()), Events)] == [0]
    assert [message.conflated for message in only(read(live.take()), Events)] == [None]


def test_latest_waits_for_its_interval() -> None:
    """In mode latest the first batch is immediate; the next waits for the interval unless it is forced."""
    bench = Bench(mode="latest", interval_ms=250)
    bench.publish(1)
    assert seqs(read(bench.take(NOW))) == [1]
    bench.publish(2)
    assert bench.take(NOW + 0.1) is None
    assert bench.feed.held_until == NOW + 0.25
    bench.publish(3)
    assert bench.feed.position(bench.log.head) == 1, "the position does not pass the events that were sent"
    assert seqs(read(bench.take(NOW + 0.25))) == [3]
    bench.publish(4)
    assert bench.take(NOW + 0.3) is None
    assert seqs(read(bench.take(NOW + 0.3, hold=False))) == [4]


def test_pending_events_are_conflated_during_a_long_interval() -> None:
    """During a long interval pending events are bounded by the number of subjects, and all are counted."""
    bench = Bench(mode="latest", interval_ms=60_000, max_events=10**6)
    bench.publish(1)
    bench.take()
    peak = 0
    for seq in range(2, 5_002):
        bench.publish(seq, f"log.info.s{seq % 10}")
        assert bench.take(NOW + 1) is None
        peak = max(peak, len(bench.feed.pending))
    assert peak <= 256
    messages = read(bench.take(NOW + 60))
    assert seqs(messages) == list(range(4_992, 5_002))
    assert [message.conflated for message in only(messages, Events)] == [4_990]


def test_many_subjects_are_not_conflated_again_with_each_event() -> None:
    """The bound on pending events grows with the number of subjects, so conflation runs rarely."""
    bench = Bench(mode="latest", interval_ms=60_000, max_events=10**6)
    bench.publish(1)
    bench.take()
    for seq in range(2, 1_502):
        bench.publish(seq, f"log.info.s{seq % 500}")
        bench.take(NOW + 1)
        assert len(bench.feed.pending) <= 1_024
    messages = read(bench.take(NOW + 60))
    assert (len(seqs(messages)), only(messages, Events)[0].conflated) == (500, 1_000)


def test_clearing_a_feed_clears_its_conflated_count() -> None:
    """Clearing a feed also clears its count of replaced events."""
    bench = Bench(mode="latest", interval_ms=60_000)
    bench.publish(1)
    bench.take()
    for seq in range(2, 402):
        bench.publish(seq)
        bench.take(NOW + 1)
    bench.feed.clear()
    bench.publish(402)
    assert [message.conflated for message in only(read(bench.take(NOW + 60)), Events)] == [0]


def test_writers_are_grouped_by_encoding() -> None:
    """Writers are grouped by encoding, so each member gets frames that it can read."""
    bench = Bench()
    other = member_of(FakeLink(DEFLATED))
    bench.feed.join(other)
    assert bench.feed.writers() == {PLAIN: [bench.member.send], DEFLATED: [other.send]}
