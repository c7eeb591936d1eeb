"""What the live members of a feed get now."""

from itertools import pairwise

from tickertape.contracts.messages import Events, Gap
from tickertape.relay.core.fanout.feed import BATCH_BYTES
from tickertape.relay.core.filters import Filter
from tickertape.relay.transport.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import NOW, FakeLink, gaps, only, seqs
from tests.support.clients.feed_bench import Bench, cursors, member_of, read


def test_nothing_pending_is_nothing_to_send() -> None:
    """A quiet feed writes nothing."""
    assert Bench().take() is None


def test_the_head_gets_all_that_is_pending_in_one_batch() -> None:
    """With the place that the log has reached, over what others get."""
    bench = Bench(wanted=Filter(("log.>",)))
    for seq, subject in ((1, "log.info.x"), (2, "gateway.status.ctp.a"), (3, "log.info.x")):
        bench.publish(seq, subject)
    bench.log.advance(9)
    batch = bench.take()
    assert batch is not None
    assert (seqs(read(batch)), cursors(read(batch)), batch.reached) == ([1, 3], ["e-9"], 9)
    assert bench.take() is None


def test_a_feed_without_a_head_lets_go() -> None:
    """Members behind read the log; what is pending would be held for nobody."""
    bench = Bench()
    bench.feed.leave(bench.member)
    bench.publish(1)
    assert bench.take() is None
    assert bench.feed.pending == []


def test_a_large_backlog_goes_in_several_batches() -> None:
    """Each is bounded, none repeats or skips, and each ends at a place of its own."""
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


def test_a_place_is_the_head_unless_something_is_pending() -> None:
    """Then it is where the head stood before."""
    bench = Bench()
    assert bench.feed.position(5) == 5
    bench.publish(7)
    assert bench.feed.position(7) == 0
    bench.feed.pending.clear()
    bench.feed.writing, bench.feed.cursor = True, 6
    assert bench.feed.position(7) == 6


def test_what_the_rate_does_not_let_pass_is_told_first() -> None:
    """The gap comes before any cursor beyond it, and counts by the first two tokens."""
    bench = Bench(rate=4.0)
    for seq in range(1, 7):
        bench.publish(seq)
    bench.publish(7, "log.error.y")
    bench.publish(8, "gateway.status.ctp.a")
    messages = read(bench.take())
    assert [message.type for message in messages] == ["gap", "events"]
    # INFO leaves a quarter of 4: three pass, the last token is for the error.
    assert seqs(messages) == [1, 2, 3, 7, 8]
    assert gaps(messages) == [("e-0", "e-6", 3, "rate")]
    assert only(messages, Gap)[0].by == {"log.info": 3}
    assert cursors(messages) == ["e-8"]


def test_state_costs_nothing_and_is_never_held_back() -> None:
    """However small the rate, however many."""
    bench = Bench(rate=0.1)
    for seq in range(1, 101):
        bench.publish(seq, "gateway.status.ctp.a")
    assert seqs(read(bench.take())) == list(range(1, 101))


def test_a_gap_alone_waits_to_be_merged() -> None:
    """It is put off for 100 ms at most, then one gap tells of all."""
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


def test_a_held_gap_can_be_forced() -> None:
    """What comes next in the stream may not overtake it."""
    bench = Bench(rate=2.0)
    for seq in (1, 2):
        bench.publish(seq)
    bench.take()
    bench.publish(3)
    assert gaps(read(bench.take(hold=False))) == [("e-2", "e-3", 1, "rate")]


def test_a_gap_alone_reaches_no_further_than_its_end() -> None:
    """The place after it is what the client was told, so that its cursor and the relay's agree."""
    bench = Bench(rate=2.0)
    bench.publish(1)
    bench.take()
    bench.publish(2)
    bench.log.advance(9)
    batch = bench.take(NOW + 0.2)
    assert gaps(read(batch)) == [("e-1", "e-2", 1, "rate")]
    assert batch is not None
    assert batch.reached in (2, 9)


def test_the_rate_counts_over_batches() -> None:
    """Time brings tokens back."""
    bench = Bench(rate=10.0)
    passed = 0
    for second in range(1, 11):
        for step in range(100):
            bench.publish(second * 100 + step, "log.error.x", at=NOW + second)
        batch = bench.take(NOW + second, hold=False)
        passed += len(seqs(read(batch)))
    assert passed == 10 + 9 * 10


def test_places_rise() -> None:
    """Whatever mix of gaps and events comes, no cursor of a batch goes back."""
    bench = Bench(rate=5.0)
    told: list[int] = []
    for seq in range(1, 200):
        bench.publish(seq, "gateway.status.ctp.a" if seq % 7 == 0 else "log.warn.x", at=NOW + seq / 50)
        if batch := bench.take(NOW + seq / 50):
            told.append(batch.reached)
    assert all(one < other for one, other in pairwise(told))


def test_writers_change_with_the_members() -> None:
    """A list that is being iterated stays as it is."""
    bench = Bench()
    before = bench.feed.writers()
    other = member_of(FakeLink())
    bench.feed.join(other)
    assert [len(senders) for senders in before.values()] == [1]
    assert [len(senders) for senders in bench.feed.writers().values()] == [2]
    assert bench.feed.leave(other)
    assert not bench.feed.leave(other)
    assert bench.feed.writers() == {PLAIN: [bench.member.send]}


def test_a_feed_says_what_it_is() -> None:
    """The text tells who is there and what is pending."""
    bench = Bench()
    bench.feed.members = 3
    bench.publish(1)
    assert repr(bench.feed) == "Feed(Filter(> >= DEBUG), live, 1 of 3 at the head, 1 pending)"


def test_latest_sends_the_newest_of_each_subject() -> None:
    """In stream order, with the count of those that were replaced."""
    bench = Bench(mode="latest", interval_ms=1000)
    for seq, subject in enumerate(("log.info.x", "log.info.y", "log.info.x", "log.info.z", "log.info.y"), 1):
        bench.publish(seq, subject)
    batch = bench.take()
    messages = read(batch)
    assert seqs(messages) == [3, 4, 5]
    assert [message.conflated for message in only(messages, Events)] == [2]
    assert cursors(messages) == ["e-5"]


def test_latest_tells_zero_when_nothing_was_replaced() -> None:
    """The field is there in each frame of this mode, and in no other."""
    latest, live = Bench(mode="latest", interval_ms=1000), Bench()
    for bench in (latest, live):
        bench.publish(1)
    assert [message.conflated for message in only(read(latest.take()), Events)] == [0]
    assert [message.conflated for message in only(read(live.take()), Events)] == [None]


def test_latest_waits_for_its_interval() -> None:
    """The first batch goes at once, the next when the interval is over, or when it is forced."""
    bench = Bench(mode="latest", interval_ms=250)
    bench.publish(1)
    assert seqs(read(bench.take(NOW))) == [1]
    bench.publish(2)
    assert bench.take(NOW + 0.1) is None
    assert bench.feed.held_until == NOW + 0.25
    bench.publish(3)
    assert bench.feed.position(bench.log.head) == 1, "nothing is promised beyond what was sent"
    assert seqs(read(bench.take(NOW + 0.25))) == [3]
    bench.publish(4)
    assert bench.take(NOW + 0.3) is None
    assert seqs(read(bench.take(NOW + 0.3, hold=False))) == [4]


def test_a_long_interval_is_conflated_while_it_lasts() -> None:
    """What is pending is bounded by the subjects that there are, and every event is counted."""
    bench = Bench(mode="latest", interval_ms=60_000, max_events=10**6)
    bench.publish(1)
    bench.take()
    most = 0
    for seq in range(2, 5_002):
        bench.publish(seq, f"log.info.s{seq % 10}")
        assert bench.take(NOW + 1) is None
        most = max(most, len(bench.feed.pending))
    assert most <= 256
    messages = read(bench.take(NOW + 60))
    assert seqs(messages) == list(range(4_992, 5_002))
    assert [message.conflated for message in only(messages, Events)] == [4_990]


def test_many_subjects_are_not_conflated_again_with_each_event() -> None:
    """The bound grows with what cannot be replaced."""
    bench = Bench(mode="latest", interval_ms=60_000, max_events=10**6)
    bench.publish(1)
    bench.take()
    for seq in range(2, 1_502):
        bench.publish(seq, f"log.info.s{seq % 500}")
        bench.take(NOW + 1)
        assert len(bench.feed.pending) <= 1_024
    messages = read(bench.take(NOW + 60))
    assert (len(seqs(messages)), only(messages, Events)[0].conflated) == (500, 1_000)


def test_what_was_conflated_is_forgotten_with_what_is_pending() -> None:
    """The next batch counts its own."""
    bench = Bench(mode="latest", interval_ms=60_000)
    bench.publish(1)
    bench.take()
    for seq in range(2, 402):
        bench.publish(seq)
        bench.take(NOW + 1)
    bench.feed.clear()
    bench.publish(402)
    assert [message.conflated for message in only(read(bench.take(NOW + 60)), Events)] == [0]


def test_writers_are_kept_apart_by_encoding() -> None:
    """Each member gets the frames that it can read."""
    bench = Bench()
    other = member_of(FakeLink(DEFLATED))
    bench.feed.join(other)
    assert bench.feed.writers() == {PLAIN: [bench.member.send], DEFLATED: [other.send]}
