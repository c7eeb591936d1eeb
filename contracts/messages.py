"""The messages from relay to client, as pydantic models, and the limits of the protocol.

With ``client_messages.py`` this is the single definition of the protocol: JSON Schema and TypeScript types
are generated from the models. The relay builds its messages from the models here, except ``Events`` and
``Snapshot``, which ``encode.py`` assembles from events that are JSON already. Python clients and tests parse
with ``relay_message``.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import CURSOR_PATTERN
from tickertape.contracts.events import Timestamp

from tickertape.errors import TickertapeError

SUBPROTOCOL: Final = "tickertape.v1"
"""WebSocket subprotocol that clients offer and the relay selects."""

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Maximum size of a text message in bytes, in either direction."""

MAX_TOKEN: Final = 16 * 1024
"""Maximum characters of a token, in a header or in an ``auth`` message."""

MAX_SUBJECTS: Final = 64
"""Maximum number of patterns in a filter."""

MAX_QUERY_BYTES: Final = 4 * 1024
"""Maximum size of the query string in bytes; larger filters are sent with ``subscribe``."""

MAX_WHERE_BYTES: Final = 2 * 1024
"""Maximum size of a condition (``where``) in bytes; checked before it is parsed."""

HEARTBEAT_MS: Final = 15_000
"""Default of ``heartbeat_ms`` in ``welcome``, in milliseconds."""

DEFAULT_INTERVAL_MS: Final = 1_000
"""Default of ``interval_ms`` in mode ``latest``, in milliseconds."""

Mode = Literal["live", "complete", "latest"]
LevelName = Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]
GapReason = Literal["rate", "slow", "retention", "reset"]

CursorText = Annotated[str, Field(pattern=CURSOR_PATTERN)]


class Message(BaseModel):
    """Text message, routed by ``type``."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True)


class ProtocolError(TickertapeError):
    """Violation of the protocol by a client's message or query.

    Args:
        code: code of the ``error`` message.
        message: what is wrong, and what is valid.
        ref: ``type`` of the rejected message, if known.
    """

    def __init__(self, code: ErrorCode, message: str, ref: str | None = None) -> None:
        super().__init__(code, message, ref)
        self.code = code
        self.message = message
        self.ref = ref

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class Limits(Message):
    """Limits that the relay enforces on the session."""

    rate: float
    """Log events per second in mode ``live``; a ``gap`` reports those beyond it. 0 means no limit."""
    max_message_bytes: int
    """Maximum size of a message in bytes, in either direction."""
    max_subjects: int
    """Maximum number of patterns in a filter."""


class Grant(Message):
    """Events that the client may receive, and how fast."""

    subjects: list[str]
    """Patterns of the allowed subjects."""
    deny: list[str]
    """Patterns of subjects that are not allowed, even if ``subjects`` matches them."""
    level: LevelName
    """Minimum level; applies only to subjects ``log.<level>.*``."""
    rate: float
    """Log events per second in mode ``live``; 0 means no limit."""


class Welcome(Message):
    """First message of a session, sent once the client is authenticated."""

    type: Literal["welcome"]
    protocol: Literal["tickertape.v1"]
    """Version of the protocol, equal to the subprotocol."""
    relay: str
    """Name of the relay."""
    session: str
    """Id of the session, for support and logs."""
    heartbeat_ms: int
    """Maximum milliseconds between two messages from the relay. Allow a few seconds more before treating the
    connection as dead."""
    limits: Limits
    """Limits of this session."""
    grant: Grant
    """Permissions of this session."""
    expires_at: Timestamp | None
    """Expiry of the token; null if there is none."""


class Subscribed(Message):
    """Filter in effect; sent at the start, after each ``subscribe``, and when a token is renewed."""

    type: Literal["subscribed"]
    subjects: list[str]
    """Patterns in effect: the requested ones, restricted to the grant."""
    level: LevelName
    """Minimum level in effect."""
    mode: Mode
    """Delivery mode in effect."""
    interval_ms: int
    """Minimum milliseconds between two events of a subject; used only in mode ``latest``."""
    where: str | None = None
    """Condition on log events in effect; absent if there is none."""
    cursor: CursorText
    """Position after which the filter applies."""
    resumed: bool
    """Whether delivery continues after a position of the client; if not, a ``snapshot`` follows."""
    expires_at: Timestamp | None = None
    """Expiry of the token, which ``auth`` can extend; absent if there is none."""


class Item(Message):
    """Event with its subject and sequence."""

    subject: str
    """Subject of the event, without the deployment's prefix."""
    seq: int
    """Sequence of the event in the stream."""
    event: dict[str, Any]
    """The event as published."""


class Snapshot(Message):
    """Newest event of each state subject; split into several messages if it is large.

    Sent when a session starts without resuming, after a ``gap`` with reason ``reset``, and after state events
    were deleted from the stream.
    """

    type: Literal["snapshot"]
    events: list[Item]
    """State events in stream order."""
    done: bool
    """Whether this is the last message of the snapshot."""
    truncated: Annotated[int, Field(ge=0)] = 0
    """Number of states that the snapshot lacks, because there are more than the relay can hold. Only in the
    last message; absent if none is missing. An upper bound: it counts the states of all families that the
    filter can match, whether it matches them or not."""
    truncated_by: dict[str, int] = {}
    """The same number by the first two tokens of the subject: ``{"system.health": 12}``."""


class Events(Message):
    """Events in stream order, and the position after them."""

    type: Literal["events"]
    events: list[Item]
    """Events in stream order."""
    cursor: CursorText
    """Position after these events; send it back to resume here."""
    conflated: int | None = None
    """Number of events replaced by a newer one of the same subject; only in mode ``latest``."""


class Gap(Message):
    """Range of the stream, after ``from`` and up to ``to``, with events that will not be delivered."""

    type: Literal["gap"]
    from_: Annotated[CursorText, Field(alias="from")]
    """Position before the range."""
    to: CursorText
    """Position of the last event in the range."""
    dropped: int | None
    """Number of events of the filter in the range that will not be delivered; null if unknown."""
    by: dict[str, int]
    """The same number by the first two tokens of the subject: ``{"log.info": 12}``; empty if unknown."""
    reason: GapReason
    """``rate``: the rate limit was exceeded. ``slow``: the client fell too far behind. ``retention``: the
    stream no longer has the events. ``reset``: the position does not exist in the stream, such as after the
    stream was recreated."""


class Heartbeat(Message):
    """Sign that the connection is alive while there are no events, with the position reached."""

    type: Literal["heartbeat"]
    cursor: CursorText
    """Position that the session has reached; send it back to resume here."""
    time: Timestamp
    """Current time of the relay."""


class Upstream(Message):
    """State of the relay's connection to NATS; while disconnected, states may be outdated."""

    type: Literal["upstream"]
    state: Literal["connected", "disconnected"]
    """Whether the relay receives events from NATS."""
    since: Timestamp
    """Time at which this state began."""


class TokenExpiring(Message):
    """Warning that the token expires soon; send ``auth`` with a new one to keep the session."""

    type: Literal["token_expiring"]
    expires_at: Timestamp
    """Expiry of the token; the relay then closes the session with code 4401."""


class Pong(Message):
    """Reply to a ``ping``."""

    type: Literal["pong"]
    id: str | int | None
    """``id`` of the ``ping``; null if it had none."""


class Error(Message):
    """Rejection of a message or query of the client; a ``bye`` follows unless the session can continue."""

    type: Literal["error"]
    code: str
    """Machine-readable code, one of ``ErrorCode``; later versions may add codes."""
    message: str
    """Description of the error and of what is valid, for developers."""
    retry: bool
    """Whether a retry can succeed: later, or with a new token."""
    ref: str | None
    """``type`` of the rejected message; null for the query or if unknown."""


class Bye(Message):
    """Last message of a session; the relay closes the connection after it."""

    type: Literal["bye"]
    code: int
    """Close code of the WebSocket close frame that follows."""
    reason: str
    """Reason for the close, for users."""
    retry_after_ms: int | None
    """Minimum milliseconds to wait before reconnecting; null if the client chooses its own backoff."""


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
"""Parser of messages from a relay, for clients in Python and for tests."""
