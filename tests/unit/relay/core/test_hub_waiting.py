"""A session whose place the stream is asked for hears that the link is alive, and nothing that is not so."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Heartbeat, RelayMessage
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import Stage, only


def beats(stage: Stage, seconds: int) -> None:
    """Let seconds pass, one tick each."""
    for _ in range(seconds):
        stage.now += 1.0
        stage.hub.tick(stage.now)


def test_one_that_is_ahead_is_told_its_own_cursor() -> None:
    """It may leave at any moment and come back with what it was told last."""
    stage = Stage(head=10, stream=True)
    link, session = stage.follow(Request(cursor=Cursor("e", 50)))
    beats(stage, 20)
    assert {beat.cursor for beat in only(link.read(), Heartbeat)} == {"e-50"}
    assert session.locating is not None
    stage.hub.sessions.start_located(session, session.locating, 50, stage.now)
    beats(stage, 20)
    assert {beat.cursor for beat in only(link.read(), Heartbeat)} == {"e-50"}


def test_one_that_asked_for_a_time_has_no_cursor_yet() -> None:
    """It hears of the upstream instead, which it waits for."""
    stage = Stage(head=10, stream=True)
    stage.hub.sessions.set_upstream(False, stage.now)
    link, _ = stage.follow(Request(since=Since(ago=600.0)))
    beats(stage, 20)
    messages: list[RelayMessage] = link.read()
    assert {message.type for message in messages} == {"upstream"}


@pytest.mark.parametrize("request_", [Request(cursor=Cursor("e", 50)), Request(since=Since(ago=600.0))])
def test_one_that_left_is_written_to_no_more(request_: Request) -> None:
    """Its question is forgotten with it."""
    stage = Stage(head=10, stream=True)
    link, session = stage.follow(request_)
    stage.hub.sessions.remove(session)
    beats(stage, 20)
    assert link.read() == []
