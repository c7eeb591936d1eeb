"""Framing of syslog over a connection: RFC 6587 (TCP), RFC 5425 (TLS) and RELP.

Invariants:

1. Frames do not depend on how the bytes are split into chunks.
2. At most ``MAX_FRAME_BYTES`` and one chunk are buffered; a peer that announces more is an error.
3. A frame has no line break within, so that it is a line of a file; RFC 5424 permits to escape them.
"""

import re
from typing import Final, Protocol

from tickertape.errors import TickertapeError

MAX_FRAME_BYTES: Final = 256 * 1024
"""Bytes of a frame; the shipper shortens a message to 64 KiB."""

_MAX_DIGITS: Final = 19

# A message begins with its priority; RFC 6587 decides by the first byte, which a time without a priority
# would mislead.
_COUNTED: Final = re.compile(rb"([1-9]\d{0,%d}) (?=<)" % (_MAX_DIGITS - 1))
_COUNT_PREFIX: Final = re.compile(rb"[1-9]\d{0,%d} ?\Z" % (_MAX_DIGITS - 1))
_HEADER: Final = re.compile(rb"(\d{1,9}) ([A-Za-z]{1,32}) (\d{1,19})([ \n])")
_START: Final = re.compile(rb"\d|\Z")
_MAX_HEADER: Final = 64

LINE_BREAK: Final = b"#012"
"""What stands for a line break within a message, as rsyslog writes it."""


class FramingError(TickertapeError):
    """Bytes that are not syslog, after which a connection cannot be understood."""


class Framing(Protocol):
    """Splitting of a connection's bytes into messages."""

    def feed(self, data: bytes) -> list[bytes]:
        """Add a chunk; return the messages that it completes.

        Raises:
            FramingError: the peer does not speak this protocol.
        """

    def responses(self) -> bytes:
        """Return what the peer has to be sent once these messages are stored."""

    def finish(self) -> list[bytes]:
        """Return the message that the end of the connection completes, if there is one."""


def to_line(message: bytes) -> bytes:
    """Return a message as one line, without its line break; empty if there is nothing in it."""
    message = message.strip(b"\r\n\0")
    if b"\n" in message:
        message = message.replace(b"\r\n", b"\n").replace(b"\n", LINE_BREAK)
    return message


class TcpFraming:
    """Frames of TCP and TLS: each begins with its length, or ends with a line break (RFC 6587, 3.4)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add a chunk; see ``Framing.feed``."""
        data = self._rest + data if self._rest else data
        messages: list[bytes] = []
        position, size = 0, len(data)
        while position < size:
            counted = _COUNTED.match(data, position) if data[position] in b"123456789" else None
            if counted is not None:
                length = int(counted[1])
                if length > MAX_FRAME_BYTES:
                    raise FramingError(f"a frame of {length} bytes is longer than {MAX_FRAME_BYTES}")
                end = counted.end() + length
                if end > size:
                    break
                messages.append(data[counted.end() : end])
                position = end
                continue
            # Whether a count is complete, or is one, may be in the next chunk.
            if size - position <= _MAX_DIGITS + 1 and _COUNT_PREFIX.match(data, position):
                break
            end = data.find(b"\n", position)
            if end < 0:
                break
            messages.append(data[position:end])
            position = end + 1
        self._rest = data[position:]
        if len(self._rest) > MAX_FRAME_BYTES + _MAX_DIGITS + 1:
            raise FramingError(f"a line is longer than {MAX_FRAME_BYTES} bytes")
        return messages

    def responses(self) -> bytes:
        """Return nothing: the protocol has no acknowledgements."""
        return b""

    def finish(self) -> list[bytes]:
        """Return the line without a line break at the end of the connection."""
        rest, self._rest = self._rest, b""
        return [] if not rest or _COUNTED.match(rest) else [rest]


class RelpFraming:
    """Frames of RELP, the protocol with acknowledgements of rsyslog and syslog-ng.

    Source: "The Reliable Event Logging Protocol", doc/relp.html of librelp.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._responses: list[bytes] = []
        self._is_open = False
        self.is_closed = False

    def feed(self, data: bytes) -> list[bytes]:
        """Add a chunk; see ``Framing.feed``."""
        data = self._rest + data if self._rest else data
        messages: list[bytes] = []
        position = 0
        while not self.is_closed:
            header = _HEADER.match(data, position)
            if header is None:
                if len(data) - position > _MAX_HEADER or not _START.match(data, position):
                    raise FramingError("not a frame of RELP")
                break
            number, command, length = header[1], header[2], int(header[3])
            if length > MAX_FRAME_BYTES:
                raise FramingError(f"a frame of {length} bytes is longer than {MAX_FRAME_BYTES}")
            # Without data, the line break of the end may follow the length directly.
            begin = header.end() if header[4] == b" " else header.end() - 1
            end = begin + length
            if end + 1 > len(data):
                break
            if data[end] != 0x0A:
                raise FramingError("a frame of RELP does not end where it should")
            self._take(number, command, data[begin:end], messages)
            position = end + 1
        self._rest = data[position:]
        return messages

    def _take(self, number: bytes, command: bytes, body: bytes, messages: list[bytes]) -> None:
        if command == b"open":
            self._is_open = True
            offers = b"200 OK\nrelp_version=0\nrelp_software=tickertape\ncommands=syslog"
            self._respond(number, offers)
        elif command == b"close":
            self._respond(number, b"")
            self._responses.append(b"0 serverclose 0\n")
            self.is_closed = True
        elif command == b"syslog" and self._is_open:
            messages.append(body)
            self._respond(number, b"200 OK")
        else:
            raise FramingError(f"the command {command.decode()!r} of RELP is not expected here")

    def _respond(self, number: bytes, body: bytes) -> None:
        self._responses.append(b"%b rsp %d%b\n" % (number, len(body), b" " + body if body else b""))

    def responses(self) -> bytes:
        """Return the acknowledgements of all frames since the last call."""
        responses = b"".join(self._responses)
        self._responses.clear()
        return responses

    def finish(self) -> list[bytes]:
        """Return nothing: a frame that is not complete is sent again over the next connection."""
        return []
