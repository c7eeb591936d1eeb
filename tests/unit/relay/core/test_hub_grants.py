"""Sessions under a grant: late authentication, expiry, revocation, and visible events."""

from typing import Any

import pytest
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import ProtocolError, Subscribed, TokenExpiring, Welcome
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.session.session import Session, State
from tickertape.relay.core.session.sessions import AUTH_TIMEOUT, EXPIRY_NOTICE
from tickertape.relay.core.session.subscription import Request, Since

from tests.support.clients.fake_link import NOW, FakeLink, Stage, ended, gaps, only, seqs, shown

LOGS = Grant(subjects=("log.>",), subject="alice", token_id="1")
GATEWAYS = Grant(subjects=("gateway.>",), subject="bob")
TOKENS: dict[str, Grant | ProtocolError] = {
    "everything": EVERYTHING,
    "logs": LOGS,
    "gateways": GATEWAYS,
    "forged": ProtocolError(
        ErrorCode.UNAUTHORIZED, "the token was not signed with a key that this relay knows"
    ),
    "empty": ProtocolError(ErrorCode.FORBIDDEN, "the token has no claim"),
    "early": ProtocolError(ErrorCode.UNAVAILABLE, "the keys are being fetched again"),
    "short": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 30),
    "hour": Grant(subjects=("log.>",), subject="alice", expires_at=NOW + 3600),
    "past": Grant(subjects=("log.>",), subject="alice", expires_at=NOW - 1),
}


def stage(head: int = 0, *, stream: bool = False, **settings: Any) -> Stage:
    """Return a stage that requires tokens."""
    return Stage(head, stream=stream, tokens=TOKENS, **settings)


class TestWaiting:
    """Clients that have not authenticated yet."""

    def test_nothing_is_sent_before_authentication(self) -> None:
        """Before it authenticates, a client gets nothing; then it starts at the current position."""
        here = stage()
        link, session = here.open(grant=None)
        here.status(1)
        here.log(2)
        here.hub.sessions.set_upstream(False, here.now)
        here.hub.restart_sessions()
        here.settle()
        here.tick(AUTH_TIMEOUT - 0.01)
        assert link.sent == []
        assert session.feed is None
        here.send_message(session, type="auth", token="everything")
        assert link.kinds() == ["welcome", "subscribed", "snapshot", "upstream"]
        assert session.state is State.FOLLOWING
        here.log(3)
        here.settle()
        assert seqs(link.read()) == [3]

    def test_authentication_times_out(self) -> None:
        """A client that does not authenticate in time is closed once, with a timeout error."""
        here = stage()
        link, session = here.open(grant=None)
        here.tick(AUTH_TIMEOUT)
        assert ended(link, CloseCode.TIMEOUT, ErrorCode.TIMEOUT)
        here.tick(AUTH_TIMEOUT)
        here.send_message(session, type="auth", token="logs")
        assert len(link.sent) == 2
        assert len(here.hub.sessions) == 0

    @pytest.mark.parametrize("message", [{"type": "ping", "id": 1}, {"type": "subscribe"}])
    def test_other_messages_are_rejected(self, message: dict[str, object]) -> None:
        """Any other first message ends the session with an error that asks for ``auth``."""
        here = stage()
        link, session = here.open(grant=None)
        here.send_message(session, **message)
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
    def test_an_invalid_token_ends_the_session(self, token: str, code: CloseCode, error: ErrorCode) -> None:
        """An invalid token ends the session before ``welcome``."""
        here = stage()
        link, session = here.open(Request(("log.info.>",)), grant=None)
        here.send_message(session, type="auth", token=token)
        assert len(link.sent) == 2
        assert ended(link, code, error, "auth")

    def test_a_relay_without_tokens_accepts_any(self) -> None:
        """A relay that requires no tokens accepts any token, grants everything, and ignores renewals."""
        here = Stage()
        link, session = here.open(grant=None)
        here.send_message(session, type="auth", token="whatever")
        assert link.kinds() == ["welcome", "subscribed", "snapshot"]
        here.send_message(session, type="auth", token="another")
        assert link.kinds() == []

    def test_a_subject_at_its_limit_is_rejected(self) -> None:
        """A subject at its connection limit is rejected with 4429, in the handshake or by ``auth``."""
        here = stage()
        link, session = here.open(grant=None)
        link.capacity = False
        here.send_message(session, type="auth", token="logs")
        assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY, "auth")
        full = FakeLink()
        full.capacity = False
        here.hub.sessions.open(full, Request(), here.now, LOGS)
        assert ended(full, CloseCode.TOO_MANY, ErrorCode.TOO_MANY)
        assert len(here.hub.sessions) == 0


class TestGranted:
    """Visibility of events under a grant."""

    def test_the_grant_is_reported(self) -> None:
        """``welcome`` contains the whole grant, ``subscribed`` the part that was requested."""
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

    def test_denied_events_are_neither_sent_nor_shown_nor_counted(self) -> None:
        """Denied events are not delivered, shown in snapshots, replayed, or counted in gaps."""
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

    def test_a_filter_outside_of_the_grant_ends_the_session(self) -> None:
        """A filter outside of the grant ends the session, at its start or later."""
        here = stage()
        link, _ = here.open(Request(("gateway.>",)), grant=LOGS)
        assert len(link.sent) == 2
        assert ended(link, CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN)
        link, session = here.follow(grant=LOGS)
        here.send_message(session, type="subscribe", subjects=["gateway.>"])
        assert ended(link, CloseCode.FORBIDDEN, ErrorCode.FORBIDDEN, "subscribe")


class TestEnd:
    """Expiry and revocation of tokens."""

    def test_expiry_is_announced_a_minute_before(self) -> None:
        """A client is notified once, a minute before its token expires, and is closed when it expires."""
        here = stage()
        grant = Grant(expires_at=NOW + EXPIRY_NOTICE + 10)
        link, _ = here.follow(grant=grant)
        here.tick(9.9)
        assert only(link.read(), TokenExpiring) == []
        here.tick(0.1)
        (notice,) = only(link.read(), TokenExpiring)
        assert notice.expires_at == format_time(NOW + EXPIRY_NOTICE + 10)
        here.tick(EXPIRY_NOTICE - 0.1)
        assert only(link.read(), TokenExpiring) == []
        assert link.closed is None
        here.tick(0.1)
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_a_short_lived_token_is_announced_immediately(self) -> None:
        """A token that expires within a minute is announced immediately, also after a renewal."""
        here = stage()
        link, session = here.open(grant=None)
        here.send_message(session, type="auth", token="short")
        assert link.kinds() == ["welcome", "subscribed", "snapshot", "token_expiring"]
        here.send_message(session, type="auth", token="hour")
        here.tick(31)
        assert link.kinds() == ["subscribed", "heartbeat"]
        here.send_message(session, type="auth", token="short")
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_a_token_that_expired_in_transit_ends_the_session(self) -> None:
        """A token that expires between its verification and the session's start ends the session."""
        here = stage()
        link, session = here.open(grant=None)
        here.send_message(session, type="auth", token="past")
        assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)

    def test_a_revoked_token_ends_its_sessions(self) -> None:
        """A revocation ends the sessions of that token and no others."""
        here = stage()
        opened: list[tuple[FakeLink, Session]] = [
            here.follow(grant=LOGS), here.follow(grant=GATEWAYS), here.open(grant=None),
            here.follow(grant=LOGS),
        ]  # fmt: skip
        assert here.hub.sessions.end_revoked(lambda grant: grant.subject == "alice") == 2
        assert here.hub.sessions.end_revoked(lambda grant: grant.subject == "alice") == 0
        for (link, _), gone in zip(opened, (True, False, False, True), strict=True):
            assert (link.closed is not None) == gone
            if gone:
                assert ended(link, CloseCode.UNAUTHORIZED, ErrorCode.UNAUTHORIZED)
        assert len(here.hub.sessions) == 2
