"""What is older than the log: stretches of the stream, and what is lost for good."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Events, Heartbeat, Subscribed
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, Stage, gaps, nanoseconds, only, seqs, shown, status_event


class TestStream:
    """What is older than the log is read again from the stream."""

    def test_complete_gets_everything_from_the_stream_then_the_log(self) -> None:
        """Once and in order, over the edges of stretches, and without a gap."""
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

    def test_clients_share_a_stretch(self) -> None:
        """It is read once for all who come back."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 101):
            stage.log(seq)
        links = [stage.follow(Request(mode="complete", cursor=Cursor("e", place)))[0] for place in range(20)]
        stage.settle()
        assert stage.read(9) == [0]
        stage.settle()
        for place, link in enumerate(links):
            assert seqs(link.read()) == list(range(place + 1, 101))

    def test_the_next_stretch_is_read_while_one_is_sent(self) -> None:
        """A long way back is not a long wait."""
        stage = Stage(stream=True, log_events=10)
        for seq in range(1, 2 * CHUNK_SEQUENCES):
            stage.log(seq)
        stage.follow(Request(mode="complete", cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.read(9) == [0]
        stage.flush()
        assert stage.read(9) == [1]

    def test_live_gets_what_its_memory_allows(self) -> None:
        """When the log alone has less for it than it may have, the stream is read."""
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
        """Nothing is read that it would not get."""
        stage = Stage(stream=True, log_events=20, max_catch_up=10)
        for seq in range(1, 101):
            stage.log(seq)
        link, _ = stage.follow(Request(cursor=Cursor("e", 0)))
        stage.settle()
        assert stage.fetched == 0
        messages = link.read()
        assert gaps(messages) == [("e-0", "e-80", None, "slow"), ("e-80", "e-90", 10, "slow")]
        assert seqs(messages) == list(range(91, 101))

    def test_live_passes_over_what_lies_too_far_back(self) -> None:
        """It is told so first, with the newest states of what it missed; one stretch is read, and no more."""
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

    def test_live_gets_no_more_than_it_may_of_log_and_stream_together(self) -> None:
        """What lies further back is counted."""
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

    def test_live_that_may_catch_up_with_nothing_reads_nothing(self) -> None:
        """It is told of what it missed, and is live."""
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
        """It has been at the head; the stream is not read again for it."""
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
        """However long it took, it gets the rest from the stream."""
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

    def test_past_retention_it_is_told_and_goes_on(self) -> None:
        """Up to the first event that is still there; what the log has is not lost with it."""
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

    def test_who_waits_for_a_stretch_hears_where_it_stands(self) -> None:
        """The heartbeat comes from its own place."""
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
    def test_nobody_reads_for_one_who_no_longer_waits(self, how: str) -> None:
        """A stalled client asks again when it can be written to."""
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
            stage.say(session, type="subscribe", cursor="e-20")
        assert stage.read() == []
        link.read()
        if how == "stalls":
            stage.hub.sessions.resume(session)
            stage.settle()
            stage.read()
            stage.settle()
            assert seqs(link.read()) == list(range(4, 21))

    def test_one_that_fills_up_wants_no_stretch(self) -> None:
        """The unit that filled its socket was its last for now."""
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

    def test_another_stream_releases_those_who_wait(self) -> None:
        """They are told of the reset, and follow the other one."""
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

    def test_a_stretch_for_nobody_wakes_nobody(self) -> None:
        """It is kept for those who come."""
        stage = Stage(stream=True, log_events=5)
        for seq in range(1, 21):
            stage.log(seq)
        _, session = stage.follow(Request(mode="complete", cursor=Cursor("e", 3)))
        stage.settle()
        wanted = stage.hub.fanout.replay_cache.next_request()
        assert wanted is not None
        stage.hub.sessions.remove(session)
        stage.settle()
        woken = stage.woken
        chunk = EventLog(CHUNK_SEQUENCES, 1 << 40)
        stage.hub.fanout.add_chunk(wanted.number, chunk)
        assert stage.woken == woken


class TestLoss:
    """What the stream let go, or lost."""

    def test_a_hole_is_told_in_order(self) -> None:
        """What was pending comes before the gap, what follows after it."""
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

    def test_a_held_gap_comes_before_a_hole(self) -> None:
        """Cursors do not go back."""
        stage = Stage(rate=2.0)
        link, _ = stage.follow()
        for seq in (1, 2):
            stage.log(seq)
        stage.flush()
        stage.log(3)
        stage.flush()
        stage.hub.fanout.publish_missing(9, stage.now)
        told = gaps(link.read())
        assert told[-2:] == [("e-2", "e-3", 1, "rate"), ("e-3", "e-9", None, "retention")]

    def test_a_stalled_client_hears_of_a_hole_too(self) -> None:
        """When it gets there, between what lies before and behind."""
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

    def test_a_reset_is_told_and_starts_afresh(self) -> None:
        """A ``gap`` with ``reset``, a snapshot of the other stream, then its events."""
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

    def test_a_reset_reaches_those_behind(self) -> None:
        """They are told from where they stood, and go on with the other stream."""
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
