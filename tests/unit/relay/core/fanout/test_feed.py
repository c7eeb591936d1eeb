"""What a feed's head gets now, and what a member behind it gets alone."""

from itertools import pairwise

import pytest
from tickertape.contracts.encode import event
from tickertape.contracts.messages import Events, Gap, GapReason, Mode, RelayMessage, relay_message
from tickertape.relay.core.event_log import Log, Record
from tickertape.relay.core.fanout.batch import Batch, lost
from tickertape.relay.core.fanout.batch import Gap as FeedGap
from tickertape.relay.core.fanout.catch_up import CATCH_UP_BYTES, next_batch
from tickertape.relay.core.fanout.feed import BATCH_BYTES, Feed, FeedKey, Member
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.transport.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import NOW, FakeLink, gaps, only, seqs, texts, untimed

ALL = Filter((">",))


def member(link: FakeLink) -> Member:
    """A client without a session."""

    def unexpected(member: Member, error: Exception) -> None:
        raise error

    return Member(link.send, link.encoding, unexpected)


class Bench:
    """A log, a snapshot and one feed."""

    def __init__(
        self,
        rate: float = 0.0,
        wanted: Filter = ALL,
        max_events: int = 1000,
        mode: Mode = "live",
        interval_ms: int = 0,
    ) -> None:
        self.wanted = wanted
        self.log = Log(max_events, 10**9)
        self.log.start(0)
        self.snapshot = Snapshot()
        self.feed = Feed(FeedKey(wanted.key, mode, rate, interval_ms), wanted, NOW)
        self.member: Member = member(FakeLink())
        self.feed.join(self.member)

    def publish(self, seq: int, subject: str = "log.info.x", size: int = 0, at: float = NOW) -> None:
        """An event comes, and is offered to the feed when it matches."""
        route = Route(subject)
        state = subject.startswith("gateway.status.")
        data = event(route.prefix, seq, b'{"m":"%b"}' % (b"x" * size))
        record = Record(seq, route, data, state, False, at, at, int(at * 1e9))
        before = self.log.head
        self.log.append(record)
        if state:
            self.snapshot.put(record)
        if self.wanted.matches(subject):
            if not self.feed.pending:
                self.feed.cursor = before
            self.feed.pending.append(record)

    def take(self, now: float = NOW, *, hold: bool = True) -> Batch | None:
        """The head's next unit."""
        return self.feed.take(self.log, "e", now, hold=hold)

    def behind(self, start: int, max_behind: int = 1000, reason: GapReason = "slow") -> Batch | None:
        """The next unit of a member that stands somewhere."""
        session = member(FakeLink())
        session.cursor = start
        upto = self.log.head
        return next_batch(session, self.feed, self.log, self.snapshot, "e", upto, max_behind, reason)


def read(unit: Batch | None) -> list[RelayMessage]:
    """Messages of a unit."""
    assert unit is not None
    return [relay_message.validate_json(untimed(text)) for text in texts(unit.encoded(PLAIN))]


def cursors(messages: list[RelayMessage]) -> list[str]:
    """Places that the client is told of."""
    return [message.cursor for message in only(messages, Events)]


def test_nothing_pending_is_nothing_to_send() -> None:
    """A quiet feed writes nothing."""
    assert Bench().take() is None


def test_the_head_gets_all_that_is_pending_in_one_unit() -> None:
    """With the place that the log has reached, over what others get."""
    bench = Bench(wanted=Filter(("log.>",)))
    for seq, subject in ((1, "log.info.x"), (2, "gateway.status.ctp.a"), (3, "log.info.x")):
        bench.publish(seq, subject)
    bench.log.advance(9)
    unit = bench.take()
    assert unit is not None
    assert (seqs(read(unit)), cursors(read(unit)), unit.reached) == ([1, 3], ["e-9"], 9)
    assert bench.take() is None


def test_a_feed_without_a_head_lets_go() -> None:
    """Members behind read the log; what is pending would be held for nobody."""
    bench = Bench()
    bench.feed.leave(bench.member)
    bench.publish(1)
    assert bench.take() is None
    assert bench.feed.pending == []


def test_a_large_backlog_goes_in_several_units() -> None:
    """Each is bounded, none repeats or skips, and each ends at a place of its own."""
    bench = Bench()
    for seq in range(1, 31):
        bench.publish(seq, size=100_000)
    units = []
    while (unit := bench.take()) is not None:
        units.append(unit)
    assert len(units) == 3
    assert all(sum(len(r.item) for r in unit.records) <= BATCH_BYTES for unit in units)
    assert [seq for unit in units for seq in seqs(read(unit))] == list(range(1, 31))
    assert [unit.reached for unit in units] == [unit.records[-1].seq for unit in units]
    assert units[-1].reached == 30


def test_a_place_is_the_head_unless_something_is_pending() -> None:
    """Then it is where the head stood before."""
    bench = Bench()
    assert bench.feed.place(5) == 5
    bench.publish(7)
    assert bench.feed.place(7) == 0
    bench.feed.pending.clear()
    bench.feed.writing, bench.feed.cursor = True, 6
    assert bench.feed.place(7) == 6


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
    unit = bench.take(NOW + 0.2)
    assert gaps(read(unit)) == [("e-1", "e-2", 1, "rate")]
    assert unit is not None
    assert unit.reached in (2, 9)


def test_the_rate_counts_over_units() -> None:
    """Time brings tokens back."""
    bench = Bench(rate=10.0)
    passed = 0
    for second in range(1, 11):
        for step in range(100):
            bench.publish(second * 100 + step, "log.error.x", at=NOW + second)
        unit = bench.take(NOW + second, hold=False)
        passed += len(seqs(read(unit)))
    assert passed == 10 + 9 * 10


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
    unit = bench.behind(20)
    assert seqs(read(unit)) == list(range(21, 51))
    assert unit is not None
    assert unit.reached == 50


def test_nothing_that_matches_moves_the_cursor_in_silence() -> None:
    """No frame is written for events of others."""
    bench = Bench(wanted=Filter(("system.>",)))
    bench.publish(1)
    unit = bench.behind(0)
    assert unit is not None
    assert (unit.empty, unit.reached, unit.encoded(PLAIN)) == (True, 1, b"")
    assert repr(unit) == "Batch(0 records to 1, None)"


def test_a_unit_of_catching_up_is_bounded() -> None:
    """The next one goes on where it ended."""
    bench = Bench()
    for seq in range(1, 41):
        bench.publish(seq, size=10_000)
    place, got = 0, []
    while (unit := bench.behind(place)) is not None:
        assert len(unit.encoded(PLAIN)) < CATCH_UP_BYTES + 1000
        assert unit.reached == unit.records[-1].seq
        got += seqs(read(unit))
        place = unit.reached
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
    unit = bench.behind(0, max_behind=10)
    messages = read(unit)
    assert unit is not None
    assert [message.type for message in messages] == ["gap", "events"]
    assert seqs(messages) == [3], "the newest of a; that of b is still to come"
    assert gaps(messages) == [("e-0", "e-11", 10, "slow")]
    assert only(messages, Gap)[0].by == {"gateway.status": 2, "log.info": 8}
    rest = bench.behind(unit.reached, max_behind=10)
    assert seqs(read(rest)) == list(range(12, 22))


def test_many_states_are_no_reason_to_skip() -> None:
    """When all that lies further back is the newest of its subject, everything is sent."""
    bench = Bench()
    for seq in range(1, 31):
        bench.publish(seq, f"gateway.status.ctp.g{seq}")
    place, messages = 0, []
    while (unit := bench.behind(place, max_behind=10)) is not None:
        messages += read(unit)
        place = unit.reached
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
    unit = bench.behind(0, reason=reason)
    messages = read(unit)
    assert gaps(messages) == [("e-0", "e-6", None, reason)]
    assert seqs(messages) == [1]
    assert cursors(messages) == ["e-6"]
    assert unit is not None
    assert unit.gap is not None
    assert (unit.reached, unit.gap.dropped) == (6, 0)
    assert seqs(read(bench.behind(6))) == [7, 8, 9, 10, 11]


def test_a_hole_is_told_in_its_place() -> None:
    """What lies before it comes first, then the gap, then what lies behind."""
    bench = Bench()
    bench.publish(1)
    bench.publish(2)
    bench.log.hole(7)
    bench.publish(8)
    messages: list[RelayMessage] = []
    place = 0
    while (unit := bench.behind(place)) is not None:
        messages += read(unit)
        place = unit.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [1, 2, 8]
    assert gaps(messages) == [("e-2", "e-7", None, "retention")]


def test_a_cursor_within_a_hole_hears_of_the_rest_of_it() -> None:
    """Another relay may have gone further."""
    bench = Bench()
    bench.publish(1)
    bench.log.hole(7)
    assert gaps(read(bench.behind(4))) == [("e-4", "e-7", None, "retention")]


def test_lost_tells_of_a_range() -> None:
    """The count is unknown, and no events come with it."""
    unit = lost("e", 3, 9, "reset")
    assert gaps(read(unit)) == [("e-3", "e-9", None, "reset")]
    assert (unit.reached, unit.records, unit.gap) == (9, (), FeedGap(3, 9, "reset"))


def test_places_rise() -> None:
    """Whatever mix of gaps and events comes, no cursor of a unit goes back."""
    bench = Bench(rate=5.0)
    told: list[int] = []
    for seq in range(1, 200):
        bench.publish(seq, "gateway.status.ctp.a" if seq % 7 == 0 else "log.warn.x", at=NOW + seq / 50)
        if unit := bench.take(NOW + seq / 50):
            told.append(unit.reached)
    assert all(one < other for one, other in pairwise(told))


def test_writers_change_with_the_members() -> None:
    """A list that is being iterated stays as it is."""
    bench = Bench()
    before = bench.feed.writers()
    other = member(FakeLink())
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
    unit = bench.take()
    messages = read(unit)
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
    """The first unit goes at once, the next when the interval is over, or when it is forced."""
    bench = Bench(mode="latest", interval_ms=250)
    bench.publish(1)
    assert seqs(read(bench.take(NOW))) == [1]
    bench.publish(2)
    assert bench.take(NOW + 0.1) is None
    assert bench.feed.held_until == NOW + 0.25
    bench.publish(3)
    assert bench.feed.place(bench.log.head) == 1, "nothing is promised beyond what was sent"
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
    """The next unit counts its own."""
    bench = Bench(mode="latest", interval_ms=60_000)
    bench.publish(1)
    bench.take()
    for seq in range(2, 402):
        bench.publish(seq)
        bench.take(NOW + 1)
    bench.feed.clear()
    bench.publish(402)
    assert [message.conflated for message in only(read(bench.take(NOW + 60)), Events)] == [0]


def test_latest_catches_up_in_one_unit() -> None:
    """However far behind: the newest of each subject, and the count of the others."""
    bench = Bench(mode="latest", interval_ms=1000, wanted=Filter(("log.>",)))
    for seq in range(1, 501):
        bench.publish(seq, f"log.info.s{seq % 4}" if seq % 5 else "system.health.x")
    unit = bench.behind(100, max_behind=10)
    messages = read(unit)
    assert seqs(messages) == [496, 497, 498, 499]
    assert sum(message.conflated or 0 for message in only(messages, Events)) == 320 - 4
    assert unit is not None
    assert (unit.reached, gaps(messages)) == (500, [])


def test_latest_conflates_on_both_sides_of_a_hole() -> None:
    """No count reaches over what nobody can count."""
    bench = Bench(mode="latest", interval_ms=1000)
    for seq in (1, 2):
        bench.publish(seq)
    bench.log.hole(7)
    for seq in (8, 9):
        bench.publish(seq)
    messages: list[RelayMessage] = []
    place = 0
    while (unit := bench.behind(place)) is not None:
        messages += read(unit)
        place = unit.reached
    assert [message.type for message in messages] == ["events", "gap", "events"]
    assert seqs(messages) == [2, 9]


def test_latest_moves_in_silence_over_what_others_get() -> None:
    """Nothing that matches is nothing to write."""
    bench = Bench(mode="latest", wanted=Filter(("system.>",)))
    bench.publish(1)
    unit = bench.behind(0)
    assert unit is not None
    assert (unit.empty, unit.reached) == (True, 1)


def test_complete_is_neither_limited_nor_moved_forward() -> None:
    """At the head and behind it, everything comes."""
    bench = Bench(mode="complete", rate=1.0)
    for seq in range(1, 101):
        bench.publish(seq)
    assert bench.feed.bucket is None
    assert seqs(read(bench.take())) == list(range(1, 101))
    place, got = 0, []
    while (unit := bench.behind(place, max_behind=5)) is not None:
        assert unit.gap is None
        got += seqs(read(unit))
        place = unit.reached
    assert got == list(range(1, 101))


def test_what_is_pending_is_not_lost_to_one_behind() -> None:
    """The log may have let go of it already; the head gets it all the same."""
    bench = Bench(max_events=3)
    for seq in range(1, 11):
        bench.publish(seq)
    session = member(FakeLink())
    session.cursor = 0
    unit = next_batch(session, bench.feed, bench.log, bench.snapshot, "e", 5, 1000)
    assert gaps(read(unit)) == [("e-0", "e-5", None, "slow")]


def test_a_unit_is_encoded_once_for_each_encoding() -> None:
    """The same object each time; both carry the same messages."""
    bench = Bench(rate=10.0)
    for seq in range(1, 30):
        bench.publish(seq, size=50)
    unit = bench.take()
    assert unit is not None
    assert repr(unit).startswith("Batch(7 records to 29, Gap(start=0, end=29, reason='rate'")
    plain, deflated = unit.encoded(PLAIN), unit.encoded(DEFLATED)
    assert unit.encoded(PLAIN) is plain
    assert unit.encoded(DEFLATED) is deflated
    assert plain != deflated
    assert texts(deflated, DEFLATED) == texts(plain)


def test_writers_are_kept_apart_by_encoding() -> None:
    """Each member gets the frames that it can read."""
    bench = Bench()
    other = member(FakeLink(DEFLATED))
    bench.feed.join(other)
    assert bench.feed.writers() == {PLAIN: [bench.member.send], DEFLATED: [other.send]}
