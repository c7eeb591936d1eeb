"""Sessions under a grant: shown late, renewed, ended on time, revoked; and what each of them may see."""

import pytest

from contracts.codes import CloseCode, ErrorCode
from contracts.events import format_time
from contracts.wire import Bye, Error, Mode, Snapshot, Subscribed, TokenExpiring, Welcome, WireError
from relay.core.archive import STRETCH
from relay.core.grants import EVERYTHING, Grant
from relay.core.hub import AUTH_TIMEOUT, TELL_EXPIRY
from relay.core.session import Request, Session, Since, State
from tests.fake_link import NOW, FakeLink, Stage, gaps, only, seqs, shown

LOGS = Grant(subjects=("log.>",), subject="alice", token_id="1")
ERRORS = Grant(subjects=("log.error.>",), subject="alice")
GATEWAYS = Grant(subjects=("gateway.>",), subject="bob")
TOKENS: dict[str, Grant | WireError] = {
    "everything": EVERYTHING,
    "logs": LOGS,
    "errors": ERRORS,
    "gateways": GATEWAYS,
    "forged": WireError(ErrorCode.UNAUTHORIZED, "the token was not signed with a key that this relay knows"),
    "empty": WireError(ErrorCode.FORBIDDEN, "the token has no claim"),
    "early": WireError(ErrorCode.UNAVAILABLE, "the keys are fetched anew"),
    "short": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 30),
    "hour": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 3600),
    "past": Grant(subjects=("log.>",), subject="alice", expires_at=NOW - 1),
    "slow": Grant(subjects=("log.>",), subject="alice", rate=5.0),
}


def stage(head: int = 0, *, stream: bool = False, **settings: object) -> Stage:
    """A hub that asks for tokens."""
    return Stage(head, stream=stream, tokens=TOKENS, **settings)


def ended(link: FakeLink, code: CloseCode, error: ErrorCode, ref: str | None = None) -> bool:
    """Tell whether a client was sent away so: ``error`` and ``bye`` are the last of what it reads."""
    *_, last, bye = link.read()
    assert isinstance(last, Error)
    assert isinstance(bye, Bye)
    assert bye.reason == last.message
    assert link.closed == (code, bye.reason)
    return (bye.code, last.code, last.ref) == (code, error, ref)


class TestWaiting:
    """Clients that have yet to show a token."""

    def test_nothing_is_sent_to_it(self) -> None:
        """Neither events, nor heartbeats, nor news of NATS; then it begins where it comes in."""
        here = stage()
        link, session = here.open(grant=None)
        here.status(1)
        here.log(2)
        here.hub.set_upstream(False, here.now)
        here.hub.restart_sessions()
        here.settle()
        here.tick(AUTH_TIMEOUT - 0.01)
        assert link.sent == []
        assert session.feed is None
        here.say(session, type="auth", token="everything")
        assert link.kinds() == ["welcome", "subscribed", "snapshot", "upstream"]
        assert session.state is State.FOLLOWING
        here.log(3)
        here.settle()
        assert seqs(link.read()) == [3]

    def test_it_has_some_seconds(self) -> None:
        """Then it is told, once."""
        here = stage()
        link, session = here.open(grant=None)
        here.tick(AUTH_TIMEOUT)
        assert ended(link, CloseCode.TIMEOUT, ErrorCode.TIMEOUT)
        here.tick(AUTH_TIMEOUT)
        here.say(session, type="auth", token="logs")
        assert len(link.sent) == 2
        assert here.hub.sessions == {}

    @pytest.mark.parametrize("message", [{"type": "ping", "id": 1}, {"type": "subscribe"}])
    def test_it_may_say_nothing_else(self, message: dict[str, object]) -> None:
        """Whatever it is, it is told what the first message has to be."""
        here = stage()
        link, session = here.open(grant=None)
        here.say(session, **message)
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED, str(message["type"]))

    @pytest.mark.parametrize(
        ("token", "code", "error"),
        [
            ("forged", CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED),
            ("empty", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
            ("gateways", CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN),
            ("early", CloseCode.UNAVAILABLE, ErrorCode.UNAVAILABLE),
        ],
    )
    def test_a_token_that_does_not_count_ends_it(self, token: str, code: CloseCode, error: ErrorCode) -> None:
        """Before anything else is said."""
        here = stage()
        link, session = here.open(Request(("log.info.>",)), grant=None)
        here.say(session, type="auth", token=token)
        assert len(link.sent) == 2
        assert ended(link, code, error, "auth")

    def test_a_relay_without_tokens_takes_any(self) -> None:
        """It grants everything, and a renewal changes nothing."""
        here = Stage()
        link, session = here.open(grant=None)
        here.say(session, type="auth", token="whatever")
        assert link.kinds() == ["welcome", "subscribed", "snapshot"]
        here.say(session, type="auth", token="another")
        assert link.kinds() == []

    def test_its_subject_may_have_connections_enough(self) -> None:
        """4429, whether the token came with the handshake or later."""
        here = stage()
        link, session = here.open(grant=None)
        link.room = False
        here.say(session, type="auth", token="logs")
        assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY, "auth")
        full = FakeLink()
        full.room = False
        here.hub.open(full, Request(), here.now, LOGS)
        assert ended(full, CloseCode.TOO_MANY, ErrorCode.TOO_MANY)
        assert here.hub.sessions == {}


class TestGranted:
    """What a session gets under its grant."""

    def test_it_is_told_what_it_was_granted(self) -> None:
        """In ``welcome`` as a whole, in ``subscribed`` of what it asked for."""
        grant = Grant(("log.>", "gateway.>"), ("log.*.x",), "WARN", rate=7.0, expires_at=NOW + 600)
        link, _ = stage().open(Request(("log.info.y", "log.info.x", "system.>")), grant=grant)
        welcome, subscribed, _ = link.read()
        assert isinstance(welcome, Welcome)
        assert welcome.grant.model_dump() == {
            "subjects": ["log.>", "gateway.>"],
            "deny": ["log.*.x"],
            "level": "WARN",
            "rate": 7.0,
        }
        assert welcome.limits.rate == 7.0
        assert welcome.expires_at == format_time(NOW + 600)
        assert isinstance(subscribed, Subscribed)
        assert (subscribed.subjects, subscribed.level) == (["log.info.y"], "WARN")
        assert subscribed.expires_at == welcome.expires_at

    def test_what_is_denied_is_neither_sent_nor_shown_nor_counted(self) -> None:
        """Live, in snapshots, in the past, and in gaps."""
        here = stage()
        grant = Grant((">",), ("log.*.secret", "gateway.status.*.b"), rate=2.0)
        for seq, name in ((1, "a"), (2, "b")):
            here.status(seq, name)
        here.log(3, source="secret")
        here.log(4)
        link, _ = here.open(Request(since=Since()), grant=grant)
        assert shown(link.read()) == []
        here.settle()
        assert seqs(link.read()) == [1, 4]
        fresh, session = here.open(grant=grant)
        assert shown(fresh.read()) == [1]
        for seq in range(5, 15):
            here.log(seq, source="secret" if seq % 2 else "x")
        here.flush()
        here.flush(1.0)
        messages = fresh.read()
        (gap,) = gaps(messages)
        assert len(seqs(messages)) + (gap[2] or 0) == 5
        assert all(seq % 2 == 0 for seq in seqs(messages))
        assert session.cursor <= here.hub.log.head

    def test_a_filter_outside_of_it_ends_the_session(self) -> None:
        """At once, or in the middle of it."""
        here = stage()
        link, _ = here.open(Request(("gateway.>",)), grant=LOGS)
        assert len(link.sent) == 2
        assert ended(link, CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN)
        link, session = here.follow(grant=LOGS)
        here.say(session, type="subscribe", subjects=["gateway.>"])
        assert ended(link, CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "subscribe")


class TestRenewal:
    """``auth`` in the middle of a session."""

    def test_it_goes_on_where_nothing_changes(self) -> None:
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

    def test_a_narrower_one_takes_effect_at_once(self) -> None:
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

    def test_a_wider_one_widens_to_what_was_asked(self) -> None:
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

    def test_another_rate_is_another_feed(self) -> None:
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

    def test_it_reaches_a_session_that_is_stalled(self) -> None:
        """It goes on from its place when its socket has room."""
        here = stage()
        link, session = here.follow(grant=EVERYTHING)
        here.log(1)
        here.settle()
        here.hub.paused(session)
        here.log(2)
        here.log(3, "error")
        here.settle()
        here.say(session, type="auth", token="errors")
        here.settle()
        assert seqs(link.read()) == [1]
        here.hub.resumed(session)
        here.settle()
        assert seqs(link.read()) == [3]

    @pytest.mark.parametrize("mode", ["live", "complete", "latest"])
    def test_it_reaches_a_session_that_waits_for_the_stream(self, mode: Mode) -> None:
        """The stretch that was asked for before serves it under its new grant."""
        here = stage(STRETCH * 3, stream=True, log_events=2)
        here.first = STRETCH * 3
        for seq in range(STRETCH * 3 + 1, STRETCH * 3 + 9):
            here.log(seq, "error" if seq % 2 else "info")
        link, session = here.open(Request(mode=mode, cursor=("e", STRETCH * 3)), grant=EVERYTHING)
        here.flush()
        assert session in here.hub.fanout.archive or mode != "complete"
        here.say(session, type="auth", token="errors")
        for _ in range(4):
            here.settle()
            here.read(2)
        here.settle()
        delivered = seqs(link.read())
        assert all(seq % 2 for seq in delivered)
        if mode == "complete":
            assert len(delivered) == 4

    def test_it_reaches_a_session_whose_place_is_asked_for(self) -> None:
        """It begins under the new one, and not before its place is known."""
        here = stage(stream=True)
        here.log(1)
        link, session = here.open(Request(cursor=("e", 3)), grant=EVERYTHING)
        assert here.asked == [session]
        here.say(session, type="auth", token="errors")
        assert link.kinds() == ["welcome"]
        request = session.request
        assert request is not None
        here.hub.located(session, request, 3, here.now)
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
    def test_a_bad_one_ends_the_session(self, token: str, code: CloseCode, error: ErrorCode) -> None:
        """Whatever the token that it has is worth still."""
        here = stage()
        link, session = here.follow(Request(("log.>",)), grant=LOGS)
        here.say(session, type="auth", token=token)
        assert ended(link, code, error, "auth")

    def test_one_whose_key_is_not_there_yet_changes_nothing(self) -> None:
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

    def test_its_new_subject_may_have_connections_enough(self) -> None:
        """4429: it would be one more of them."""
        here = stage()
        link, session = here.follow(grant=EVERYTHING)
        link.room = False
        here.say(session, type="auth", token="gateways")
        assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY, "auth")


class TestEnd:
    """The end of a token, by the clock or by the operator."""

    def test_it_is_told_a_minute_before(self) -> None:
        """Once; and at its end the session ends with it."""
        here = stage()
        grant = Grant(expires_at=NOW + TELL_EXPIRY + 10)
        link, _ = here.follow(grant=grant)
        here.tick(9.9)
        assert only(link.read(), TokenExpiring) == []
        here.tick(0.1)
        (told,) = only(link.read(), TokenExpiring)
        assert told.expires_at == format_time(NOW + TELL_EXPIRY + 10)
        here.tick(TELL_EXPIRY - 0.1)
        assert only(link.read(), TokenExpiring) == []
        assert link.closed is None
        here.tick(0.1)
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_a_short_one_is_told_at_once(self) -> None:
        """When it is shown, and when it renews another."""
        here = stage()
        link, session = here.open(grant=None)
        here.say(session, type="auth", token="short")
        assert link.kinds() == ["welcome", "subscribed", "snapshot", "token_expiring"]
        here.say(session, type="auth", token="hour")
        here.tick(31)
        assert link.kinds() == ["subscribed", "heartbeat"]
        here.say(session, type="auth", token="short")
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_one_that_ended_on_the_way_ends_the_session(self) -> None:
        """Between the verifier's look and ours."""
        here = stage()
        link, session = here.open(grant=None)
        here.say(session, type="auth", token="past")
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_a_revoked_one_ends_its_sessions(self) -> None:
        """Those and no others: neither another's, nor one that has shown none."""
        here = stage()
        opened: list[tuple[FakeLink, Session]] = [
            here.follow(grant=LOGS), here.follow(grant=GATEWAYS), here.open(grant=None),
            here.follow(grant=LOGS),
        ]  # fmt: skip
        assert here.hub.end_revoked(lambda grant: grant.subject == "alice") == 2
        assert here.hub.end_revoked(lambda grant: grant.subject == "alice") == 0
        for (link, _), gone in zip(opened, (True, False, False, True), strict=True):
            assert (link.closed is not None) == gone
            if gone:
                assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)
        assert len(here.hub.sessions) == 2
