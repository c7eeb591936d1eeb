"""The system clock is set while the relay runs: expiries and times follow it, and durations do not."""

import pytest
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Heartbeat, TokenExpiring
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.sessions import AUTH_TIMEOUT, EXPIRY_NOTICE
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import NOW, Stage, ended, log_event, only, seqs

HOUR = 3600.0


def test_a_token_ends_when_the_clock_says_so() -> None:
    """A clock that is set ahead past the expiry ends the session with the next tick."""
    stage = Stage()
    link, _ = stage.follow(grant=Grant(expires_at=NOW + HOUR / 2))
    stage.tick(1.0)
    assert link.closed is None
    stage.skew = HOUR
    stage.tick(1.0)
    assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)


def test_a_token_lives_as_long_as_the_clock_says() -> None:
    """A clock that was an hour ahead, and is corrected, extends no token beyond its expiry."""
    stage = Stage()
    link, _ = stage.follow(grant=Grant(expires_at=NOW + 100))
    stage.skew = -HOUR
    stage.tick(200.0)
    assert link.closed is None
    assert only(link.read(), TokenExpiring) == []
    stage.tick(HOUR - 100 - EXPIRY_NOTICE)
    assert len(only(link.read(), TokenExpiring)) == 1
    stage.tick(EXPIRY_NOTICE)
    assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)


def test_a_session_that_starts_after_the_change_ends_on_time() -> None:
    """The expiry of a new session is a time of the new clock."""
    stage = Stage()
    stage.skew = HOUR
    stage.tick()
    link, _ = stage.follow(grant=Grant(expires_at=NOW + HOUR + 100))
    stage.tick(99.0)
    assert link.closed is None
    stage.tick(1.0)
    assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_durations_do_not_change(step: float) -> None:
    """A client that has not sent its token keeps its five seconds, and a heartbeat comes when it is due."""
    stage = Stage()
    waiting, _ = stage.follow(grant=None)
    link, _ = stage.follow()
    stage.skew = step
    stage.tick(AUTH_TIMEOUT - 0.1)
    assert waiting.closed is None
    stage.tick(0.1)
    assert waiting.closed is not None
    link.read()
    stage.tick(stage.hub.settings.heartbeat_ms / 1000)
    (heartbeat,) = only(link.read(), Heartbeat)
    assert heartbeat.time == format_time(stage.now + step)


@pytest.mark.parametrize("step", [HOUR, -HOUR])
def test_a_time_in_a_request_is_one_of_the_new_clock(step: float) -> None:
    """``since`` counts back from the time that the stream's clock, which is correct, shows as well."""
    stage = Stage()
    stage.skew = step
    stage.tick()
    for seq, ago in ((1, 20.0), (2, 5.0)):
        stored_ns = round((stage.now + step - ago) * 1e9)
        stage.hub.publish(seq, "log.info.x", log_event("info", "x", "line"), stored_ns, stage.now)
    link, _ = stage.open(Request(since=Since(ago=10.0)))
    stage.flush()
    assert seqs(link.read()) == [2]
