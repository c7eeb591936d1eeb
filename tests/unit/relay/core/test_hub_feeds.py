"""Delivery to the live members of a feed: batches, rate limits, encodings, and conflation."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Events, Gap, Mode
from tickertape.relay.core.fanout import catch_up, feed_index
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN

from tests.support.clients.fake_link import Stage, gaps, only, seqs, shown


class TestFeed:
    """Delivery to live members and to members that are behind."""

    def test_all_members_get_the_same_bytes(self) -> None:
        """All members of a feed get the same encoded bytes, however many they are."""
        stage = Stage()
        links = [stage.follow()[0] for _ in range(5)]
        stage.log(1)
        stage.settle()
        assert all(link.sent[-1] is links[0].sent[-1] for link in links)
        assert len(stage.hub.fanout.feeds) == 1

    def test_feeds_are_shared_by_filter(self) -> None:
        """Filters with the same patterns in any order share a feed, and a feed without members is removed."""
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

    def test_new_feeds_and_new_subjects_are_routed(self) -> None:
        """A new feed gets events of known subjects, and an existing feed gets events of new subjects."""
        stage = Stage()
        stage.log(1)
        link, _ = stage.follow(Request(("log.>",)))
        stage.log(2)
        stage.log(3, source="new")
        stage.settle()
        assert seqs(link.read()) == [2, 3]

    def test_the_hub_requests_one_flush(self) -> None:
        """The hub requests one flush for any number of events."""
        stage = Stage()
        stage.follow()
        before = stage.woken
        for seq in range(1, 10):
            stage.log(seq)
        assert stage.woken == before + 1
        stage.flush()
        stage.log(10)
        assert stage.woken == before + 2

    def test_unmatched_events_request_no_flush(self) -> None:
        """An event that no feed matches requests no flush."""
        stage = Stage()
        stage.follow(Request(("system.>",)))
        before = stage.woken
        stage.log(1)
        assert stage.woken == before

    def test_a_rejected_event_advances_the_cursor(self) -> None:
        """A rejected event advances the cursor, is counted by reason, and does not affect its neighbours."""
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

    def test_a_large_backlog_takes_several_flushes(self) -> None:
        """Each flush is bounded and requests another while events are left."""
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
        """A paused member does not delay others; it catches up alone and then shares frames again."""
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

    def test_a_member_that_pauses_during_a_flush_repeats_nothing(self) -> None:
        """A batch that filled a member's socket counts as written and is not repeated."""
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

    def test_a_member_that_stays_slow_progresses(self) -> None:
        """A member that stays slow progresses each time its socket accepts data."""
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

    def test_repeated_pauses_are_harmless(self) -> None:
        """A transport may pause or resume a session repeatedly, also one that is behind."""
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
        """A flush serves a bounded number of members that are behind, then requests another flush."""
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

    def test_a_member_too_far_behind_is_moved_forward_with_a_gap(self) -> None:
        """A member too far behind is moved forward with a gap; delivered plus dropped equals published."""
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

    def test_lag_counts_only_events_of_the_filter(self) -> None:
        """A member's lag is counted in events of its own filter, so other events cause no skip."""
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

    def test_a_member_out_of_the_log_gets_a_gap(self) -> None:
        """A member that fell out of the log gets a gap without a count and the range's newest states."""
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

    def test_a_stalled_member_uses_no_memory(self) -> None:
        """Pending events are discarded when a feed has no live members, which saves memory."""
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
        """Routes are bounded: new subjects evict old ones, which are routed again when they return."""
        monkeypatch.setattr(feed_index, "MAX_KNOWN_SUBJECTS", 5)
        stage = Stage()
        link, _ = stage.follow(Request(("log.>",)))
        for seq in range(1, 31):
            stage.log(seq, source=f"s{seq % 10}")
            assert len(stage.hub.fanout._index._routes) <= 5
        stage.settle()
        assert seqs(link.read()) == list(range(1, 31))

    def test_the_links_of_many_filters_and_subjects_are_bounded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pairs of a subject and a filter are bounded, whichever comes first, and all is delivered."""
        monkeypatch.setattr(feed_index, "MAX_LINKS", 20)
        stage = Stage()
        clients = []
        for seq in range(1, 61):
            if seq % 5 == 1:
                clients.append((seq, stage.follow(Request(("log.>", f"other.{seq}")))))
            stage.log(seq, source=f"s{seq % 15}")
            index = stage.hub.fanout._index
            assert index.links == sum(len(route.feeds) for route in index._routes.values())
            assert index.links <= 20 or len(index._routes) == 1
        stage.settle()
        for first, (link, session) in clients:
            assert seqs(link.read()) == list(range(first, 61))
            stage.hub.sessions.remove(session)


class TestRate:
    """Rate limit of log events per second and client."""

    def test_the_gap_comes_before_any_cursor_beyond_it(self) -> None:
        """A gap precedes any cursor beyond it, so a client can resume after any frame without loss."""
        stage = Stage(rate=4.0)
        link, _ = stage.follow()
        for seq in range(1, 11):
            stage.log(seq)
        stage.flush()
        messages = link.read()
        assert [message.type for message in messages] == ["gap", "events"]
        assert gaps(messages) == [("e-0", "e-10", 7, "rate")]
        assert seqs(messages) == [1, 2, 3]

    def test_each_level_keeps_a_reserve_for_higher_levels(self) -> None:
        """Each level keeps a reserve for higher levels, so an error passes in a flood of DEBUG."""
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

    def test_state_is_not_rate_limited(self) -> None:
        """State events are exempt from the rate limit and pass in a flood of log events."""
        stage = Stage(rate=1.0)
        link, _ = stage.follow()
        for seq in range(1, 201):
            stage.log(seq) if seq % 2 else stage.status(seq)
        stage.flush()
        delivered = seqs(link.read())
        assert [seq for seq in delivered if seq % 2 == 0] == list(range(2, 201, 2))

    def test_gaps_are_merged_and_sent_within_100_ms(self) -> None:
        """Gaps are merged and sent within 100 ms, so a dropped flood causes at most ten frames a second."""
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
        """Catching up is limited by the socket rather than by the rate."""
        stage = Stage(rate=2.0)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert seqs(link.read()) == list(range(1, 101))

    def test_delivered_and_dropped_are_counted(self) -> None:
        """Delivered and dropped events are counted once per client, dropped ones by reason."""
        stage = Stage(rate=4.0)
        for _ in range(3):
            stage.follow()
        for seq in range(1, 11):
            stage.log(seq)
        stage.flush()
        assert stage.hub.stats.delivered == 9
        assert stage.hub.stats.dropped == {"rate": 21, "slow": 0, "retention": 0, "reset": 0}


class TestEncodings:
    """Connections with and without compression."""

    def test_members_share_the_bytes_of_their_encoding(self) -> None:
        """A batch is encoded once per encoding, and all encodings carry the same messages."""
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
        """Deliveries count equally in all encodings, and bytes count as written."""
        stage = Stage()
        links = [stage.follow(encoding=encoding)[0] for encoding in (PLAIN, DEFLATED)]
        before = stage.hub.stats.bytes
        stage.log(1, size=1000)
        stage.flush()
        assert stage.hub.stats.delivered == 2
        assert stage.hub.stats.bytes - before == sum(len(link.sent[-1]) for link in links)

    def test_a_snapshot_is_encoded_once_for_each_encoding(self) -> None:
        """A snapshot is encoded once per encoding, and again when a state has changed."""
        stage = Stage()
        for seq in range(1, 21):
            stage.status(seq, f"g{seq}")
        stage.settle()
        plain, deflated = (stage.open(encoding=encoding) for encoding in (PLAIN, DEFLATED))
        assert shown(plain[0].read()) == shown(deflated[0].read()) == list(range(1, 21))
        feed = plain[1].feed
        assert feed is not None
        assert feed is deflated[1].feed
        for link in (plain[0], deflated[0]):
            other, _ = stage.open(encoding=link.encoding)
            assert other.sent[-1] is link.sent[-1]
        stage.status(21, "g1")
        stage.settle()
        late, _ = stage.open()
        assert shown(late.read()) == list(range(2, 22))

    def test_catch_up_batches_are_deflated_too(self) -> None:
        """A member that is catching up gets its batches in its own encoding."""
        stage = Stage()
        for seq in range(1, 51):
            stage.log(seq, size=100)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)), DEFLATED)
        stage.settle()
        assert seqs(link.read()) == list(range(1, 51))
        assert len(link.sent[-1]) < 50 * 100 / 3


class TestLatest:
    """Mode latest."""

    def test_the_newest_is_sent_once_per_interval(self) -> None:
        """Mode latest sends the newest events once per interval, and counts the replaced ones."""
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
        conflated = sum(message.conflated or 0 for message in only(messages, Events))
        assert len(seqs(messages)) + conflated == 1000
        assert stage.hub.stats.conflated == conflated
        assert seqs(messages)[-2:] == [999, 1000]
        assert seqs(live.read()) == list(range(1, 1001))

    def test_the_flush_is_due_at_the_end_of_the_interval(self) -> None:
        """The hub schedules the next flush for the end of the interval."""
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

    def test_only_feeds_of_this_mode_differ_by_interval(self) -> None:
        """Only in mode latest do different intervals make different feeds."""
        stage = Stage(rate=5.0)
        modes: tuple[Mode, ...] = ("live", "complete", "latest")
        for mode in modes:
            for interval in (100, 200, 200):
                stage.follow(Request(mode=mode, interval_ms=interval))
        assert sorted(key.mode for key in stage.hub.fanout.feeds) == ["complete", "latest", "latest", "live"]
        assert {key.mode: key.rate for key in stage.hub.fanout.feeds} == {
            "live": 5.0, "complete": 0, "latest": 0,
        }  # fmt: skip

    def test_a_reset_clears_the_conflated_count(self) -> None:
        """A reset clears the count of replaced events, since the reset's gap covers them."""
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
