"""Publishes what no client library accepts, over a plain socket: any bytes in subjects and headers.

Invariants:

1. ``flush`` returns when the stream has stored everything published before it, or raises.
2. The same seed produces the same messages.
"""

import random
import socket
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import orjson
from tickertape.contracts.events import SystemLog

PATIENCE: Final = 30.0
"""Seconds to wait for a response; only a failing test waits this long."""

BATCH: Final = 1_000
"""Messages between two acknowledgements: a server drops what exceeds 10 000 unstored messages of a stream."""

STORED: Final = bytes(byte for byte in range(256) if byte not in b" \t\r\n")
"""Bytes that a nats-server stores in a subject; found by trying all 256."""

SOURCE: Final = "poison"
SUBJECT_OF_EVENT: Final = f"log.info.{SOURCE}".encode()

BLOCKS: Final = (
    b"",
    b"x",
    b"\r\n",
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0\r\n\r\n",
    b"NATS/1.0\r\n\r\n\r\n",
    b"NATS/1.0\r\nA: b",
    b"NATS/1.0\r\nA: b\r\n",
    b"NATS/1.0\r\nA: \xff\r\n\r\n",
    b"NATS/1.0\r\n\xff: b\r\n\r\n",
    b"NATS/1.0\r\n: b\r\n\r\n",
    b"NATS/1.0\r\nA: b\nC: d\r\n\r\n",
    b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0\r\nStatus: 503\r\n\r\n",
    b"NATS/1.0\r\nStatus: 100\r\nDescription: Idle Heartbeat\r\nNats-Last-Consumer: 9999999\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: x\r\nNats-Stream: y\r\nNats-Subject: \xff\r\n\r\n",
    b"NATS/1.0\r\nNats-Sequence: 1",
)
"""Header blocks that are truncated, empty, forged or contain other bytes."""

SUBJECTS: Final = (
    b"\xff",
    b"\x0b",
    b"\x0c",
    b"\x00",
    b"\x1b[2J",
    b"a\x7fb",
    b"\xed\xa0\x80",  # a lone surrogate, encoded as if it were UTF-8
    "\u2028".encode(),
    "\x85".encode(),
    b"*",
    b">",
    b"\xff" * 3_000,
)
"""Last tokens that make a subject illegal."""


class Message(NamedTuple):
    """A message to publish; without headers if ``block`` is None."""

    subject: bytes
    data: bytes
    block: bytes | None = None

    def wire(self, reply: bytes = b"") -> bytes:
        """Return the bytes that a client sends for it."""
        answer = b" " + reply if reply else b""
        if self.block is None:
            return b"PUB %b%b %d\r\n%b\r\n" % (self.subject, answer, len(self.data), self.data)
        sizes = (len(self.block), len(self.block) + len(self.data))
        return b"HPUB %b%b %d %d\r\n%b%b\r\n" % (self.subject, answer, *sizes, self.block, self.data)


class RawPublisher:
    """NATS client without any validation; a context manager.

    Args:
        url: URL of a server without credentials.
    """

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        # In pedantic mode, which is the server's default, wildcards would be rejected.
        options = b'{"headers":true,"no_responders":true,"verbose":false,"pedantic":false}'
        self._socket.sendall(b"CONNECT %b\r\nSUB ack 1\r\n" % options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def publish(self, *messages: Message) -> None:
        """Publish messages to a stream, in order, and wait until all are stored."""
        for start in range(0, len(messages), BATCH):
            some = messages[start : start + BATCH]
            self._socket.sendall(b"".join(one.wire() for one in some[:-1]) + some[-1].wire(b"ack"))
            answer = self._answer()
            if "seq" not in answer:
                raise RuntimeError(f"not stored: {answer}")

    def send(self, *messages: Message, reply: bytes = b"") -> None:
        """Publish messages to subscribers, and wait until the server has processed them."""
        self._socket.sendall(b"".join(one.wire(reply) for one in messages) + b"PING\r\n")
        while (line := self._line()) != b"PONG\r\n":
            if line.startswith(b"-ERR"):
                raise RuntimeError(line.decode(errors="replace"))

    def _line(self) -> bytes:
        line = self._lines.readline()
        if not line:
            raise ConnectionResetError("the server has ended the connection")
        return line

    def _answer(self) -> dict[str, object]:
        while True:
            line = self._line()
            if line.startswith(b"-ERR"):
                raise RuntimeError(line.decode(errors="replace"))
            if line.startswith((b"MSG ", b"HMSG ")):
                body = self._lines.read(int(line.rsplit(b" ", 1)[1]) + 2)
                found = orjson.loads(body[:-2]) if line.startswith(b"MSG ") else {"error": repr(body)}
                assert isinstance(found, dict)
                return found


def event(number: int) -> bytes:
    """Return a valid event for ``PLACE``."""
    return SystemLog(level="INFO", message=str(number), source=SOURCE).encode()


def block(dice: random.Random) -> bytes | None:
    """Return a header block: none, one of ``BLOCKS``, random bytes, or a valid one with some bytes
    changed.
    """
    kind = dice.randrange(4)
    if kind == 0:
        return None
    if kind == 1:
        return dice.choice(BLOCKS)
    if kind == 2:
        return dice.randbytes(dice.randrange(60))
    found = bytearray(b"NATS/1.0\r\nNats-Trace: 1\r\nOther: value\r\n\r\n")
    for _ in range(dice.randrange(4)):
        found[dice.randrange(len(found))] = dice.randrange(256)
    return bytes(found)


def subject(dice: random.Random, under: bytes = b"log.info.") -> bytes:
    """Return a subject that is illegal, or that does not match ``event``."""
    if dice.randrange(4) == 0:
        return under + dice.choice(SUBJECTS)
    token = bytes(dice.choices(STORED.replace(b".", b""), k=dice.randrange(1, 30)))
    return under + token if under + token != SUBJECT_OF_EVENT else under + b"\xff"


def mixed(count: int, seed: int) -> tuple[list[Message], int]:
    """Return messages of which about half are valid events, numbered from 0, and the number of those."""
    dice = random.Random(seed)
    found: list[Message] = []
    valid = 0
    while len(found) < count:
        if dice.randrange(2):
            found.append(Message(SUBJECT_OF_EVENT, event(valid), block(dice)))
            valid += 1
        else:
            data = event(-1) if dice.randrange(4) else dice.randbytes(dice.randrange(100))
            found.append(Message(subject(dice), data, block(dice)))
    return found, valid
