"""The event types: a model for each, which says its subjects, its fields, and whether it is state or log.

Invariant: a type is declared in its model and named in ``MODELS``, and nowhere else; subjects, streams,
schemas and TypeScript follow from there.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal, NamedTuple

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from tickertape.contracts.subjects import LEVELS, EventSubject

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
LEVEL_SPELLINGS: Final = {
    **{name: name for name in LEVELS},
    **{name.lower(): name for name in LEVELS},
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
def seconds_of(text: str) -> float:
    """Read an RFC 3339 time into UNIX seconds; asked twice for each event, by the model and by decode."""
    return parse_time(text).timestamp()


def _checked(text: str) -> str:
    seconds_of(text)
    return text


def _level(value: object) -> object:
    return LEVEL_SPELLINGS.get(value, value) if isinstance(value, str) else value


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

    SUBJECT: ClassVar[EventSubject]
    """The subjects that it belongs on; types of others may say theirs in ``subject``."""

    STATUS: ClassVar[str | None] = None
    """For a state, of which only the newest event of a subject matters: the field with its status, of which
    ``REMOVED`` takes it out of snapshots. None for a log event."""

    event_type: str
    timestamp: Timestamp = Field(default_factory=_now)
    """RFC 3339 with a zone; ``2025-06-24T10:30:45.123Z`` is the written form."""

    @property
    def subject(self) -> str:
        """Subject that the event belongs on, without the deployment's prefix."""
        return _subjects_of(type(self)).write(self.__dict__)

    @classmethod
    def subject_of(cls, **fields: Any) -> str:
        """Write the subject of events with these fields, without the deployment's prefix.

        Raises:
            SubjectError: a field cannot stand in a subject.
        """
        return _subjects_of(cls).write(fields)

    def encode(self) -> bytes:
        """Write the event as the payload of a message."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))


def _subjects_of(model: type[EventModel]) -> EventSubject:
    try:
        return model.SUBJECT
    except AttributeError:
        raise NotImplementedError(f"{model.__name__} does not say its subject") from None


class GatewayStatusChange(EventModel):
    """A gateway's status changed; on ``gateway.status.<type>.<id>``."""

    SUBJECT = EventSubject(
        "gateway.status.{gateway_type}.{gateway_id}",
        gateway_type="Type of the gateway",
        gateway_id="Id of the gateway",
    )
    STATUS = "current_status"

    event_type: Literal["gateway_status_change"] = "gateway_status_change"
    gateway_id: Id
    gateway_type: Id
    previous_status: StatusText
    current_status: StatusText
    metadata: dict[str, Any] = {}


class GatewayRecovery(EventModel):
    """A step of a gateway's recovery; on ``gateway.recovery.<type>.<id>``."""

    SUBJECT = EventSubject(
        "gateway.recovery.{gateway_type}.{gateway_id}",
        gateway_type="Type of the gateway",
        gateway_id="Id of the gateway",
    )

    event_type: Literal["gateway_recovery"] = "gateway_recovery"
    gateway_id: Id
    gateway_type: Id
    phase: Literal["started", "attempt", "succeeded", "failed"]
    attempt: Annotated[int, Field(ge=0)]
    metadata: dict[str, Any] = {}


class SystemLog(EventModel):
    """A line of a log; on ``log.<level>.<source>``."""

    SUBJECT = EventSubject(
        "log.{level}.{source}",
        words={"level": LEVELS},
        level="Level of the log event",
        source="Source of the log event",
    )

    event_type: Literal["system_log"] = "system_log"
    level: Level
    """Published as ``WARNING``, ``FATAL`` or in lower case too; delivered under these names."""
    message: str
    source: Id
    metadata: dict[str, Any] = {}


class SystemHealth(EventModel):
    """Health of a component; on ``system.health.<component>[.<instance>]``."""

    SUBJECT = EventSubject(
        "system.health.{component}[.{instance}]",
        component="Name of the component",
        instance="Instance of the component",
    )
    STATUS = "status"

    event_type: Literal["system_health"] = "system_health"
    component: Id
    instance: Id | None = None
    status: StatusText
    checks: dict[str, Any] | list[Any] = {}
    metadata: dict[str, Any] = {}


MODELS: Final[dict[str, type[EventModel]]] = {
    model.model_fields["event_type"].default: model
    for model in (GatewayStatusChange, GatewayRecovery, SystemLog, SystemHealth)
}

STATE_SUBJECTS: Final = tuple(f"{model.SUBJECT.prefix}.>" for model in MODELS.values() if model.STATUS)
"""Subjects of which the newest event is the state; all others are log events."""

STREAM_SUBJECTS: Final = tuple(
    dict.fromkeys(
        f"{model.SUBJECT.prefix.partition('.')[0]}.>"
        for model in sorted(MODELS.values(), key=lambda model: not model.STATUS)
    )
)
"""What clients can ever see; ``checkpoint.>`` lies in the same stream and is never shown."""


class RejectionReason(StrEnum):
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
class Rejection:
    """An event that breaks the contract.

    Attributes:
        reason: the kind of fault.
        detail: what is wrong, for the one who has to mend it.
    """

    reason: RejectionReason
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
