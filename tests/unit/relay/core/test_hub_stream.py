"""Replay of events older than the log, and events that are lost."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Events, Heartbeat, Subscribed
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, Stage, gaps, nanoseconds, only, seqs, shown, status_event


class TestStream:
    """Replay from the stream of events older than the log."""

    def test_complete_gets_everything_from_the_stream_then_the_log(self) -> None:
        """Mode complete replays every event once and in order, across chunk boundaries, and then the log."""
        stage = Stage(stream=True, log_events=10)
        last = 2 * CHUNK_SEQUENCES + 100
        for seq in range(1, last + 1):
            stage.log(seq)
        link, session = stage.open(Request(mode="complete", cursor=Cursor("e", 5)))
        assert only(link.read(), Subscribed)[0].resumed
        stage.settle()
        assert (link.read(), stage.fetched > 0) == ([], True)
        for _ in range(5):
            stage.read()
            stage.settle()
        messages = link.read()
        assert gaps(messages) == []
        assert seqs(messages) == list(range(6, last + 1))
        assert session.reached_head
        assert stage.hub.stats.resumes == {"log": 0, "stream": 1, "gap": 0}
        stage.log(last + 1)
        stage.settle()
        assert seqs(link.read()) == [last + 1]

    def test_clients_share_a_chunk(self) -> None:
        """A chunk is read once for all clients that need it."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 101):
            stage.log(seq)
        links = [
            stage.follow(Request(mode="complete", cursor=Cursor("e", position)))[0] for position in range(20)
        ]
        stage.settle()
        assert stage.read(9) == [0]
        stage.settle()
        for position, link in enumerate(links):
            assert seqs(link.read()) == list(range(position + 1, 101))

    def test_the_next_chunk_is_prefetched(self) -> None:
        """The next chunk is prefetched while one is sent, which shortens a long replay."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 2 * CHUNK_SEQUENCES):
            stage.log(seq)
        stage.follow(Request(mode="complete", cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.read(9) == [0]
        stage.flush()
        assert stage.read(9) == [1]

    def test_live_reads_the_stream_up_to_its_limit(self) -> None:
        """Mode live reads the stream when the log has fewer events than the catch-up limit allows."""
        stage = Stage(stream=True, log_events=10, max_catch_up=50)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 70)))
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert (gaps(messages), seqs(messages)) == ([], list(range(71, 101)))

    def test_live_is_moved_forward_when_the_log_has_enough(self) -> None:
        """Mode live skips forward without reading the stream when the log has enough events."""
        stage = Stage(stream=True, log_events=20, max_catch_up=10)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.fetched == 0
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-80", None, "slow"), ("e-80", "e-90", 10, "slow")]
        assert seqs(messages) == list(range(91, 101))

    def test_live_skips_events_that_are_too_old(self) -> None:
        """Mode live gets a gap for what is too old, with its newest states, and reads a single chunk."""
        stage = Stage(stream=True, log_events=10)
        stage.status(1)
        for seq in range(2, 2 * CHUNK_SEQUENCES + 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.read(9) == [2]
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", f"e-{2 * CHUNK_SEQUENCES}", None, "slow")]
        assert seqs(messages) == [1, *range(2 * CHUNK_SEQUENCES + 1, 2 * CHUNK_SEQUENCES + 101)]

    def test_the_limit_of_live_applies_to_log_and_stream_together(self) -> None:
        """The catch-up limit of mode live spans log and stream, and the gap counts older events."""
        stage = Stage(stream=True, log_events=10, max_catch_up=50)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-50", 50, "slow")]
        assert seqs(messages) == list(range(51, 101))

    def test_live_with_a_limit_of_zero_reads_nothing(self) -> None:
        """With a catch-up limit of zero, mode live reads nothing, gets gaps, and is live."""
        stage = Stage(stream=True, log_events=10, max_catch_up=0)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.fetched == 0
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-90", None, "slow"), ("e-90", "e-100", 10, "slow")]
        assert seqs(messages) == []

    def test_a_stalled_live_client_is_moved_forward(self) -> None:
        """A stalled client that was live before is moved forward without reading the stream."""
        stage = Stage(stream=True, log_events=5)
        link, session = stage.follow()
        stage.hub.sessions.pause(session)
        for seq in range(1, 21):
            stage.log(seq)
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.settle()
        assert stage.fetched == 0
        assert gaps(link.read()) == [("e-0", "e-15", None, "slow")]

    def test_a_stalled_complete_client_loses_nothing(self) -> None:
        """A stalled client in mode complete gets everything it missed from the stream."""
        stage = Stage(stream=True, log_events=5)
        link, session = stage.follow(Request(mode="complete"))
        stage.hub.sessions.pause(session)
        for seq in range(1, 201):
            stage.log(seq)
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.settle()
        stage.read()
        stage.settle()
        messages = link.read()
        assert (gaps(messages), seqs(messages)) == ([], list(range(1, 201)))

    def test_past_retention_complete_gets_a_gap_and_continues(self) -> None:
        """Mode complete gets a gap up to the first event that stream or log still has, then the rest."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 101):
            stage.log(seq)
        stage.first = 60
        link, _ = stage.follow(Request(mode="complete", cursor=Cursor("e", 5)))
        other, _ = stage.follow(Request(mode="complete", cursor=Cursor("e", 5), subjects=("log.info.x",)))
        stage.settle()
        stage.read()
        stage.settle()
        for one in (link, other):
            messages = one.read()
            assert gaps(messages) == [("e-5", "e-60", None, "retention")]
            assert seqs(messages) == list(range(61, 101))
        late, _ = stage.follow(Request(mode="complete", cursor=Cursor("e", 5)))
        stage.first = 98
        stage.hub.fanout.replay_cache.clear()
        stage.settle()
        stage.read()
        stage.settle()
        messages = late.read()
        assert gaps(messages) == [("e-5", "e-90", None, "retention")]
        assert seqs(messages) == list(range(91, 101))

    def test_a_session_that_waits_for_a_chunk_gets_heartbeats(self) -> None:
        """A session that waits for a chunk gets heartbeats with its own position."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=Cursor("e", 3)))
        stage.settle()
        assert session in stage.hub.fanout.replay_cache
        stage.hub.sessions.resume(session)
        stage.hub.tick(NOW + 1)
        (heartbeat,) = only(link.read(), Heartbeat)
        assert heartbeat.cursor == "e-3"

    @pytest.mark.parametrize("how", ["stalls", "leaves", "asks for something else"])
    def test_a_chunk_without_waiters_is_not_read(self, how: str) -> None:
        """A chunk is not read for a session that stopped waiting; a stalled one requests it again."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=Cursor("e", 3)))
        stage.settle()
        if how == "stalls":
            stage.hub.sessions.pause(session)
        elif how == "leaves":
            stage.hub.sessions.remove(session)
        else:
            stage.send_message(session, type="subscribe", cursor="e-20")
        assert stage.read() == []
        link.read()
        if how == "stalls":
            stage.hub.sessions.resume(session)
            stage.settle()
            stage.read()
            stage.settle()
            assert seqs(link.read()) == list(range(4, 21))

    def test_a_session_that_fills_up_requests_no_chunk(self) -> None:
        """A session whose socket filled up does not wait for the next chunk until it is writable."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, CHUNK_SEQUENCES + 101):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=Cursor("e", CHUNK_SEQUENCES - 10)))
        stage.settle()
        link.on_send = lambda: stage.hub.sessions.pause(session)
        assert stage.read() == [0]
        stage.flush()
        assert seqs(link.read()) == list(range(CHUNK_SEQUENCES - 9, CHUNK_SEQUENCES + 1))
        assert session not in stage.hub.fanout.replay_cache
        link.on_send = None
        stage.hub.sessions.resume(session)
        stage.settle()
        stage.read(2)
        stage.settle()
        assert seqs(link.read()) == list(range(CHUNK_SEQUENCES + 1, CHUNK_SEQUENCES + 101))

    def test_a_reset_releases_waiting_sessions(self) -> None:
        """A reset releases the sessions that wait for chunks, which then follow the new stream."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        link, session = stage.follow(Request(mode="complete", cursor=Cursor("e", 3)))
        stage.settle()
        stage.hub.begin("f", 7)
        stage.hub.restart_sessions()
        assert session not in stage.hub.fanout.replay_cache
        stage.settle()
        stage.log(8)
        stage.settle()
        messages = link.read()
        assert gaps(messages) == [("e-3", "f-7", None, "reset")]
        assert seqs(messages) == [8]

    def test_an_unneeded_chunk_requests_no_flush(self) -> None:
        """A chunk that no session waits for requests no flush."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        _, session = stage.follow(Request(mode="complete", cursor=Cursor("e", 3)))
        stage.settle()
        expected = stage.hub.fanout.replay_cache.next_request()
        assert expected is not None
        stage.hub.sessions.remove(session)
        stage.settle()
        woken = stage.woken
        chunk = EventLog(CHUNK_SEQUENCES, 1 << 40)
        stage.hub.fanout.add_chunk(expected, chunk)
        assert stage.woken == woken


class TestLoss:
    """Events that the stream deleted or lost."""

    def test_a_missing_range_is_reported_in_order(self) -> None:
        """A missing range is sent after pending events and before those that follow it."""
        stage = Stage()
        link, _ = stage.follow()
        stage.log(1)
        stage.hub.fanout.publish_missing(5, NOW)
        stage.log(6)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["events", "gap", "events"]
        assert seqs(messages) == [1, 6]
        assert gaps(messages) == [("e-1", "e-5", None, "retention")]

    def test_a_held_gap_comes_before_a_missing_range(self) -> None:
        """A held gap is sent before a missing range, so cursors do not go back."""
        stage = Stage(rate=2.0)
        link, _ = stage.follow()
        for seq in (1, 2):
            stage.log(seq)
        stage.flush()
        stage.log(3)
        stage.flush()
        stage.hub.fanout.publish_missing(9, stage.now)
        reported = gaps(link.read())
        assert reported[-2:] == [("e-2", "e-3", 1, "rate"), ("e-3", "e-9", None, "retention")]

    def test_a_stalled_client_gets_a_missing_range_too(self) -> None:
        """A stalled client gets the missing range in order when it catches up."""
        stage = Stage()
        link, session = stage.follow()
        stage.hub.sessions.pause(session)
        stage.log(1)
        stage.hub.fanout.publish_missing(5, NOW)
        stage.log(6)
        stage.hub.sessions.resume(session)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["events", "gap", "events"]
        assert gaps(messages) == [("e-1", "e-5", None, "retention")]

    def test_a_reset_is_reported_and_shows_the_new_stream(self) -> None:
        """A reset is sent as a ``gap`` with reason ``reset``, a snapshot, and the new stream's events."""
        stage = Stage()
        link, _ = stage.follow()
        stage.status(1)
        stage.log(2)
        stage.settle()
        link.read()
        stage.hub.begin("f", 7)
        stage.hub.load_state(4, "gateway.status.ctp.b", status_event("b"), nanoseconds(NOW))
        stage.hub.restart_sessions()
        stage.log(8)
        stage.settle()
        messages = link.read()
        assert [message.type for message in messages] == ["gap", "snapshot", "events"]
        assert gaps(messages) == [("e-2", "f-7", None, "reset")]
        assert (shown(messages), seqs(messages)) == ([4], [8])
        assert only(messages, Events)[0].cursor == "f-8"

    def test_a_reset_reaches_members_that_are_behind(self) -> None:
        """Members that are behind get the reset from their own position and follow the new stream."""
        stage = Stage()
        stalled, session = stage.follow()
        stage.log(1)
        stage.settle()
        stage.hub.sessions.pause(session)
        stage.log(2)
        stage.settle()
        late, _ = stage.follow(Request(cursor=Cursor("e", 1)))
        stage.hub.begin("f", 7)
        stage.hub.restart_sessions()
        stage.hub.sessions.resume(session)
        stage.log(8)
        stage.settle()
        for link in (stalled, late):
            messages = link.read()
            assert gaps(messages) == [("e-1", "f-7", None, "reset")]
            assert seqs(messages)[-1] == 8

    def test_a_reset_covers_pending_events(self) -> None:
        """The gap of a reset covers events that were received but not sent."""
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
