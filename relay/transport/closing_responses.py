"""Error responses as bytes, for connections that are closed before an application could respond."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
from tickertape.contracts.close_codes import ErrorCode
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


def limit_response(limit: Limit) -> bytes:
    """Return the complete HTTP response for a connection that exceeds a limit."""
    if limit in SERVER_LIMITS:
        status, code, reached = 503, ErrorCode.UNAVAILABLE, "connection limit of the relay reached"
    else:
        reached = "too many connections or requests from this address"
        status, code = 429, ErrorCode.TOO_MANY
    return closing_response(status, f"{reached}; retry later", {"retry-after": "5"}, code)


LIMIT_RESPONSES: Final = {limit: limit_response(limit) for limit in Limit}
"""Responses to connections and requests that exceed a limit."""
