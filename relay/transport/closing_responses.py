"""Error responses as bytes, for connections that are closed before an application could respond."""

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.encode import encode_message
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.connection_limits import SERVER_LIMITS, Limit

_STATUS_CODES: Final[dict[int, str]] = {
    HTTPStatus.UPGRADE_REQUIRED: "upgrade_required",
    HTTPStatus.INTERNAL_SERVER_ERROR: ErrorCode.INTERNAL,
}


def http_error_body(status: int, message: str) -> dict[str, str]:
    """Build the body of an HTTP-level error."""
    return {"code": _STATUS_CODES.get(status, ErrorCode.BAD_QUERY), "message": message}


def closing_response(
    status: int, message: str, headers: Mapping[str, str], code: ErrorCode | None = None
) -> bytes:
    """Build the bytes of an error response that closes the connection.

    Args:
        status: HTTP status.
        message: description for the client; empty for that of the status.
        headers: further headers.
        code: code of the error; None for that of the status.
    """
    phrase = HTTPStatus(status).phrase
    error = http_error_body(status, message or phrase.lower())
    body = orjson.dumps(error if code is None else error | {"code": code})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b"
        b"cache-control: no-store\r\nconnection: close\r\n\r\n%b"
        % (status, phrase.encode(), len(body), lines.encode(), body)
    )


def limit_response(limit: Limit, head: bytes) -> bytes:
    """Return the complete HTTP response to a connection or request that exceeds a limit.

    Args:
        limit: limit that is exceeded.
        head: what the client has sent, as far as known.
    """
    return (_RESUME_RESPONSES if _RESUME.match(head) else _RESPONSES)[limit]


def _limit_response(limit: Limit) -> bytes:
    status, code = (503, ErrorCode.UNAVAILABLE) if limit in SERVER_LIMITS else (429, ErrorCode.TOO_MANY)
    headers = {"retry-after": str(_RETRY_SECONDS)}
    return closing_response(status, f"{_reached(limit)}; retry later", headers, code)


def _resume_response(limit: Limit) -> bytes:
    """Return the response to a browser that resumes a stream, and would give up after an error."""
    code = CloseCode.UNAVAILABLE if limit in SERVER_LIMITS else CloseCode.TOO_MANY
    bye = messages.bye(code, _reached(limit), 1000 * _RETRY_SECONDS)
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n"
        b"connection: close\r\n\r\nretry: %d\ndata: %b\n\n"
        % (1000 * _RETRY_SECONDS, encode_message(bye).join())
    )


def _reached(limit: Limit) -> str:
    if limit in SERVER_LIMITS:
        return "connection limit of the relay reached"
    return "too many connections or requests from this address"


_RETRY_SECONDS: Final = 5
_RESUME: Final = re.compile(rb"GET /sse[? ].*\r\nlast-event-id:", re.DOTALL | re.IGNORECASE)
_RESPONSES: Final = {limit: _limit_response(limit) for limit in Limit}
_RESUME_RESPONSES: Final = {limit: _resume_response(limit) for limit in Limit}
