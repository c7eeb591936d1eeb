"""Targets: events of producers, and subjects, cursors, messages and times of clients."""

import json
from typing import Any

from tickertape.contracts import cursors, subjects
from tickertape.contracts.client_messages import parse_client_message
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event, Rejection, format_time, parse_time, parse_unix_seconds
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.subjects import SubjectError
from tickertape.relay.core.filters import Filter

from tests.fuzz.targets.texts import check_text


def event(data: bytes) -> None:
    """Check that every strict parser accepts an accepted event, and that it is accepted again."""
    raw, _, payload = data.partition(b"\n")
    subject = raw.decode("utf-8", "surrogateescape")
    result = decode(subject, payload)
    if isinstance(result, Rejection):
        check_text(str(result), 4_000)
        return
    body = json.loads(result.payload, object_pairs_hook=_unique, parse_constant=_no_constant)
    assert isinstance(body, dict)
    assert abs(parse_time(body["timestamp"]).timestamp() - result.timestamp) < 0.002
    again = decode(subject, result.payload)
    assert isinstance(again, Event)
    assert again.payload == result.payload
    assert subjects.find_subject_error(subject) is None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({name for name, _ in pairs}) == len(pairs), "a key occurs twice"
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def patterns(data: bytes) -> None:
    """Check matching, covering, intersection and filters against a reference; and escaping."""
    first, second, subject = ([*data.decode("utf-8", "surrogateescape").split("\n"), "", "", ""])[:3]
    if len(subject) < 200:
        legal = subjects.escape_subject(subject)
        assert subjects.find_subject_error(legal) is None
        _check_tokens(subject)
    if not (_is_pattern(first) and _is_pattern(second)) or subjects.find_subject_error(subject):
        return
    one, other = _reference(first, subject), _reference(second, subject)
    assert subjects.matches(first, subject) is one
    assert subjects.matches(second, subject) is other
    both = subjects.intersect(first, second)
    assert both == subjects.intersect(second, first) or both is not None
    assert (both is not None and subjects.matches(both, subject)) is (one and other)
    if subjects.covers(first, second):
        assert both is not None
        assert one or not other
    assert Filter((first,), deny=(second,)).matches(subject) is (one and not other)


def _is_pattern(text: str) -> bool:
    try:
        return subjects.check_pattern(text) == text
    except SubjectError:
        return False


def _check_tokens(text: str) -> None:
    try:
        assert subjects.unescape(subjects.escape(text)) == text
        assert subjects.escape(subjects.unescape(text)) == text
    except SubjectError as error:
        check_text(str(error))


def _reference(pattern: str, subject: str) -> bool:
    if not pattern or not subject:
        return pattern == subject
    head, _, rest = pattern.partition(".")
    token, _, more = subject.partition(".")
    if head == ">":
        return True
    return head in ("*", token) and _reference(rest, more)


def cursor(data: bytes) -> None:
    """Check that a cursor has exactly one text."""
    text = data.decode("utf-8", "replace")
    try:
        parsed = cursors.parse_cursor(text)
    except ValueError as error:
        check_text(str(error))
        return
    assert str(parsed) == text
    assert 0 <= parsed.sequence < 2**64


def client_message(data: bytes) -> None:
    """Check that a message has the same meaning when it is written again, and that errors are short."""
    try:
        message = parse_client_message(data)
    except ProtocolError as error:
        check_text(str(error))
        return
    assert parse_client_message(message.model_dump_json(exclude_unset=True).encode()) == message


def time(data: bytes) -> None:
    """Check that a time survives being formatted, to the millisecond."""
    text = data.decode("utf-8", "replace")
    try:
        seconds = parse_unix_seconds(text)
    except (ValueError, OverflowError) as error:
        check_text(str(error), 10_000)
        return
    assert abs(parse_unix_seconds(format_time(seconds)) - seconds) <= 0.001_01
