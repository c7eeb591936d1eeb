"""Close and error codes: the one table, with what a client should do next."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final


class Reconnect(StrEnum):
    """What a client does after a close."""

    NEVER = "never"
    BACKOFF = "backoff"
    AFTER_RETRY_MS = "after_retry_ms"
    """After the ``retry_after_ms`` that ``bye`` named."""
    NEW_TOKEN = "new_token"


MAX_REASON_BYTES: Final = 120
"""Bytes of UTF-8 in the reason of a close; a close frame has room for 123."""


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
    """One row of the table.

    Attributes:
        meaning: for people.
        reconnect: what a client does next.
        http_status: status of the same refusal before the upgrade, where there is one.
        client_at_fault: whether it is a stranger's fault, which makes its address wait.
    """

    meaning: str
    reconnect: Reconnect
    http_status: int | None = None
    client_at_fault: bool = False


CLOSE_CODES: Final[dict[CloseCode, CloseRule]] = {
    CloseCode.NORMAL: CloseRule("done", Reconnect.NEVER),
    CloseCode.GOING_AWAY: CloseRule("relay shuts down", Reconnect.AFTER_RETRY_MS),
    CloseCode.PROTOCOL_ERROR: CloseRule("broken frame", Reconnect.NEVER, client_at_fault=True),
    CloseCode.UNSUPPORTED_DATA: CloseRule("binary message", Reconnect.NEVER, client_at_fault=True),
    CloseCode.INVALID_DATA: CloseRule("bad UTF-8", Reconnect.NEVER, client_at_fault=True),
    CloseCode.MESSAGE_TOO_BIG: CloseRule("message too large", Reconnect.NEVER, client_at_fault=True),
    CloseCode.INTERNAL_ERROR: CloseRule("internal error of the relay", Reconnect.BACKOFF, 500),
    CloseCode.MISUSE: CloseRule("protocol misuse", Reconnect.NEVER, 400, client_at_fault=True),
    CloseCode.UNAUTHORIZED: CloseRule(
        "no, bad or expired token", Reconnect.NEW_TOKEN, 401, client_at_fault=True
    ),
    CloseCode.FORBIDDEN: CloseRule("nothing granted", Reconnect.NEVER, 403, client_at_fault=True),
    CloseCode.TIMEOUT: CloseRule(
        "no auth in time, or no answer to pings", Reconnect.BACKOFF, client_at_fault=True
    ),
    CloseCode.BAD_FILTER: CloseRule("bad filter, mode or cursor", Reconnect.NEVER, 400, client_at_fault=True),
    CloseCode.TOO_MANY: CloseRule(
        "too many connections or messages from this client", Reconnect.BACKOFF, 429
    ),
    CloseCode.UNAVAILABLE: CloseRule("relay cannot serve", Reconnect.BACKOFF, 503),
}


class ErrorCode(StrEnum):
    """``code`` of an ``error`` message."""

    BAD_JSON = "bad_json"
    BAD_MESSAGE = "bad_message"
    UNKNOWN_TYPE = "unknown_type"
    BAD_SUBJECTS = "bad_subjects"
    BAD_LEVEL = "bad_level"
    BAD_MODE = "bad_mode"
    BAD_CURSOR = "bad_cursor"
    BAD_SINCE = "bad_since"
    BAD_INTERVAL = "bad_interval"
    BAD_QUERY = "bad_query"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    TIMEOUT = "timeout"
    TOO_MANY = "too_many"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"
