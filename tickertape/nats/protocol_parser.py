"""The NATS client protocol, as a server speaks it: bytes in, operations out, without I/O.

Invariants:

1. Every operation is handed out once, in order, however the bytes are cut into pieces; what was complete
   before an error is handed out before it is raised.
2. A subject and a reply subject may hold any byte but space, tab, CR and LF, since a server stores and
   forwards all others: lines are split on single spaces, and nothing is decoded here.
3. What is kept is bounded: by ``MAX_LINE`` or ``MAX_INFO`` for a line, by ``MAX_MESSAGE`` for a message.
4. After ``ParserError`` the parser is of no use; the connection has to be made again with a new one.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tickertape.errors import TickertapeError

MAX_LINE: Final = 64 * 1024
"""Bytes of a line other than INFO. A server takes lines of 4 096 unless its ``max_control_line`` says
otherwise, does not announce that, and adds the reply subject of a JetStream delivery to what it took."""

MAX_INFO: Final = 1024 * 1024
"""Bytes of an INFO line, which names every server of a cluster."""

MAX_MESSAGE: Final = 64 * 1024 * 1024 + MAX_LINE
"""Bytes of headers and body. A server's ``max_payload`` is at most 64 MiB; it bounds what is published now,
not what a stream keeps from the time before it was lowered, nor the headers that the server adds."""


class ParserError(TickertapeError):
    """The bytes are not the protocol; the text says what was expected."""


class Message(NamedTuple):
    """MSG or HMSG.

    Attributes:
        sid: number of the subscription.
        subject: any bytes but space, tab, CR and LF.
        reply: likewise; empty when there is none.
        headers: the header block as it came; None for MSG.
        data: the body.
    """

    sid: int
    subject: bytes
    reply: bytes
    headers: bytes | None
    data: bytes


class Info(NamedTuple):
    """INFO; ``text`` is the JSON."""

    text: bytes


class ServerError(NamedTuple):
    """-ERR; ``text`` is what stands behind it, with its quotes."""

    text: bytes


class Ping(NamedTuple):
    """PING, to be answered."""


class Pong(NamedTuple):
    """PONG, the answer to a PING of ours."""


Operation = Message | Info | ServerError | Ping | Pong


class ProtocolParser:
    """Reads what comes over one connection, from its first byte behind the handshake."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._needed = 0  # bytes below which another look at what is kept is of no use

    def __repr__(self) -> str:
        return f"ProtocolParser({len(self._kept)} bytes kept, {self._needed} needed)"

    def receive_data(self, data: bytes) -> Iterator[Operation]:
        """Yield the operations that are complete with these bytes; each call has to be read to its end.

        Raises:
            ParserError: the bytes are not the protocol, or more than a bound allows.
        """
        if self._kept:
            self._kept += data
            if len(self._kept) < self._needed:
                return
            data = bytes(self._kept)
            self._kept.clear()
        self._needed = 0
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
                    self._needed = stop + 2 - position
                    break
                if data[stop : stop + 2] != b"\r\n":
                    raise ParserError(f"a message of {total} bytes is not followed by CR LF")
                position = stop + 2
                fields: tuple[int, bytes, bytes, bytes | None, bytes]
                if header_size is None:
                    fields = (sid, subject, reply, None, data[start:stop])
                else:
                    body = start + header_size
                    fields = (sid, subject, reply, data[start:body], data[body:stop])
                # Half the time of Message(...), which matters at 100 000 a second.
                yield tuple.__new__(Message, fields)
            else:
                position = end + 2
                operation = _operation(line)
                if operation is not None:
                    yield operation
        if position < size:
            self._kept += data[position:]

    def _check_growth(self, data: bytes, position: int, size: int) -> None:
        limit = MAX_INFO if data.startswith(b"INFO", position) else MAX_LINE
        if size - position > limit:
            raise ParserError(f"a line of more than {limit} bytes")


def _message_line(line: bytes) -> tuple[int, bytes, bytes, int | None, int]:
    """Read ``MSG <subject> <sid> [reply] <size>``; HMSG has a ``<header size>`` before the size."""
    parts = line.split(b" ")
    numbers = 2 if parts[0] == b"HMSG" else 1
    given = len(parts) - numbers
    if given == 3:
        reply = b""
    elif given == 4:
        reply = parts[3]
    else:
        raise ParserError(f"a message line with {len(parts)} parts")
    total, sid, header = parts[-1], parts[2], parts[-numbers]
    # int() alone would take signs, underscores and spaces, too.
    if not (total.isdigit() and sid.isdigit() and header.isdigit()) or len(total) > 9:
        raise ParserError("a message line without its numbers")
    size = int(total)
    if size > MAX_MESSAGE:
        raise ParserError(f"a message of {size} bytes; at most {MAX_MESSAGE}")
    if numbers == 1:
        return int(sid), parts[1], reply, None, size
    if len(header) > 9 or int(header) > size:
        raise ParserError(f"headers longer than their message of {size} bytes")
    return int(sid), parts[1], reply, int(header), size


def _operation(line: bytes) -> Operation | None:
    """Read a line that is not of a message; None for +OK, of which nothing comes."""
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
    raise ParserError(f"an unknown operation {line[:20]!r}")


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
