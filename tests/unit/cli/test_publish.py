"""How ``tickertape publish`` completes a line, and which lines it rejects."""

import orjson
import pytest
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection
from tickertape.producers.sdk.errors import InvalidEvent, PublishRejected
from tickertape.producers.sdk.publisher import validated

from tickertape.cli.publish import complete_event

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("log.info.demo", '{"message":"hi"}'),
        ("log.warn.a=2Eb", '{"message":"hi","level":"warning"}'),
        ("gateway.status.ctp.main", '{"current_status":"HEALTHY"}'),
        ("gateway.recovery.ctp.main", '{"phase":"started","attempt":1}'),
        ("system.health.monitor.m1", '{"status":"HEALTHY"}'),
        ("log.custom.thing.else", '{"event_type":"mine","any":1}'),
    ],
)
def test_the_subject_fills_in_what_is_missing(subject: str, text: str) -> None:
    """Missing fields are derived from the subject."""
    position, payload = complete_event(subject, text.encode(), NOW)
    assert position == subject
    assert not isinstance(decode(position, payload), Rejection)


def test_a_complete_event_is_published_unchanged() -> None:
    """A complete event is published unchanged."""
    text = b'{ "event_type":"mine", "timestamp":"2025-06-24T10:30:45Z", "a":1.0 }'
    assert complete_event("log.x", text, NOW) == ("log.x", text)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ('{"event_type":"system_log","level":"fatal","message":"m","source":"a.b"}', "log.critical.a=2Eb"),
        ('{"event_type":"system_health","component":"relay","status":"HEALTHY"}', "system.health.relay"),
        ('{"subject":"log.info.a","seq":9,"event":{"message":"m"}}', "log.info.a"),
    ],
)
def test_the_subject_is_derived_from_the_event(text: str, subject: str) -> None:
    """Without a subject, the subject is derived from the event."""
    position, payload = complete_event("-", text.encode(), NOW)
    assert position == subject
    assert not isinstance(decode(position, payload), Rejection)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "bad_json"),
        ("[]", "not_an_object"),
        ('{"event_type":"mine"}', "specify the subject"),
        ('{"event_type":"system_log","message":"m"}', "bad_field: level"),
        ('"' + "x" * 300_000 + '"', "exceeds the maximum of 262144 bytes"),
    ],
)
def test_an_invalid_line_is_rejected_with_a_reason(text: str, says: str) -> None:
    """An invalid line is rejected with a one-line reason."""
    with pytest.raises(ValueError, match=says):
        complete_event("-", text.encode(), NOW)


@pytest.mark.parametrize(
    "subject", ["log.*.a", "log.>", "log..a", "", "orders.new", "checkpoint.a.b", "log.a b"]
)
def test_a_subject_that_no_stream_carries_is_rejected(subject: str) -> None:
    """A subject that no stream captures is rejected, since the event could never be acknowledged."""
    event = orjson.dumps({"event_type": "mine", "timestamp": "2025-06-24T10:30:45Z"})
    with pytest.raises(InvalidEvent, match="bad_subject"):
        validated(subject, event)


def test_a_level_is_normalized_before_publishing() -> None:
    """A level is normalized to the contract's names before publishing."""
    _, event = complete_event("log.warn.a", b'{"level":"warning","message":"m"}', NOW)
    assert orjson.loads(validated("log.warn.a", event))["level"] == "WARN"


def test_errors_have_a_hint() -> None:
    """A rejection names the subject, JetStream's error and code, and a hint."""
    error = PublishRejected("log.info.a", 10071, "wrong last sequence: 3")
    assert str(error) == (
        "event for 'log.info.a' was not acknowledged: JetStream rejected it: wrong last sequence: 3 "
        "(code 10071); another producer published first; read the newest event of the subject before retrying"
    )
