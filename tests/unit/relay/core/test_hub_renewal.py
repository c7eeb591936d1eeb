"""Token renewal in a running session."""

from typing import Any

import pytest
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import Error, Mode, ProtocolError, Snapshot, Subscribed
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import NOW, Stage, ended, gaps, only, seqs, shown

LOGS = Grant(subjects=("log.>",), subject="alice", token_id="1")
ERRORS = Grant(subjects=("log.error.>",), subject="alice")
GATEWAYS = Grant(subjects=("gateway.>",), subject="bob")
TOKENS: dict[str, Grant | ProtocolError] = {
    "everything": EVERYTHING,
    "logs": LOGS,
    "errors": ERRORS,
    "gateways": GATEWAYS,
    "forged": ProtocolError(
        ErrorCode.UNAUTHORIZED, "the token was not signed with a key that this relay knows"
    ),
    "empty": ProtocolError(ErrorCode.FORBIDDEN, "the token has no claim"),
    "early": ProtocolError(ErrorCode.UNAVAILABLE, "the keys are being fetched again"),
    "hour": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 3600),
    "slow": Grant(subjects=("log.>",), subject="alice", rate=5.0),
}


def stage(head: int = 0, *, stream: bool = False, **settings: Any) -> Stage:
    """Return a stage that requires tokens."""
    return Stage(head, stream=stream, tokens=TOKENS, **settings)


def test_a_renewal_without_changes_continues_the_feed() -> None:
    """A renewal with the same permissions continues the feed, without another snapshot."""
    here = stage()
    link, session = here.follow(grant=LOGS)
    here.log(1)
    here.send_message(session, type="auth", token="hour")
    here.log(2)
    here.settle()
    messages = link.read()
    (received,) = only(messages, Subscribed)
    assert (received.resumed, received.cursor, received.expires_at) == (True, "e-0", format_time(NOW + 3600))
    assert only(messages, Snapshot) == []
    assert seqs(messages) == [1, 2]
    assert [grant.expires_at for grant in link.grants] == [None, NOW + 3600]
    assert session.feed is not None
    assert session.filter is session.feed.filter, "members of a feed share its filter after a renewal"


def test_a_narrower_token_takes_effect_immediately() -> None:
    """A narrower token takes effect immediately, also for pending events, and a new snapshot is sent."""
    here = stage()
    here.status(1)
    link, session = here.follow(grant=EVERYTHING)
    here.log(2)
    here.status(3)
    here.log(4, "error")
    here.send_message(session, type="auth", token="errors")
    here.log(5)
    here.log(6, "error")
    here.settle()
    messages = link.read()
    (received,) = only(messages, Subscribed)
    assert (received.subjects, received.cursor, received.resumed) == (["log.error.>"], "e-1", False)
    assert shown(messages) == []
    assert seqs(messages) == [4, 6]
    assert gaps(messages) == []


def test_a_wider_token_widens_to_the_request() -> None:
    """A wider token widens the feed to the original request, without a replay of earlier events."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=ERRORS)
    here.log(1)
    here.settle()
    here.send_message(session, type="auth", token="everything")
    here.log(2)
    here.settle()
    messages = link.read()
    assert only(messages, Subscribed)[0].subjects == ["log.>"]
    assert seqs(messages) == [2]


def test_another_rate_uses_another_feed() -> None:
    """A token with another rate moves the session to another feed with the same filter."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=LOGS)
    here.send_message(session, type="auth", token="slow")
    for seq in range(1, 21):
        here.log(seq, "error")
    here.flush()
    messages = link.read()
    assert only(messages, Subscribed)[0].subjects == ["log.>"]
    assert [gap[3] for gap in gaps(messages)] == ["rate"]
    assert seqs(messages) == [1, 2, 3, 4, 5]


def test_a_renewal_applies_to_a_stalled_session() -> None:
    """A renewal applies to a stalled session, which resumes from its position when its socket is writable."""
    here = stage()
    link, session = here.follow(grant=EVERYTHING)
    here.log(1)
    here.settle()
    here.hub.sessions.pause(session)
    here.log(2)
    here.log(3, "error")
    here.settle()
    here.send_message(session, type="auth", token="errors")
    here.settle()
    assert seqs(link.read()) == [1]
    here.hub.sessions.resume(session)
    here.settle()
    assert seqs(link.read()) == [3]


@pytest.mark.parametrize("mode", ["live", "complete", "latest"])
def test_a_renewal_applies_to_a_session_that_waits_for_a_chunk(mode: Mode) -> None:
    """A renewal applies to a session that waits for a replay chunk, which is delivered under it."""
    here = stage(CHUNK_SEQUENCES * 3, stream=True, log_events=2)
    here.first = CHUNK_SEQUENCES * 3
    for seq in range(CHUNK_SEQUENCES * 3 + 1, CHUNK_SEQUENCES * 3 + 9):
        here.log(seq, "error" if seq % 2 else "info")
    link, session = here.open(Request(mode=mode, cursor=Cursor("e", CHUNK_SEQUENCES * 3)), grant=EVERYTHING)
    here.flush()
    assert session in here.hub.fanout.replay_cache or mode != "complete"
    here.send_message(session, type="auth", token="errors")
    for _ in range(4):
        here.settle()
        here.read(2)
    here.settle()
    delivered = seqs(link.read())
    assert all(seq % 2 for seq in delivered)
    if mode == "complete":
        assert len(delivered) == 4


def test_a_renewal_applies_to_a_session_that_is_being_located() -> None:
    """A renewal applies to a session that is being located, which starts under the new grant."""
    here = stage(stream=True)
    here.log(1)
    link, session = here.open(Request(cursor=Cursor("e", 3)), grant=EVERYTHING)
    assert here.requested == [session]
    here.send_message(session, type="auth", token="errors")
    assert link.kinds() == ["welcome"]
    request = session.locating
    assert request is not None
    here.hub.sessions.start_located(session, request, 3, here.now)
    received = only(link.read(), Subscribed)
    assert (received[0].subjects, received[0].cursor) == (["log.error.>"], "e-3")


@pytest.mark.parametrize(
    ("token", "code", "error"),
    [
        ("forged", CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED),
        ("empty", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
        ("gateways", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
    ],
)
def test_an_invalid_token_ends_the_session(token: str, code: CloseCode, error: ErrorCode) -> None:
    """An invalid token ends the session, even if its previous token is still valid."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=LOGS)
    here.send_message(session, type="auth", token=token)
    assert ended(link, code, error, "auth")


def test_a_token_with_an_unavailable_key_changes_nothing() -> None:
    """A token whose key is not available yet is rejected with retry, and the session continues."""
    here = stage()
    link, session = here.follow(grant=LOGS)
    here.send_message(session, type="auth", token="early")
    here.log(1)
    here.settle()
    received, events = link.read()
    assert isinstance(received, Error)
    assert (received.code, received.retry, received.ref) == ("unavailable", True, "auth")
    assert seqs([events]) == [1]
    assert session.grant is LOGS


def test_a_new_subject_at_its_limit_ends_the_session() -> None:
    """A renewal under a subject at its connection limit ends the session with 4429."""
    here = stage()
    link, session = here.follow(grant=EVERYTHING)
    link.capacity = False
    here.send_message(session, type="auth", token="gateways")
    assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY, "auth")
