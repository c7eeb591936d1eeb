"""Close codes and error codes, and how a client reacts to each."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Reconnect(StrEnum):
    """Reconnect policy of a client after a close."""

    NEVER = "never"
    """Not at all: the same request would fail again."""
    BACKOFF = "backoff"
    """With exponential backoff and jitter."""
    AFTER_RETRY_MS = "after_retry_ms"
    """After the ``retry_after_ms`` of ``bye``."""
    NEW_TOKEN = "new_token"
    """With a new token."""


MAX_REASON_BYTES: Final = 120
"""Bytes of UTF-8 in a close reason; a close frame holds at most 123 (RFC 6455, 5.5)."""


class CloseCode(IntEnum):
    """WebSocket close codes that the relay sends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    INVALID_DATA = 1007
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    MISUSE = 4400
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    TIMEOUT = 4408
    BAD_FILTER = 4409
    TOO_MANY = 4429
    UNAVAILABLE = 4503


@dataclass(frozen=True, slots=True)
class CloseRule:
    """Meaning of a close code, and the reaction of a client.

    Attributes:
        meaning: short description, for logs and users.
        reconnect: how a client reconnects.
        http_status: HTTP status if the same condition rejects the handshake; None if it cannot.
        client_at_fault: whether the client caused it, so that new connections from its address are delayed.
    """

    meaning: str
    reconnect: Reconnect
    http_status: int | None = None
    client_at_fault: bool = False


CLOSE_CODES: Final[dict[CloseCode, CloseRule]] = {
    CloseCode.NORMAL: CloseRule("closed normally", Reconnect.NEVER),
    CloseCode.GOING_AWAY: CloseRule("relay is shutting down", Reconnect.AFTER_RETRY_MS),
    CloseCode.PROTOCOL_ERROR: CloseRule("invalid WebSocket frame", Reconnect.NEVER, client_at_fault=True),
    CloseCode.UNSUPPORTED_DATA: CloseRule(
        "binary messages are not supported", Reconnect.NEVER, client_at_fault=True
    ),
    CloseCode.INVALID_DATA: CloseRule("invalid UTF-8", Reconnect.NEVER, client_at_fault=True),
    CloseCode.MESSAGE_TOO_BIG: CloseRule("message too large", Reconnect.NEVER, client_at_fault=True),
    CloseCode.INTERNAL_ERROR: CloseRule("internal error of the relay", Reconnect.BACKOFF, 500),
    CloseCode.MISUSE: CloseRule("invalid message or query", Reconnect.NEVER, 400, client_at_fault=True),
    CloseCode.UNAUTHORIZED: CloseRule(
        "missing, invalid or expired token", Reconnect.NEW_TOKEN, 401, client_at_fault=True
    ),
    CloseCode.FORBIDDEN: CloseRule("access denied", Reconnect.NEVER, 403, client_at_fault=True),
    CloseCode.TIMEOUT: CloseRule(
        "no token in time, or no reply to a ping", Reconnect.BACKOFF, client_at_fault=True
    ),
    CloseCode.BAD_FILTER: CloseRule(
        "invalid filter, mode or cursor", Reconnect.NEVER, 400, client_at_fault=True
    ),
    CloseCode.TOO_MANY: CloseRule(
        "too many connections or messages from this client", Reconnect.BACKOFF, 429
    ),
    CloseCode.UNAVAILABLE: CloseRule("relay is unavailable", Reconnect.BACKOFF, 503),
}
"""Rule of each close code, in the order of the codes."""


class ErrorCode(StrEnum):
    """Value of ``code`` in an ``error`` message."""

    BAD_JSON = "bad_json"
    """The message is not JSON."""
    BAD_MESSAGE = "bad_message"
    """The message is not an object with a ``type``, or a field is missing or has the wrong type."""
    UNKNOWN_TYPE = "unknown_type"
    """The ``type`` of the message is unknown."""
    BAD_SUBJECTS = "bad_subjects"
    """A pattern is illegal, or there are too many."""
    BAD_LEVEL = "bad_level"
    """``level`` is not a level."""
    BAD_MODE = "bad_mode"
    """``mode`` is not a mode."""
    BAD_CURSOR = "bad_cursor"
    """``cursor`` is malformed, does not exist in the stream, or is combined with ``since``."""
    BAD_SINCE = "bad_since"
    """``since`` is neither ``earliest``, a duration nor a time."""
    BAD_INTERVAL = "bad_interval"
    """``interval_ms`` is not a number in the allowed range."""
    BAD_WHERE = "bad_where"
    """``where`` is not a valid condition, or is too long; ``message`` names the position of the error."""
    BAD_QUERY = "bad_query"
    """The query is too long, or has an unknown, repeated or invalid parameter."""
    UNAUTHORIZED = "unauthorized"
    """The token is missing, invalid, expired or revoked."""
    FORBIDDEN = "forbidden"
    """The token grants nothing, the filter selects nothing that it grants, or the origin is not allowed."""
    TIMEOUT = "timeout"
    """No token was received in time."""
    TOO_MANY = "too_many"
    """The client has too many connections, or sends too many messages or requests."""
    UNAVAILABLE = "unavailable"
    """The relay cannot serve the request now; retry later."""
    INTERNAL = "internal"
    """An internal error of the relay."""
