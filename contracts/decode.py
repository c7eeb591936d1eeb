"""The check of a message of a stream against the contract.

Invariants:

1. What ``decode`` accepts, every strict JSON parser and every browser accepts, and reads alike.
2. An accepted payload travels byte for byte; only a level's spelling is rewritten.
3. What the subject says, the body says.
"""

from functools import lru_cache

import orjson
from pydantic import ValidationError
from tickertape.contracts import strict_json as json_text
from tickertape.contracts import subjects
from tickertape.contracts.events import (
    LEVEL_SPELLINGS,
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    MODELS,
    Event,
    Rejection,
    RejectionReason,
    seconds_of,
)
from tickertape.contracts.subjects import IllegalSubject, Subject, SubjectError

from tickertape.validation import describe_first_error


def decode(subject: str, payload: bytes) -> Event | Rejection:
    """Check a message against the contract.

    Args:
        subject: without the deployment's prefix; may hold whatever a server stores.
        payload: the body of the message.
    """
    place = _place(subject)
    if type(place) is IllegalSubject:
        return Rejection(RejectionReason.BAD_SUBJECT, str(place))
    if len(payload) > MAX_EVENT_BYTES:
        return Rejection(RejectionReason.TOO_LARGE, f"{len(payload)} bytes; at most {MAX_EVENT_BYTES}")
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return Rejection(RejectionReason.BAD_JSON, str(error))
    if type(body) is not dict:
        return Rejection(
            RejectionReason.NOT_AN_OBJECT, f"a JSON {type(body).__name__}; an event is an object"
        )
    if json_text.is_deeper(payload, MAX_EVENT_DEPTH):
        return Rejection(RejectionReason.BAD_JSON, f"nested deeper than {MAX_EVENT_DEPTH} levels")
    twice = json_text.duplicate_key(payload, body)
    if twice is not None:
        return Rejection(RejectionReason.DUPLICATE_KEY, f"the key {twice[:80]!r} stands twice in one object")

    event_type = body.get("event_type")
    if type(event_type) is not str or not event_type:
        return Rejection(RejectionReason.BAD_EVENT_TYPE, "event_type is missing or not a string")
    text = body.get("timestamp")
    if type(text) is not str:
        return Rejection(RejectionReason.BAD_TIMESTAMP, "timestamp is missing or not a string")
    try:
        timestamp = seconds_of(text)
    except (ValueError, OverflowError) as error:
        return Rejection(RejectionReason.BAD_TIMESTAMP, str(error))
    model = MODELS.get(event_type)
    if model is None:
        return Event(payload, timestamp, False, False)

    try:
        model.__pydantic_validator__.validate_python(body)
    except ValidationError as error:
        return Rejection(RejectionReason.BAD_FIELD, describe_first_error(error))
    if isinstance(place, SubjectError):
        return Rejection(RejectionReason.BAD_SUBJECT, str(place))
    if place.event_type != event_type:
        return Rejection(RejectionReason.SUBJECT_MISMATCH, f"{event_type} does not belong on {subject!r}")
    if event_type == "system_log":
        level = body["level"]
        name = LEVEL_SPELLINGS[level]
        if name != level:
            payload = json_text.replace_string(payload, "level", name)
            body["level"] = name
    for field, token in place.fields.items():
        if body.get(field) != token:
            return Rejection(
                RejectionReason.SUBJECT_MISMATCH,
                f"{field} is {str(body.get(field))[:80]!r}, but the subject says {token!r}",
            )
    optional = model.SUBJECT.optional
    if optional and body.get(optional) is not None and optional not in place.fields:
        return Rejection(RejectionReason.SUBJECT_MISMATCH, f"{optional} is given, but the subject names none")
    status = model.STATUS
    return Event(payload, timestamp, status is not None, status is not None and body[status] == "REMOVED")


def parse_subject(subject: str) -> Subject:
    """Tell which event of the contract belongs on a subject.

    Args:
        subject: without the deployment's prefix.

    Raises:
        SubjectError: no event of the contract belongs there.
    """
    for event_type, model in MODELS.items():
        if (fields := model.SUBJECT.read(subject)) is not None:
            return Subject(event_type, fields)
    raise SubjectError(subject, "is no subject of the contract")


@lru_cache(maxsize=65_536)
def _place(subject: str) -> Subject | SubjectError:
    if (why := subjects.find_subject_error(subject)) is not None:
        return IllegalSubject(subjects.escape_subject(subject), why)
    try:
        return parse_subject(subject)
    except SubjectError as error:
        return error
