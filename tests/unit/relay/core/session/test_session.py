"""Client requests and the state table of a session."""

from typing import Any
from urllib.parse import quote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.client_messages import Auth, Ping, Subscribe, parse_client_message
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.cursors import Cursor
from tickertape.contracts.messages import MAX_SUBJECTS, ProtocolError
from tickertape.relay.core.session.session import TABLE, Action, Session, State, close_code, decide
from tickertape.relay.core.session.subscription import (
    QUERY_KEYS,
    Request,
    Since,
    parse_query,
    request_from_subscribe,
)

from tests.support.clients.fake_link import FakeLink


def unexpected(session: Session, error: Exception) -> None:
    """Raise the error of a session, since none may fail in these tests."""
    raise error


def subscribe(**fields: Any) -> Request:
    """Return the request that a ``subscribe`` message makes."""
    message = parse_client_message(orjson.dumps({"type": "subscribe", **fields}))
    assert isinstance(message, Subscribe)
    return request_from_subscribe(message)


def test_an_empty_request_selects_everything() -> None:
    """An empty query or an empty ``subscribe`` requests all events."""
    assert parse_query("") == subscribe() == Request((">",), "DEBUG", "live", 1000, None, None)


def test_a_query_is_equivalent_to_a_subscribe() -> None:
    """A query string and a ``subscribe`` message with the same values make the same request."""
    requested = parse_query(
        "subjects=log.%3E,gateway.*.ctp.a&level=warn&mode=latest&interval_ms=250&cursor=e1-7"
    )
    assert requested == subscribe(
        subjects=["log.>", "gateway.*.ctp.a"], level="WARN", mode="latest", interval_ms=250, cursor="e1-7"
    )
    assert requested == Request(("log.>", "gateway.*.ctp.a"), "WARN", "latest", 250, Cursor("e1", 7), None)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("subject", "subjects"),
        ("Subjects", "subjects"),
        ("subjects[]", "subjects"),
        ("sunjects", "subjects"),
        ("lvl", "level"),
        ("Level", "level"),
        ("interval", "interval_ms"),
        ("cursors", "cursor"),
        ("from_since", "since"),
        ("modes", "mode"),
    ],
)
def test_an_unknown_key_is_rejected_with_the_closest_match(key: str, meant: str) -> None:
    """An unknown query key is rejected with the closest match, as a misspelt filter selects everything."""
    with pytest.raises(ProtocolError, match=f"did you mean '{meant}'") as caught:
        parse_query(f"level=INFO&{quote(key)}=log.error.%3E")
    assert caught.value.code is ErrorCode.BAD_QUERY


@pytest.mark.parametrize("key", ["", "x", "limit", "until", "order", "\n", "é", "a" * 3_000])
def test_an_unknown_key_is_rejected_with_the_allowed_keys(key: str) -> None:
    """An unknown key without a close match, such as a history parameter, gets the list of allowed keys."""
    with pytest.raises(
        ProtocolError, match="allowed are subjects, level, where, mode, cursor, since, interval_ms"
    ) as caught:
        parse_query(f"{quote(key)}=1")
    assert caught.value.code is ErrorCode.BAD_QUERY
    assert len(caught.value.message) < 200
    assert "\n" not in caught.value.message


@given(st.text(max_size=20).filter(lambda key: key not in QUERY_KEYS))
def test_every_unknown_key_is_rejected(key: str) -> None:
    """Every unknown query key is rejected."""
    with pytest.raises(ProtocolError) as caught:
        parse_query(f"{quote(key)}=x")
    assert caught.value.code is ErrorCode.BAD_QUERY


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("earliest", Since()),
        ("10m", Since(ago=600.0)),
        ("250ms", Since(ago=0.25)),
        ("0s", Since(ago=0.0)),
        ("2h", Since(ago=7200.0)),
        ("1d", Since(ago=86_400.0)),
        ("1970-01-01T00:01:00Z", Since(moment=60.0)),
    ],
)
def test_since_is_a_point_in_time(text: str, since: Since) -> None:
    """``since`` accepts the word ``earliest``, a duration, or a timestamp."""
    assert parse_query(f"since={text}").since == since
    assert subscribe(since=text).since == since


@pytest.mark.parametrize(
    ("since", "moment"), [(Since(), 0.0), (Since(ago=10.0), 990.0), (Since(moment=60.0), 60.0)]
)
def test_since_resolves_to_a_timestamp(since: Since, moment: float) -> None:
    """``since`` resolves to a timestamp, and durations count back from now."""
    assert since.at(1000.0) == moment


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("x=" + "a" * 4096, ErrorCode.BAD_QUERY),
        ("level=INFO&level=WARN", ErrorCode.BAD_QUERY),
        ("subjects=%FF", ErrorCode.BAD_QUERY),
        ("&".join(f"k{number}=1" for number in range(40)), ErrorCode.BAD_QUERY),
        ("token=abc", ErrorCode.BAD_QUERY),
        ("access_token=abc", ErrorCode.BAD_QUERY),
        ("subjects=", ErrorCode.BAD_SUBJECTS),
        ("subjects=log.%3E,", ErrorCode.BAD_SUBJECTS),
        ("subjects=log..x", ErrorCode.BAD_SUBJECTS),
        ("subjects=log.%3E.x", ErrorCode.BAD_SUBJECTS),
        ("subjects=log.a*", ErrorCode.BAD_SUBJECTS),
        ("subjects=" + ",".join(f"log.info.s{n}" for n in range(MAX_SUBJECTS + 1)), ErrorCode.BAD_SUBJECTS),
        ("level=LOUD", ErrorCode.BAD_LEVEL),
        ("level=", ErrorCode.BAD_LEVEL),
        ("mode=fast", ErrorCode.BAD_MODE),
        ("mode=", ErrorCode.BAD_MODE),
        ("interval_ms=0", ErrorCode.BAD_INTERVAL),
        ("interval_ms=60001", ErrorCode.BAD_INTERVAL),
        ("interval_ms=-1", ErrorCode.BAD_INTERVAL),
        ("interval_ms=1e3", ErrorCode.BAD_INTERVAL),
        ("interval_ms=%D9%A1", ErrorCode.BAD_INTERVAL),
        ("cursor=nonsense", ErrorCode.BAD_CURSOR),
        ("cursor=e-01", ErrorCode.BAD_CURSOR),
        ("cursor=e-99999999999999999999", ErrorCode.BAD_CURSOR),
        ("cursor=e-1&since=10m", ErrorCode.BAD_CURSOR),
        ("since=", ErrorCode.BAD_SINCE),
        ("since=10", ErrorCode.BAD_SINCE),
        ("since=10m30s", ErrorCode.BAD_SINCE),
        ("since=9999999999d", ErrorCode.BAD_SINCE),
        ("since=2025-06-24T10:30:45", ErrorCode.BAD_SINCE),
        ("since=2025-13-24T10:30:45Z", ErrorCode.BAD_SINCE),
    ],
)
def test_a_bad_query_is_rejected(query: str, code: ErrorCode) -> None:
    """Each invalid query is rejected with its error code and a one-line message."""
    with pytest.raises(ProtocolError) as caught:
        parse_query(query)
    assert caught.value.code is code
    assert caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_an_empty_list_of_subjects_is_rejected() -> None:
    """An empty list of subjects is rejected, since its feed would stay silent."""
    with pytest.raises(ProtocolError, match="omit it to select all"):
        subscribe(subjects=[])


def test_repeated_patterns_count_once() -> None:
    """Repeated patterns count once, and the order is kept."""
    assert subscribe(subjects=["log.>", "system.>", "log.>"]).subjects == ("log.>", "system.>")


@pytest.mark.parametrize(
    ("code", "close"),
    [
        (ErrorCode.BAD_SUBJECTS, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_LEVEL, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_MODE, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_CURSOR, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_SINCE, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_INTERVAL, CloseCode.BAD_FILTER),
        (ErrorCode.BAD_JSON, CloseCode.MISUSE),
        (ErrorCode.BAD_MESSAGE, CloseCode.MISUSE),
        (ErrorCode.UNKNOWN_TYPE, CloseCode.MISUSE),
        (ErrorCode.BAD_QUERY, CloseCode.MISUSE),
    ],
)
def test_errors_map_to_close_codes(code: ErrorCode, close: CloseCode) -> None:
    """Invalid filters close with 4409, malformed requests with 4400."""
    assert close_code(ProtocolError(code, "x")) is close


def test_every_message_is_handled_in_every_state() -> None:
    """The state table has an entry for every message type in every state."""
    assert set(TABLE) == {(state, kind) for state in State for kind in (Ping, Subscribe, Auth)}


def test_a_closing_session_ignores_messages() -> None:
    """A closing session ignores all messages."""
    for kind in ("ping", "subscribe", "auth"):
        message = parse_client_message(orjson.dumps({"type": kind, "token": "t"}))
        assert decide(State.CLOSING, message) is Action.IGNORE
    assert decide(State.FOLLOWING, Ping(type="ping")) is Action.PONG


def test_repr() -> None:
    """The repr of a session names its id, state, cursor and writability, for logs."""
    assert (
        repr(Session("abc", FakeLink(), Request(), unexpected))
        == "Session(abc, WAITING, cursor=0, writable=True)"
    )
