"""Requests for an HTTP stream, and the head of the answer."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import unquote

from tickertape.contracts.close_codes import CLOSE_CODES, Reconnect
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.audit.audit_log import Transport
from tickertape.relay.auth.request_auth import Headers, RequestAuth, header_value
from tickertape.relay.core.session.session import close_code
from tickertape.relay.transport.closing_responses import closing_response
from tickertape.relay.transport.handshake import Offer
from tickertape.relay.transport.http.responses import (
    NO_STORE,
    SECURITY_HEADERS,
    cors_headers,
    error_response,
)
from tickertape.relay.transport.http_stream.encoding import (
    EVENTS,
    LINES,
    StreamEncoding,
    StreamFormat,
    select_encoding,
)
from tickertape.relay.transport.http_stream.event_id import parse_event_id
from tickertape.relay.transport.http_stream.session_cookie import read_cookie

_NEEDS_TOKEN: Final = {
    "sse": "token required; send it as 'Authorization: Bearer', or store it with POST /session",
    "ndjson": "token required; send it as 'Authorization: Bearer'",
}

_ERROR_HEADERS: Final = ("WWW-Authenticate", "Retry-After")


@dataclass(frozen=True, slots=True)
class StreamKind:
    """Resource that answers with a stream.

    Attributes:
        transport: name of the transport.
        format: format of the messages.
    """

    transport: Transport
    format: StreamFormat


STREAMS: Final[Mapping[str, StreamKind]] = {
    "/sse": StreamKind("sse", EVENTS),
    "/stream": StreamKind("ndjson", LINES),
}
"""Streams by path."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Request for a stream.

    Args:
        kind: resource.
        query: query, undecoded.
        headers: headers, with names in lower case.
        head_only: whether the method is HEAD.
        version: version of HTTP.
    """

    kind: StreamKind
    query: str
    headers: Headers
    head_only: bool = False
    version: str = "1.1"

    @classmethod
    def parse(cls, target: str, headers: Headers, method: str, version: str) -> "StreamRequest":
        """Build the request from its head, whose path is one of ``STREAMS``."""
        path, _, query = target.partition("?")
        return cls(STREAMS[unquote(path)], query, headers, method == "HEAD", version)

    @property
    def event_id(self) -> str | None:
        """``Last-Event-ID`` of a browser that resumes; None without one."""
        if self.kind.format is not EVENTS:
            return None
        return header_value(self.headers, "last-event-id") or None

    def read_offer(self, headers: Headers) -> Offer:
        """Return what the client offers beside its query and ``Authorization``.

        Raises:
            ProtocolError: the cookie cannot be accepted.
        """
        needs_token = _NEEDS_TOKEN[self.kind.transport]
        token = read_cookie(headers) if self.kind.format is EVENTS else None
        if self.event_id is None:
            return Offer(token, needs_token)
        cursor, snapshot = parse_event_id(self.event_id)
        return Offer(token, needs_token, cursor, snapshot, after_upgrade=True)

    def select_encoding(self, *, chunked: bool | None = None) -> StreamEncoding:
        """Return the encoding that the client accepts.

        Args:
            chunked: whether to divide the body into chunks; None decides by the version of HTTP.
        """
        chunked = self.version != "1.0" if chunked is None else chunked
        return select_encoding(self.kind.format, gzip=_accepts_gzip(self.headers), chunked=chunked)

    def response_headers(self, request_auth: RequestAuth) -> dict[str, str]:
        """Return the headers of every response that depend on the request."""
        headers = cors_headers(request_auth, self.headers, cookies=self.kind.format is EVENTS)
        return headers | {"Vary": "Origin, Accept-Encoding"}


def stream_headers(encoding: StreamEncoding) -> dict[str, str]:
    """Return the headers of a stream that depend on its encoding, except those of the connection."""
    headers = {
        "Content-Type": encoding.format.media_type,
        # A proxy that transforms the body would hold it back.
        "Cache-Control": f"{NO_STORE}, no-transform",
        "X-Accel-Buffering": "no",
    }
    return headers | {"Content-Encoding": "gzip"} if encoding.gzip else headers


class Heads:
    """Builder of the heads of responses on the relay's own sockets.

    Args:
        request_auth: knows the origins and the trusted proxies.
        hsts: seconds for which browsers are told to use only TLS; 0 sends nothing.
    """

    def __init__(self, request_auth: RequestAuth, hsts: int = 0) -> None:
        self._request_auth = request_auth
        self._hsts = hsts

    def stream(self, request: StreamRequest, encoding: StreamEncoding, *, secure: bool) -> bytes:
        """Return the head of a stream."""
        headers = stream_headers(encoding) | self._common(request, secure=secure) | {"Connection": "close"}
        if encoding.chunked:
            headers["Transfer-Encoding"] = "chunked"
        return _head(HTTPStatus.OK, headers)

    def rejection(self, request: StreamRequest, error: ProtocolError, *, secure: bool) -> bytes:
        """Return the response to a request that is rejected."""
        headers = self._common(request, secure=secure)
        if is_final_resume(request, error):
            # Browsers, and clients that try again after any error, stop after this (HTML, 9.2.3).
            return _head(HTTPStatus.NO_CONTENT, headers | {"Cache-Control": NO_STORE, "Connection": "close"})
        data = _closing_response(error, headers)
        return data.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.head_only else data

    @staticmethod
    def failure(error: ProtocolError) -> bytes:
        """Return the response to a request that failed before it was answered."""
        return _closing_response(error, {name.decode(): value.decode() for name, value in SECURITY_HEADERS})

    def _common(self, request: StreamRequest, *, secure: bool) -> dict[str, str]:
        headers = request.response_headers(self._request_auth)
        headers |= {name.decode(): value.decode() for name, value in SECURITY_HEADERS}
        if self._hsts and secure:
            headers["Strict-Transport-Security"] = f"max-age={self._hsts}"
        return headers


def is_final_resume(request: StreamRequest, error: ProtocolError) -> bool:
    """Return whether a browser that resumes is rejected for good."""
    final = CLOSE_CODES[close_code(error)].reconnect is Reconnect.NEVER
    return request.event_id is not None and final


def _closing_response(error: ProtocolError, headers: Mapping[str, str]) -> bytes:
    response = error_response(error)
    more = {name: response.headers[name] for name in _ERROR_HEADERS if name in response.headers}
    return closing_response(response.status_code, error.message, {**headers, **more}, error.code)


def _head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name.lower()}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode()


def _accepts_gzip(headers: Headers) -> bool:
    for name, value in headers:
        for coding in value.lower().split(",") if name == "accept-encoding" else ():
            name, _, parameter = coding.partition(";")
            if name.strip() in ("gzip", "x-gzip"):
                return parameter.replace(" ", "").rstrip("0").rstrip(".") not in ("q=", "q=0")
    return False
