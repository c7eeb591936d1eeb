"""websockets' Sans-I/O protocol as a relay needs it: it reads no heads, and keeps answers in order."""

from collections.abc import Generator, Sequence
from http import HTTPStatus
from typing import Any, Final, cast

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, SUBPROTOCOL, ProtocolError
from tickertape.relay.transport.http_errors import UPGRADE_HEADERS, WEBSOCKET_VERSION, error_response
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidHeader, NegotiationError
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

FRAGMENT_BYTES: Final = 1024
"""Size from which a fragment counts by its bytes alone: a message may come in any number of such ones."""

# No context is kept, so that compressed frames can be shared, and a connection costs no window of its own.
_DEFLATE: Final = [
    ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
]

_SPARE: Final = 1024
"""Bytes beyond the largest message that websockets may read and unpack: what does not get smaller by
compression is a little larger for it, and at exactly the limit websockets calls a compressed one too large
because some of its input is still unread. ``largest`` is for its user to check."""


class WebSocket(ServerProtocol):
    """One connection's protocol.

    It accepts our subprotocol, none at all, and refuses when only others are offered.

    Attributes:
        largest: bytes of the largest message.
    """

    def __init__(self) -> None:
        super().__init__(extensions=_DEFLATE)
        self.limit(MAX_MESSAGE_BYTES)
        self._parts: bytearray | None = None  # of a message that comes in fragments

    def limit(self, size: int) -> None:
        """Set the size of the largest message."""
        self.largest = size
        self.max_message_size = size + _SPARE

    def parse(self) -> Generator[None]:
        """Read frames from the first byte on; the head is read by the HTTP protocol, under its limits."""
        yield from Protocol.parse(self)

    def recv_frame(self, frame: Frame) -> None:
        """Put what answers a frame (a pong, a close, the end) right behind it among the events."""
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None  # a client may go in the middle of a message, as RFC 6455, 5.4 has it
        super().recv_frame(frame)
        if self.writes:
            self.events.extend(cast(list[Any], self.data_to_send()))

    def complete_message(self, frame: Frame) -> bytes | None:
        """Return the text of the message that a frame completes; None for every other frame.

        A message that is binary, too large or not UTF-8 fails the connection.
        """
        if frame.opcode is Opcode.BINARY and self.state is OPEN:
            self.fail(CloseCode.UNSUPPORTED_DATA, "text messages only")
        if frame.opcode is not Opcode.TEXT and frame.opcode is not Opcode.CONT:
            return None
        size = len(frame.data) + (0 if self._parts is None else len(self._parts))
        if size > self.largest:
            self.fail(CloseCode.MESSAGE_TOO_BIG, f"a message of {size} bytes; at most {self.largest}")
            return None
        if not frame.fin or self._parts is not None:
            if self._parts is None:
                self._parts = bytearray()
            self._parts += frame.data
            if not frame.fin:
                return None
            text, self._parts = bytes(self._parts), None
        else:
            text = bytes(frame.data)
        try:
            text.decode()
        except UnicodeDecodeError as error:
            self.fail(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
            return None
        return text

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        """Select ours, or none when none is offered."""
        if not subprotocols:
            return None
        if SUBPROTOCOL in subprotocols:
            return Subprotocol(SUBPROTOCOL)
        # Without what they are called: one may hold a token.
        raise NegotiationError(f"none of the {len(subprotocols)} subprotocols offered is {SUBPROTOCOL}")

    def respond(self, request: Request) -> Response:
        """Answer a handshake that may have a session, as far as its headers are right."""
        response = self.accept(request)
        if response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            return response
        fault, status = self.handshake_exc, response.status_code
        message = str(fault) if isinstance(fault, InvalidHandshake) else "no WebSocket handshake"
        if isinstance(fault, InvalidHeader) and fault.name == "Sec-WebSocket-Version":
            status = HTTPStatus.UPGRADE_REQUIRED  # RFC 6455, 4.4
        return rejection_response(ProtocolError(ErrorCode.BAD_MESSAGE, message), status)


def handshake_request(target: str, headers: Sequence[tuple[str, str]], method: str) -> Request:
    """Build a handshake's request.

    Args:
        target: path and query, undecoded; ASCII.
        headers: names and values, in order.
        method: of the request.
    """
    request = Request(target, Headers(), method)
    for name, value in headers:
        request.headers.set_insecure(name, value)  # the HTTP protocol has checked them
    return request


def rejection_response(error: ProtocolError, status: int | None = None) -> Response:
    """Build the answer to a handshake that is refused before the upgrade.

    Args:
        error: why.
        status: of the answer; None takes the one that goes with the error's close code.
    """
    answer = error_response(error, status)
    headers = Headers({"Connection": "close"})
    if answer.status_code == HTTPStatus.UPGRADE_REQUIRED:
        headers = Headers({**UPGRADE_HEADERS, "Connection": "Upgrade, close"})
    elif answer.status_code == HTTPStatus.BAD_REQUEST:
        headers["Sec-WebSocket-Version"] = WEBSOCKET_VERSION
    elif answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET"
    headers.update(answer.headers.items())
    return Response(answer.status_code, HTTPStatus(answer.status_code).phrase, headers, bytes(answer.body))


def is_large_fragment(frame: Frame) -> bool:
    """Tell whether a frame is a part of a message, and counts by its bytes alone."""
    return (not frame.fin or frame.opcode is Opcode.CONT) and len(frame.data) >= FRAGMENT_BYTES
