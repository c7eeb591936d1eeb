"""Heads, bodies and responses of OTLP/HTTP."""

import zlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import h11
import orjson

from tickertape.errors import TickertapeError

PATH: Final = "/v1/logs"
"""Path of log requests."""

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

_GZIP_BITS: Final = 31
_MAX_MEMBERS: Final = 1_000
"""Parts of a gzip body; each may be empty."""


class BadRequest(TickertapeError):
    """Request that is rejected.

    Args:
        status: status of the response.
        message: the reason.
        is_json: whether the response is JSON.
    """

    def __init__(self, status: int, message: str, *, is_json: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_json = is_json


class TooLarge(BadRequest):
    """Request with too many bytes or records."""

    def __init__(self, message: str) -> None:
        super().__init__(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)


@dataclass(frozen=True, slots=True)
class Head:
    """Head of a log request.

    Attributes:
        is_json: the body is JSON, not protobuf.
        encoding: encoding of the body: gzip or identity.
        length: bytes of the body; 0 if they are not known.
    """

    is_json: bool
    encoding: str
    length: int


@dataclass(frozen=True, slots=True)
class Response:
    """Response to a request.

    Attributes:
        status: status code.
        media: type of the body.
        body: the body.
    """

    status: int
    media: str
    body: bytes


def check_head(request: h11.Request) -> Head:
    """Check the head of a request.

    Raises:
        BadRequest: it is not that of a log request.
    """
    fields = {name.decode("latin-1"): value.decode("latin-1").strip() for name, value in request.headers}
    media = fields.get("content-type", "").partition(";")[0].strip().lower()
    is_json = media == JSON
    if request.target.decode("latin-1").partition("?")[0] != PATH:
        raise BadRequest(HTTPStatus.NOT_FOUND, f"only {PATH} is served", is_json=is_json)
    if request.method != b"POST":
        raise BadRequest(HTTPStatus.METHOD_NOT_ALLOWED, "use POST", is_json=is_json)
    if "origin" in fields:
        raise BadRequest(HTTPStatus.FORBIDDEN, "browsers may not send logs here", is_json=is_json)
    if media not in (PROTOBUF, JSON):
        raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"send {PROTOBUF} or {JSON}")
    encoding = fields.get("content-encoding", "identity").lower() or "identity"
    if encoding not in ("gzip", "identity"):
        raise BadRequest(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "compress with gzip, or not", is_json=is_json)
    return Head(is_json, encoding, int(fields.get("content-length", 0)))


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """Decompress a body.

    Args:
        body: the body as it was sent.
        encoding: gzip or identity.
        limit: bytes that are decompressed at most.

    Raises:
        TooLarge: it has more.
        BadRequest: it is not valid, or not complete.
    """
    if encoding == "identity":
        return body
    parts = []
    size = 0
    try:
        for _ in range(_MAX_MEMBERS):
            member = zlib.decompressobj(_GZIP_BITS)
            parts.append(member.decompress(body, limit + 1 - size))
            size += len(parts[-1])
            if size > limit:
                raise TooLarge(f"the request has more than {limit} bytes decompressed; send smaller batches")
            if not member.eof:
                break
            body = member.unused_data
            if not body:
                return b"".join(parts)
    except zlib.error:
        pass
    raise BadRequest(HTTPStatus.BAD_REQUEST, "the body is not valid gzip, or not complete")


def describe_success(rejected: int, problem: str, is_json: bool) -> Response:
    """Return the response to a request whose records are stored.

    Args:
        rejected: records that cannot be events.
        problem: the reason.
        is_json: the request was JSON.
    """
    if is_json:
        partial = {"rejectedLogRecords": str(rejected), "errorMessage": problem}
        return Response(HTTPStatus.OK, JSON, orjson.dumps({"partialSuccess": partial} if rejected else {}))
    partial_bytes = b"\x08" + _varint(rejected) + b"\x12" + _sized(problem.encode()) if rejected else b""
    return Response(HTTPStatus.OK, PROTOBUF, b"\x0a" + _sized(partial_bytes) if rejected else b"")


def describe_failure(status: int, message: str, is_json: bool) -> Response:
    """Return the response to a request that is not stored, with a ``Status`` of Google's RPC."""
    if is_json:
        return Response(status, JSON, orjson.dumps({"message": message}))
    return Response(status, PROTOBUF, b"\x12" + _sized(message.encode()))


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
