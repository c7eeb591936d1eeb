"""Conversations between clients and the hub, in virtual time."""

from typing import Any

import pytest
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import (
    Bye,
    Error,
    Heartbeat,
    Pong,
    ProtocolError,
    RelayMessage,
    Subscribed,
    Upstream,
)
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, FakeLink, Stage, only, seqs


class TestSubscribe:
    """A ``subscribe`` that replaces the filter of a running session."""

    def test_a_new_filter_continues_from_the_position(self) -> None:
        """A new filter continues from the session's position with a snapshot first and without loss."""
        stage = Stage()
        stage.status(1)
        link, session = stage.follow(Request(("log.>",)))
        stage.log(2)
        stage.settle()
        link.read()
        stage.log(3)
        stage.status(4, "a", "DEGRADED")
        stage.send_message(session, type="subscribe", subjects=["gateway.>", "log.>"])
        stage.settle()
        messages = link.read()
        (subscribed,) = only(messages, Subscribed)
        assert (subscribed.cursor, subscribed.resumed) == ("e-2", False)
        assert seqs(messages) == [3, 4]
        assert [message.type for message in messages][:2] == ["subscribed", "snapshot"]

    def test_omitted_fields_take_their_defaults(self) -> None:
        """Omitted fields take their defaults, since ``subscribe`` replaces the filter."""
        stage = Stage()
        link, session = stage.follow(Request(("log.>",), "ERROR"))
        stage.send_message(session, type="subscribe")
        (subscribed,) = only(link.read(), Subscribed)
        assert (subscribed.subjects, subscribed.level) == ([">"], "DEBUG")

    def test_a_session_can_return_to_a_cursor(self) -> None:
        """A session can return to an earlier cursor and gets all events after it once more."""
        stage = Stage()
        link, session = stage.follow()
        for seq in range(1, 6):
            stage.log(seq)
        stage.settle()
        link.read()
        stage.send_message(session, type="subscribe", cursor="e-2")
        stage.settle()
        messages = link.read()
        assert only(messages, Subscribed)[0].resumed
        assert seqs(messages) == [3, 4, 5]

    def test_a_stalled_session_keeps_its_position(self) -> None:
        """A stalled session keeps its position when its filter changes."""
        stage = Stage()
        link, session = stage.follow()
        stage.log(1)
        stage.settle()
        stage.hub.sessions.pause(session)
        stage.log(2)
        stage.log(3, "error")
        stage.settle()
        stage.send_message(session, type="subscribe", level="ERROR")
        stage.hub.sessions.resume(session)
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
        """An invalid filter ends the session with an error that names the message it answers."""
        stage = Stage()
        link, session = stage.follow()
        stage.send_message(session, type="subscribe", **fields)
        messages = link.read()
        (error,) = only(messages, Error)
        assert (error.code, error.ref, error.retry) == (code, "subscribe", False)
        assert link.closed is not None
        assert link.closed[0] == only(messages, Bye)[0].code == CloseCode.BAD_FILTER
        assert len(stage.hub.sessions) == 0
        assert stage.hub.fanout.feeds == {}


class TestConversation:
    """Messages other than ``subscribe``."""

    @pytest.mark.parametrize("id", ["abc", 7, None])
    def test_a_ping_is_answered(self, id: Any) -> None:
        """A ping is answered by a pong with the same id."""
        stage = Stage()
        link, session = stage.follow()
        stage.send_message(session, type="ping", id=id)
        assert link.read() == [Pong(type="pong", id=id)]

    def test_a_token_that_is_not_required_is_ignored(self) -> None:
        """A relay that requires no tokens ignores them, so clients that always send one work with it."""
        stage = Stage()
        link, session = stage.follow()
        stage.send_message(session, type="auth", token="t")
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
        """A malformed message ends the session with ``error``, ``bye`` and close code 4400."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.sessions.receive(session, text, NOW)
        (error, bye) = link.read()
        assert isinstance(error, Error)
        assert (error.code, error.ref, error.retry) == (code, ref, False)
        assert isinstance(bye, Bye)
        assert bye.code == 4400
        assert link.closed is not None
        assert link.closed[0] == 4400

    def test_nothing_is_written_after_bye(self) -> None:
        """Nothing is written after ``bye``, whatever the client or the hub does."""
        stage = Stage()
        link, session = stage.follow()
        stage.log(1)
        stage.hub.sessions.close(session, CloseCode.GOING_AWAY, "the relay shuts down", 700)
        written = len(link.sent)
        (bye,) = link.read()
        assert isinstance(bye, Bye)
        assert (bye.code, bye.reason, bye.retry_after_ms) == (1001, "the relay shuts down", 700)
        stage.send_message(session, type="ping", id=1)
        stage.send_message(session, type="subscribe")
        stage.hub.sessions.receive(session, b"nonsense", NOW)
        stage.hub.sessions.close(session, CloseCode.NORMAL, "again")
        stage.hub.sessions.resume(session)
        stage.log(2)
        stage.settle()
        stage.hub.tick(NOW + 100)
        stage.hub.sessions.set_upstream(False, NOW)
        stage.hub.begin("f", 0)
        stage.hub.restart_sessions()
        stage.hub.sessions.remove(session)
        assert len(link.sent) == written

    def test_a_rejected_client_gets_the_reason(self) -> None:
        """A rejected client gets ``error`` and ``bye`` without ``welcome``."""
        stage = Stage()
        link = FakeLink()
        error = ProtocolError(ErrorCode.UNAVAILABLE, "the relay is starting")
        stage.hub.sessions.reject_link(link, error, CloseCode.UNAVAILABLE)
        messages = link.read()
        assert [message.type for message in messages] == ["error", "bye"]
        assert only(messages, Error)[0].retry is True
        assert link.closed == (4503, "the relay is starting")

    def test_heartbeats_carry_the_position_of_each_session(self) -> None:
        """Each heartbeat carries the position of its own session, even if that is quiet or catching up."""
        stage = Stage()
        quiet, _ = stage.follow(Request(("system.>",)))
        live, _ = stage.follow()
        stalled, session = stage.follow()
        stage.hub.sessions.pause(session)
        for seq in range(1, 4):
            stage.log(seq)
        stage.settle()
        late, _ = stage.follow(Request(cursor=Cursor("e", 1)))
        stage.hub.tick(NOW + 1)
        assert only(quiet.read(), Heartbeat)[0].cursor == "e-3"
        assert only(live.read(), Heartbeat)[0].cursor == "e-3"
        assert only(late.read(), Heartbeat)[0].cursor == "e-1"
        assert stalled.read() == []

    def test_a_heartbeat_promises_nothing_that_is_pending(self) -> None:
        """A heartbeat's cursor does not cover pending events."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.settle()
        link.read()
        stage.log(2)
        stage.hub.tick(NOW + 1)
        (heartbeat,) = link.read()
        assert heartbeat == Heartbeat(type="heartbeat", cursor="e-1", time=format_time(NOW + 1))

    def test_heartbeats_are_sent_at_their_interval(self) -> None:
        """Heartbeats are sent at their interval, and up to a tick early rather than late."""
        stage = Stage(heartbeat_ms=15_000)
        link, _ = stage.follow()
        for second in range(60):
            stage.hub.tick(NOW + second)
        assert len(only(link.read(), Heartbeat)) == 5

    def test_a_socket_that_fills_with_a_heartbeat_affects_no_other(self) -> None:
        """Sessions that are catching up may stall while heartbeats are sent, without affecting others."""
        stage = Stage()
        stage.log(1)
        clients = [stage.follow(Request(cursor=Cursor("e", 0))) for _ in range(3)]
        for link, session in clients:
            link.on_send = lambda session=session: stage.hub.sessions.pause(session)
        stage.hub.tick(NOW + 1)
        assert [link.kinds() for link, _ in clients] == [["heartbeat"]] * 3

    @pytest.mark.parametrize("how", ["pauses", "leaves"])
    def test_a_session_that_ends_during_a_flush_gets_nothing_more(self, how: str) -> None:
        """A session that pauses or leaves because of another's write gets nothing more in that flush."""
        stage = Stage()
        stage.log(1)
        (one, _), (other, session) = (stage.follow(Request(cursor=Cursor("e", 0))) for _ in range(2))
        call = stage.hub.sessions.pause if how == "pauses" else stage.hub.sessions.remove
        one.on_send = lambda: call(session)
        stage.settle()
        assert seqs(one.read()) == [1]
        assert other.read() == []

    def test_upstream_changes_are_sent_once(self) -> None:
        """A change of the upstream state is sent once, and a repeated state is not sent."""
        stage = Stage()
        link, _ = stage.follow()
        stage.hub.sessions.set_upstream(True, NOW + 1)
        stage.hub.sessions.set_upstream(False, NOW + 2)
        stage.hub.sessions.set_upstream(False, NOW + 3)
        stage.hub.sessions.set_upstream(True, NOW + 4)
        messages: list[RelayMessage] = link.read()
        assert [(one.state, one.since) for one in only(messages, Upstream)] == [
            ("disconnected", format_time(NOW + 2)),
            ("connected", format_time(NOW + 4)),
        ]


def test_repr() -> None:
    """The repr of the hub shows its cursor, sessions and sizes."""
    stage = Stage(head=4)
    stage.follow()
    assert repr(stage.hub) == (
        "Hub(e-4, 1 sessions, Fanout(1 feeds, 0 dirty, CatchUp(0 ready, 0 paced, 0 waiting)), "
        "EventLog(4 < 0 records <= 4, 0 bytes))"
    )


def test_received_events_are_counted_by_kind() -> None:
    """Received events are counted as state or log events."""
    stage = Stage()
    stage.status(1)
    stage.log(2)
    stage.log(3)
    assert stage.hub.stats.received == {"state": 1, "log": 2}


def test_delay_is_observed_for_live_members() -> None:
    """Delay is observed once per delivery to a live member, by the oldest event of the batch."""
    stage = Stage()
    for _ in range(3):
        stage.follow()
    stage.log(1)
    stage.now += 0.02
    stage.log(2)
    stage.flush()
    assert sum(stage.hub.stats.delay.counts) == 6
    assert stage.hub.stats.delay.total == pytest.approx(6 * 0.02, abs=1e-4)
