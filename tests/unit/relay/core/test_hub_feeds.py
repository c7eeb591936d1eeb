"""What the head of a feed is sent: batches, rates, variants, the newest per subject."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Events, Gap, Mode
from tickertape.relay.core.fanout import catch_up, feed_index
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.transport.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import Stage, gaps, only, seqs, shown


class TestFeed:
    """What those at the head get, and what those behind get."""

    def test_all_members_get_the_very_same_bytes(self) -> None:
        """Encoded once, however many clients."""
        stage = Stage()
        links = [stage.follow()[0] for _ in range(5)]
        stage.log(1)
        stage.settle()
        assert all(link.sent[-1] is links[0].sent[-1] for link in links)
        assert len(stage.hub.fanout.feeds) == 1

    def test_feeds_are_shared_by_filter(self) -> None:
        """In whatever order patterns are named; a feed without members is gone."""
        stage = Stage()
        one, two, three = (
            stage.follow(Request(subjects))[1]
            for subjects in (("log.>", "system.>"), ("system.>", "log.>"), ("log.>",))
        )
        assert one.feed is two.feed is not three.feed
        assert len(stage.hub.fanout.feeds) == 2
        for session in (one, two, three):
            stage.hub.sessions.remove(session)
        assert stage.hub.fanout.feeds == {}
        assert len(stage.hub.sessions) == 0

    def test_a_subject_reaches_a_feed_that_came_later(self) -> None:
        """And a feed one that was there before it."""
        stage = Stage()
        stage.log(1)
        link, _ = stage.follow(Request(("log.>",)))
        stage.log(2)
        stage.log(3, source="new")
        stage.settle()
        assert seqs(link.read()) == [2, 3]

    def test_the_hub_asks_once_for_a_flush(self) -> None:
        """However many events come before it."""
        stage = Stage()
        stage.follow()
        before = stage.woken
        for seq in range(1, 10):
            stage.log(seq)
        assert stage.woken == before + 1
        stage.flush()
        stage.log(10)
        assert stage.woken == before + 2

    def test_events_for_nobody_wake_nobody(self) -> None:
        """They only go into the log."""
        stage = Stage()
        stage.follow(Request(("system.>",)))
        before = stage.woken
        stage.log(1)
        assert stage.woken == before

    def test_a_rejected_event_moves_the_place_on(self) -> None:
        """It is counted by its reason, and its neighbours arrive."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.hub.reject(2, "bad_json")
        stage.log(3)
        stage.hub.reject(4, "bad_json")
        stage.settle()
        messages = link.read()
        assert seqs(messages) == [1, 3]
        assert only(messages, Events)[-1].cursor == "e-4"
        assert stage.hub.stats.rejected == {"bad_json": 2}

    def test_a_large_backlog_is_flushed_in_turns(self) -> None:
        """Each flush is bounded, and asks for the next while something is left."""
        stage = Stage()
        link, _ = stage.follow()
        for seq in range(1, 31):
            stage.log(seq, size=100_000)
        stage.flush()
        first = seqs(link.read())
        assert 0 < len(first) < 30
        stage.settle()
        assert first + seqs(link.read()) == list(range(1, 31))

    def test_a_paused_member_gets_nothing_and_catches_up_alone(self) -> None:
        """Others are not held up; then it rejoins, and shares frames again."""
        stage = Stage()
        fast, _ = stage.follow()
        slow, session = stage.follow()
        stage.log(1)
        stage.settle()
        stage.hub.sessions.pause(session)
        for seq in (2, 3, 4):
            stage.log(seq)
            stage.settle()
        assert seqs(fast.read()) == [1, 2, 3, 4]
        assert seqs(slow.read()) == [1]
        assert stage.hub.fanout.behind == 1
        stage.hub.sessions.resume(session)
        stage.settle()
        assert seqs(slow.read()) == [2, 3, 4]
        assert stage.hub.fanout.behind == 0
        stage.log(5)
        stage.settle()
        assert fast.sent[-1] is slow.sent[-1]

    def test_a_member_that_pauses_within_a_flush_repeats_nothing(self) -> None:
        """The unit that filled it counts as written."""
        stage = Stage()
        link, session = stage.follow()
        link.on_send = lambda: stage.hub.sessions.pause(session)
        stage.log(1)
        stage.settle()
        stage.log(2)
        stage.settle()
        link.on_send = None
        assert seqs(link.read()) == [1]
        stage.hub.sessions.resume(session)
        stage.settle()
        assert seqs(link.read()) == [2]

    def test_a_member_that_stays_slow_gets_on_bit_by_bit(self) -> None:
        """Each time its socket takes something, it goes on from where it was."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.sessions.pause(session)
        for seq in range(1, 101):
            stage.log(seq, size=10_000)
        link.on_send = lambda: stage.hub.sessions.pause(session)
        for _ in range(100):
            stage.hub.sessions.resume(session)
            stage.settle()
        link.on_send = None
        assert seqs(link.read()) == list(range(1, 101))

    def test_pausing_twice_and_pausing_what_is_behind_is_harmless(self) -> None:
        """A transport may say so at any time."""
        stage = Stage()
        for seq in range(1, 5):
            stage.log(seq)
        link, session = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.hub.sessions.pause(session)
        stage.hub.sessions.pause(session)
        stage.settle()
        assert link.read() == []
        stage.hub.sessions.resume(session)
        stage.hub.sessions.resume(session)
        stage.settle()
        assert seqs(link.read()) == [1, 2, 3, 4]

    def test_many_behind_are_served_in_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A flush serves some of them, asks for the next, and forgets none."""
        monkeypatch.setattr(catch_up, "TURN_MEMBERS", 3)
        stage = Stage()
        for seq in range(1, 21):
            stage.log(seq, size=10_000)
        links = [stage.open(Request(cursor=Cursor("e", 0)))[0] for _ in range(10)]
        woken = stage.woken
        stage.flush()
        assert sum(bool(seqs(link.read())) for link in links) == 3
        assert stage.woken > woken
        for link in links:
            link._read = 0
        stage.settle()
        assert [seqs(link.read()) for link in links] == [list(range(1, 21))] * 10

    def test_too_far_behind_it_is_moved_forward_and_told(self) -> None:
        """Delivered and dropped make up what was published."""
        stage = Stage(max_catch_up=10)
        link, session = stage.follow()
        stage.hub.sessions.pause(session)
        stage.log(1, "debug")
        for seq in range(2, 101):
            stage.log(seq)
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.settle()
        messages = link.read()
        (gap,) = only(messages, Gap)
        assert (gap.from_, gap.to, gap.dropped, gap.reason) == ("e-0", "e-90", 90, "slow")
        assert gap.by == {"log.debug": 1, "log.info": 89}
        assert seqs(messages) == list(range(91, 101))
        assert stage.hub.stats.dropped["slow"] == 90
        assert stage.hub.stats.delivered == 10

    def test_what_others_get_is_no_reason_to_skip(self) -> None:
        """How far behind is counted in events of the client's own filter."""
        stage = Stage(max_catch_up=10)
        link, session = stage.follow(Request(("log.error.>",)))
        quiet, other = stage.follow(Request(("system.>",)))
        stage.hub.sessions.pause(session)
        stage.hub.sessions.pause(other)
        for seq in range(1, 101):
            stage.log(seq, "error" if seq % 10 == 0 else "info")
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.hub.sessions.resume(other)
        stage.settle()
        messages = link.read()
        assert gaps(messages) == []
        assert seqs(messages) == list(range(10, 101, 10))
        assert quiet.read() == []
        assert stage.hub.fanout.behind == 0

    def test_out_of_the_log_it_is_told_so(self) -> None:
        """The count is unknown; the newest state of the lost range comes with it."""
        stage = Stage(log_events=5)
        link, session = stage.follow()
        stage.hub.sessions.pause(session)
        stage.status(1, "a", "DEGRADED")
        stage.status(2, "a", "HEALTHY")
        for seq in range(3, 21):
            stage.log(seq)
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-15", None, "slow")]
        assert seqs(messages) == [2, 16, 17, 18, 19, 20]

    def test_a_stalled_member_costs_no_memory(self) -> None:
        """What is pending is let go when nobody is at the head."""
        stage = Stage()
        _, session = stage.follow()
        stage.hub.sessions.pause(session)
        for seq in range(1, 1000):
            stage.log(seq)
            stage.settle()
        feed = session.feed
        assert feed is not None
        assert feed.pending == []

    def test_the_routes_of_subjects_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ever new subjects push out old ones, which are learned again."""
        monkeypatch.setattr(feed_index, "MAX_KNOWN_SUBJECTS", 5)
        stage = Stage()
        link, _ = stage.follow(Request(("log.>",)))
        for seq in range(1, 31):
            stage.log(seq, source=f"s{seq % 10}")
            assert len(stage.hub.fanout._index._routes) <= 5
        stage.settle()
        assert seqs(link.read()) == list(range(1, 31))
        feed = next(iter(stage.hub.fanout.feeds.values()))
        assert len(feed.routes) <= 5


class TestRate:
    """Log events per second and client."""

    def test_the_gap_comes_before_any_cursor_beyond_it(self) -> None:
        """A client that leaves after any frame comes back to what it did not get."""
        stage = Stage(rate=4.0)
        link, _ = stage.follow()
        for seq in range(1, 11):
            stage.log(seq)
        stage.flush()
        messages = link.read()
        assert [message.type for message in messages] == ["gap", "events"]
        assert gaps(messages) == [("e-0", "e-10", 7, "rate")]
        assert seqs(messages) == [1, 2, 3]

    def test_each_level_leaves_room_for_those_above(self) -> None:
        """In a flood of DEBUG an error still passes."""
        stage = Stage(rate=100.0)
        link, _ = stage.follow()
        seq = 0
        for level in ("debug", "info", "warn", "error"):
            for _ in range(200):
                seq += 1
                stage.log(seq, level)
        stage.flush()
        messages = link.read()
        by_level: dict[str, int] = {}
        for message in only(messages, Events):
            for item in message.events:
                by_level[item.event["level"]] = by_level.get(item.event["level"], 0) + 1
        assert by_level == {"DEBUG": 50, "INFO": 25, "WARN": 15, "ERROR": 10}
        (gap,) = only(messages, Gap)
        assert gap.by == {"log.debug": 150, "log.info": 175, "log.warn": 185, "log.error": 190}

    def test_state_is_never_held_back(self) -> None:
        """It costs nothing, and passes in a flood of lines."""
        stage = Stage(rate=1.0)
        link, _ = stage.follow()
        for seq in range(1, 201):
            stage.log(seq) if seq % 2 else stage.status(seq)
        stage.flush()
        delivered = seqs(link.read())
        assert [seq for seq in delivered if seq % 2 == 0] == list(range(2, 201, 2))

    def test_gaps_are_merged_and_told_within_a_moment(self) -> None:
        """A flood that nobody gets makes ten small frames a second, not one for each event."""
        stage = Stage(rate=2.0)
        link, _ = stage.follow()
        stage.log(1)
        stage.flush()
        link.read()
        for seq in range(2, 42):
            stage.log(seq)
            stage.flush(after=0.002)
        held = stage.hub.fanout.next_due()
        assert held is not None
        assert held - stage.now <= 0.1
        stage.now = held
        stage.flush()
        messages = link.read()
        assert all(message.type == "gap" for message in messages)
        assert sum(gap[2] or 0 for gap in gaps(messages)) == 40
        assert len(messages) == 1
        assert stage.hub.fanout.next_due() is None

    def test_catching_up_is_paced_by_the_socket(self) -> None:
        """Not by the rate."""
        stage = Stage(rate=2.0)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert seqs(link.read()) == list(range(1, 101))

    def test_delivered_and_dropped_are_counted(self) -> None:
        """Once per client, by reason."""
        stage = Stage(rate=4.0)
        for _ in range(3):
            stage.follow()
        for seq in range(1, 11):
            stage.log(seq)
        stage.flush()
        assert stage.hub.stats.delivered == 9
        assert stage.hub.stats.dropped == {"rate": 21, "slow": 0, "retention": 0, "reset": 0}


class TestEncodings:
    """Connections that agreed to compression, and those that did not."""

    def test_members_share_the_bytes_of_their_variant(self) -> None:
        """Made once for each, and both say the same."""
        stage = Stage()
        plain = [stage.follow()[0] for _ in range(2)]
        deflated = [stage.follow(encoding=DEFLATED)[0] for _ in range(2)]
        stage.log(1, size=1000)
        stage.flush()
        assert len(stage.hub.fanout.feeds) == 1
        for one, other in (plain, deflated):
            assert one.sent[-1] is other.sent[-1]
        assert len(deflated[0].sent[-1]) < len(plain[0].sent[-1]) / 3
        assert plain[0].read() == deflated[0].read()

    def test_each_write_is_counted_with_its_own_bytes(self) -> None:
        """Deliveries count alike, bytes as they went out."""
        stage = Stage()
        links = [stage.follow(encoding=encoding)[0] for encoding in (PLAIN, DEFLATED)]
        before = stage.hub.stats.bytes
        stage.log(1, size=1000)
        stage.flush()
        assert stage.hub.stats.delivered == 2
        assert stage.hub.stats.bytes - before == sum(len(link.sent[-1]) for link in links)

    def test_a_snapshot_is_made_once_for_each_variant(self) -> None:
        """And anew when a state has changed."""
        stage = Stage()
        for seq in range(1, 21):
            stage.status(seq, f"g{seq}")
        stage.settle()
        plain, deflated = (stage.open(encoding=encoding) for encoding in (PLAIN, DEFLATED))
        assert shown(plain[0].read()) == shown(deflated[0].read()) == list(range(1, 21))
        feed = plain[1].feed
        assert feed is not None
        assert feed is deflated[1].feed
        kept = dict(feed._snapshots)
        stage.open(encoding=DEFLATED)
        assert all(feed._snapshots[encoding] is kept[encoding] for encoding in (PLAIN, DEFLATED))
        stage.status(21, "g1")
        stage.settle()
        late, _ = stage.open()
        assert shown(late.read()) == list(range(2, 22))

    def test_catching_up_is_deflated_too(self) -> None:
        """Alone, in the session's own encoding."""
        stage = Stage()
        for seq in range(1, 51):
            stage.log(seq, size=100)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)), DEFLATED)
        stage.settle()
        assert seqs(link.read()) == list(range(1, 51))
        assert len(link.sent[-1]) < 50 * 100 / 3


class TestLatest:
    """The newest of each subject, at its own pace."""

    def test_it_gets_the_newest_once_in_its_interval(self) -> None:
        """And the count of what was replaced; live clients beside it get all."""
        stage = Stage()
        link, _ = stage.follow(Request(mode="latest", interval_ms=1000))
        live, _ = stage.follow()
        for seq in range(1, 1001):
            stage.log(seq, source=f"s{seq % 2}")
            stage.flush(after=0.005)
        stage.now = stage.hub.fanout.next_due() or 0.0
        stage.flush()
        messages = link.read()
        assert 5 <= len(messages) <= 7
        told = sum(message.conflated or 0 for message in only(messages, Events))
        assert len(seqs(messages)) + told == 1000
        assert stage.hub.stats.conflated == told
        assert seqs(messages)[-2:] == [999, 1000]
        assert seqs(live.read()) == list(range(1, 1001))

    def test_it_is_due_when_its_interval_is_over(self) -> None:
        """The hub says when to flush next, and asks for nothing before."""
        stage = Stage()
        link, _ = stage.follow(Request(mode="latest", interval_ms=200))
        stage.log(1)
        stage.flush()
        link.read()
        stage.log(2)
        stage.settle()
        assert link.read() == []
        held = stage.hub.fanout.next_due()
        assert held == pytest.approx(stage.now + 0.2)
        stage.now += 0.2
        stage.flush()
        assert seqs(link.read()) == [2]

    def test_feeds_are_apart_by_interval_only_in_this_mode(self) -> None:
        """Elsewhere it means nothing."""
        stage = Stage(rate=5.0)
        modes: tuple[Mode, ...] = ("live", "complete", "latest")
        for mode in modes:
            for interval in (100, 200, 200):
                stage.follow(Request(mode=mode, interval_ms=interval))
        assert sorted(key.mode for key in stage.hub.fanout.feeds) == ["complete", "latest", "latest", "live"]
        assert {key.mode: key.rate for key in stage.hub.fanout.feeds} == {
            "live": 5.0, "complete": 0, "latest": 0,
        }  # fmt: skip

    def test_another_stream_counts_nothing_of_the_old_one(self) -> None:
        """What was replaced before the reset lies in its gap."""
        stage = Stage()
        link, _ = stage.follow(Request(mode="latest", interval_ms=60_000))
        stage.log(1)
        stage.flush()
        for seq in range(2, 402):
            stage.log(seq)
            stage.flush()
        stage.hub.begin("f", 0)
        link.read()
        stage.log(1)
        stage.flush(after=60.0)
        (events,) = only(link.read(), Events)
        assert (events.cursor, events.conflated) == ("f-1", 0)
