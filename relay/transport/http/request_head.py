"""Rules for request heads, beyond those of the parser: the same on every port and path."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Final

from tickertape.errors import TickertapeError

_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")
_CONTROL_METHODS: Final = (b"POST", b"DELETE")
_CONTROL_PATH: Final = re.compile(rb"[^?#]*/silence(?:\?.*)?|/session(?:\?.*)?", re.DOTALL)
"""Target of the only requests that change something. Without ``--control``, no resource has the first one;
the second one changes a cookie of the browser."""

_STREAM_PATH: Final = re.compile(rb"/(?:sse|stream)(?:\?.*)?", re.DOTALL)
"""Target of requests that are answered with a stream."""

_ALLOW: Final = {"Allow": "GET, HEAD"}
_VERSIONS: Final = ("1.0", "1.1")
_REQUEST_LINE: Final = re.compile(rb"[^ ]+ [^ ]+ HTTP/(?!0\.9)[0-9]\.[0-9]\r")
"""Request line up to the line feed; the parser also accepts HTTP/0.9, RTSP and repeated spaces."""

_ABSOLUTE_TARGET: Final = re.compile(rb"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.DOTALL)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}

RawHeaders = Sequence[tuple[bytes, bytes]]
"""Header names in lower case, and values, in order."""


class HeadError(TickertapeError, ValueError):
    """Error of a request head.

    Args:
        status: HTTP status of the response.
        message: description for the client.
        headers: further headers of the response.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


NOT_HTTP: Final = HeadError(HTTPStatus.BAD_REQUEST, "not an HTTP request")
"""Error of a head that cannot be parsed."""


class RequestLine:
    """Request line as it arrives, in any number of pieces."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data: bytearray | None = bytearray()  # None once the line is complete

    def is_valid_after(self, piece: bytes) -> bool:
        """Add the next piece of the head; return False if it completes a malformed line."""
        if self._data is None:
            return True
        self._data += piece
        line, end, _ = self._data.lstrip(b"\r\n").partition(b"\n")  # empty lines may precede it
        if not end:
            return True
        self._data = None
        return _REQUEST_LINE.fullmatch(line) is not None


def check_head(version: str, method: bytes, url: bytes, headers: RawHeaders) -> bytes:
    """Return the target of a request as path and query.

    Raises:
        HeadError: no resource of the relay can serve such a request.
    """
    if version not in _VERSIONS:
        raise HeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "unsupported HTTP version; use HTTP/1.1")
    if method not in _METHODS and not (method in _CONTROL_METHODS and _CONTROL_PATH.fullmatch(url)):
        raise HeadError(HTTPStatus.METHOD_NOT_ALLOWED, "method not allowed; use GET", _ALLOW)
    for name, value in headers:
        # No resource accepts a body, and a disagreement with a proxy about its end allows request smuggling.
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0")):
            raise HeadError(HTTPStatus.BAD_REQUEST, "request bodies are not accepted")
    hosts = [value.strip(b" \t") for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise HeadError(HTTPStatus.BAD_REQUEST, f"{len(hosts) or 'no'} Host headers; send exactly one")
    return _path_and_query(url, hosts[0] if hosts else None)


def _path_and_query(url: bytes, host: bytes | None) -> bytes:
    """Reduce a target to path and query (RFC 9112, 3.2)."""
    if not url.isascii() or b"#" in url:
        raise HeadError(
            HTTPStatus.BAD_REQUEST,
            "invalid request target; remove the fragment and percent-encode non-ASCII bytes",
        )
    if url.startswith(b"/"):
        return url
    absolute = _ABSOLUTE_TARGET.fullmatch(url)
    if absolute is None:
        raise HeadError(
            HTTPStatus.BAD_REQUEST, "invalid request target; send a path or an http:// or https:// URL"
        )
    scheme, authority, rest = absolute.groups()
    port = _DEFAULT_PORTS[scheme.lower()]
    if not authority or (
        host is not None and authority.lower().removesuffix(port) != host.lower().removesuffix(port)
    ):
        # The host of the target would take precedence, but origins are checked against the Host header.
        raise HeadError(HTTPStatus.BAD_REQUEST, "the host of the request target differs from the Host header")
    return bytes(rest) if rest.startswith(b"/") else b"/" + rest


def find_upgrade(version: str, headers: RawHeaders) -> bytes | None:
    """Return ``websocket`` if a head asks for that upgrade, perhaps spread over several lines, or None."""
    if version != "1.1" or b"upgrade" not in header_tokens(headers, b"connection"):
        return None  # RFC 9110, 7.8
    return b"websocket" if b"websocket" in header_tokens(headers, b"upgrade") else None


def is_stream(method: bytes, target: bytes) -> bool:
    """Return whether a request is answered with a stream.

    Args:
        method: method of the request.
        target: path and query.
    """
    return method in (b"GET", b"HEAD") and _STREAM_PATH.fullmatch(target) is not None


def header_tokens(headers: RawHeaders, name: bytes) -> set[bytes]:
    """Return the comma-separated values of all headers of a name, in lower case."""
    values = (value for header, value in headers if header == name)
    return {part.strip(b" \t").lower() for value in values for part in value.split(b",")}


def split_head(head: bytes) -> list[tuple[str, str]]:
    """Return the headers of a complete head that the parser rejects; names are in lower case."""
    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
    return [(name.lower(), value.strip(" \t")) for name, _, value in lines]


def handshake_headers(headers: RawHeaders) -> list[tuple[str, str]]:
    """Return the headers of an upgrade request for the WebSocket protocol.

    They are already validated; of those that concern only this connection, the protocol needs these values.
    """
    hop_by_hop = {"connection": "Upgrade", "upgrade": "websocket"}
    decoded = [
        (name.decode("ascii"), value.strip(b" \t").decode("latin-1"))
        for name, value in headers
        if name.decode("ascii") not in hop_by_hop
    ]
    return [*decoded, *hop_by_hop.items()]
