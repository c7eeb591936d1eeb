"""Mode complete under a grant with a rate: paced one by one, capped, and nothing passed over."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Heartbeat, Subscribed
from tickertape.relay.core.fanout.catch_up import PACED_INTERVAL
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import FakeLink, Stage, gaps, only, seqs


def paced(rate: float) -> Grant:
    """A grant with a rate."""
    return Grant(("log.>", "gateway.>"), rate=rate)


COMPLETE = Request(mode="complete")


def run(here: Stage, link: FakeLink, seconds: float) -> list[int]:
    """Flush whenever the fan-out asks for it, for so long; what was delivered."""
    end = here.now + seconds
    while (at := here.hub.fanout.next_due()) is not None and at <= end:
        here.flush(max(0.0, at - here.now))
    here.flush(end - here.now)
    messages = link.read()
    assert gaps(messages) == []
    return seqs(messages)


def test_it_gets_a_burst_and_then_its_rate() -> None:
    """Ten at once, then ten a second, until nothing is left; the rate is nobody's excuse for a gap."""
    here = Stage()
    link, _ = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 36):
        here.log(seq)
    here.flush()
    assert seqs(link.read()) == list(range(1, 11))
    second = run(here, link, 1.0)
    assert len(second) in (9, 10)  # a turn may come a hair before its token
    assert second + run(here, link, 1.7) == list(range(11, 36))
    assert here.hub.fanout.next_due() is None
    assert here.hub.fanout.behind == 0


def test_states_cost_nothing() -> None:
    """They come with the logs between which they stand, and use up none of the rate."""
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
def test_the_operator_has_a_ceiling(rate: float, ceiling: float, burst: int) -> None:
    """For a grant that sets a rate; one that sets none, or 0, is as fast as its socket."""
    here = Stage(complete_rate=ceiling)
    link, _ = here.follow(COMPLETE, grant=paced(rate))
    for seq in range(1, 101):
        here.log(seq)
    here.settle()
    assert seqs(link.read()) == list(range(1, burst + 1))


def test_asking_again_brings_no_new_burst() -> None:
    """Else a client could have any rate by asking often; another rate is another account."""
    here = Stage()
    link, session = here.follow(COMPLETE, grant=paced(10.0))
    for seq in range(1, 101):
        here.log(seq)
    here.flush()
    assert len(seqs(link.read())) == 10
    for _ in range(5):
        here.say(session, type="subscribe", mode="complete")
        here.flush()
    messages = link.read()
    assert seqs(messages) == []
    assert {told.cursor for told in only(messages, Subscribed)} == {"e-10"}
    here.say(session, type="subscribe", mode="live")
    here.settle()
    assert session.bucket is None


def test_a_full_socket_stops_it_and_room_lets_it_go_on() -> None:
    """From its own place; what its rate saved up meanwhile is bounded by the burst."""
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


def test_it_is_woken_by_what_it_wants() -> None:
    """One that waits for nothing asks for no flush; an event does, and comes at once."""
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


def test_it_is_told_where_it_stands() -> None:
    """A heartbeat's cursor is its own place, not its feed's."""
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


def test_two_of_one_grant_have_a_rate_each() -> None:
    """They share a feed, and neither its place nor its pace."""
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


def test_another_stream_finds_it_at_its_beginning() -> None:
    """After a reset it goes on from there, at its rate."""
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
