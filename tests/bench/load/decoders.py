"""What a sampled client received, read to the events in it: when each was sent, and how many were told lost.

Every event of the benchmark carries ``metadata.sent`` (nanoseconds of the monotonic clock, which processes
on one Linux machine share).
"""

from typing import Final, Protocol

import orjson

NATS_CONNECT: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"lang":"bench","version":"1"}\r\n'
)
NATS_PONG: Final = b"PONG\r\n"


class DecodeError(Exception):
    """A peer sent what its protocol does not allow."""


class Decoder(Protocol):
    """Finds the events in the messages of one client.

    Attributes:
        lost: events that the relay said would not come.
        reply: what has to be answered at once, in the peer's protocol; taken and cleared by the caller.
    """

    lost: int
    reply: bytes

    def sent_times(self, message: bytes) -> list[int]:
        """When each event in a message was sent, in its order."""
        ...


class TextDecoder:
    """JSON in text frames: our relay's ``events``, or one bare event in each frame."""

    def __init__(self) -> None:
        self.lost = 0
        self.reply = b""

    def sent_times(self, message: bytes) -> list[int]:
        body = orjson.loads(message)
        kind = body.get("type")
        if kind == "events":
            return [item["event"]["metadata"]["sent"] for item in body["events"]]
        if kind is None:
            return [body["metadata"]["sent"]]
        if kind == "gap":
            self.lost += body["dropped"] or 0
        elif kind in ("error", "bye"):
            raise DecodeError(f"the relay says {message[:300].decode(errors='replace')}")
        return []


class NatsDecoder:
    """The NATS protocol, as nats-server speaks it in binary frames; a message may end anywhere in it."""

    def __init__(self) -> None:
        self.lost = 0
        self.reply = b""
        self._buffer = b""

    def sent_times(self, message: bytes) -> list[int]:
        data = self._buffer + message if self._buffer else message
        place = 0
        times: list[int] = []
        while (end := data.find(b"\r\n", place)) >= 0:
            line = data[place:end]
            if line.startswith(b"MSG "):
                body = end + 2
                size = int(line.rpartition(b" ")[2])
                if len(data) < body + size + 2:
                    break
                times.append(orjson.loads(data[body : body + size])["metadata"]["sent"])
                place = body + size + 2
                continue
            if line == b"PING":
                self.reply += NATS_PONG
            elif line.startswith(b"-ERR"):
                raise DecodeError(f"nats-server says {line.decode(errors='replace')}")
            place = end + 2
        self._buffer = data[place:]
        return times
