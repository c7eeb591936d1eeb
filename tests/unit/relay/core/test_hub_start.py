"""Start of a session: its first messages and its position, fresh, ahead of the relay, or at a time."""

import pytest
from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Heartbeat, Mode, Snapshot, Subscribed, Upstream, Welcome
from tickertape.relay.core.session.subscription import Request, Since
from tickertape.relay.ingest.warmup import Tail

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
    """First messages of a session."""

    def test_a_new_client_gets_welcome_subscribed_and_snapshot(self) -> None:
        """A new client gets ``welcome``, ``subscribed`` and ``snapshot`` in this order, each complete."""
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
        """An empty snapshot is sent too, so a client can always wait for one."""
        link, _ = Stage().open()
        assert link.kinds() == ["welcome", "subscribed", "snapshot"]

    def test_a_new_client_is_reported_that_nats_is_unreachable(self) -> None:
        """A new client is told that NATS is unreachable, since silence would look like a quiet stream."""
        stage = Stage()
        stage.hub.sessions.set_upstream(False, NOW + 5)
        link, _ = stage.open()
        (upstream,) = only(link.read(), Upstream)
        assert (upstream.state, upstream.since) == ("disconnected", format_time(NOW + 5))

    def test_snapshot_then_live_without_loss_or_repetition(self) -> None:
        """Snapshot and live events join without loss or repetition, also while events are pending."""
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

    def test_a_state_loaded_ahead_is_shown_from_its_position(self) -> None:
        """A state loaded ahead of the stream is not shown in snapshots before its own position."""
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
        """``load_state`` ignores events that are not states."""
        stage = Stage(head=9)
        stage.hub.load_state(5, "log.info.x", log_event(), nanoseconds(NOW))
        link, _ = stage.open()
        assert shown(link.read()) == []

    def test_a_removed_state_leaves_the_snapshot(self) -> None:
        """A REMOVED state is delivered as an event and leaves the snapshot of later clients."""
        stage = Stage()
        link, _ = stage.follow()
        stage.status(1)
        stage.status(2, status="REMOVED")
        stage.settle()
        assert seqs(link.read()) == [1, 2]
        late, _ = stage.open()
        assert shown(late.read()) == []

    def test_a_cursor_is_honoured(self) -> None:
        """A resumed session gets every event after its cursor once, without a snapshot."""
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

    def test_a_cursor_at_the_head_is_live_immediately(self) -> None:
        """A cursor at the head is live immediately, with nothing to send."""
        stage = Stage()
        stage.log(1)
        link, session = stage.open(Request(cursor=Cursor("e", 1)))
        assert session.reached_head
        assert link.kinds() == ["welcome", "subscribed"]

    @pytest.mark.parametrize("cursor", [Cursor("other", 4), Cursor("e", 99)])
    def test_a_cursor_of_another_stream_is_reset(self, cursor: Cursor) -> None:
        """A cursor of another stream causes a ``reset`` gap before the snapshot."""
        stage = Stage()
        stage.status(1)
        link, _ = stage.open(Request(cursor=cursor))
        messages = link.read()
        assert [message.type for message in messages] == ["welcome", "subscribed", "gap", "snapshot"]
        assert only(messages, Subscribed)[0].resumed is False
        assert gaps(messages) == [(f"{cursor[0]}-{cursor[1]}", "e-1", None, "reset")]
        assert shown(messages) == [1]
        assert stage.hub.stats.resumes["gap"] == 1

    def test_a_cursor_older_than_the_log_gets_a_gap(self) -> None:
        """A cursor older than the log gets a gap, then the newest states of the lost range, then the log."""
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

    def test_since_starts_with_a_snapshot(self) -> None:
        """``since`` starts with the snapshot of that time, followed by all events stored after it."""
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
        """Level and patterns apply to the live feed and to catching up."""
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
        """Every mode is confirmed in ``subscribed`` and delivers events."""
        stage = Stage()
        link, _ = stage.open(Request(mode=mode, interval_ms=50))
        (subscribed,) = only(link.read(), Subscribed)
        assert (subscribed.mode, subscribed.interval_ms) == (mode, 50)
        stage.log(1)
        stage.settle()
        assert seqs(link.read()) == [1]


class TestAhead:
    """Cursors from another relay that is ahead of this one."""

    def test_a_session_ahead_waits_for_its_position(self) -> None:
        """A cursor ahead of the relay is checked against the stream and resumed when the relay gets there."""
        stage = Stage(5, stream=True)
        link, session = stage.open(Request(cursor=Cursor("e", 8)))
        assert link.kinds() == ["welcome"]
        assert stage.requested == [session]
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

    def test_waiting_requests_no_flush(self) -> None:
        """A session that waits ahead of the relay requests no flushes."""
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

    def test_heartbeats_do_not_go_back(self) -> None:
        """The heartbeat of a session ahead of the relay carries the client's position, not the relay's."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 8)))
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 8, NOW)
        stage.hub.tick(NOW + 1)
        assert only(link.read(), Heartbeat)[0].cursor == "e-8"

    def test_a_position_that_the_stream_lost_is_a_reset(self) -> None:
        """A cursor that the stream has lost, or a recreated stream, causes a ``reset`` gap and a snapshot."""
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
    def test_a_late_answer_is_ignored(self, how: str) -> None:
        """A late answer from the stream is ignored when the client has changed its request or left."""
        stage = Stage(5, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 8)))
        request = session.locating
        assert request is not None
        if how == "asked again":
            stage.send_message(session, type="subscribe", subjects=["log.>"])
        elif how == "left":
            stage.hub.sessions.remove(session)
        else:
            stage.hub.sessions.close(session, CloseCode.GOING_AWAY, "the relay shuts down")
        feeds, written = dict(stage.hub.fanout.feeds), len(link.sent)
        stage.hub.sessions.start_located(session, request, 8, NOW)
        stage.hub.sessions.start_located(session, request, None, NOW)
        assert stage.hub.fanout.feeds == feeds
        assert len(link.sent) == written

    def test_a_session_may_stall_while_it_is_located(self) -> None:
        """A session that stalls while it is located starts anyway, and is written to when writable."""
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

    def test_a_reset_while_locating_starts_in_the_new_stream(self) -> None:
        """A reset while a cursor is located starts the session in the new stream, not at the old position."""
        stage = Stage(50, stream=True)
        link, session = stage.follow(Request(cursor=Cursor("e", 80)))
        stage.hub.begin("f", 2)
        stage.hub.restart_sessions()
        stage.send_message(session, type="subscribe")
        stage.log(3)
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].cursor == "f-2"
        assert seqs(messages) == [3]

    def test_a_snapshot_ahead_is_not_shown_to_others(self) -> None:
        """A snapshot with states loaded ahead of the stream is not shown to sessions at earlier positions."""
        stage = Stage(100, stream=True)
        stage.hub.load_state(105, "gateway.status.ctp.a", status_event(), nanoseconds(NOW))
        ahead, session = stage.follow(Request(cursor=Cursor("e", 106)))
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, 106, NOW)
        stage.send_message(session, type="subscribe")
        assert shown(ahead.read()) == [105]
        late, _ = stage.open()
        assert shown(late.read()) == []


class TestSince:
    """Start at a time."""

    def test_a_time_within_the_log_is_resolved_by_it(self) -> None:
        """A time that the log covers is resolved without a request to the stream."""
        stage = Stage(stream=True)
        for seq in range(1, 6):
            stage.now = NOW + seq
            stage.log(seq)
        link, _ = stage.follow(Request(since=Since(ago=2.0)))
        stage.settle()
        assert stage.requested == []
        assert seqs(link.read()) == [3, 4, 5]

    @pytest.mark.parametrize(("position", "expected"), [(2, list(range(3, 21))), (99, [])])
    def test_an_earlier_time_is_resolved_by_the_stream(self, position: int, expected: list[int]) -> None:
        """An earlier time is resolved by the stream; a position after the relay's head becomes the head."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.now = NOW + seq
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", since=Since(moment=NOW + 2.5)))
        assert stage.requested == [session]
        assert session.locating is not None
        stage.hub.sessions.start_located(session, session.locating, position, stage.now)
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == (f"e-{min(position, 20)}", False)
        assert len(only(messages, Snapshot)) == 1
        assert (gaps(messages), seqs(messages)) == ([], expected)


class TestWarmStart:
    """Warm start, which fills the log backwards."""

    def test_an_old_cursor_is_served_from_the_warm_log(self) -> None:
        """A cursor within the warm log is served as if the relay had been running all the time."""
        stage = Stage(head=10)
        tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW - 100 + seq)) for seq in range(6, 11)]
        assert stage.warm(tail, 5) == 5
        link, _ = stage.follow(Request(cursor=Cursor("e", 7)))
        stage.settle()
        assert seqs(link.read()) == [8, 9, 10]

    def test_states_in_the_warm_log_fill_the_snapshot(self) -> None:
        """States in the warm log fill the snapshot without replacing newer ones."""
        stage = Stage(head=10)
        stage.hub.load_state(9, "gateway.status.ctp.a", status_event("a"), nanoseconds(NOW))
        tail = [
            (7, "gateway.status.ctp.a", status_event("a", "DEGRADED"), nanoseconds(NOW)),
            (8, "gateway.status.ctp.b", status_event("b"), nanoseconds(NOW)),
        ]
        stage.warm(tail, 5)
        link, _ = stage.open()
        assert shown(link.read()) == [8, 9]

    def test_a_warm_start_observes_the_bounds(self) -> None:
        """A warm start keeps the newest events within the bounds of the log."""
        stage = Stage(head=10, log_events=3)
        tail = [(seq, "log.info.x", log_event(), nanoseconds(NOW)) for seq in range(1, 11)]
        assert stage.warm(tail, 0) == 3
        assert [record.seq for record in stage.hub.log] == [8, 9, 10]
        assert stage.hub.log.floor == 7

    def test_a_warm_start_holds_no_more_bytes_than_the_log(self) -> None:
        """While the tail is read, only what fits into the log is held; the snapshot has all of its states."""
        stage = Stage(head=100, log_bytes=1_000)
        tail = Tail(stage.hub)
        for seq in range(1, 101):
            tail.add(seq, f"gateway.status.ctp.g{seq}", status_event(f"g{seq}"), nanoseconds(NOW))
            assert sum(len(record.encoded) for record in tail.records) <= 1_000
        kept = len(tail.records)
        assert 2 <= kept < 10
        assert tail.finish(0, [(50, 60)]) == kept
        assert [record.seq for record in stage.hub.log] == list(range(101 - kept, 101))
        assert stage.hub.log.floor == 100 - kept
        assert stage.hub.log.missing_ranges == []
        assert len(stage.hub.snapshot) == 100
