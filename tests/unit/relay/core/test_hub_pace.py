"""Mode complete under a grant with a rate: each session is paced on its own, capped, and nothing is
skipped.
"""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Heartbeat, Subscribed
from tickertape.relay.core.fanout.catch_up import PACED_INTERVAL
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import FakeLink, Stage, gaps, only, seqs


def paced(rate: float) -> Grant:
    """Return a grant with a rate."""
    return Grant(("log.>", "gateway.>"), rate=rate)


COMPLETE = Request(mode="complete")


def run(here: Stage, link: FakeLink, seconds: float) -> list[int]:
    """Flush whenever the fan-out is due for some seconds, and return the delivered sequences."""
    end = here.now + seconds
    while (at := here.hub.fanout.next_due()) is not None and at <= end:
        here.flush(max(0.0, at - here.now))
    here.flush(end - here.now)
    messages = link.read()
    assert gaps(messages) == []
    return seqs(messages)


def test_a_session_gets_a_burst_and_then_its_rate() -> None:
    """A paced session gets a burst of ten events, then ten a second, without a gap."""
    here = Stage()
    link, _ = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 36):
        here.log(seq)
    here.flush()
    assert seqs(link.read()) == list(range(1, 11))
    second = run(here, link, 1.0)
    assert len(second) in (9, 10)  # a turn may come slightly before its token
    assert second + run(here, link, 1.7) == list(range(11, 36))
    assert here.hub.fanout.next_due() is None
    assert here.hub.fanout.behind == 0


def test_states_use_up_no_rate() -> None:
    """State events use up none of the rate and are delivered in order with the log events around them."""
    here = Stage()
    link, _ = here.follow(COMPLETE, grant=paced(5.0))
    for seq in range(1, 21):
        here.log(seq) if seq % 2 else here.status(seq)
    delivered = run(here, link, 1.2)
    assert delivered == list(range(1, len(delivered) + 1))
    assert len([seq for seq in delivered if seq % 2]) >= 10 or len(delivered) == 20
    assert run(here, link, 3.0) == list(range(len(delivered) + 1, 21))


@pytest.mark.parametrize(
    ("rate", "ceiling", "burst"), [(1000.0, 20.0, 20), (10.0, 20.0, 10), (1000.0, 0.0, 100), (0.0, 20.0, 100)]
)
def test_the_operator_sets_a_ceiling(rate: float, ceiling: float, burst: int) -> None:
    """The operator's ceiling caps the rate of a grant; a grant without a rate, or with 0, is not paced."""
    here = Stage(complete_rate=ceiling)
    link, _ = here.follow(COMPLETE, grant=paced(rate))
    for seq in range(1, 101):
        here.log(seq)
    here.settle()
    assert seqs(link.read()) == list(range(1, burst + 1))


def test_subscribing_again_brings_no_new_burst() -> None:
    """A repeated ``subscribe`` does not refill the burst, since that would circumvent the rate limit."""
    here = Stage()
    link, session = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 101):
        here.log(seq)
    here.flush()
    assert len(seqs(link.read())) == 10
    for _ in range(5):
        here.send_message(session, type="subscribe", mode="complete")
        here.flush()
    messages = link.read()
    assert seqs(messages) == []
    assert {message.cursor for message in only(messages, Subscribed)} == {"e-10"}
    here.send_message(session, type="subscribe", mode="live")
    here.settle()
    assert session.bucket is None


def test_a_full_socket_pauses_the_session() -> None:
    """A session paused by a full socket keeps its position, and it saves up at most a burst of tokens."""
    here = Stage()
    link, session = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 51):
        here.log(seq)
    link.on_send = lambda: here.hub.sessions.pause(session)
    here.flush()
    link.on_send = None
    assert seqs(link.read()) == list(range(1, 11))
    assert run(here, link, 60.0) == []
    here.hub.sessions.resume(session)
    here.flush()
    assert seqs(link.read()) == list(range(11, 21))
    here.hub.sessions.remove(session)
    here.flush(5.0)
    assert link.read() == []
    assert here.hub.fanout.next_due() is None


def test_only_matching_events_request_a_flush() -> None:
    """A paced session requests a flush only for matching events, and gets them immediately when idle."""
    here = Stage()
    link, session = here.follow(Request(("log.>",), mode="complete"), grant=paced(10.0))
    here.settle()
    woken = here.woken
    here.flush(10.0)
    assert here.woken == woken
    assert session.reached_head
    here.log(1)
    assert here.woken > woken
    here.flush()
    assert seqs(link.read()) == [1]
    here.status(2)
    here.settle()
    assert seqs(link.read()) == []


def test_heartbeats_carry_the_sessions_own_position() -> None:
    """A heartbeat's cursor is the paced session's own position rather than its feed's."""
    here = Stage(heartbeat_ms=2_000)
    link, _ = here.follow(COMPLETE, grant=paced(5.0))
    for seq in range(1, 21):
        here.log(seq)
    here.flush()
    here.tick()
    assert [message.cursor for message in only(link.read(), Heartbeat)] == ["e-5"]
    at = here.hub.fanout.next_due()
    assert at is not None
    assert at - here.now == pytest.approx(max(PACED_INTERVAL, 1 / 5.0))
    assert here.hub.fanout.behind == 1


def test_each_session_of_a_grant_has_its_own_rate() -> None:
    """Two sessions of one grant share a feed, but each has its own position and rate."""
    here = Stage()
    first, _ = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 31):
        here.log(seq)
    here.flush()
    second, _ = here.open(Request(mode="complete", cursor=Cursor("e", 0)), grant=paced(10.0))
    here.flush()
    assert len(here.hub.fanout.feeds) == 1
    assert seqs(first.read()) == list(range(1, 11))
    assert seqs(second.read()) == list(range(1, 11))


def test_a_reset_continues_at_the_rate() -> None:
    """After a reset a paced session continues from the new stream's start at its rate."""
    here = Stage()
    link, _ = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 31):
        here.log(seq)
    here.flush()
    here.hub.begin("f", 5)
    here.hub.restart_sessions()
    link.read()
    here.log(6)
    assert run(here, link, 1.0) == [6]
