"""websockets' Sans-I/O protocol, adapted: it parses no request heads and keeps replies in order."""

from collections.abc import Generator, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL, ProtocolError
from tickertape.relay.transport.http.responses import UPGRADE_HEADERS, WEBSOCKET_VERSION, error_response
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.typing import BytesLike, Subprotocol

FRAGMENT_BYTES: Final = 1024
"""Minimum bytes of a fragment that counts towards the message rate by its bytes alone, since a message may
have any number of fragments."""

# Without context takeover, compressed frames can be shared, and a connection needs no window of its own.
_DEFLATE: Final = [
    ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
]

_SIZE_SLACK: Final = 1024
"""Bytes beyond the maximum message size that websockets may read and decompress. Data that does not compress
grows a little, and at exactly the limit websockets rejects a compressed message because input is still
unread. ``complete_message`` enforces the exact limit."""


class WebSocket(ServerProtocol):
    """WebSocket protocol of one connection.

    It accepts clients that offer the relay's subprotocol or none, and rejects those that offer only others.

    Attributes:
        max_size: maximum message size in bytes.
    """

    def __init__(self) -> None:
        super().__init__(extensions=_DEFLATE)
        self.set_max_size(MAX_MESSAGE_BYTES)
        # Received fragments of an incomplete message: those that the parser has built, without a copy.
        self._fragments: list[BytesLike] = []
        self._fragment_bytes = 0

    def set_max_size(self, size: int) -> None:
        """Set the maximum message size in bytes."""
        self.max_size = size
        self.max_message_size = size + _SIZE_SLACK

    @property
    def incomplete(self) -> int:
        """Number of bytes of an incomplete message: of its complete fragments, and of an incomplete frame."""
        return len(self.reader.buffer) + self._fragment_bytes

    def discard_incomplete(self) -> None:
        """Discard an incomplete message; nothing may be parsed after that."""
        self._fragments = []
        self.reader.buffer.clear()
        self.parser.close()  # it still refers to the last fragment

    def parse(self) -> Generator[None]:
        """Parse frames from the first byte on; the HTTP protocol has parsed the head, within its limits."""
        yield from Protocol.parse(self)

    def recv_frame(self, frame: Frame) -> None:
        """Handle a frame, and insert its reply (pong, close or end of the stream) after it in the events."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # a close may interrupt a fragmented message (RFC 6455, 5.4)
        super().recv_frame(frame)
        if self.writes:
            self.events.extend(cast(list[Any], self.data_to_send()))

    def complete_message(self, frame: Frame) -> bytes | None:
        """Return the text of the message that a frame completes, or None for other frames.

        Fail the connection if a message is binary, too large or not UTF-8.
        """
        if frame.opcode is Opcode.BINARY and self.state is OPEN:
            self.fail(CloseCode.UNSUPPORTED_DATA, "text messages only")
        if frame.opcode is not Opcode.TEXT and frame.opcode is not Opcode.CONT:
            return None
        size = len(frame.data) + self._fragment_bytes
        if size > self.max_size:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"message of {size} bytes; the limit is {self.max_size}")
            return None
        if not frame.fin:
            self._fragments.append(frame.data)
            self._fragment_bytes = size
            return None
        text = b"".join((*self._fragments, frame.data))
        self._fragments, self._fragment_bytes = [], 0
        try:
            # Only validated: the session parses the bytes.
            text.decode()
        except UnicodeDecodeError as error:
            self.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            return None
        return text

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Select the relay's subprotocol, or None if the client offers none."""
        if not subprotocols:
            return None
        if SUBPROTOCOL in subprotocols:
            return Subprotocol(SUBPROTOCOL)
        # The names are left out of the error: one of them may contain a token.
        raise NegotiationError(f"none of the {len(subprotocols)} offered subprotocols is {SUBPROTOCOL}")

    def respond(self, request: Request) -> Response:
        """Build the response to an authorized handshake; invalid WebSocket headers are still rejected."""
        response = self.accept(request)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            return response
        error, status = self.handshake_exc, response.status_code
        message = str(error) if isinstance(error, InvalidHandshake) else "not a WebSocket handshake"
        if isinstance(error, InvalidHeader) and error.name == "Sec-WebSocket-Version":
            status = HTTPStatus.UPGRADE_REQUIRED  # RFC 6455, 4.4
        return rejection_response(ProtocolError(ErrorCode.BAD_MESSAGE, message), status)


def handshake_request(target: str, headers: Sequence[tuple[str, str]], method: str) -> Request:
    """Build the request of a handshake for websockets.

    Args:
        target: path and query, undecoded; ASCII.
        headers: names and values, in order.
        method: HTTP method.
    """
    request = Request(target, Headers(), method)
    for name, value in headers:
        request.headers.set_insecure(name, value)  # the HTTP protocol has validated them
    return request


def rejection_response(error: ProtocolError, status: int | None = None) -> Response:
    """Build the HTTP response to a handshake that is rejected before the upgrade.

    Args:
        error: reason for the rejection.
        status: HTTP status; None selects the status of the error's close code.
    """
    response = error_response(error, status)
    headers = Headers({"Connection": "close"})
    if response.status_code == HTTPStatus.UPGRADE_REQUIRED:
        headers = Headers({**UPGRADE_HEADERS, "Connection": "Upgrade, close"})
    elif response.status_code == HTTPStatus.BAD_REQUEST:
        headers["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
    elif response.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET"
    headers.update(response.headers.items())
    return Response(
        response.status_code, HTTPStatus(response.status_code).phrase, headers, bytes(response.body)
    )


def is_large_fragment(frame: Frame) -> bool:
    """Return whether a frame is a fragment that counts by its bytes alone."""
    return (not frame.fin or frame.opcode is Opcode.CONT) and len(frame.data) >= FRAGMENT_BYTES
