"""What a member behind its feed gets alone."""

import pytest
from tickertape.contracts.messages import Events, Gap, GapReason, RelayMessage
from tickertape.relay.core.fanout.catch_up import CATCH_UP_BYTES, next_batch
from tickertape.relay.core.filters import Filter
from tickertape.relay.transport.encoding import PLAIN

from tests.support.clients.fake_link import FakeLink, gaps, only, seqs
from tests.support.clients.feed_bench import Bench, cursors, member_of, read


def test_an_arrived_member_gets_nothing() -> None:
    """At the head, or ahead of it."""
    bench = Bench()
    bench.publish(1)
    assert bench.behind(1) is None
    assert bench.behind(5) is None


def test_a_member_behind_reads_on_from_its_cursor() -> None:
    """In order, without the rate."""
    bench = Bench(rate=1.0)
    for seq in range(1, 51):
        bench.publish(seq)
    batch = bench.behind(20)
    assert seqs(read(batch)) == list(range(21, 51))
    assert batch is not None
    assert batch.reached == 50


def test_nothing_that_matches_moves_the_cursor_in_silence() -> None:
    """No frame is written for events of others."""
    bench = Bench(wanted=Filter(("system.>",)))
    bench.publish(1)
    batch = bench.behind(0)
    assert batch is not None
    assert (batch.empty, batch.reached, batch.encoded(PLAIN)) == (True, 1, b"")
    assert repr(batch) == "Batch(0 records to 1, None)"


def test_a_batch_of_catching_up_is_bounded() -> None:
    """The next one goes on where it ended."""
    bench = Bench()
    for seq in range(1, 41):
        bench.publish(seq, size=10_000)
    place, got = 0, []
    while (batch := bench.behind(place)) is not None:
        assert len(batch.encoded(PLAIN)) < CATCH_UP_BYTES + 1000
        assert batch.reached == batch.records[-1].seq
        got += seqs(read(batch))
        place = batch.reached
    assert got == list(range(1, 41))


def test_too_far_behind_only_the_newest_come() -> None:
    """The rest is counted in a gap, but for the newest states."""
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
    assert seqs(messages) == [3], "the newest of a; that of b is still to come"
    assert gaps(messages) == [("e-0", "e-11", 10, "slow")]
    assert only(messages, Gap)[0].by == {"gateway.status": 2, "log.info": 8}
    rest = bench.behind(batch.reached, max_behind=10)
    assert seqs(read(rest)) == list(range(12, 22))


def test_many_states_are_no_reason_to_skip() -> None:
    """When all that lies further back is the newest of its subject, everything is sent."""
    bench = Bench()
    for seq in range(1, 31):
        bench.publish(seq, f"gateway.status.ctp.g{seq}")
    place, messages = 0, []
    while (batch := bench.behind(place, max_behind=10)) is not None:
        messages += read(batch)
        place = batch.reached
    assert gaps(messages) == []
    assert seqs(messages) == list(range(1, 31))


def test_no_limit_of_zero_sends_state_alone() -> None:
    """With nothing allowed one by one, everything is passed over but the newest states."""
    bench = Bench()
    for seq in (1, 2, 3):
        bench.publish(seq)
    assert gaps(read(bench.behind(0, max_behind=0))) == [("e-0", "e-3", 3, "slow")]


@pytest.mark.parametrize("reason", ["slow", "retention"])
def test_out_of_memory_the_count_is_unknown(reason: GapReason) -> None:
    """The newest states of the lost range come behind the gap; then the log goes on."""
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


def test_a_hole_is_told_in_its_place() -> None:
    """What lies before it comes first, then the gap, then what lies behind."""
    bench = Bench()
    bench.publish(1)
    bench.publish(2)
    bench.log.append_missing(7)
    bench.publish(8)
    messages: list[RelayMessage] = []
    place = 0
    while (batch := bench.behind(place)) is not None:
        messages += read(batch)
        place = batch.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [1, 2, 8]
    assert gaps(messages) == [("e-2", "e-7", None, "retention")]


def test_a_cursor_within_a_hole_hears_of_the_rest_of_it() -> None:
    """Another relay may have gone further."""
    bench = Bench()
    bench.publish(1)
    bench.log.append_missing(7)
    assert gaps(read(bench.behind(4))) == [("e-4", "e-7", None, "retention")]


def test_latest_catches_up_in_one_batch() -> None:
    """However far behind: the newest of each subject, and the count of the others."""
    bench = Bench(mode="latest", interval_ms=1000, wanted=Filter(("log.>",)))
    for seq in range(1, 501):
        bench.publish(seq, f"log.info.s{seq % 4}" if seq % 5 else "system.health.x")
    batch = bench.behind(100, max_behind=10)
    messages = read(batch)
    assert seqs(messages) == [496, 497, 498, 499]
    assert sum(message.conflated or 0 for message in only(messages, Events)) == 320 - 4
    assert batch is not None
    assert (batch.reached, gaps(messages)) == (500, [])


def test_latest_conflates_on_both_sides_of_a_hole() -> None:
    """No count reaches over what nobody can count."""
    bench = Bench(mode="latest", interval_ms=1000)
    for seq in (1, 2):
        bench.publish(seq)
    bench.log.append_missing(7)
    for seq in (8, 9):
        bench.publish(seq)
    messages: list[RelayMessage] = []
    place = 0
    while (batch := bench.behind(place)) is not None:
        messages += read(batch)
        place = batch.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [2, 9]


def test_latest_moves_in_silence_over_what_others_get() -> None:
    """Nothing that matches is nothing to write."""
    bench = Bench(mode="latest", wanted=Filter(("system.>",)))
    bench.publish(1)
    batch = bench.behind(0)
    assert batch is not None
    assert (batch.empty, batch.reached) == (True, 1)


def test_complete_is_neither_limited_nor_moved_forward() -> None:
    """At the head and behind it, everything comes."""
    bench = Bench(mode="complete", rate=1.0)
    for seq in range(1, 101):
        bench.publish(seq)
    assert bench.feed.bucket is None
    assert seqs(read(bench.take())) == list(range(1, 101))
    place, got = 0, []
    while (batch := bench.behind(place, max_behind=5)) is not None:
        assert batch.gap is None
        got += seqs(read(batch))
        place = batch.reached
    assert got == list(range(1, 101))


def test_what_is_pending_is_not_lost_to_one_behind() -> None:
    """The log may have let go of it already; the head gets it all the same."""
    bench = Bench(max_events=3)
    for seq in range(1, 11):
        bench.publish(seq)
    session = member_of(FakeLink())
    session.cursor = 0
    batch = next_batch(session, bench.feed, bench.log, bench.snapshot, "e", 5, 1000)
    assert gaps(read(batch)) == [("e-0", "e-5", None, "slow")]
