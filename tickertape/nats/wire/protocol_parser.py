"""Sans-I/O parser for the server side of the NATS client protocol: bytes in, operations out.

Invariants:

1. Every operation is yielded once and in order, regardless of how the bytes are split into chunks. Operations
   that are complete before an error are yielded before it is raised.
2. Subjects and reply subjects may contain any byte except space, tab, CR and LF, because a server stores and
   forwards all others: lines are split on single spaces, and nothing is decoded.
3. The buffer is bounded: by ``MAX_LINE`` or ``MAX_INFO`` for a line, by ``MAX_MESSAGE`` for a message.
4. After ``ParserError`` the parser must be discarded; a new connection needs a new parser.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import orjson

from tickertape.errors import TickertapeError

MAX_LINE: Final = 64 * 1024
"""Maximum bytes of a line other than INFO. Servers accept 4 096 by default (``max_control_line``), do not
announce the limit, and append the reply subject of a JetStream delivery to the line."""

MAX_INFO: Final = 1024 * 1024
"""Maximum bytes of an INFO line, which lists every server of a cluster."""

MAX_MESSAGE: Final = 64 * 1024 * 1024 + MAX_LINE
"""Maximum bytes of headers and body. The maximum ``max_payload`` of a server is 64 MiB. The configured value
limits neither messages that a stream stored before it was lowered, nor headers that the server adds."""


class ParserError(TickertapeError):
    """Data that violates the protocol; the text says how."""


class Message(NamedTuple):
    """MSG or HMSG operation.

    Attributes:
        sid: subscription id.
        subject: any bytes except space, tab, CR and LF.
        reply: the reply subject, as ``subject``; empty if there is none.
        headers: the header block as received; None for MSG.
        data: body of the message.
    """

    sid: int
    subject: bytes
    reply: bytes
    headers: bytes | None
    data: bytes


class Info(NamedTuple):
    """INFO operation; ``text`` is its JSON."""

    text: bytes

    def parse(self) -> dict[str, Any]:
        """Return the fields.

        Raises:
            ValueError: the text is not JSON.
            ParserError: it is not a JSON object.
        """
        fields = orjson.loads(self.text)
        if not isinstance(fields, dict):
            raise ParserError("INFO is not a JSON object")
        return fields


class ServerError(NamedTuple):
    """-ERR operation; ``text`` is its message, including the quotes."""

    text: bytes


class Ping(NamedTuple):
    """PING operation, which the client must answer."""


class Pong(NamedTuple):
    """PONG operation, the reply to a PING of the client."""


Operation = Message | Info | ServerError | Ping | Pong


class ProtocolParser:
    """Parser for the data of one connection after the handshake."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0  # minimum bytes in the buffer before parsing it again is useful

    def __repr__(self) -> str:
        return f"ProtocolParser({len(self._buffer)} bytes buffered, {self._needed} needed)"

    def receive_data(self, data: bytes) -> Iterator[Operation]:
        """Yield the operations that these bytes complete; the caller must exhaust the iterator.

        Raises:
            ParserError: the data violates the protocol or exceeds a limit.
        """
        if self._buffer:
            self._buffer += data
            # Parsing a large message again with each of its chunks would take quadratic time.
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._needed = 0
        # Operations are cut from ``data``, and the rest is stored in the buffer at the end;
        # therefore the iterator must be exhausted.
        position, size = 0, len(data)
        while position < size:
            end = data.find(b"\r\n", position)
            if end < 0:
                self._check_growth(data, position, size)
                break
            line = data[position:end]
            if line.startswith((b"MSG ", b"HMSG ")):
                sid, subject, reply, header_size, total = _message_line(line)
                start = end + 2
                stop = start + total
                if size < stop + 2:
                    # Relative to ``position``, because only the data after it is kept.
                    self._needed = stop + 2 - position
                    break
                if data[stop : stop + 2] != b"\r\n":
                    raise ParserError(f"message of {total} bytes is not terminated by CR LF")
                position = stop + 2
                fields: tuple[int, bytes, bytes, bytes | None, bytes]
                if header_size is None:
                    fields = (sid, subject, reply, None, data[start:stop])
                else:
                    body = start + header_size
                    fields = (sid, subject, reply, data[start:body], data[body:stop])
                # Takes half the time of Message(...), which matters at 100 000 messages per second.
                yield tuple.__new__(Message, fields)
            else:
                position = end + 2
                operation = _operation(line)
                if operation is not None:
                    yield operation
        if position < size:
            self._buffer += data[position:]

    def _check_growth(self, data: bytes, position: int, size: int) -> None:
        limit = MAX_INFO if data.startswith(b"INFO", position) else MAX_LINE
        if size - position > limit:
            raise ParserError(f"line exceeds {limit} bytes")


def _message_line(line: bytes) -> tuple[int, bytes, bytes, int | None, int]:
    """Parse ``MSG <subject> <sid> [reply] <size>``; HMSG has a ``<header size>`` before the size.

    Returns:
        subscription id, subject, reply subject, header size (None for MSG), and total size.
    """
    parts = line.split(b" ")
    numbers = 2 if parts[0] == b"HMSG" else 1
    count = len(parts) - numbers
    if count == 3:
        reply = b""
    elif count == 4:
        reply = parts[3]
    else:
        raise ParserError(f"message line with {len(parts)} fields")
    total, sid, header = parts[-1], parts[2], parts[-numbers]
    # int() alone would also accept signs, underscores and spaces.
    if not (total.isdigit() and sid.isdigit() and header.isdigit()) or len(total) > 9:
        raise ParserError("message line without valid numbers")
    size = int(total)
    if size > MAX_MESSAGE:
        raise ParserError(f"message of {size} bytes exceeds the maximum of {MAX_MESSAGE}")
    if numbers == 1:
        return int(sid), parts[1], reply, None, size
    if len(header) > 9 or int(header) > size:
        raise ParserError(f"headers exceed their message of {size} bytes")
    return int(sid), parts[1], reply, int(header), size


def _operation(line: bytes) -> Operation | None:
    """Parse a line that is not a message; return None for +OK."""
    name, _, rest = line.partition(b" ")
    match name:
        case b"PING":
            return Ping()
        case b"PONG":
            return Pong()
        case b"+OK":
            return None
        case b"-ERR":
            return ServerError(rest.strip())
        case b"INFO":
            return Info(rest.strip())
    raise ParserError(f"unknown operation {line[:20]!r}")


__all__ = [
    "MAX_INFO",
    "MAX_LINE",
    "MAX_MESSAGE",
    "Info",
    "Message",
    "Operation",
    "ParserError",
    "Ping",
    "Pong",
    "ProtocolParser",
    "ServerError",
]
