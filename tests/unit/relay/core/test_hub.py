"""The hub with virtual time: what clients see, from the welcome to the bye."""

from typing import Any

import pytest

from contracts.codes import CloseCode, ErrorCode
from contracts.events import format_time
from contracts.wire import (
    Bye,
    Error,
    Events,
    Gap,
    Heartbeat,
    Mode,
    Pong,
    RelayMessage,
    Snapshot,
    Subscribed,
    Upstream,
    Welcome,
    WireError,
)
from relay.core import fanout as fanout_module
from relay.core.archive import STRETCH
from relay.core.frames import Variant
from relay.core.log import Log
from relay.core.session import Request, Since
from tests.fake_link import (
    NOW,
    FakeLink,
    Stage,
    gaps,
    log_event,
    only,
    seqs,
    shown,
    status_event,
)


class TestStart:
    """What a client is greeted with."""

    def test_it_is_welcomed_told_and_shown(self) -> None:
        """``welcome``, ``subscribed``, ``snapshot``, in this order, each complete."""
        stage = Stage(rate=50.0, heartbeat_ms=9_000, relay="here")
        stage.status(1)
        stage.log(2)
        link, session = stage.open(Request(("gateway.>",), "WARN"))
        welcome, subscribed, snapshot = link.read()
        assert isinstance(welcome, Welcome)
        assert welcome.relay == "here"
        assert welcome.session == session.id
        assert welcome.heartbeat_ms == 9_000
        assert welcome.limits.rate == welcome.grant.rate == 50.0
        assert welcome.grant.subjects == [">"]
        assert welcome.expires_at is None
        assert isinstance(subscribed, Subscribed)
        assert subscribed.model_dump() == {
            "type": "subscribed",
            "subjects": ["gateway.>"],
            "level": "WARN",
            "mode": "live",
            "interval_ms": 1000,
            "cursor": "e-2",
            "resumed": False,
        }
        assert isinstance(snapshot, Snapshot)
        assert snapshot.done
        assert [item.event["gateway_id"] for item in snapshot.events] == ["a"]

    def test_an_empty_snapshot_is_sent_as_well(self) -> None:
        """A client need not wait for what does not exist."""
        link, _ = Stage().open()
        assert link.kinds() == ["welcome", "subscribed", "snapshot"]

    def test_it_hears_that_nats_is_away(self) -> None:
        """Otherwise silence would look like peace."""
        stage = Stage()
        stage.hub.set_upstream(False, NOW + 5)
        link, _ = stage.open()
        (upstream,) = only(link.read(), Upstream)
        assert (upstream.state, upstream.since) == ("disconnected", format_time(NOW + 5))

    def test_snapshot_then_live_without_loss_or_repeat(self) -> None:
        """Also when events are pending for those who were there before."""
        stage = Stage()
        old, _ = stage.follow()
        stage.status(1, "a")
        stage.log(2)
        new, _ = stage.open()
        stage.status(3, "a", "DEGRADED")
        stage.log(4)
        stage.settle()
        assert seqs(old.read()) == [1, 2, 3, 4]
        messages = new.read()
        assert shown(messages) == [1]
        assert seqs(messages) == [3, 4]
        assert only(messages, Subscribed)[0].cursor == "e-2"

    def test_a_state_loaded_ahead_of_the_stream_is_shown_from_its_place_on(self) -> None:
        """The newest states are loaded after the place was taken; one may be newer."""
        stage = Stage(head=100)
        stage.hub.load_state(105, "gateway.status.ctp.a", status_event(), NOW)
        early, _ = stage.open()
        assert shown(early.read()) == []
        stage.status(105)
        late, _ = stage.open()
        assert shown(late.read()) == [105]
        stage.settle()
        assert seqs(early.read()) == [105]
        assert seqs(late.read()) == []

    def test_only_states_are_loaded(self) -> None:
        """Other events on a state's subject are none."""
        stage = Stage(head=9)
        stage.hub.load_state(5, "log.info.x", log_event(), NOW)
        link, _ = stage.open()
        assert shown(link.read()) == []

    def test_what_is_removed_leaves_the_snapshot(self) -> None:
        """It is delivered as an event, and not shown to those who come later."""
        stage = Stage()
        link, _ = stage.follow()
        stage.status(1)
        stage.status(2, status="REMOVED")
        stage.settle()
        assert seqs(link.read()) == [1, 2]
        late, _ = stage.open()
        assert shown(late.read()) == []

    def test_a_cursor_is_honoured(self) -> None:
        """Everything since, once, without a snapshot."""
        stage = Stage()
        for seq in range(1, 11):
            stage.log(seq)
        link, _ = stage.open(Request(cursor=("e", 4)))
        stage.log(11)
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == ("e-4", True)
        assert only(messages, Snapshot) == []
        assert seqs(messages) == list(range(5, 12))
        assert stage.hub.stats.resumes["log"] == 1

    def test_a_cursor_at_the_head_goes_live_at_once(self) -> None:
        """Nothing is missing, so nothing is sent."""
        stage = Stage()
        stage.log(1)
        link, session = stage.open(Request(cursor=("e", 1)))
        assert session.arrived
        assert link.kinds() == ["welcome", "subscribed"]

    @pytest.mark.parametrize("cursor", [("other", 4), ("e", 99)])
    def test_a_cursor_of_another_stream_starts_afresh(self, cursor: tuple[str, int]) -> None:
        """It is told with a ``reset`` before the snapshot, never in silence."""
        stage = Stage()
        stage.status(1)
        link, _ = stage.open(Request(cursor=cursor))
        messages = link.read()
        assert [message.type for message in messages] == ["welcome", "subscribed", "gap", "snapshot"]
        assert only(messages, Subscribed)[0].resumed is False
        assert gaps(messages) == [(f"{cursor[0]}-{cursor[1]}", "e-1", None, "reset")]
        assert shown(messages) == [1]
        assert stage.hub.stats.resumes["gap"] == 1

    def test_a_cursor_older_than_the_memory_is_told_what_is_lost(self) -> None:
        """The gap comes first, then the newest states of the lost range, then the rest."""
        stage = Stage(log_events=3)
        stage.status(1, "a")
        for seq in range(2, 9):
            stage.log(seq)
        link, _ = stage.open(Request(cursor=("e", 0)))
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-5", None, "retention")]
        assert seqs(messages) == [1, 6, 7, 8]
        assert stage.hub.stats.resumes["gap"] == 1

    def test_since_is_a_place_with_a_snapshot(self) -> None:
        """The states as they were there, then all that was stored since."""
        stage = Stage()
        for seq in range(1, 6):
            stage.now = NOW + seq
            stage.status(seq, "a" if seq % 2 else "b")
        link, _ = stage.open(Request(since=Since(ago=2.0)))
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].cursor == "e-2"
        assert seqs(messages) == [3, 4, 5]
        assert all(seq <= 2 for seq in shown(messages))
        earliest, _ = stage.open(Request(since=Since()))
        stage.settle()
        assert seqs(earliest.read()) == [1, 2, 3, 4, 5]

    def test_level_and_patterns_are_applied(self) -> None:
        """To the live feed and to catching up alike."""
        stage = Stage()
        live, _ = stage.follow(Request(("log.>",), "ERROR"))
        levels = ("debug", "info", "warn", "error", "critical")
        for seq, level in enumerate(levels, 1):
            stage.log(seq, level)
        stage.status(6)
        late, _ = stage.follow(Request(("log.>",), "ERROR", cursor=("e", 0)))
        stage.settle()
        assert seqs(live.read()) == seqs(late.read()) == [4, 5]

    @pytest.mark.parametrize("mode", ["live", "complete", "latest"])
    def test_every_mode_is_served(self, mode: Mode) -> None:
        """It is confirmed, and events come."""
        stage = Stage()
        link, _ = stage.open(Request(mode=mode, interval_ms=50))
        (subscribed,) = only(link.read(), Subscribed)
        assert (subscribed.mode, subscribed.interval_ms) == (mode, 50)
        stage.log(1)
        stage.settle()
        assert seqs(link.read()) == [1]


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
            stage.hub.closed(session)
        assert stage.hub.fanout.feeds == {}
        assert stage.hub.sessions == {}

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
        stage.hub.skip(2, "bad_json")
        stage.log(3)
        stage.hub.skip(4, "bad_json")
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
        stage.hub.paused(session)
        for seq in (2, 3, 4):
            stage.log(seq)
            stage.settle()
        assert seqs(fast.read()) == [1, 2, 3, 4]
        assert seqs(slow.read()) == [1]
        assert stage.hub.fanout.behind == 1
        stage.hub.resumed(session)
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
        link.on_send = lambda: stage.hub.paused(session)
        stage.log(1)
        stage.settle()
        stage.log(2)
        stage.settle()
        link.on_send = None
        assert seqs(link.read()) == [1]
        stage.hub.resumed(session)
        stage.settle()
        assert seqs(link.read()) == [2]

    def test_a_member_that_stays_slow_gets_on_bit_by_bit(self) -> None:
        """Each time its socket takes something, it goes on from where it was."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.paused(session)
        for seq in range(1, 101):
            stage.log(seq, size=10_000)
        link.on_send = lambda: stage.hub.paused(session)
        for _ in range(100):
            stage.hub.resumed(session)
            stage.settle()
        link.on_send = None
        assert seqs(link.read()) == list(range(1, 101))

    def test_pausing_twice_and_pausing_what_is_behind_is_harmless(self) -> None:
        """A transport may say so at any time."""
        stage = Stage()
        for seq in range(1, 5):
            stage.log(seq)
        link, session = stage.follow(Request(cursor=("e", 0)))
        stage.hub.paused(session)
        stage.hub.paused(session)
        stage.settle()
        assert link.read() == []
        stage.hub.resumed(session)
        stage.hub.resumed(session)
        stage.settle()
        assert seqs(link.read()) == [1, 2, 3, 4]

    def test_many_behind_are_served_in_turns(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A flush serves some of them, asks for the next, and forgets none."""
        monkeypatch.setattr(fanout_module, "CATCH_UP_SESSIONS", 3)
        stage = Stage()
        for seq in range(1, 21):
            stage.log(seq, size=10_000)
        links = [stage.open(Request(cursor=("e", 0)))[0] for _ in range(10)]
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
        stage.hub.paused(session)
        stage.log(1, "debug")
        for seq in range(2, 101):
            stage.log(seq)
        stage.settle()
        stage.hub.resumed(session)
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
        stage.hub.paused(session)
        stage.hub.paused(other)
        for seq in range(1, 101):
            stage.log(seq, "error" if seq % 10 == 0 else "info")
        stage.settle()
        stage.hub.resumed(session)
        stage.hub.resumed(other)
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
        stage.hub.paused(session)
        stage.status(1, "a", "DEGRADED")
        stage.status(2, "a", "HEALTHY")
        for seq in range(3, 21):
            stage.log(seq)
        stage.settle()
        stage.hub.resumed(session)
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-15", None, "slow")]
        assert seqs(messages) == [2, 16, 17, 18, 19, 20]

    def test_a_stalled_member_costs_no_memory(self) -> None:
        """What is pending is let go when nobody is at the head."""
        stage = Stage()
        _, session = stage.follow()
        stage.hub.paused(session)
        for seq in range(1, 1000):
            stage.log(seq)
            stage.settle()
        feed = session.feed
        assert feed is not None
        assert feed.pending == []

    def test_the_routes_of_subjects_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Ever new subjects push out old ones, which are learned again."""
        monkeypatch.setattr(fanout_module, "MAX_KNOWN_SUBJECTS", 5)
        stage = Stage()
        link, _ = stage.follow(Request(("log.>",)))
        for seq in range(1, 31):
            stage.log(seq, source=f"s{seq % 10}")
            assert len(stage.hub.fanout._routes) <= 5
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
        held = stage.hub.fanout.held_until()
        assert held is not None
        assert held - stage.now <= 0.1
        stage.now = held
        stage.flush()
        messages = link.read()
        assert all(message.type == "gap" for message in messages)
        assert sum(gap[2] or 0 for gap in gaps(messages)) == 40
        assert len(messages) == 1
        assert stage.hub.fanout.held_until() is None

    def test_catching_up_is_paced_by_the_socket(self) -> None:
        """Not by the rate."""
        stage = Stage(rate=2.0)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 0)))
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


class TestVariants:
    """Connections that agreed to compression, and those that did not."""

    def test_members_share_the_bytes_of_their_variant(self) -> None:
        """Made once for each, and both say the same."""
        stage = Stage()
        plain = [stage.follow()[0] for _ in range(2)]
        deflated = [stage.follow(variant=Variant.DEFLATED)[0] for _ in range(2)]
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
        links = [stage.follow(variant=variant)[0] for variant in Variant]
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
        plain, deflated = (stage.open(variant=variant) for variant in Variant)
        assert shown(plain[0].read()) == shown(deflated[0].read()) == list(range(1, 21))
        feed = plain[1].feed
        assert feed is not None
        assert feed is deflated[1].feed
        kept = dict(feed.snapshot_frames)
        stage.open(variant=Variant.DEFLATED)
        assert all(feed.snapshot_frames[variant] is kept[variant] for variant in Variant)
        stage.status(21, "g1")
        stage.settle()
        late, _ = stage.open()
        assert shown(late.read()) == list(range(2, 22))

    def test_catching_up_is_deflated_too(self) -> None:
        """Alone, in the session's own variant."""
        stage = Stage()
        for seq in range(1, 51):
            stage.log(seq, size=100)
        link, _ = stage.follow(Request(cursor=("e", 0)), Variant.DEFLATED)
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
        stage.now = stage.hub.fanout.held_until() or 0.0
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
        held = stage.hub.fanout.held_until()
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


class TestStream:
    """What is older than the log is read again from the stream."""

    def test_complete_gets_everything_from_the_stream_then_the_log(self) -> None:
        """Once and in order, over the edges of stretches, and without a gap."""
        stage = Stage(stream=True, log_events=10)
        last = 2 * STRETCH + 100
        for seq in range(1, last + 1):
            stage.log(seq)
        link, session = stage.open(Request(mode="complete", cursor=("e", 5)))
        assert only(link.read(), Subscribed)[0].resumed
        stage.settle()
        assert (link.read(), stage.fetched > 0) == ([], True)
        for _ in range(5):
            stage.read()
            stage.settle()
        messages = link.read()
        assert gaps(messages) == []
        assert seqs(messages) == list(range(6, last + 1))
        assert session.arrived
        assert stage.hub.stats.resumes == {"log": 0, "stream": 1, "gap": 0}
        stage.log(last + 1)
        stage.settle()
        assert seqs(link.read()) == [last + 1]

    def test_clients_share_a_stretch(self) -> None:
        """It is read once for all who come back."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 101):
            stage.log(seq)
        links = [stage.follow(Request(mode="complete", cursor=("e", place)))[0] for place in range(20)]
        stage.settle()
        assert stage.read(9) == [0]
        stage.settle()
        for place, link in enumerate(links):
            assert seqs(link.read()) == list(range(place + 1, 101))

    def test_the_next_stretch_is_read_while_one_is_sent(self) -> None:
        """A long way back is not a long wait."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 2 * STRETCH):
            stage.log(seq)
        stage.follow(Request(mode="complete", cursor=("e", 0)))
        stage.settle()
        assert stage.read(9) == [0]
        stage.flush()
        assert stage.read(9) == [1]

    def test_live_gets_what_its_memory_allows(self) -> None:
        """When the log alone has less for it than it may have, the stream is read."""
        stage = Stage(stream=True, log_events=10, max_catch_up=50)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 70)))
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert (gaps(messages), seqs(messages)) == ([], list(range(71, 101)))

    def test_live_is_moved_forward_when_the_log_has_enough(self) -> None:
        """Nothing is read that it would not get."""
        stage = Stage(stream=True, log_events=20, max_catch_up=10)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 0)))
        stage.settle()
        assert stage.fetched == 0
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-80", None, "slow"), ("e-80", "e-90", 10, "slow")]
        assert seqs(messages) == list(range(91, 101))

    def test_live_passes_over_what_lies_too_far_back(self) -> None:
        """It is told so first, with the newest states of what it missed; one stretch is read, and no more."""
        stage = Stage(stream=True, log_events=10)
        stage.status(1)
        for seq in range(2, 2 * STRETCH + 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 0)))
        stage.settle()
        assert stage.read(9) == [2]
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", f"e-{2 * STRETCH}", None, "slow")]
        assert seqs(messages) == [1, *range(2 * STRETCH + 1, 2 * STRETCH + 101)]

    def test_live_gets_no_more_than_it_may_of_log_and_stream_together(self) -> None:
        """What lies further back is counted."""
        stage = Stage(stream=True, log_events=10, max_catch_up=50)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 0)))
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-50", 50, "slow")]
        assert seqs(messages) == list(range(51, 101))

    def test_live_that_may_catch_up_with_nothing_reads_nothing(self) -> None:
        """It is told of what it missed, and is live."""
        stage = Stage(stream=True, log_events=10, max_catch_up=0)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=("e", 0)))
        stage.settle()
        assert stage.fetched == 0
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-90", None, "slow"), ("e-90", "e-100", 10, "slow")]
        assert seqs(messages) == []

    def test_a_stalled_live_client_is_moved_forward(self) -> None:
        """It has been at the head; the stream is not read again for it."""
        stage = Stage(stream=True, log_events=5)
        link, session = stage.follow()
        stage.hub.paused(session)
        for seq in range(1, 21):
            stage.log(seq)
        stage.settle()
        stage.hub.resumed(session)
        stage.settle()
        assert stage.fetched == 0
        assert gaps(link.read()) == [("e-0", "e-15", None, "slow")]

    def test_a_stalled_complete_client_loses_nothing(self) -> None:
        """However long it took, it gets the rest from the stream."""
        stage = Stage(stream=True, log_events=5)
        link, session = stage.follow(Request(mode="complete"))
        stage.hub.paused(session)
        for seq in range(1, 201):
            stage.log(seq)
        stage.settle()
        stage.hub.resumed(session)
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert (gaps(messages), seqs(messages)) == ([], list(range(1, 201)))

    def test_past_retention_it_is_told_and_goes_on(self) -> None:
        """Up to the first event that is still there; what the log has is not lost with it."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 101):
            stage.log(seq)
        stage.first = 60
        link, _ = stage.follow(Request(mode="complete", cursor=("e", 5)))
        other, _ = stage.follow(Request(mode="complete", cursor=("e", 5), subjects=("log.info.x",)))
        stage.settle()
        stage.read()
        stage.settle()
        for one in (link, other):
            messages = one.read()
            assert gaps(messages) == [("e-5", "e-60", None, "retention")]
            assert seqs(messages) == list(range(61, 101))
        late, _ = stage.follow(Request(mode="complete", cursor=("e", 5)))
        stage.first = 98
        stage.hub.fanout.archive.clear()
        stage.settle()
        stage.read()
        stage.settle()
        messages = late.read()
        assert gaps(messages) == [("e-5", "e-90", None, "retention")]
        assert seqs(messages) == list(range(91, 101))

    def test_who_waits_for_a_stretch_hears_where_it_stands(self) -> None:
        """The heartbeat comes from its own place."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=("e", 3)))
        stage.settle()
        assert session in stage.hub.fanout.archive
        stage.hub.resumed(session)
        stage.hub.tick(NOW + 1)
        (heartbeat,) = only(link.read(), Heartbeat)
        assert heartbeat.cursor == "e-3"

    @pytest.mark.parametrize("how", ["stalls", "leaves", "asks for something else"])
    def test_nobody_reads_for_one_who_no_longer_waits(self, how: str) -> None:
        """A stalled client asks again when it can be written to."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=("e", 3)))
        stage.settle()
        if how == "stalls":
            stage.hub.paused(session)
        elif how == "leaves":
            stage.hub.closed(session)
        else:
            stage.say(session, type="subscribe", cursor="e-20")
        assert stage.read() == []
        link.read()
        if how == "stalls":
            stage.hub.resumed(session)
            stage.settle()
            stage.read()
            stage.settle()
            assert seqs(link.read()) == list(range(4, 21))

    def test_one_that_fills_up_wants_no_stretch(self) -> None:
        """The unit that filled its socket was its last for now."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, STRETCH + 101):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=("e", STRETCH - 10)))
        stage.settle()
        link.on_send = lambda: stage.hub.paused(session)
        assert stage.read() == [0]
        stage.flush()
        assert seqs(link.read()) == list(range(STRETCH - 9, STRETCH + 1))
        assert session not in stage.hub.fanout.archive
        link.on_send = None
        stage.hub.resumed(session)
        stage.settle()
        stage.read(2)
        stage.settle()
        assert seqs(link.read()) == list(range(STRETCH + 1, STRETCH + 101))

    def test_another_stream_releases_those_who_wait(self) -> None:
        """They are told of the reset, and follow the other one."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=("e", 3)))
        stage.settle()
        stage.hub.begin("f", 7)
        stage.hub.restart_sessions()
        assert session not in stage.hub.fanout.archive
        stage.settle()
        stage.log(8)
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-3", "f-7", None, "reset")]
        assert seqs(messages) == [8]

    def test_a_stretch_for_nobody_wakes_nobody(self) -> None:
        """It is kept for those who come."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        _, session = stage.follow(Request(mode="complete", cursor=("e", 3)))
        stage.settle()
        wanted = stage.hub.fanout.archive.next()
        assert wanted is not None
        stage.hub.closed(session)
        stage.settle()
        woken = stage.woken
        stretch = Log(STRETCH, 1 << 40)
        stage.hub.fanout.loaded(wanted.number, stretch)
        assert stage.woken == woken


class TestAhead:
    """A cursor that another relay gave, which has seen more."""

    def test_it_waits_and_goes_on(self) -> None:
        """The relay asks whether the stream has that place; then the client waits for what follows it."""
        stage = Stage(5, stream=True)
        link, session = stage.open(Request(cursor=("e", 8)))
        assert link.kinds() == ["welcome"]
        assert stage.asked == [session]
        assert session.request is not None
        stage.hub.located(session, session.request, 8, NOW)
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == ("e-8", True)
        assert [message.type for message in messages] == ["subscribed"]
        stage.settle()
        for seq in range(6, 12):
            stage.log(seq)
            stage.settle()
        messages = link.read()
        assert (gaps(messages), seqs(messages)) == ([], [9, 10, 11])
        assert stage.hub.stats.resumes == {"log": 0, "stream": 1, "gap": 0}

    def test_waiting_costs_nothing(self) -> None:
        """The hub is not asked for flushes in which nothing can move."""
        stage = Stage(5, stream=True)
        _, session = stage.follow(Request(cursor=("e", 8)))
        stage.settle()
        woken = stage.woken
        assert session.request is not None
        stage.hub.located(session, session.request, 8, NOW)
        assert stage.woken == woken
        stage.flush()
        stage.hub.tick(NOW + 1)
        assert stage.woken == woken

    def test_its_heartbeat_does_not_go_back(self) -> None:
        """It tells the client's place, not the relay's."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=("e", 8)))
        assert session.request is not None
        stage.hub.located(session, session.request, 8, NOW)
        stage.hub.tick(NOW + 1)
        assert only(link.read(), Heartbeat)[0].cursor == "e-8"

    def test_a_place_that_the_stream_lost_is_a_reset(self) -> None:
        """It fell back, or was made anew: ``gap``, ``snapshot``, live."""
        stage = Stage(stream=True)
        stage.status(1)
        link, session = stage.follow(Request(cursor=("e", 8)))
        assert session.request is not None
        stage.hub.located(session, session.request, None, NOW)
        stage.log(2)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["subscribed", "gap", "snapshot", "events"]
        assert gaps(messages) == [("e-8", "e-1", None, "reset")]
        assert (shown(messages), seqs(messages)) == ([1], [2])
        assert stage.hub.stats.resumes["gap"] == 1

    @pytest.mark.parametrize("how", ["asked again", "left", "ended"])
    def test_a_late_answer_is_passed_over(self, how: str) -> None:
        """The client wants something else by now, or is gone."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=("e", 8)))
        request = session.request
        assert request is not None
        if how == "asked again":
            stage.say(session, type="subscribe", subjects=["log.>"])
        elif how == "left":
            stage.hub.closed(session)
        else:
            stage.hub.bye(session, CloseCode.GOING_AWAY, "the relay shuts down")
        feeds, written = dict(stage.hub.fanout.feeds), len(link.sent)
        stage.hub.located(session, request, 8, NOW)
        stage.hub.located(session, request, None, NOW)
        assert stage.hub.fanout.feeds == feeds
        assert len(link.sent) == written

    def test_one_that_waits_for_its_place_may_stall(self) -> None:
        """It begins all the same, and is written to when its socket has room."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=("e", 6)))
        request = session.request
        assert request is not None
        stage.hub.paused(session)
        stage.hub.resumed(session)
        stage.hub.paused(session)
        stage.hub.located(session, request, 6, NOW)
        for seq in (6, 7):
            stage.log(seq)
        stage.settle()
        assert seqs(link.read()) == []
        stage.hub.resumed(session)
        stage.settle()
        assert seqs(link.read()) == [7]

    def test_another_stream_may_come_while_it_is_asked(self) -> None:
        """Nobody follows the new one from a place in the old."""
        stage = Stage(50, stream=True)
        link, session = stage.follow(Request(cursor=("e", 80)))
        stage.hub.begin("f", 2)
        stage.hub.restart_sessions()
        stage.say(session, type="subscribe")
        stage.log(3)
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].cursor == "f-2"
        assert seqs(messages) == [3]

    def test_a_snapshot_ahead_is_not_shown_to_others(self) -> None:
        """States that were loaded ahead of the stream belong to their own place."""
        stage = Stage(100, stream=True)
        stage.hub.load_state(105, "gateway.status.ctp.a", status_event(), NOW)
        ahead, session = stage.follow(Request(cursor=("e", 106)))
        assert session.request is not None
        stage.hub.located(session, session.request, 106, NOW)
        stage.say(session, type="subscribe")
        assert shown(ahead.read()) == [105]
        late, _ = stage.open()
        assert shown(late.read()) == []


class TestSince:
    """A place in time."""

    def test_within_the_memory_the_log_tells_it(self) -> None:
        """Nobody is asked."""
        stage = Stage(stream=True)
        for seq in range(1, 6):
            stage.now = NOW + seq
            stage.log(seq)
        link, _ = stage.follow(Request(since=Since(ago=2.0)))
        stage.settle()
        assert stage.asked == []
        assert seqs(link.read()) == [3, 4, 5]

    @pytest.mark.parametrize(("place", "expected"), [(2, list(range(3, 21))), (99, [])])
    def test_before_it_the_stream_is_asked(self, place: int, expected: list[int]) -> None:
        """A place after the relay's own, of an event that it has yet to see, is its head."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.now = NOW + seq
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", since=Since(moment=NOW + 2.5)))
        assert stage.asked == [session]
        assert session.request is not None
        stage.hub.located(session, session.request, place, stage.now)
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == (f"e-{min(place, 20)}", False)
        assert len(only(messages, Snapshot)) == 1
        assert (gaps(messages), seqs(messages)) == ([], expected)


class TestSubscribe:
    """A filter that is replaced in mid-session."""

    def test_it_goes_on_from_the_sessions_place(self) -> None:
        """With a snapshot first, and nothing in between lost."""
        stage = Stage()
        stage.status(1)
        link, session = stage.follow(Request(("log.>",)))
        stage.log(2)
        stage.settle()
        link.read()
        stage.log(3)
        stage.status(4, "a", "DEGRADED")
        stage.say(session, type="subscribe", subjects=["gateway.>", "log.>"])
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == ("e-2", False)
        assert seqs(messages) == [3, 4]
        assert [message.type for message in messages][:2] == ["subscribed", "snapshot"]

    def test_what_is_omitted_takes_its_default(self) -> None:
        """It replaces the filter, it does not amend it."""
        stage = Stage()
        link, session = stage.follow(Request(("log.>",), "ERROR"))
        stage.say(session, type="subscribe")
        (subscribed,) = only(link.read(), Subscribed)
        assert (subscribed.subjects, subscribed.level) == ([">"], "DEBUG")

    def test_it_can_go_back_to_a_cursor(self) -> None:
        """Everything since, though some of it was delivered before."""
        stage = Stage()
        link, session = stage.follow()
        for seq in range(1, 6):
            stage.log(seq)
        stage.settle()
        link.read()
        stage.say(session, type="subscribe", cursor="e-2")
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].resumed
        assert seqs(messages) == [3, 4, 5]

    def test_a_stalled_session_keeps_its_place(self) -> None:
        """It is still behind after it has changed its filter."""
        stage = Stage()
        link, session = stage.follow()
        stage.log(1)
        stage.settle()
        stage.hub.paused(session)
        stage.log(2)
        stage.log(3, "error")
        stage.settle()
        stage.say(session, type="subscribe", level="ERROR")
        stage.hub.resumed(session)
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].cursor == "e-1"
        assert seqs(messages) == [1, 3]

    @pytest.mark.parametrize(
        ("fields", "code"),
        [
            ({"subjects": ["a..b"]}, "bad_subjects"),
            ({"level": "LOUD"}, "bad_level"),
            ({"mode": "fast"}, "bad_mode"),
            ({"cursor": "x"}, "bad_cursor"),
            ({"since": "x"}, "bad_since"),
            ({"interval_ms": 0}, "bad_interval"),
        ],
    )
    def test_a_bad_filter_ends_the_session(self, fields: dict[str, Any], code: str) -> None:
        """The error names the message that it answers."""
        stage = Stage()
        link, session = stage.follow()
        stage.say(session, type="subscribe", **fields)
        messages = link.read()
        (error,) = only(messages, Error)
        assert (error.code, error.ref, error.retry) == (code, "subscribe", False)
        assert link.closed is not None
        assert link.closed[0] == only(messages, Bye)[0].code == CloseCode.BAD_FILTER
        assert stage.hub.sessions == {}
        assert stage.hub.fanout.feeds == {}


class TestConversation:
    """What else is said."""

    @pytest.mark.parametrize("id", ["abc", 7, None])
    def test_a_ping_is_answered(self, id: Any) -> None:
        """With the same id."""
        stage = Stage()
        link, session = stage.follow()
        stage.say(session, type="ping", id=id)
        assert link.read() == [Pong(type="pong", id=id)]

    def test_a_token_that_nobody_asked_for_is_passed_over(self) -> None:
        """A client that always sends one works with a relay that wants none."""
        stage = Stage()
        link, session = stage.follow()
        stage.say(session, type="auth", token="t")
        assert link.read() == []
        assert link.closed is None

    @pytest.mark.parametrize(
        ("text", "code", "ref"),
        [
            (b"hello", "bad_json", None),
            (b'{"type":"ping","id":NaN}', "bad_json", None),
            (b"[]", "bad_message", None),
            (b"{}", "bad_message", None),
            (b'{"type":7}', "bad_message", None),
            (b'{"type":"shout"}', "unknown_type", None),
            (b'{"type":"ping","id":[]}', "bad_message", "ping"),
            (b'{"type":"subscribe","subjects":"log.>"}', "bad_message", "subscribe"),
            (b'{"type":"subscribe","interval_ms":"250"}', "bad_message", "subscribe"),
            (b'{"type":"auth"}', "bad_message", "auth"),
        ],
    )
    def test_misuse_ends_the_session(self, text: bytes, code: str, ref: str | None) -> None:
        """``error``, ``bye``, and the close code of the table."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.receive(session, text, NOW)
        (error, bye) = link.read()
        assert isinstance(error, Error)
        assert (error.code, error.ref, error.retry) == (code, ref, False)
        assert isinstance(bye, Bye)
        assert bye.code == 4400
        assert link.closed is not None
        assert link.closed[0] == 4400

    def test_nothing_is_written_after_bye(self) -> None:
        """Whatever comes, from either side."""
        stage = Stage()
        link, session = stage.follow()
        stage.log(1)
        stage.hub.bye(session, CloseCode.GOING_AWAY, "the relay shuts down", 700)
        written = len(link.sent)
        (bye,) = link.read()
        assert isinstance(bye, Bye)
        assert (bye.code, bye.reason, bye.retry_after_ms) == (1001, "the relay shuts down", 700)
        stage.say(session, type="ping", id=1)
        stage.say(session, type="subscribe")
        stage.hub.receive(session, b"nonsense", NOW)
        stage.hub.bye(session, CloseCode.NORMAL, "again")
        stage.hub.resumed(session)
        stage.log(2)
        stage.settle()
        stage.hub.tick(NOW + 100)
        stage.hub.set_upstream(False, NOW)
        stage.hub.begin("f", 0)
        stage.hub.restart_sessions()
        stage.hub.closed(session)
        assert len(link.sent) == written

    def test_whoever_is_turned_away_hears_why(self) -> None:
        """``error`` and ``bye``, without a welcome."""
        stage = Stage()
        link = FakeLink()
        error = WireError(ErrorCode.UNAVAILABLE, "the relay is starting")
        stage.hub.turn_away(link, error, CloseCode.UNAVAILABLE)
        messages = link.read()
        assert [message.type for message in messages] == ["error", "bye"]
        assert only(messages, Error)[0].retry is True
        assert link.closed == (4503, "the relay is starting")

    def test_heartbeats_tell_the_place_of_each(self) -> None:
        """Also in a quiet filter, and of a session that is catching up."""
        stage = Stage()
        quiet, _ = stage.follow(Request(("system.>",)))
        live, _ = stage.follow()
        stalled, session = stage.follow()
        stage.hub.paused(session)
        for seq in range(1, 4):
            stage.log(seq)
        stage.settle()
        late, _ = stage.follow(Request(cursor=("e", 1)))
        stage.hub.tick(NOW + 1)
        assert only(quiet.read(), Heartbeat)[0].cursor == "e-3"
        assert only(live.read(), Heartbeat)[0].cursor == "e-3"
        assert only(late.read(), Heartbeat)[0].cursor == "e-1"
        assert stalled.read() == []

    def test_a_heartbeat_promises_nothing_that_is_pending(self) -> None:
        """Its cursor is where the client stands, not where the log is."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.settle()
        link.read()
        stage.log(2)
        stage.hub.tick(NOW + 1)
        (heartbeat,) = link.read()
        assert heartbeat == Heartbeat(type="heartbeat", cursor="e-1", time=format_time(NOW + 1))

    def test_heartbeats_come_in_their_interval(self) -> None:
        """Not with each tick, and a tick early rather than late."""
        stage = Stage(heartbeat_ms=15_000)
        link, _ = stage.follow()
        for second in range(60):
            stage.hub.tick(NOW + second)
        assert len(only(link.read(), Heartbeat)) == 5

    def test_a_socket_that_fills_with_a_heartbeat_harms_nobody(self) -> None:
        """Those who are catching up may stall at that very moment."""
        stage = Stage()
        stage.log(1)
        clients = [stage.follow(Request(cursor=("e", 0))) for _ in range(3)]
        for link, session in clients:
            link.on_send = lambda session=session: stage.hub.paused(session)
        stage.hub.tick(NOW + 1)
        assert [link.kinds() for link, _ in clients] == [["heartbeat"]] * 3

    @pytest.mark.parametrize("how", ["pauses", "leaves"])
    def test_what_one_write_does_to_another_session_is_heeded(self, how: str) -> None:
        """Who was due in the same flush gets nothing more."""
        stage = Stage()
        stage.log(1)
        (one, _), (other, session) = (stage.follow(Request(cursor=("e", 0))) for _ in range(2))
        call = stage.hub.paused if how == "pauses" else stage.hub.closed
        one.on_send = lambda: call(session)
        stage.settle()
        assert seqs(one.read()) == [1]
        assert other.read() == []

    def test_all_hear_of_upstream_once(self) -> None:
        """A change is told, a repetition is not; also to those who are stalled."""
        stage = Stage()
        link, _ = stage.follow()
        stage.hub.set_upstream(True, NOW + 1)
        stage.hub.set_upstream(False, NOW + 2)
        stage.hub.set_upstream(False, NOW + 3)
        stage.hub.set_upstream(True, NOW + 4)
        told: list[RelayMessage] = link.read()
        assert [(one.state, one.since) for one in only(told, Upstream)] == [
            ("disconnected", format_time(NOW + 2)),
            ("connected", format_time(NOW + 4)),
        ]


class TestLoss:
    """What the stream let go, or lost."""

    def test_a_hole_is_told_in_order(self) -> None:
        """What was pending comes before the gap, what follows after it."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.hub.fanout.hole(5, NOW)
        stage.log(6)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["events", "gap", "events"]
        assert seqs(messages) == [1, 6]
        assert gaps(messages) == [("e-1", "e-5", None, "retention")]

    def test_a_held_gap_comes_before_a_hole(self) -> None:
        """Cursors do not go back."""
        stage = Stage(rate=2.0)
        link, _ = stage.follow()
        for seq in (1, 2):
            stage.log(seq)
        stage.flush()
        stage.log(3)
        stage.flush()
        stage.hub.fanout.hole(9, stage.now)
        told = gaps(link.read())
        assert told[-2:] == [("e-2", "e-3", 1, "rate"), ("e-3", "e-9", None, "retention")]

    def test_a_stalled_client_hears_of_a_hole_too(self) -> None:
        """When it gets there, between what lies before and behind."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.paused(session)
        stage.log(1)
        stage.hub.fanout.hole(5, NOW)
        stage.log(6)
        stage.hub.resumed(session)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["events", "gap", "events"]
        assert gaps(messages) == [("e-1", "e-5", None, "retention")]

    def test_a_reset_is_told_and_starts_afresh(self) -> None:
        """A ``gap`` with ``reset``, a snapshot of the other stream, then its events."""
        stage = Stage()
        link, _ = stage.follow()
        stage.status(1)
        stage.log(2)
        stage.settle()
        link.read()
        stage.hub.begin("f", 7)
        stage.hub.load_state(4, "gateway.status.ctp.b", status_event("b"), NOW)
        stage.hub.restart_sessions()
        stage.log(8)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["gap", "snapshot", "events"]
        assert gaps(messages) == [("e-2", "f-7", None, "reset")]
        assert (shown(messages), seqs(messages)) == ([4], [8])
        assert only(messages, Events)[0].cursor == "f-8"

    def test_a_reset_reaches_those_behind(self) -> None:
        """They are told from where they stood, and go on with the other stream."""
        stage = Stage()
        stalled, session = stage.follow()
        stage.log(1)
        stage.settle()
        stage.hub.paused(session)
        stage.log(2)
        stage.settle()
        late, _ = stage.follow(Request(cursor=("e", 1)))
        stage.hub.begin("f", 7)
        stage.hub.restart_sessions()
        stage.hub.resumed(session)
        stage.log(8)
        stage.settle()
        for link in (stalled, late):
            messages = link.read()
            assert gaps(messages) == [("e-1", "f-7", None, "reset")]
            assert seqs(messages)[-1] == 8

    def test_a_reset_tells_of_what_was_pending(self) -> None:
        """Events that were taken in and not yet sent are in the range of the gap."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.settle()
        stage.log(2)
        stage.hub.begin("f", 0)
        stage.settle()
        messages = link.read()
        assert seqs(messages) == [1]
        assert gaps(messages) == [("e-1", "f-0", None, "reset")]


class TestWarmStart:
    """The memory that is filled backwards."""

    def test_an_old_cursor_is_served_from_it(self) -> None:
        """As if the relay had been there all the time."""
        stage = Stage(head=10)
        tail = [(seq, "log.info.x", log_event(), NOW - 100 + seq) for seq in range(6, 11)]
        assert stage.hub.warm(tail, 5) == 5
        link, _ = stage.follow(Request(cursor=("e", 7)))
        stage.settle()
        assert seqs(link.read()) == [8, 9, 10]

    def test_states_in_it_are_known(self) -> None:
        """They fill what the snapshot lacks, and push out nothing newer."""
        stage = Stage(head=10)
        stage.hub.load_state(9, "gateway.status.ctp.a", status_event("a"), NOW)
        tail = [
            (7, "gateway.status.ctp.a", status_event("a", "DEGRADED"), NOW),
            (8, "gateway.status.ctp.b", status_event("b"), NOW),
        ]
        stage.hub.warm(tail, 5)
        link, _ = stage.open()
        assert shown(link.read()) == [8, 9]

    def test_the_bounds_hold(self) -> None:
        """The newest are kept."""
        stage = Stage(head=10, log_events=3)
        tail = [(seq, "log.info.x", log_event(), NOW) for seq in range(1, 11)]
        assert stage.hub.warm(tail, 0) == 3
        assert [record.seq for record in stage.hub.log] == [8, 9, 10]
        assert stage.hub.log.floor == 7


def test_it_says_what_it_is() -> None:
    """The text tells the place, the sessions and the sizes."""
    stage = Stage(head=4)
    stage.follow()
    assert repr(stage.hub) == (
        "Hub(e-4, 1 sessions, Fanout(1 feeds, 0 dirty, 0 catching up), Log(4 < 0 records <= 4, 0 bytes))"
    )


def test_received_events_are_counted_by_kind() -> None:
    """State, and everything else."""
    stage = Stage()
    stage.status(1)
    stage.log(2)
    stage.log(3)
    assert stage.hub.stats.received == {"state": 1, "log": 2}


def test_delay_and_age_are_observed_for_the_head() -> None:
    """Once for each delivery, by the oldest event of a batch."""
    stage = Stage()
    for _ in range(3):
        stage.follow()
    stage.log(1)
    stage.now += 0.02
    stage.log(2)
    stage.flush()
    assert sum(stage.hub.stats.delay.counts) == 6
    assert stage.hub.stats.delay.total == pytest.approx(6 * 0.02, abs=1e-4)
