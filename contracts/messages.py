"""The messages between relay and client, as pydantic models: the single definition of the protocol.

The relay parses client messages with ``parse_client_message`` and builds its own from the models here, except
``Events`` and ``Snapshot``, which ``encode.py`` assembles from events that are JSON already. JSON Schema and
TypeScript types are generated from the models; Python clients and tests parse with ``relay_message``.
"""

from typing import Annotated, Any, Final, Literal, get_args

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WithJsonSchema
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import CURSOR_PATTERN
from tickertape.contracts.events import Timestamp
from tickertape.contracts.subjects import SubjectError, check_pattern

from tickertape.errors import TickertapeError
from tickertape.validation import describe_first_error

SUBPROTOCOL: Final = "tickertape.v1"
MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Largest text message in either direction."""

MAX_SUBJECTS: Final = 64
"""Patterns in one filter."""

MAX_QUERY_BYTES: Final = 4 * 1024
HEARTBEAT_MS: Final = 15_000
DEFAULT_INTERVAL_MS: Final = 1_000

Mode = Literal["live", "complete", "latest"]
LevelName = Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]
GapReason = Literal["rate", "slow", "retention", "reset"]

CursorText = Annotated[str, Field(pattern=CURSOR_PATTERN)]

# Any text is parsed, so that the relay can answer a wrong one with the error code that fits; the schema tells
# what is right.
LevelAsked = Annotated[str, WithJsonSchema({"type": "string", "enum": list(get_args(LevelName))})]
ModeAsked = Annotated[str, WithJsonSchema({"type": "string", "enum": list(get_args(Mode))})]
CursorAsked = Annotated[str, WithJsonSchema({"type": "string", "pattern": CURSOR_PATTERN})]


class Message(BaseModel):
    """One text frame, routed by ``type``."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True)


class Auth(Message):
    """A token, first or to renew."""

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=16_384)]


class Subscribe(Message):
    """Replaces the filter; what is omitted takes its default."""

    type: Literal["subscribe"]
    subjects: list[str] | None = None
    """NATS patterns, at most 64; omitted means everything that the grant allows."""
    level: LevelAsked | None = None
    """The least level; applies to ``log.<level>.*`` subjects only."""
    mode: ModeAsked | None = None
    """``live`` when omitted."""
    cursor: CursorAsked | None = None
    """Go on after this place."""
    since: str | None = None
    """``earliest``, a duration such as ``10m``, or an RFC 3339 time."""
    interval_ms: int | None = None
    """In mode ``latest``: milliseconds between two events of one subject, 1000 when omitted."""


class Ping(Message):
    """Answered by ``pong`` with the same ``id``."""

    type: Literal["ping"]
    id: str | int | None = None


ClientMessage = Auth | Subscribe | Ping
_CLIENT: Final[dict[str, type[Auth] | type[Subscribe] | type[Ping]]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "ping": Ping,
}


class ProtocolError(TickertapeError):
    """A client's message or query breaks the protocol.

    Args:
        code: what an ``error`` message says.
        message: what is wrong and what would be right.
        ref: ``type`` of the offending message, where it is known.
    """

    def __init__(self, code: ErrorCode, message: str, ref: str | None = None) -> None:
        super().__init__(code, message, ref)
        self.code = code
        self.message = message
        self.ref = ref

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


def parse_client_message(text: bytes) -> ClientMessage:
    """Read a client's message.

    Raises:
        ProtocolError: it is not JSON, not an object, of no known type, or a field has the wrong type.
    """
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(ErrorCode.BAD_JSON, f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "a message is a JSON object with a 'type'")
    kind = body.get("type")
    if not isinstance(kind, str):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "'type' is missing or not a string")
    model = _CLIENT.get(kind)
    if model is None:
        raise ProtocolError(ErrorCode.UNKNOWN_TYPE, f"type {kind[:40]!r} is none of auth, subscribe, ping")
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise ProtocolError(ErrorCode.BAD_MESSAGE, describe_first_error(error), kind) from None


def check_subjects(patterns: list[str]) -> tuple[str, ...]:
    """Return the patterns of a filter, each legal, without repeats, in the order asked.

    Raises:
        ProtocolError: too many patterns, or one that is not legal.
    """
    if len(patterns) > MAX_SUBJECTS:
        raise ProtocolError(ErrorCode.BAD_SUBJECTS, f"{len(patterns)} patterns; at most {MAX_SUBJECTS}")
    try:
        return tuple(dict.fromkeys(check_pattern(pattern) for pattern in patterns))
    except SubjectError as error:
        raise ProtocolError(ErrorCode.BAD_SUBJECTS, f"subjects: {error}") from None


class Limits(Message):
    """What the relay holds a client to."""

    rate: float
    """Log events per second; 0 means no limit."""
    max_message_bytes: int
    max_subjects: int


class Grant(Message):
    """What a client may see, and how fast."""

    subjects: list[str]
    deny: list[str]
    level: LevelName
    rate: float


class Welcome(Message):
    """First message of a session."""

    type: Literal["welcome"]
    protocol: Literal["tickertape.v1"]
    relay: str
    session: str
    heartbeat_ms: int
    limits: Limits
    grant: Grant
    expires_at: Timestamp | None


class Subscribed(Message):
    """What the session follows from here on."""

    type: Literal["subscribed"]
    subjects: list[str]
    """What was granted of what was asked."""
    level: LevelName
    mode: Mode
    interval_ms: int
    cursor: CursorText
    """Where it starts."""
    resumed: bool
    expires_at: Timestamp | None = None
    """End of the token; it moves when ``auth`` renews it."""


class Item(Message):
    """An event with its place."""

    subject: str
    seq: int
    event: dict[str, Any]


class Snapshot(Message):
    """Newest event per state subject; several frames if large, ``done`` on the last.

    It comes at the start, after a ``reset``, and when states were among events that the stream deleted.
    """

    type: Literal["snapshot"]
    events: list[Item]
    done: bool


class Events(Message):
    """Events in stream order, and the place reached."""

    type: Literal["events"]
    events: list[Item]
    cursor: CursorText
    conflated: int | None = None
    """Mode ``latest`` only: events that a newer one of their subject replaced."""


class Gap(Message):
    """Events after ``from``, up to and with ``to``, that will not come."""

    type: Literal["gap"]
    from_: Annotated[CursorText, Field(alias="from")]
    to: CursorText
    dropped: int | None
    """Events of this filter in the range that will not come; null where that cannot be known."""
    by: dict[str, int]
    """The same by the first two tokens of the subject: ``{"log.info": 12}``."""
    reason: GapReason


class Heartbeat(Message):
    """The link is alive, and this is the place reached."""

    type: Literal["heartbeat"]
    cursor: CursorText
    time: Timestamp


class Upstream(Message):
    """Whether the relay hears from NATS."""

    type: Literal["upstream"]
    state: Literal["connected", "disconnected"]
    since: Timestamp


class TokenExpiring(Message):
    """The token ends soon; send ``auth`` with a new one."""

    type: Literal["token_expiring"]
    expires_at: Timestamp


class Pong(Message):
    """Answer to ``ping``."""

    type: Literal["pong"]
    id: str | int | None


class Error(Message):
    """Something was refused."""

    type: Literal["error"]
    code: str
    """One of ``ErrorCode``; more may come."""
    message: str
    retry: bool
    ref: str | None
    """``type`` of the offending message."""


class Bye(Message):
    """The relay closes after this."""

    type: Literal["bye"]
    code: int
    reason: str
    retry_after_ms: int | None


RelayMessage = Annotated[
    Welcome
    | Subscribed
    | Snapshot
    | Events
    | Gap
    | Heartbeat
    | Upstream
    | TokenExpiring
    | Pong
    | Error
    | Bye,
    Field(discriminator="type"),
]

relay_message: Final[TypeAdapter[RelayMessage]] = TypeAdapter(RelayMessage)
"""Reads what a relay sent; for clients in Python and for tests."""
