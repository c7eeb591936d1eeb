"""Messages between relay and client."""

import contextlib
import re
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tickertape.contracts import messages as wire
from tickertape.contracts.client_messages import Auth, Ping, Subscribe, check_subjects, parse_client_message
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import CURSOR_PATTERN, Cursor, parse_cursor
from tickertape.contracts.messages import ProtocolError


@given(
    st.builds(
        Cursor,
        st.from_regex("[0-9a-z]{1,16}", fullmatch=True),
        st.integers(0, 2**64 - 1),
        st.none() | st.integers(1, 2**63 - 1),
    )
)
def test_a_cursor_round_trips(cursor: Cursor) -> None:
    """A formatted cursor parses to the same cursor and matches the schema's pattern."""
    assert parse_cursor(str(cursor)) == cursor
    assert re.search(CURSOR_PATTERN, str(cursor))


def test_a_cursor_of_the_first_version_is_accepted() -> None:
    """A cursor of the first version, without a timestamp, is accepted."""
    assert parse_cursor("18f3-42") == Cursor("18f3", 42, None)


@pytest.mark.parametrize(
    "text",
    ["", "-", "a-", "-1", "a-01", "a--1", "a-1 ", " a-1", "A-1", "a-1\n", "a-1-", "a-1-0", "a-1-01",
     "a-1-1-1", "a-1-" + "9" * 20,
     "a" * 17 + "-1", "a-²", f"a-{2**64}", "a-" + "9" * 21, "a-" + "9" * 10_000],
)  # fmt: skip
def test_malformed_cursors_are_rejected(text: str) -> None:
    """A malformed cursor, or one past the last sequence, is rejected in a short line."""
    with pytest.raises(ValueError, match="is not a cursor") as caught:
        parse_cursor(text)
    assert len(str(caught.value)) < 140


def test_client_messages_are_parsed() -> None:
    """Each client message parses to its model, and unknown fields are ignored."""
    assert parse_client_message(b'{"type":"auth","token":"t"}') == Auth(type="auth", token="t")
    assert parse_client_message(b'{"type":"ping","id":7,"more":1}') == Ping(type="ping", id=7)
    assert parse_client_message(b'{"type":"ping"}') == Ping(type="ping", id=None)
    assert parse_client_message(b'{"type":"subscribe","subjects":["a.>"],"interval_ms":5}') == Subscribe(
        type="subscribe", subjects=["a.>"], interval_ms=5
    )
    # The session checks the values, since each has an error code of its own.
    assert parse_client_message(b'{"type":"subscribe","level":"x","mode":"y","cursor":"z"}') == Subscribe(
        type="subscribe", level="x", mode="y", cursor="z"
    )


@pytest.mark.parametrize(
    ("text", "code", "expected", "ref"),
    [
        (b"", ErrorCode.BAD_JSON, "not JSON", None),
        (b"{", ErrorCode.BAD_JSON, "not JSON", None),
        (b'{"type":"ping"} x', ErrorCode.BAD_JSON, "not JSON", None),
        (b"\xff", ErrorCode.BAD_JSON, "not JSON", None),
        (b"[" * 100_000, ErrorCode.BAD_JSON, "not JSON", None),
        (b"[]", ErrorCode.BAD_MESSAGE, "a JSON object", None),
        (b"null", ErrorCode.BAD_MESSAGE, "a JSON object", None),
        (b"{}", ErrorCode.BAD_MESSAGE, "'type' is missing", None),
        (b'{"type":1}', ErrorCode.BAD_MESSAGE, "'type' is missing or not a string", None),
        (b'{"type":' + b"[" * 1000 + b"]" * 1000 + b"}", ErrorCode.BAD_MESSAGE, "not a string", None),
        (b'{"type":"publish"}', ErrorCode.UNKNOWN_TYPE, "use auth, subscribe or ping", None),
        (b'{"type":"welcome"}', ErrorCode.UNKNOWN_TYPE, "use auth, subscribe or ping", None),
        (b'{"type":"auth"}', ErrorCode.BAD_MESSAGE, "token: Field required", "auth"),
        (b'{"type":"auth","token":5}', ErrorCode.BAD_MESSAGE, "token: Input should be", "auth"),
        (b'{"type":"subscribe","subjects":"a"}', ErrorCode.BAD_MESSAGE, "subjects: ", "subscribe"),
        (b'{"type":"subscribe","subjects":[1]}', ErrorCode.BAD_MESSAGE, "subjects.0: ", "subscribe"),
        (b'{"type":"subscribe","interval_ms":1.5}', ErrorCode.BAD_MESSAGE, "interval_ms: ", "subscribe"),
        (b'{"type":"subscribe","interval_ms":true}', ErrorCode.BAD_MESSAGE, "interval_ms: ", "subscribe"),
        (b'{"type":"ping","id":[]}', ErrorCode.BAD_MESSAGE, "id", "ping"),
        (b'{"type":"ping","id":"%b"}' % (b"x" * 257), ErrorCode.BAD_MESSAGE, "id", "ping"),
    ],
)  # fmt: skip
def test_invalid_messages_are_reported(text: bytes, code: ErrorCode, expected: str, ref: str | None) -> None:
    """A protocol error has a code, a message, and the message's type if that is known."""
    with pytest.raises(ProtocolError, match=re.escape(expected)) as caught:
        parse_client_message(text)
    assert (caught.value.code, caught.value.ref) == (code, ref)


@given(st.binary(max_size=60))
def test_no_bytes_break_the_parser(text: bytes) -> None:
    """Any bytes from a client parse to a message or raise a protocol error."""
    with contextlib.suppress(ProtocolError):
        assert parse_client_message(text).type in ("auth", "subscribe", "ping")


def test_an_error_reads_as_one_line() -> None:
    """The text of an error starts with its code, for logs."""
    assert str(ProtocolError(ErrorCode.BAD_MODE, "no such mode")) == "bad_mode: no such mode"


def test_patterns_of_a_filter() -> None:
    """Repeated patterns are dropped, and the order is kept."""
    assert check_subjects(["b.>", "a", "b.>"]) == ("b.>", "a")
    assert check_subjects([]) == ()
    assert len(check_subjects([f"a.{n}" for n in range(wire.MAX_SUBJECTS)])) == 64


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([">"] * 65, "65 patterns exceed the limit of 64"),
        (["a", "a..b"], "'a..b' has an empty token"),
        ([""], "is empty"),
    ],
)
def test_bad_filters_are_rejected(patterns: list[str], expected: str) -> None:
    """Too many patterns, or an invalid one, are rejected."""
    with pytest.raises(ProtocolError, match=re.escape(expected)) as caught:
        check_subjects(patterns)
    assert caught.value.code is ErrorCode.BAD_SUBJECTS


def test_relay_messages_are_parsed() -> None:
    """Python clients parse each relay message by its type and ignore fields of later versions."""
    gap = {"type": "gap", "from": "a-1", "to": "a-5", "dropped": 4, "by": {"log.info": 4}, "reason": "rate"}
    read = wire.relay_message.validate_json(orjson.dumps({**gap, "later": 1}))
    assert isinstance(read, wire.Gap)
    assert read.from_ == "a-1"
    assert read.model_dump(by_alias=True) == gap
    with pytest.raises(ValidationError):
        wire.relay_message.validate_json(orjson.dumps({**gap, "reason": "boredom"}))


def test_a_gap_has_one_spelling() -> None:
    """``from_``, the attribute for ``from``, is not a field name of the protocol."""
    message: dict[str, Any] = {"type": "gap", "to": "e-2", "dropped": None, "by": {}, "reason": "slow"}
    assert isinstance(wire.relay_message.validate_python({**message, "from": "e-1"}), wire.Gap)
    with pytest.raises(ValidationError):
        wire.relay_message.validate_python({**message, "from_": "e-1"})
