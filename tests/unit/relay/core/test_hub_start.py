"""What a client is greeted with, and where it begins: fresh, ahead of the relay, or at a time."""

import pytest
from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Heartbeat, Mode, Snapshot, Subscribed, Upstream, Welcome
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import (
    NOW,
    Stage,
    gaps,
    log_event,
    nanoseconds,
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
        assert subscribed.model_dump(exclude_unset=True) == {
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
        stage.hub.sessions.set_upstream(False, NOW + 5)
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
        stage.hub.load_state(105, "gateway.status.ctp.a", status_event(), nanoseconds(NOW))
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
        stage.hub.load_state(5, "log.info.x", log_event(), nanoseconds(NOW))
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
        link, _ = stage.open(Request(cursor=Cursor("e", 4)))
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
        link, session = stage.open(Request(cursor=Cursor("e", 1)))
        assert session.reached_head
        assert link.kinds() == ["welcome", "subscribed"]

    @pytest.mark.parametrize("cursor", [Cursor("other", 4), Cursor("e", 99)])
    def test_a_cursor_of_another_stream_starts_afresh(self, cursor: Cursor) -> None:
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
        link, _ = stage.open(Request(cursor=Cursor("e", 0)))
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
        late, _ = stage.follow(Request(("log.>",), "ERROR", cursor=Cursor("e", 0)))
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


class TestAhead:
    """A cursor that another relay gave, which has seen more."""

    def test_it_waits_and_goes_on(self) -> None:
        """The relay asks whether the stream has that place; then the client waits for what follows it."""
        stage = Stage(5, stream=True)
        link, session = stage.open(Request(cursor=Cursor("e", 8)))
        assert link.kinds() == ["welcome"]
        assert stage.asked == [session]
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 8, NOW)
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
        _, session = stage.follow(Request(cursor=Cursor("e", 8)))
        stage.settle()
        woken = stage.woken
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 8, NOW)
        assert stage.woken == woken
        stage.flush()
        stage.hub.tick(NOW + 1)
        assert stage.woken == woken

    def test_its_heartbeat_does_not_go_back(self) -> None:
        """It tells the client's place, not the relay's."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 8)))
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 8, NOW)
        stage.hub.tick(NOW + 1)
        assert only(link.read(), Heartbeat)[0].cursor == "e-8"

    def test_a_place_that_the_stream_lost_is_a_reset(self) -> None:
        """It fell back, or was made anew: ``gap``, ``snapshot``, live."""
        stage = Stage(stream=True)
        stage.status(1)
        link, session = stage.follow(Request(cursor=Cursor("e", 8)))
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, None, NOW)
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
        link, session = stage.follow(Request(cursor=Cursor("e", 8)))
        request = session.locating
        assert request is not None
        if how == "asked again":
            stage.say(session, type="subscribe", subjects=["log.>"])
        elif how == "left":
            stage.hub.sessions.remove(session)
        else:
            stage.hub.sessions.close(session, CloseCode.GOING_AWAY, "the relay shuts down")
        feeds, written = dict(stage.hub.fanout.feeds), len(link.sent)
        stage.hub.sessions.start_located(session, request, 8, NOW)
        stage.hub.sessions.start_located(session, request, None, NOW)
        assert stage.hub.fanout.feeds == feeds
        assert len(link.sent) == written

    def test_one_that_waits_for_its_place_may_stall(self) -> None:
        """It begins all the same, and is written to when its socket has room."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 6)))
        request = session.locating
        assert request is not None
        stage.hub.sessions.pause(session)
        stage.hub.sessions.resume(session)
        stage.hub.sessions.pause(session)
        stage.hub.sessions.start_located(session, request, 6, NOW)
        for seq in (6, 7):
            stage.log(seq)
        stage.settle()
        assert seqs(link.read()) == []
        stage.hub.sessions.resume(session)
        stage.settle()
        assert seqs(link.read()) == [7]

    def test_another_stream_may_come_while_it_is_asked(self) -> None:
        """Nobody follows the new one from a place in the old."""
        stage = Stage(50, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 80)))
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
        stage.hub.load_state(105, "gateway.status.ctp.a", status_event(), nanoseconds(NOW))
        ahead, session = stage.follow(Request(cursor=Cursor("e", 106)))
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 106, NOW)
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
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, place, stage.now)
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == (f"e-{min(place, 20)}", False)
        assert len(only(messages, Snapshot)) == 1
        assert (gaps(messages), seqs(messages)) == ([], expected)


class TestWarmStart:
    """The memory that is filled backwards."""

    def test_an_old_cursor_is_served_from_it(self) -> None:
        """As if the relay had been there all the time."""
        stage = Stage(head=10)
        tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW - 100 + seq)) for seq in range(6, 11)]
        assert stage.hub.warm(tail, 5) == 5
        link, _ = stage.follow(Request(cursor=Cursor("e", 7)))
        stage.settle()
        assert seqs(link.read()) == [8, 9, 10]

    def test_states_in_it_are_known(self) -> None:
        """They fill what the snapshot lacks, and push out nothing newer."""
        stage = Stage(head=10)
        stage.hub.load_state(9, "gateway.status.ctp.a", status_event("a"), nanoseconds(NOW))
        tail = [
            (7, "gateway.status.ctp.a", status_event("a", "DEGRADED"), nanoseconds(NOW)),
            (8, "gateway.status.ctp.b", status_event("b"), nanoseconds(NOW)),
        ]
        stage.hub.warm(tail, 5)
        link, _ = stage.open()
        assert shown(link.read()) == [8, 9]

    def test_the_bounds_hold(self) -> None:
        """The newest are kept."""
        stage = Stage(head=10, log_events=3)
        tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW)) for seq in range(1, 11)]
        assert stage.hub.warm(tail, 0) == 3
        assert [record.seq for record in stage.hub.log] == [8, 9, 10]
        assert stage.hub.log.floor == 7
