"""Validation of a stream message against the contract.

Invariants:

1. Every strict JSON parser and every browser accepts what ``decode`` accepts, and parses the same value.
2. An accepted payload is delivered byte for byte; only the spelling of a level is rewritten.
3. The fields in the subject equal those in the payload.
"""

from functools import lru_cache

import orjson
from pydantic import ValidationError
from tickertape.contracts import strict_json, subjects
from tickertape.contracts.events import (
    LEVEL_SPELLINGS,
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    MODELS,
    Event,
    Rejection,
    RejectionReason,
    parse_unix_seconds,
)
from tickertape.contracts.subjects import IllegalSubject, Subject, SubjectError

from tickertape.validation import describe_first_error


def decode(subject: str, payload: bytes) -> Event | Rejection:
    """Validate a message against the contract.

    Args:
        subject: subject, without the deployment's prefix; may be any subject that a NATS server stores.
        payload: payload of the message.
    """
    # An illegal subject is rejected for every event type; one outside of the contract only for event
    # types of the contract, further below.
    parsed = _parse(subject)
    if type(parsed) is IllegalSubject:
        return Rejection(RejectionReason.BAD_SUBJECT, str(parsed))
    # The order of the checks bounds their cost: the size that of parsing, and the depth that of finding
    # duplicate keys, which is recursive.
    if len(payload) > MAX_EVENT_BYTES:
        return Rejection(
            RejectionReason.TOO_LARGE, f"{len(payload)} bytes exceed the limit of {MAX_EVENT_BYTES}"
        )
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return Rejection(RejectionReason.BAD_JSON, str(error))
    if type(body) is not dict:
        json_type = type(body).__name__
        return Rejection(RejectionReason.NOT_AN_OBJECT, f"JSON {json_type}; an event must be an object")
    if strict_json.is_deeper(payload, MAX_EVENT_DEPTH):
        return Rejection(RejectionReason.BAD_JSON, f"nested deeper than {MAX_EVENT_DEPTH} levels")
    duplicate = strict_json.find_duplicate_key(payload, body)
    if duplicate is not None:
        return Rejection(RejectionReason.DUPLICATE_KEY, f"key {duplicate[:80]!r} occurs twice in an object")

    event_type = body.get("event_type")
    if type(event_type) is not str or not event_type:
        return Rejection(RejectionReason.BAD_EVENT_TYPE, "event_type is missing or not a string")
    timestamp_text = body.get("timestamp")
    if type(timestamp_text) is not str:
        return Rejection(RejectionReason.BAD_TIMESTAMP, "timestamp is missing or not a string")
    try:
        timestamp = parse_unix_seconds(timestamp_text)
    except (ValueError, OverflowError) as error:
        return Rejection(RejectionReason.BAD_TIMESTAMP, str(error))
    model = MODELS.get(event_type)
    # An event type of another application: any legal subject, and never a state.
    if model is None:
        return Event(payload, timestamp, False, False)

    try:
        # Only the check counts. The payload is delivered as received, so the model is not needed.
        model.__pydantic_validator__.validate_python(body)
    except ValidationError as error:
        return Rejection(RejectionReason.BAD_FIELD, describe_first_error(error))
    if isinstance(parsed, SubjectError):
        return Rejection(RejectionReason.BAD_SUBJECT, str(parsed))
    if parsed.event_type != event_type:
        return Rejection(
            RejectionReason.SUBJECT_MISMATCH, f"{event_type} is not allowed on subject {subject!r}"
        )
    if event_type == "system_log":
        level = body["level"]
        name = LEVEL_SPELLINGS[level]
        if name != level:
            payload = strict_json.replace_string(payload, "level", name)
            # The subject has the canonical level, with which the field is compared below.
            body["level"] = name
    for field, token in parsed.fields.items():
        if body.get(field) != token:
            return Rejection(
                RejectionReason.SUBJECT_MISMATCH,
                f"{field} is {str(body.get(field))[:80]!r}, but {token!r} in the subject",
            )
    optional = model.SUBJECT.optional
    if optional and body.get(optional) is not None and optional not in parsed.fields:
        return Rejection(RejectionReason.SUBJECT_MISMATCH, f"{optional} is set, but missing in the subject")
    status = model.STATUS
    return Event(payload, timestamp, status is not None, status is not None and body[status] == "REMOVED")


def parse_subject(subject: str) -> Subject:
    """Return the event type of a subject, and the fields in it.

    Args:
        subject: subject, without the deployment's prefix.

    Raises:
        SubjectError: it is not a subject of the contract.
    """
    for event_type, model in MODELS.items():
        if (fields := model.SUBJECT.parse(subject)) is not None:
            return Subject(event_type, fields)
    raise SubjectError(subject, "is not a subject of the contract")


# Errors are returned, so that they are cached, too. The cache is bounded,
# because producers choose the subjects.
@lru_cache(maxsize=65_536)
def _parse(subject: str) -> Subject | SubjectError:
    if (problem := subjects.find_subject_error(subject)) is not None:
        return IllegalSubject(subjects.escape_subject(subject), problem)
    try:
        return parse_subject(subject)
    except SubjectError as error:
        return error
