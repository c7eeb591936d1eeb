"""The messages from client to relay, as pydantic models, and their validation."""

from typing import Annotated, Final, Literal, get_args

import orjson
from pydantic import Field, ValidationError, WithJsonSchema
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import CURSOR_PATTERN
from tickertape.contracts.messages import MAX_SUBJECTS, MAX_TOKEN, LevelName, Message, Mode, ProtocolError
from tickertape.contracts.subjects import SubjectError, check_pattern

from tickertape.validation import describe_first_error

# Any text is parsed, so that the relay can reject an invalid value with its own error code; the schema lists
# the valid values.
RequestedLevel = Annotated[str, WithJsonSchema({"type": "string", "enum": list(get_args(LevelName))})]
RequestedMode = Annotated[str, WithJsonSchema({"type": "string", "enum": list(get_args(Mode))})]
RequestedCursor = Annotated[str, WithJsonSchema({"type": "string", "pattern": CURSOR_PATTERN})]


class Auth(Message):
    """Token that authenticates the session, or renews its authentication."""

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=MAX_TOKEN)]
    """JWT in compact serialization."""


class Subscribe(Message):
    """New filter of the session; an omitted field takes its default."""

    type: Literal["subscribe"]
    subjects: list[str] | None = None
    """NATS patterns, at most 64. Default: every subject that the grant allows."""
    level: RequestedLevel | None = None
    """Minimum level; applies only to subjects ``log.<level>.*``. Default: ``DEBUG``."""
    mode: RequestedMode | None = None
    """``live`` (default) stays close to the newest event and reports skipped events in a ``gap``.
    ``complete`` delivers every event once and in order, for as long as the stream retains it.
    ``latest`` delivers the newest event of each subject, at most once per ``interval_ms``."""
    cursor: RequestedCursor | None = None
    """Position to resume after, as received from a relay; cannot be combined with ``since``."""
    since: str | None = None
    """Time to start from: ``earliest``, a duration such as ``10m`` before now, or an RFC 3339 time; cannot be
    combined with ``cursor``."""
    interval_ms: int | None = None
    """Minimum milliseconds between two events of a subject in mode ``latest``: 1 to 60000. Default: 1000."""
    where: str | None = None
    """Condition on log events in CEL, such as ``event.metadata.account == 7``, of at most 2 KiB; it does not
    apply to states. Default: none."""


class Ping(Message):
    """Request for a ``pong`` with the same ``id``."""

    type: Literal["ping"]
    id: Annotated[str, Field(max_length=256)] | int | None = None
    """Any value, to match the reply to the request."""


ClientMessage = Auth | Subscribe | Ping
_CLIENT: Final[dict[str, type[Auth] | type[Subscribe] | type[Ping]]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "ping": Ping,
}


def parse_client_message(text: bytes) -> ClientMessage:
    """Parse a message of a client.

    Raises:
        ProtocolError: it is not a JSON object, its ``type`` is unknown, or a field has the wrong type.
    """
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ProtocolError(ErrorCode.BAD_JSON, f"not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "a message must be a JSON object with a 'type'")
    kind = body.get("type")
    if not isinstance(kind, str):
        raise ProtocolError(ErrorCode.BAD_MESSAGE, "'type' is missing or not a string")
    # Not a discriminated union of pydantic, because an unknown type has an error code of its own.
    model = _CLIENT.get(kind)
    if model is None:
        raise ProtocolError(
            ErrorCode.UNKNOWN_TYPE, f"unknown type {kind[:40]!r}; use auth, subscribe or ping"
        )
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise ProtocolError(ErrorCode.BAD_MESSAGE, describe_first_error(error), kind) from None


def check_subjects(patterns: list[str]) -> tuple[str, ...]:
    """Return the patterns of a filter without duplicates, in the order given.

    Raises:
        ProtocolError: there are too many patterns, or one is illegal.
    """
    if len(patterns) > MAX_SUBJECTS:
        raise ProtocolError(
            ErrorCode.BAD_SUBJECTS, f"{len(patterns)} patterns exceed the limit of {MAX_SUBJECTS}"
        )
    try:
        return tuple(dict.fromkeys(check_pattern(pattern) for pattern in patterns))
    except SubjectError as error:
        raise ProtocolError(ErrorCode.BAD_SUBJECTS, f"subjects: {error}") from None
