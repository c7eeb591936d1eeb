"""The events, as pydantic models for producers and as ``decode`` for whoever reads a stream.

Invariants:

1. What ``decode`` accepts, every strict JSON parser and every browser accepts, and reads alike.
2. An accepted payload travels byte for byte; only a level's spelling is rewritten.
3. What the subject says, the body says.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final, Literal, NamedTuple

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from tickertape.contracts import strict_json as json_text
from tickertape.contracts import subjects
from tickertape.contracts.subjects import EventType, IllegalSubject, Subject, SubjectError

from tickertape.validation import first_fault

MAX_EVENT_BYTES: Final = 256 * 1024
"""Largest payload of an event."""

MAX_EVENT_DEPTH: Final = 60
"""Objects and arrays within each other, the event itself included. Strict parsers stop somewhere, the lowest
common default is 64 (.NET), and a frame puts three more around an event."""

FIRST_MOMENT: Final = -62_135_596_800.0
"""UNIX seconds of 0001-01-01T00:00:00Z, the first moment that RFC 3339 and Python can write."""

LAST_MOMENT: Final = 253_402_300_799.9995
"""UNIX seconds of 9999-12-31T23:59:59.999Z, the last one; a double has steps of 30 us there."""

# Hour 24 is legal for later versions of Python, and would be the year 10000 at the end of the calendar.
_RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
_LEVEL_SPELLINGS: Final = {
    **{name: name for name in subjects.LEVELS},
    **{name.lower(): name for name in subjects.LEVELS},
    "WARNING": "WARN",
    "warning": "WARN",
    "FATAL": "CRITICAL",
    "fatal": "CRITICAL",
}


def parse_time(text: str) -> datetime:
    """Read an RFC 3339 time with a zone.

    Near the ends of the calendar its moment in UTC can lie in the year 0 or 10000: compare it and take its
    ``timestamp()``, but do not convert it to another zone.

    Raises:
        ValueError: it is not one; a leap second is refused, since browsers refuse it too.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 time with a zone, as in 2025-06-24T10:30:45.123Z")
    return datetime.fromisoformat(text.upper())


def format_time(seconds: float) -> str:
    """Write UNIX seconds as RFC 3339 in UTC with milliseconds, the contract's written form.

    A moment outside of the years 1 to 9999 is written as the nearest one within them.

    Raises:
        ValueError: it is not a number.
    """
    moment = datetime.fromtimestamp(min(max(seconds, FIRST_MOMENT), LAST_MOMENT), UTC)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _written(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a time needs a zone; use datetime.now(UTC)")
        return format_time(value.timestamp())
    return value


@lru_cache(maxsize=16)
def _seconds(text: str) -> float:
    # Asked twice for each event, by the model and by decode.
    return parse_time(text).timestamp()


def _checked(text: str) -> str:
    _seconds(text)
    return text


def _level(value: object) -> object:
    return _LEVEL_SPELLINGS.get(value, value) if isinstance(value, str) else value


def _now() -> str:
    return format_time(datetime.now(UTC).timestamp())


Timestamp = Annotated[
    str,
    BeforeValidator(_written),
    AfterValidator(_checked),
    Field(json_schema_extra={"format": "date-time"}),
]
Level = Annotated[Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"], BeforeValidator(_level)]


class Status(StrEnum):
    """Status of a gateway or a component; ``REMOVED`` means no longer watched, and leaves snapshots."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    RECOVERING = "RECOVERING"
    OFF_SESSION = "OFF_SESSION"
    REMOVED = "REMOVED"


# Strict mode wants an instance of the enum; JSON brings its text.
StatusText = Annotated[Status, Field(strict=False)]
Id = Annotated[str, Field(min_length=1)]


class EventModel(BaseModel):
    """What all events share: a type, a time, and fields that others may add."""

    # Built at the first event of a type, so that a program that imports us does not wait for it.
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    event_type: str
    timestamp: Timestamp = Field(default_factory=_now)
    """RFC 3339 with a zone; ``2025-06-24T10:30:45.123Z`` is the written form."""

    @property
    def subject(self) -> str:
        """Subject that the event belongs on, without the deployment's prefix."""
        raise NotImplementedError(f"{type(self).__name__} does not say its subject")

    def encode(self) -> bytes:
        """Write the event as the payload of a message."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))


class GatewayStatusChange(EventModel):
    """A gateway's status changed; on ``gateway.status.<type>.<id>``."""

    event_type: Literal["gateway_status_change"] = "gateway_status_change"
    gateway_id: Id
    gateway_type: Id
    previous_status: StatusText
    current_status: StatusText
    metadata: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        return subjects.gateway_status(self.gateway_type, self.gateway_id)


class GatewayRecovery(EventModel):
    """A step of a gateway's recovery; on ``gateway.recovery.<type>.<id>``."""

    event_type: Literal["gateway_recovery"] = "gateway_recovery"
    gateway_id: Id
    gateway_type: Id
    phase: Literal["started", "attempt", "succeeded", "failed"]
    attempt: Annotated[int, Field(ge=0)]
    metadata: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        return subjects.gateway_recovery(self.gateway_type, self.gateway_id)


class SystemLog(EventModel):
    """A line of a log; on ``log.<level>.<source>``."""

    event_type: Literal["system_log"] = "system_log"
    level: Level
    """Published as ``WARNING``, ``FATAL`` or in lower case too; delivered under these names."""
    message: str
    source: Id
    metadata: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        return subjects.log(self.level, self.source)


class SystemHealth(EventModel):
    """Health of a component; on ``system.health.<component>[.<instance>]``."""

    event_type: Literal["system_health"] = "system_health"
    component: Id
    instance: Id | None = None
    status: StatusText
    checks: dict[str, Any] | list[Any] = {}
    metadata: dict[str, Any] = {}

    @property
    def subject(self) -> str:
        return subjects.system_health(self.component, self.instance)


MODELS: Final[dict[str, type[EventModel]]] = {
    EventType.GATEWAY_STATUS_CHANGE: GatewayStatusChange,
    EventType.GATEWAY_RECOVERY: GatewayRecovery,
    EventType.SYSTEM_LOG: SystemLog,
    EventType.SYSTEM_HEALTH: SystemHealth,
}
_STATE_TYPES: Final = frozenset({"gateway_status_change", "system_health"})


class Reason(StrEnum):
    """Why an event was rejected; also the label of a metric, hence few."""

    TOO_LARGE = "too_large"
    BAD_JSON = "bad_json"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    BAD_EVENT_TYPE = "bad_event_type"
    BAD_TIMESTAMP = "bad_timestamp"
    BAD_FIELD = "bad_field"
    BAD_SUBJECT = "bad_subject"
    SUBJECT_MISMATCH = "subject_mismatch"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that breaks the contract.

    Attributes:
        reason: the kind of fault.
        detail: what is wrong, for the one who has to mend it.
    """

    reason: Reason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Event(NamedTuple):
    """An event that keeps the contract, ready to travel.

    Attributes:
        payload: the JSON text, as it came but for the level's spelling.
        timestamp: the event's own time, UNIX seconds.
        state: True when only the newest of its subject matters.
        removed: True for a state that leaves snapshots.
    """

    payload: bytes
    timestamp: float
    state: bool
    removed: bool


def decode(subject: str, payload: bytes) -> Event | Rejected:
    """Check a message against the contract.

    Args:
        subject: without the deployment's prefix; may hold whatever a server stores.
        payload: the body of the message.
    """
    place = _place(subject)
    if type(place) is IllegalSubject:
        return Rejected(Reason.BAD_SUBJECT, str(place))
    if len(payload) > MAX_EVENT_BYTES:
        return Rejected(Reason.TOO_LARGE, f"{len(payload)} bytes; at most {MAX_EVENT_BYTES}")
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return Rejected(Reason.BAD_JSON, str(error))
    if type(body) is not dict:
        return Rejected(Reason.NOT_AN_OBJECT, f"a JSON {type(body).__name__}; an event is an object")
    if json_text.is_deeper(payload, MAX_EVENT_DEPTH):
        return Rejected(Reason.BAD_JSON, f"nested deeper than {MAX_EVENT_DEPTH} levels")
    twice = json_text.duplicate_key(payload, body)
    if twice is not None:
        return Rejected(Reason.DUPLICATE_KEY, f"the key {twice[:80]!r} stands twice in one object")

    event_type = body.get("event_type")
    if type(event_type) is not str or not event_type:
        return Rejected(Reason.BAD_EVENT_TYPE, "event_type is missing or not a string")
    text = body.get("timestamp")
    if type(text) is not str:
        return Rejected(Reason.BAD_TIMESTAMP, "timestamp is missing or not a string")
    try:
        timestamp = _seconds(text)
    except (ValueError, OverflowError) as error:
        return Rejected(Reason.BAD_TIMESTAMP, str(error))
    model = MODELS.get(event_type)
    if model is None:
        return Event(payload, timestamp, False, False)

    try:
        model.__pydantic_validator__.validate_python(body)
    except ValidationError as error:
        return Rejected(Reason.BAD_FIELD, first_fault(error))
    if isinstance(place, SubjectError):
        return Rejected(Reason.BAD_SUBJECT, str(place))
    if place.event_type != event_type:
        return Rejected(Reason.SUBJECT_MISMATCH, f"{event_type} does not belong on {subject!r}")
    if event_type == "system_log":
        level = body["level"]
        name = _LEVEL_SPELLINGS[level]
        if name != level:
            payload = json_text.replace_string(payload, "level", name)
            body["level"] = name
    for field, token in place.fields.items():
        if body.get(field) != token:
            return Rejected(
                Reason.SUBJECT_MISMATCH,
                f"{field} is {str(body.get(field))[:80]!r}, but the subject says {token!r}",
            )
    if event_type not in _STATE_TYPES:
        return Event(payload, timestamp, False, False)
    if event_type == "system_health" and body.get("instance") is not None and "instance" not in place.fields:
        return Rejected(Reason.SUBJECT_MISMATCH, "instance is given, but the subject names none")
    status = body["current_status" if event_type == "gateway_status_change" else "status"]
    return Event(payload, timestamp, True, status == "REMOVED")


@lru_cache(maxsize=65_536)
def _place(subject: str) -> Subject | SubjectError:
    if (why := subjects.fault(subject)) is not None:
        return IllegalSubject(subjects.spell(subject), why)
    try:
        return subjects.parse(subject)
    except SubjectError as error:
        return error
