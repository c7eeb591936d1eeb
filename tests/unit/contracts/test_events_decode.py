"""``decode`` for any payload that a producer could send."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.contracts import events
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event, Rejection
from tickertape.contracts.events import RejectionReason as Reason

TIME = "2025-06-24T10:30:45.123Z"
STATUS: dict[str, Any] = {
    "event_type": "gateway_status_change",
    "timestamp": TIME,
    "gateway_id": "main.1",
    "gateway_type": "ctp",
    "previous_status": "UNKNOWN",
    "current_status": "HEALTHY",
}
RECOVERY: dict[str, Any] = {
    "event_type": "gateway_recovery",
    "timestamp": TIME,
    "gateway_id": "main.1",
    "gateway_type": "ctp",
    "phase": "attempt",
    "attempt": 2,
}
LOG: dict[str, Any] = {
    "event_type": "system_log",
    "timestamp": TIME,
    "level": "INFO",
    "message": "m",
    "source": "a",
}
HEALTH: dict[str, Any] = {
    "event_type": "system_health",
    "timestamp": TIME,
    "component": "db",
    "status": "DEGRADED",
}
ON_STATUS = "gateway.status.ctp.main=2E1"
ON_RECOVERY = "gateway.recovery.ctp.main=2E1"
ON_LOG = "log.info.a"
ON_HEALTH = "system.health.db"


def _event(subject: str, payload: bytes) -> Event:
    result = decode(subject, payload)
    assert isinstance(result, Event), result
    return result


def _rejected(subject: str, payload: bytes) -> Rejection:
    result = decode(subject, payload)
    assert isinstance(result, Rejection), result
    assert "\n" not in str(result)
    assert len(str(result)) < 400
    return result


def _log_with(value: bytes) -> bytes:
    return orjson.dumps(LOG)[:-1] + b',"metadata":{"x":' + value + b"}}"


@pytest.mark.parametrize(
    ("subject", "body", "state"),
    [
        (ON_STATUS, STATUS, True),
        (ON_RECOVERY, RECOVERY, False),
        (ON_LOG, LOG, False),
        (ON_HEALTH, HEALTH, True),
    ],
)
def test_events_of_the_contract_are_accepted(subject: str, body: dict[str, Any], state: bool) -> None:
    """A valid event keeps its bytes, including extra fields and white space."""
    payload = b" \n" + orjson.dumps({**body, "extra": {"deep": [1, None]}, "metadata": {}}) + b"\t"
    assert _event(subject, payload) == Event(payload, 1750761045.123, state, False)


def test_a_removed_state_is_recognized() -> None:
    """REMOVED counts only in the field that holds the type's status."""
    assert _event(ON_STATUS, orjson.dumps({**STATUS, "current_status": "REMOVED"})).removed
    assert _event(ON_HEALTH, orjson.dumps({**HEALTH, "status": "REMOVED"})).removed
    assert not _event(ON_STATUS, orjson.dumps({**STATUS, "previous_status": "REMOVED"})).removed
    assert not _event(ON_STATUS, orjson.dumps({**STATUS, "status": "REMOVED"})).removed
    assert not _event(ON_HEALTH, orjson.dumps({**HEALTH, "current_status": "REMOVED"})).removed


def test_the_instance_has_to_match_the_subject() -> None:
    """Body and subject name the same instance, or neither names one."""
    body = {**HEALTH, "instance": "1"}
    assert _event("system.health.db.1", orjson.dumps(body)).state
    assert _event(ON_HEALTH, orjson.dumps({**HEALTH, "instance": None})).state
    assert _rejected(ON_HEALTH, orjson.dumps(body)).reason is Reason.SUBJECT_MISMATCH
    assert _rejected("system.health.db.2", orjson.dumps(body)).reason is Reason.SUBJECT_MISMATCH
    assert _rejected("system.health.db.1", orjson.dumps(HEALTH)).reason is Reason.SUBJECT_MISMATCH
    # The meaning of 'instance' in other types is up to their producer.
    assert _event(ON_STATUS, orjson.dumps({**STATUS, "instance": "1"})).state


@pytest.mark.parametrize(
    "subject", ["log.info.a", "system.a", "gateway.status.ctp.x", "gateway.b.c.d.e", "log.info"]
)
def test_unknown_types_are_accepted(subject: str) -> None:
    """An unknown type is accepted unchanged as a log event, on any subject."""
    payload = b'{"timestamp":"2025-06-24T10:30:45Z","event_type":"order_filled","level":"warning"}'
    assert _event(subject, payload) == Event(payload, 1750761045.0, False, False)


@pytest.mark.parametrize(
    ("subject", "payload", "reason", "detail"),
    [
        (ON_LOG, b"", Reason.BAD_JSON, "empty"),
        (ON_LOG, b"hello", Reason.BAD_JSON, "line 1"),
        (ON_LOG, b"[]", Reason.NOT_AN_OBJECT, "an event must be an object"),
        (ON_LOG, b'"x"', Reason.NOT_AN_OBJECT, "JSON str"),
        (ON_LOG, b"null", Reason.NOT_AN_OBJECT, "JSON NoneType"),
        (ON_LOG, b"{}", Reason.BAD_EVENT_TYPE, "missing"),
        (ON_LOG, orjson.dumps({**LOG, "event_type": 1}), Reason.BAD_EVENT_TYPE, "not a string"),
        (ON_LOG, orjson.dumps({**LOG, "event_type": ""}), Reason.BAD_EVENT_TYPE, "missing"),
        (ON_LOG, b'{"event_type":"x"}', Reason.BAD_TIMESTAMP, "missing"),
        (ON_LOG, orjson.dumps({**LOG, "timestamp": 1750761045}), Reason.BAD_TIMESTAMP, "not a string"),
        (ON_LOG, orjson.dumps({**LOG, "timestamp": "now"}), Reason.BAD_TIMESTAMP, "RFC 3339"),
        (ON_LOG, orjson.dumps({**LOG, "level": "TRACE"}), Reason.BAD_FIELD, "level: "),
        (ON_LOG, orjson.dumps({**LOG, "level": "Info"}), Reason.BAD_FIELD, "level: "),
        (ON_LOG, orjson.dumps({**LOG, "level": None}), Reason.BAD_FIELD, "level: "),
        (ON_LOG, orjson.dumps({**LOG, "message": 5}), Reason.BAD_FIELD, "message: "),
        (ON_LOG, orjson.dumps({**LOG, "source": ""}), Reason.BAD_FIELD, "source: "),
        (ON_LOG, orjson.dumps({**LOG, "metadata": []}), Reason.BAD_FIELD, "metadata: "),
        (ON_LOG, orjson.dumps({**LOG, "metadata": None}), Reason.BAD_FIELD, "metadata: "),
        (ON_STATUS, orjson.dumps({**STATUS, "current_status": "FINE"}), Reason.BAD_FIELD, "current_status: "),
        (ON_STATUS, orjson.dumps({**STATUS, "current_status": "healthy"}), Reason.BAD_FIELD, "_status: "),
        (ON_RECOVERY, orjson.dumps({**RECOVERY, "attempt": -1}), Reason.BAD_FIELD, "attempt: "),
        (ON_RECOVERY, orjson.dumps({**RECOVERY, "attempt": True}), Reason.BAD_FIELD, "attempt: "),
        (ON_RECOVERY, orjson.dumps({**RECOVERY, "phase": "over"}), Reason.BAD_FIELD, "phase: "),
        (ON_HEALTH, orjson.dumps({**HEALTH, "checks": "ok"}), Reason.BAD_FIELD, "checks"),
        ("log.info", orjson.dumps(LOG), Reason.BAD_SUBJECT, "is not a subject of the contract"),
        ("log.trace.a", orjson.dumps(LOG), Reason.BAD_SUBJECT, "has no valid level"),
        ("log.info.=41", orjson.dumps({**LOG, "source": "A"}), Reason.BAD_SUBJECT, "not canonical"),
        ("log.error.a", orjson.dumps(LOG), Reason.SUBJECT_MISMATCH, "level is 'INFO'"),
        ("log.info.b", orjson.dumps(LOG), Reason.SUBJECT_MISMATCH, "but 'b' in the subject"),
        (ON_LOG, orjson.dumps({**LOG, "source": "a" * 9999}), Reason.SUBJECT_MISMATCH, "'a' in the subject"),
        (ON_HEALTH, orjson.dumps(LOG), Reason.SUBJECT_MISMATCH, "is not allowed on subject"),
        (ON_RECOVERY, orjson.dumps(STATUS), Reason.SUBJECT_MISMATCH, "is not allowed on subject"),
        ("gateway.status.ctp.main", orjson.dumps(STATUS), Reason.SUBJECT_MISMATCH, "gateway_id is 'main.1'"),
        ("gateway.status.ib.main=2E1", orjson.dumps(STATUS), Reason.SUBJECT_MISMATCH, "gateway_type is"),
        ("system.health.cache", orjson.dumps(HEALTH), Reason.SUBJECT_MISMATCH, "component is 'db'"),
    ],
)  # fmt: skip
def test_errors_are_reported(subject: str, payload: bytes, reason: Reason, detail: str) -> None:
    """Each kind of error has its reason and a one-line detail."""
    found = _rejected(subject, payload)
    assert found.reason is reason
    assert detail in found.detail


@pytest.mark.parametrize("body", [STATUS, RECOVERY, LOG, HEALTH])
def test_every_required_field_is_checked(body: dict[str, Any]) -> None:
    """An event without any one of its required fields is rejected, and nothing is raised."""
    subject = {"gateway_status_change": ON_STATUS, "gateway_recovery": ON_RECOVERY, "system_log": ON_LOG}.get(
        body["event_type"], ON_HEALTH
    )
    for field in body:
        found = _rejected(subject, orjson.dumps({key: value for key, value in body.items() if key != field}))
        assert found.reason in (
            Reason.BAD_FIELD,
            Reason.BAD_EVENT_TYPE,
            Reason.BAD_TIMESTAMP,
        )


@pytest.mark.parametrize(
    "value",
    [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1" * 5000, b"01", b"1.", b".5", b"+1", b"0x1",
     b"'a'", b"[1,]", b"[1", b"{a:1}", b'{"a":1,}', b"tru", b"undefined", b"/**/1", b"1//", b'"\x00"',
     b'"\x1f"', b'"a\nb"', b'"\t"', b'"\\x41"', b'"\\u12"', b'"\\ud800"', b'"\\udc00"', b'"\\udc00\\ud800"',
     b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\xf4\x90\x80\x80"', b'"\xe2\x82"', b'"', b""],
)  # fmt: skip
def test_invalid_json_is_rejected(value: bytes) -> None:
    """Values that strict parsers reject are rejected."""
    assert _rejected(ON_LOG, _log_with(value)).reason is Reason.BAD_JSON


@pytest.mark.parametrize(
    "value",
    [b"-0", b"1e308", b"12345678901234567890123", b"0.1000000000000000055511151231257827", b'"\x7f"',
     b'"\\u0000"', b'"\\ud83d\\ude00"', b'"\xf0\x9f\x98\x80"', b'"\xe2\x80\xa8"',
     b'"\xef\xbf\xbe"', b'"\\/"', b"[ ]", b"{\r\n}"],
)  # fmt: skip
def test_unusual_but_valid_values_are_accepted(value: bytes) -> None:
    """Values that all parsers accept are kept unchanged."""
    assert _event(ON_LOG, _log_with(value)).payload == _log_with(value)


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"\xef\xbb\xbf", b""), (b"", b"x"), (b"", b"{}"), (b"", b"\x00"), (b"\x0c", b""), (b"", b"\xc2\xa0"),
     (b"", b","), (b"//\n", b"")],
)  # fmt: skip
def test_nothing_may_surround_the_object(before: bytes, after: bytes) -> None:
    """A byte order mark, a second document or a stray byte around the object is rejected."""
    assert _rejected(ON_LOG, before + orjson.dumps(LOG) + after).reason is Reason.BAD_JSON


def test_other_encodings_are_rejected() -> None:
    """Payloads in encodings other than UTF-8 are rejected."""
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1"):
        text = json.dumps({**LOG, "message": "é"}, ensure_ascii=False)
        assert _rejected(ON_LOG, text.encode(encoding)).reason is Reason.BAD_JSON


@pytest.mark.parametrize(
    "payload",
    [
        orjson.dumps(LOG)[:-1] + b',"level":"INFO"}',
        orjson.dumps(LOG)[:-1] + b',"\\u006cevel":"ERROR"}',
        _log_with(b'[{"a":1,"b":{"c":1,"\\u0063":2}}]'),
        _log_with(b'{"a":"x:y","a":"x:y"}'),
        _log_with(b"[" + b'{"":0,"":0}' * 1 + b"]"),
    ],
)
def test_duplicate_keys_are_rejected(payload: bytes) -> None:
    """Duplicate keys are rejected at any depth and in any spelling, since parsers disagree on them."""
    assert _rejected(ON_LOG, payload).reason is Reason.DUPLICATE_KEY


def test_nesting_is_bounded() -> None:
    """Parsers with a depth limit of 64 can read every frame, since deeper events are rejected."""

    def nested(levels: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
        return _log_with(opening * levels + b"1" * (opening != b"[") + closing * levels)

    deepest = events.MAX_EVENT_DEPTH - 2
    assert _event(ON_LOG, nested(deepest)).payload == nested(deepest)
    assert _event(ON_LOG, _log_with(b"[" + b"[]," * 5000 + b"[]]"))
    for levels in (deepest + 1, 900, 1000, 1020, 1030, 100_000):
        assert _rejected(ON_LOG, nested(levels)).reason is Reason.BAD_JSON
    for levels in (deepest + 1, 900, 1020, 20_000):
        assert _rejected(ON_LOG, nested(levels, b'{"\\u0061":', b"}")).reason is Reason.BAD_JSON
    # A parser drops the deep one of two values with the same key.
    hidden = b'{"a":' + b"[" * 1000 + b"]" * 1000 + b',"a":1}'
    assert _rejected(ON_LOG, _log_with(hidden)).reason is Reason.BAD_JSON


def test_the_size_is_bounded() -> None:
    """An event of 256 KiB is accepted, and one byte more is rejected."""
    payload = orjson.dumps({**LOG, "message": ""})
    fill = "x" * (events.MAX_EVENT_BYTES - len(payload))
    assert len(_event(ON_LOG, orjson.dumps({**LOG, "message": fill})).payload) == 256 * 1024
    assert _rejected(ON_LOG, orjson.dumps({**LOG, "message": fill + "x"})).reason is Reason.TOO_LARGE


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("warn", "WARN"), ("WARNING", "WARN"), ("warning", "WARN"), ("FATAL", "CRITICAL"), ("fatal", "CRITICAL"),
     ("debug", "DEBUG"), ("info", "INFO"), ("error", "ERROR"), ("critical", "CRITICAL")],
)  # fmt: skip
def test_levels_are_rewritten(spelling: str, name: str) -> None:
    """Accepted spellings of levels are rewritten to the names of the contract."""
    found = _event(f"log.{name.lower()}.a", orjson.dumps({**LOG, "level": spelling}))
    assert found.payload == orjson.dumps({**LOG, "level": name})


@pytest.mark.parametrize(
    ("before", "level", "after"),
    [
        ('{"metadata":{"level":"warning","n":12345678901234567890123},', '"level":', "}"),
        ('{"metadata":{"list":["level",{"level":"warning"}]},', '"level" \n:\t', ',"x":{"level":"warning"}}'),
        ('{"note":"\\"level\\":\\"warning\\"",', '"level":', ',"f":1.0,"g":1E2 }'),
        ('{ "note" : "level" ,', '"\\u006cevel":', ',"\\u0041":"\\u0042"} '),
    ],
)
def test_only_the_level_changes(before: str, level: str, after: str) -> None:
    """Only the level is rewritten; white space, escapes, numbers and equal words elsewhere are kept."""
    rest = f',"event_type":"system_log","timestamp":"{TIME}","message":"","source":"a"'
    for spelling in ('"warning"', '"\\u0077arning"'):
        payload = f"{before}{level}{spelling}{rest}{after}".encode()
        assert _event("log.warn.a", payload).payload == f'{before}{level}"WARN"{rest}{after}'.encode()


def test_rewriting_takes_linear_time() -> None:
    """Rewriting passes once over an event that is full of the same words."""
    words = b"[" + b'{"level":"warning"},' * 12_000 + b"0]"
    payload = orjson.dumps(LOG)[:-1] + b',"metadata":{"x":' + words + b"}}"
    payload = b'{"metadata":{"x":' + words + b"}," + orjson.dumps({**LOG, "level": "warning"})[1:]
    assert len(payload) < events.MAX_EVENT_BYTES
    assert _event("log.warn.a", payload).payload == payload.replace(
        b'"level":"warning","m', b'"level":"WARN","m'
    )


_words = st.one_of(st.text(max_size=4), st.sampled_from([TIME, "INFO", "a"]))
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _words),
    lambda values: st.one_of(st.lists(values, max_size=3), st.dictionaries(_words, values, max_size=3)),
    max_leaves=6,
)
_bodies = st.dictionaries(
    st.sampled_from([*STATUS, *RECOVERY, *LOG, *HEALTH, "instance", "metadata", "checks"]), _json, max_size=10
)
_subjects = st.sampled_from([ON_STATUS, ON_RECOVERY, ON_LOG, ON_HEALTH, "system.health.db.1", "log.x", ""])


@given(_subjects, st.binary(max_size=80))
@example(ON_LOG, b'{"event_type":"\xff"}')
def test_no_bytes_break_decode(subject: str, payload: bytes) -> None:
    """Any payload decodes to an event or a rejection, never to an exception."""
    assert isinstance(decode(subject, payload), Event | Rejection)


@given(_subjects, st.sampled_from([STATUS, RECOVERY, LOG, HEALTH]), _bodies)
def test_no_json_breaks_decode(subject: str, valid: dict[str, Any], changes: dict[str, Any]) -> None:
    """A valid event with replaced fields is accepted unchanged or rejected in one line."""
    payload = json.dumps({**valid, **changes}).encode()
    result = decode(subject, payload)
    if isinstance(result, Event):
        # Only the level may have been rewritten.
        decoded, sent = json.loads(result.payload), json.loads(payload)
        if valid is LOG:
            decoded.pop("level", None)
            sent.pop("level", None)
        assert decoded == sent
    else:
        assert "\n" not in str(result)
