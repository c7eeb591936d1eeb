"""Event types: a model for each declares its subjects, its fields, and whether it is a state or a log event.

Invariant: an event type is declared in its model and listed in ``MODELS``, and nowhere else; streams, schemas
and TypeScript types are derived from these.
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
"""Maximum payload of an event in bytes."""

MAX_EVENT_DEPTH: Final = 60
"""Maximum nesting of objects and arrays, including the event itself. Parsers limit nesting; the lowest common
default is 64 (.NET), and a WebSocket message adds three levels around an event."""

MIN_TIME: Final = -62_135_596_800.0
"""UNIX seconds of 0001-01-01T00:00:00Z, the earliest time that both RFC 3339 and Python can represent."""

MAX_TIME: Final = 253_402_300_799.9995
"""UNIX seconds of 9999-12-31T23:59:59.999Z, the latest one; a double has a resolution of 30 us there."""

# No hour 24: later versions of Python accept it, and on the last day of 9999 it would be in the year 10000.
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
"""Level by each spelling that producers may use."""


def parse_time(text: str) -> datetime:
    """Parse an RFC 3339 time with a UTC offset.

    Near the limits of the calendar, the time in UTC can be in the year 0 or 10000: compare the result and use
    its ``timestamp()``, but do not convert it to another time zone.

    Raises:
        ValueError: the text is not such a time. A leap second is rejected, because browsers reject it too.
    """
    if not _RFC3339.fullmatch(text):
        raise ValueError(
            f"{text[:40]!r} is not an RFC 3339 time with a UTC offset, such as 2025-06-24T10:30:45.123Z"
        )
    return datetime.fromisoformat(text.upper())


def format_time(seconds: float) -> str:
    """Format UNIX seconds as RFC 3339 in UTC with milliseconds, the canonical form in the contract.

    A time outside the years 1 to 9999 is clamped to them.

    Raises:
        ValueError: ``seconds`` is NaN.
    """
    time = datetime.fromtimestamp(min(max(seconds, MIN_TIME), MAX_TIME), UTC)
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _format_datetime(value: object) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("the datetime has no time zone; use datetime.now(UTC)")
        return format_time(value.timestamp())
    return value


@lru_cache(maxsize=16)
def parse_unix_seconds(text: str) -> float:
    """Parse an RFC 3339 time into UNIX seconds; cached, since both model and ``decode`` parse it."""
    return parse_time(text).timestamp()


def _check_time(text: str) -> str:
    parse_unix_seconds(text)
    return text


def _normalize_level(value: object) -> object:
    return LEVEL_SPELLINGS.get(value, value) if isinstance(value, str) else value


def _now() -> str:
    return format_time(datetime.now(UTC).timestamp())


Timestamp = Annotated[
    str,
    BeforeValidator(_format_datetime),
    AfterValidator(_check_time),
    Field(json_schema_extra={"format": "date-time"}),
]
Level = Annotated[Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"], BeforeValidator(_normalize_level)]


class Status(StrEnum):
    """Status of a gateway or component; ``REMOVED`` means no longer monitored, and absent from snapshots."""

    UNKNOWN = "UNKNOWN"
    HEALTHY = "HEALTHY"
    DEGRADED = "DEGRADED"
    UNHEALTHY = "UNHEALTHY"
    RECOVERING = "RECOVERING"
    OFF_SESSION = "OFF_SESSION"
    REMOVED = "REMOVED"


# Strict mode accepts only members of the enum, but JSON has their text.
StatusText = Annotated[Status, Field(strict=False)]
Id = Annotated[str, Field(min_length=1)]


class EventModel(BaseModel):
    """Base of all events: a type, a timestamp, and any additional fields."""

    # Validators are built on first use, so that importing this module stays fast.
    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    SUBJECT: ClassVar[EventSubject]
    """Subjects of the event type. A custom model may override ``subject`` instead."""

    STATUS: ClassVar[str | None] = None
    """Name of the status field of a state event, of which only the newest per subject matters; the status
    ``REMOVED`` removes it from snapshots. None for a log event."""

    event_type: str
    """Type of the event; a custom event type may have any name that ``MODELS`` does not use."""
    timestamp: Timestamp = Field(default_factory=_now)
    """RFC 3339 time with a UTC offset; the canonical form is ``2025-06-24T10:30:45.123Z``."""

    @property
    def subject(self) -> str:
        """Subject of the event, without the deployment's prefix."""
        return _subjects_of(type(self)).build(self.__dict__)

    @classmethod
    def subject_of(cls, **fields: Any) -> str:
        """Return the subject of events with these fields, without the deployment's prefix.

        Raises:
            SubjectError: the value of a field cannot be encoded as a token.
        """
        return _subjects_of(cls).build(fields)

    def encode(self) -> bytes:
        """Return the event as JSON, the payload of its message."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))


def _subjects_of(model: type[EventModel]) -> EventSubject:
    try:
        return model.SUBJECT
    except AttributeError:
        raise NotImplementedError(f"{model.__name__} defines neither SUBJECT nor subject") from None


class GatewayStatusChange(EventModel):
    """Change of a gateway's status, on ``gateway.status.<type>.<id>``."""

    SUBJECT = EventSubject(
        "gateway.status.{gateway_type}.{gateway_id}",
        gateway_type="Type of the gateway",
        gateway_id="Id of the gateway",
    )
    STATUS = "current_status"

    event_type: Literal["gateway_status_change"] = "gateway_status_change"
    gateway_id: Id
    """Id of the gateway; equals its token in the subject after unescaping."""
    gateway_type: Id
    """Type of the gateway, such as ``ctp`` or ``ib``; equals its token in the subject."""
    previous_status: StatusText
    """Status before the change; ``UNKNOWN`` for a gateway without an earlier event."""
    current_status: StatusText
    """Status from now on; ``REMOVED`` if the gateway is no longer monitored."""
    # pydantic copies a mutable default for each instance.
    metadata: dict[str, Any] = {}
    """Details such as the reason for the change; no fixed fields."""


class GatewayRecovery(EventModel):
    """Step of a gateway's recovery, on ``gateway.recovery.<type>.<id>``."""

    SUBJECT = EventSubject(
        "gateway.recovery.{gateway_type}.{gateway_id}",
        gateway_type="Type of the gateway",
        gateway_id="Id of the gateway",
    )

    event_type: Literal["gateway_recovery"] = "gateway_recovery"
    gateway_id: Id
    """Id of the gateway; equals its token in the subject after unescaping."""
    gateway_type: Id
    """Type of the gateway; equals its token in the subject after unescaping."""
    phase: Literal["started", "attempt", "succeeded", "failed"]
    """Step of the recovery: it started, an attempt was made, or it ended."""
    attempt: Annotated[int, Field(ge=0)]
    """Number of the attempt, from 1; 0 before the first one."""
    metadata: dict[str, Any] = {}
    """Details such as the error of a failed attempt; no fixed fields."""


class SystemLog(EventModel):
    """Log entry, on ``log.<level>.<source>``."""

    SUBJECT = EventSubject(
        "log.{level}.{source}",
        choices={"level": LEVELS},
        level="Level of the log event",
        source="Source of the log event",
    )

    event_type: Literal["system_log"] = "system_log"
    level: Level
    """Level of the log entry. Producers may also write ``WARNING``, ``FATAL`` or lower case, which the relay
    rewrites."""
    message: str
    """Text of the log entry."""
    source: Id
    """Name of the program or component that logged it; equals its token in the subject after unescaping."""
    metadata: dict[str, Any] = {}
    """Structured fields of the log entry, such as ``exception``; no fixed fields."""


class SystemHealth(EventModel):
    """Health of a component, on ``system.health.<component>[.<instance>]``."""

    SUBJECT = EventSubject(
        "system.health.{component}[.{instance}]",
        component="Name of the component",
        instance="Instance of the component",
    )
    STATUS = "status"

    event_type: Literal["system_health"] = "system_health"
    component: Id
    """Name of the component; equals its token in the subject after unescaping."""
    instance: Id | None = None
    """Instance of the component, if it has several; absent if the subject has no such token."""
    status: StatusText
    """Current status; ``REMOVED`` if the component no longer exists."""
    checks: dict[str, Any] | list[Any] = {}
    """Results of the individual checks behind the status; no fixed fields."""
    metadata: dict[str, Any] = {}
    """Further details; no fixed fields."""


MODELS: Final[dict[str, type[EventModel]]] = {
    model.model_fields["event_type"].default: model
    for model in (GatewayStatusChange, GatewayRecovery, SystemLog, SystemHealth)
}

STATE_SUBJECTS: Final = tuple(f"{model.SUBJECT.prefix}.>" for model in MODELS.values() if model.STATUS)
"""Subjects of state events, whose newest event is the current state; all other subjects carry log events."""

STREAM_SUBJECTS: Final = tuple(
    dict.fromkeys(
        f"{model.SUBJECT.prefix.partition('.')[0]}.>"
        for model in sorted(MODELS.values(), key=lambda model: not model.STATUS)
    )
)
"""Subjects that clients can receive; ``checkpoint.>`` is in the same stream and is never delivered."""


class RejectionReason(StrEnum):
    """Rule that a rejected event violates; a label value of a metric, so there are few."""

    TOO_LARGE = "too_large"
    """The payload exceeds ``MAX_EVENT_BYTES``."""
    BAD_JSON = "bad_json"
    """The payload is not strict JSON in UTF-8, or is nested too deeply."""
    DUPLICATE_KEY = "duplicate_key"
    """An object has a key twice, which parsers resolve differently."""
    NOT_AN_OBJECT = "not_an_object"
    """The payload is JSON, but not an object."""
    BAD_EVENT_TYPE = "bad_event_type"
    """``event_type`` is missing or not a string."""
    BAD_TIMESTAMP = "bad_timestamp"
    """``timestamp`` is missing or not an RFC 3339 time."""
    BAD_FIELD = "bad_field"
    """A field of a known event type is missing or has an invalid value."""
    BAD_SUBJECT = "bad_subject"
    """The subject is illegal, or does not belong to a known event type."""
    SUBJECT_MISMATCH = "subject_mismatch"
    """The subject belongs to another event type, or its tokens differ from the fields."""
    UNREADABLE = "unreadable"
    """The relay cannot read the message from the stream."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """Reason why an event violates the contract.

    Attributes:
        reason: rule that the event violates.
        detail: what is wrong, for the developer of the producer.
    """

    reason: RejectionReason
    detail: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class Event(NamedTuple):
    """Event that satisfies the contract.

    Attributes:
        payload: JSON text as received, except for the spelling of a level.
        timestamp: timestamp of the event, in UNIX seconds.
        state: whether it is a state event, of which only the newest per subject matters.
        removed: whether it removes its subject from snapshots.
    """

    payload: bytes
    timestamp: float
    state: bool
    removed: bool
