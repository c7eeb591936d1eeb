"""Tokens that are renewed in the middle of a session: what goes on, what changes at once, what ends it."""

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
    "early": ProtocolError(ErrorCode.UNAVAILABLE, "the keys are fetched anew"),
    "hour": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 3600),
    "slow": Grant(subjects=("log.>",), subject="alice", rate=5.0),
}


def stage(head: int = 0, *, stream: bool = False, **settings: Any) -> Stage:
    """A hub that asks for tokens."""
    return Stage(head, stream=stream, tokens=TOKENS, **settings)


def test_it_goes_on_where_nothing_changes() -> None:
    """What is pending comes once, and no snapshot comes again."""
    here = stage()
    link, session = here.follow(grant=LOGS)
    here.log(1)
    here.say(session, type="auth", token="hour")
    here.log(2)
    here.settle()
    messages = link.read()
    (told,) = only(messages, Subscribed)
    assert (told.resumed, told.cursor, told.expires_at) == (True, "e-0", format_time(NOW + 3600))
    assert only(messages, Snapshot) == []
    assert seqs(messages) == [1, 2]
    assert [grant.expires_at for grant in link.grants] == [None, NOW + 3600]
    assert session.feed is not None
    assert session.filter is session.feed.filter, "members of a feed share its filter, after a renewal too"


def test_a_narrower_one_takes_effect_at_once() -> None:
    """Not even what is pending comes through; a snapshot says anew what there is."""
    here = stage()
    here.status(1)
    link, session = here.follow(grant=EVERYTHING)
    here.log(2)
    here.status(3)
    here.log(4, "error")
    here.say(session, type="auth", token="errors")
    here.log(5)
    here.log(6, "error")
    here.settle()
    messages = link.read()
    (told,) = only(messages, Subscribed)
    assert (told.subjects, told.cursor, told.resumed) == (["log.error.>"], "e-1", False)
    assert shown(messages) == []
    assert seqs(messages) == [4, 6]
    assert gaps(messages) == []


def test_a_wider_one_widens_to_what_was_asked() -> None:
    """What was passed over before stays so."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=ERRORS)
    here.log(1)
    here.settle()
    here.say(session, type="auth", token="everything")
    here.log(2)
    here.settle()
    messages = link.read()
    assert only(messages, Subscribed)[0].subjects == ["log.>"]
    assert seqs(messages) == [2]


def test_another_rate_is_another_feed() -> None:
    """In mode live its gaps tell; the filter stays."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=LOGS)
    here.say(session, type="auth", token="slow")
    for seq in range(1, 21):
        here.log(seq, "error")
    here.flush()
    messages = link.read()
    assert only(messages, Subscribed)[0].subjects == ["log.>"]
    assert [gap[3] for gap in gaps(messages)] == ["rate"]
    assert seqs(messages) == [1, 2, 3, 4, 5]


def test_it_reaches_a_session_that_is_stalled() -> None:
    """It goes on from its place when its socket has room."""
    here = stage()
    link, session = here.follow(grant=EVERYTHING)
    here.log(1)
    here.settle()
    here.hub.sessions.pause(session)
    here.log(2)
    here.log(3, "error")
    here.settle()
    here.say(session, type="auth", token="errors")
    here.settle()
    assert seqs(link.read()) == [1]
    here.hub.sessions.resume(session)
    here.settle()
    assert seqs(link.read()) == [3]


@pytest.mark.parametrize("mode", ["live", "complete", "latest"])
def test_it_reaches_a_session_that_waits_for_the_stream(mode: Mode) -> None:
    """The stretch that was asked for before serves it under its new grant."""
    here = stage(CHUNK_SEQUENCES * 3, stream=True, log_events=2)
    here.first = CHUNK_SEQUENCES * 3
    for seq in range(CHUNK_SEQUENCES * 3 + 1, CHUNK_SEQUENCES * 3 + 9):
        here.log(seq, "error" if seq % 2 else "info")
    link, session = here.open(Request(mode=mode, cursor=Cursor("e", CHUNK_SEQUENCES * 3)), grant=EVERYTHING)
    here.flush()
    assert session in here.hub.fanout.replay_cache or mode != "complete"
    here.say(session, type="auth", token="errors")
    for _ in range(4):
        here.settle()
        here.read(2)
    here.settle()
    delivered = seqs(link.read())
    assert all(seq % 2 for seq in delivered)
    if mode == "complete":
        assert len(delivered) == 4


def test_it_reaches_a_session_whose_place_is_asked_for() -> None:
    """It begins under the new one, and not before its place is known."""
    here = stage(stream=True)
    here.log(1)
    link, session = here.open(Request(cursor=Cursor("e", 3)), grant=EVERYTHING)
    assert here.asked == [session]
    here.say(session, type="auth", token="errors")
    assert link.kinds() == ["welcome"]
    request = session.locating
    assert request is not None
    here.hub.sessions.start_located(session, request, 3, here.now)
    told = only(link.read(), Subscribed)
    assert (told[0].subjects, told[0].cursor) == (["log.error.>"], "e-3")


@pytest.mark.parametrize(
    ("token", "code", "error"),
    [
        ("forged", CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED),
        ("empty", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
        ("gateways", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
    ],
)
def test_a_bad_one_ends_the_session(token: str, code: CloseCode, error: ErrorCode) -> None:
    """Whatever the token that it has is worth still."""
    here = stage()
    link, session = here.follow(Request(("log.>",)), grant=LOGS)
    here.say(session, type="auth", token=token)
    assert ended(link, code, error, "auth")


def test_one_whose_key_is_not_there_yet_changes_nothing() -> None:
    """The client is told to send it again; its session goes on."""
    here = stage()
    link, session = here.follow(grant=LOGS)
    here.say(session, type="auth", token="early")
    here.log(1)
    here.settle()
    told, events = link.read()
    assert isinstance(told, Error)
    assert (told.code, told.retry, told.ref) == ("unavailable", True, "auth")
    assert seqs([events]) == [1]
    assert session.grant is LOGS


def test_its_new_subject_may_have_connections_enough() -> None:
    """4429: it would be one more of them."""
    here = stage()
    link, session = here.follow(grant=EVERYTHING)
    link.room = False
    here.say(session, type="auth", token="gateways")
    assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY, "auth")
