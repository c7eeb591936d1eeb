"""Heartbeats of a session whose position is being located in the stream."""

import pytest
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import Heartbeat, RelayMessage
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import Stage, only


def beats(stage: Stage, seconds: int) -> None:
    """Let seconds pass with one tick each."""
    for _ in range(seconds):
        stage.now += 1.0
        stage.hub.tick(stage.now)


def test_a_session_ahead_gets_its_own_cursor() -> None:
    """A session with a cursor ahead of the relay gets its own cursor in heartbeats, so it can resume."""
    stage = Stage(head=10, stream=True)
    link, session = stage.follow(Request(cursor=Cursor("e", 50)))
    beats(stage, 20)
    assert {beat.cursor for beat in only(link.read(), Heartbeat)} == {"e-50"}
    assert session.locating is not None
    stage.hub.sessions.start_located(session, session.locating, 50, stage.now)
    beats(stage, 20)
    assert {beat.cursor for beat in only(link.read(), Heartbeat)} == {"e-50"}


def test_a_session_that_starts_at_a_time_has_no_cursor_yet() -> None:
    """A session that starts at a time has no cursor yet; it gets the upstream state but no heartbeats."""
    stage = Stage(head=10, stream=True)
    stage.hub.sessions.set_upstream(False, stage.now)
    link, _ = stage.follow(Request(since=Since(ago=600.0)))
    beats(stage, 20)
    messages: list[RelayMessage] = link.read()
    assert {message.type for message in messages} == {"upstream"}


@pytest.mark.parametrize("request_", [Request(cursor=Cursor("e", 50)), Request(since=Since(ago=600.0))])
def test_a_session_that_disconnected_gets_nothing(request_: Request) -> None:
    """A session that disconnects while it is being located gets no further messages."""
    stage = Stage(head=10, stream=True)
    link, session = stage.follow(request_)
    stage.hub.sessions.remove(session)
    beats(stage, 20)
    assert link.read() == []
