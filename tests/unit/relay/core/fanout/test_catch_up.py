"""Batches for a member that is behind its feed."""

import pytest
from tickertape.contracts.messages import Events, Gap, GapReason, RelayMessage
from tickertape.relay.core.fanout.next_batch import CATCH_UP_BYTES, next_batch
from tickertape.relay.core.filters import Filter
from tickertape.relay.transport.websocket.encoding import PLAIN

from tests.support.clients.fake_link import FakeLink, gaps, only, seqs
from tests.support.clients.feed_bench import Bench, cursors, member_of, read


def test_a_member_at_the_head_gets_nothing() -> None:
    """A member at or ahead of the head of the log gets no catch-up batch."""
    bench = Bench()
    bench.publish(1)
    assert bench.behind(1) is None
    assert bench.behind(5) is None


def test_a_member_behind_continues_from_its_cursor() -> None:
    """A member behind the head gets all events after its cursor in order, regardless of the rate limit."""
    bench = Bench(rate=1.0)
    for seq in range(1, 51):
        bench.publish(seq)
    batch = bench.behind(20)
    assert seqs(read(batch)) == list(range(21, 51))
    assert batch is not None
    assert batch.reached == 50


def test_events_outside_the_filter_advance_the_cursor_silently() -> None:
    """Events outside of the filter advance the cursor without a frame."""
    bench = Bench(expected=Filter(("system.>",)))
    bench.publish(1)
    batch = bench.behind(0)
    assert batch is not None
    assert (batch.empty, batch.reached, batch.encoded(PLAIN)) == (True, 1, b"")
    assert repr(batch) == "Batch(0 records to 1, None)"


def test_a_catch_up_batch_is_bounded() -> None:
    """A catch-up batch is bounded in bytes, and the next one continues where it ended."""
    bench = Bench()
    for seq in range(1, 41):
        bench.publish(seq, size=10_000)
    position, got = 0, []
    while (batch := bench.behind(position)) is not None:
        assert len(batch.encoded(PLAIN)) < CATCH_UP_BYTES + 1000
        assert batch.reached == batch.records[-1].seq
        got += seqs(read(batch))
        position = batch.reached
    assert got == list(range(1, 41))


def test_a_member_too_far_behind_gets_only_the_newest() -> None:
    """A member too far behind gets the newest events, its missed states, and a gap that counts the rest."""
    bench = Bench()
    bench.publish(1, "gateway.status.ctp.a")
    bench.publish(2, "gateway.status.ctp.b")
    bench.publish(3, "gateway.status.ctp.a")
    for seq in range(4, 21):
        bench.publish(seq)
    bench.publish(21, "gateway.status.ctp.b")
    batch = bench.behind(0, max_behind=10)
    messages = read(batch)
    assert batch is not None
    assert [message.type for message in messages] == ["gap", "events"]
    assert seqs(messages) == [3], "the newest state of a; that of b comes later"
    assert gaps(messages) == [("e-0", "e-11", 10, "slow")]
    assert only(messages, Gap)[0].by == {"gateway.status": 2, "log.info": 8}
    rest = bench.behind(batch.reached, max_behind=10)
    assert seqs(read(rest)) == list(range(12, 22))


def test_many_states_cause_no_skip() -> None:
    """Nothing is skipped when every older event is the newest state of its subject."""
    bench = Bench()
    for seq in range(1, 31):
        bench.publish(seq, f"gateway.status.ctp.g{seq}")
    position, messages = 0, []
    while (batch := bench.behind(position, max_behind=10)) is not None:
        messages += read(batch)
        position = batch.reached
    assert gaps(messages) == []
    assert seqs(messages) == list(range(1, 31))


def test_a_limit_of_zero_skips_everything_but_states() -> None:
    """A catch-up limit of zero skips everything except the newest states."""
    bench = Bench()
    for seq in (1, 2, 3):
        bench.publish(seq)
    assert gaps(read(bench.behind(0, max_behind=0))) == [("e-0", "e-3", 3, "slow")]


@pytest.mark.parametrize("reason", ["slow", "retention"])
def test_the_count_of_an_evicted_range_is_unknown(reason: GapReason) -> None:
    """A range evicted from the log becomes a gap with an unknown count, followed by its newest states."""
    bench = Bench(max_events=5)
    bench.publish(1, "gateway.status.ctp.a")
    bench.publish(2, "gateway.status.ctp.b")
    for seq in range(3, 11):
        bench.publish(seq)
    bench.publish(11, "gateway.status.ctp.b")
    batch = bench.behind(0, reason=reason)
    messages = read(batch)
    assert gaps(messages) == [("e-0", "e-6", None, reason)]
    assert seqs(messages) == [1]
    assert cursors(messages) == ["e-6"]
    assert batch is not None
    assert batch.gap is not None
    assert (batch.reached, batch.gap.dropped) == (6, 0)
    assert seqs(read(bench.behind(6))) == [7, 8, 9, 10, 11]


def test_a_missing_range_is_reported_in_order() -> None:
    """A missing range becomes a gap between the events before and after it."""
    bench = Bench()
    bench.publish(1)
    bench.publish(2)
    bench.log.append_missing(7)
    bench.publish(8)
    messages: list[RelayMessage] = []
    position = 0
    while (batch := bench.behind(position)) is not None:
        messages += read(batch)
        position = batch.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [1, 2, 8]
    assert gaps(messages) == [("e-2", "e-7", None, "retention")]


def test_a_cursor_inside_a_missing_range_gets_the_rest_as_a_gap() -> None:
    """A cursor inside a missing range, as another relay may issue, gets a gap for the rest of the range."""
    bench = Bench()
    bench.publish(1)
    bench.log.append_missing(7)
    assert gaps(read(bench.behind(4))) == [("e-4", "e-7", None, "retention")]


def test_latest_catches_up_in_one_batch() -> None:
    """Mode latest catches up in one batch: the newest event of each subject and the count of the others."""
    bench = Bench(mode="latest", interval_ms=1000, expected=Filter(("log.>",)))
    for seq in range(1, 501):
        bench.publish(seq, f"log.info.s{seq % 4}" if seq % 5 else "system.health.x")
    batch = bench.behind(100, max_behind=10)
    messages = read(batch)
    assert seqs(messages) == [496, 497, 498, 499]
    assert sum(message.conflated or 0 for message in only(messages, Events)) == 320 - 4
    assert batch is not None
    assert (batch.reached, gaps(messages)) == (500, [])


def test_latest_conflates_on_both_sides_of_a_missing_range() -> None:
    """Mode latest conflates the events before and after a missing range separately."""
    bench = Bench(mode="latest", interval_ms=1000)
    for seq in (1, 2):
        bench.publish(seq)
    bench.log.append_missing(7)
    for seq in (8, 9):
        bench.publish(seq)
    messages: list[RelayMessage] = []
    position = 0
    while (batch := bench.behind(position)) is not None:
        messages += read(batch)
        position = batch.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [2, 9]


def test_latest_advances_silently_over_other_events() -> None:
    """Mode latest advances over events outside of the filter without a frame."""
    bench = Bench(mode="latest", expected=Filter(("system.>",)))
    bench.publish(1)
    batch = bench.behind(0)
    assert batch is not None
    assert (batch.empty, batch.reached) == (True, 1)


def test_complete_is_neither_rate_limited_nor_moved_forward() -> None:
    """Mode complete delivers every event, live or catching up, without a rate limit or skipping."""
    bench = Bench(mode="complete", rate=1.0)
    for seq in range(1, 101):
        bench.publish(seq)
    assert bench.feed.bucket is None
    assert seqs(read(bench.take())) == list(range(1, 101))
    position, got = 0, []
    while (batch := bench.behind(position, max_behind=5)) is not None:
        assert batch.gap is None
        got += seqs(read(batch))
        position = batch.reached
    assert got == list(range(1, 101))


def test_a_member_behind_stops_before_pending_events() -> None:
    """A member behind is moved only up to the pending events of its feed, which the log may have evicted."""
    bench = Bench(max_events=3)
    for seq in range(1, 11):
        bench.publish(seq)
    session = member_of(FakeLink())
    session.cursor = 0
    batch = next_batch(session, bench.feed, bench.log, bench.snapshot, "e", 5, 1000)
    assert gaps(read(batch)) == [("e-0", "e-5", None, "slow")]
