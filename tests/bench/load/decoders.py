"""Decoders of the messages of a sampled client: send time of each event, and number of dropped events.

Every event of the benchmark carries ``metadata.sent``: nanoseconds of the monotonic clock, which all
processes of a Linux machine share.
"""

from typing import Final, Protocol

import orjson

NATS_CONNECT: Final = (
    b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"lang":"bench","version":"1"}\r\n'
)
NATS_PONG: Final = b"PONG\r\n"


class DecodeError(Exception):
    """Violation of a peer's protocol."""


class Decoder(Protocol):
    """Decoder of the messages of one client.

    Attributes:
        lost: events that the relay reported as dropped.
        reply: bytes to be sent back immediately, in the peer's protocol; the caller sends and clears them.
    """

    lost: int
    reply: bytes

    def sent_times(self, message: bytes) -> list[int]:
        """Return the send time of each event in a message, in order."""
        ...


class TextDecoder:
    """Decoder of JSON in text frames: the relay's ``events`` messages, or one bare event per frame."""

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
            raise DecodeError(f"the relay sent {message[:300].decode(errors='replace')}")
        return []


class NatsDecoder:
    """Decoder of the NATS protocol in binary frames, whose boundaries are not those of the protocol."""

    def __init__(self) -> None:
        self.lost = 0
        self.reply = b""
        self._buffer = b""

    def sent_times(self, message: bytes) -> list[int]:
        data = self._buffer + message if self._buffer else message
        offset = 0
        times: list[int] = []
        while (end := data.find(b"\r\n", offset)) >= 0:
            line = data[offset:end]
            if line.startswith(b"MSG "):
                body = end + 2
                size = int(line.rpartition(b" ")[2])
                if len(data) < body + size + 2:
                    break
                times.append(orjson.loads(data[body : body + size])["metadata"]["sent"])
                offset = body + size + 2
                continue
            if line == b"PING":
                self.reply += NATS_PONG
            elif line.startswith(b"-ERR"):
                raise DecodeError(f"nats-server sent {line.decode(errors='replace')}")
            offset = end + 2
        self._buffer = data[offset:]
        return times
