"""Frames that a client sends: parsed in small chunks, counted by the message rate, and held while paused.

Invariant: frames are returned once and in order, each reply of the protocol behind the frame that it answers.
"""

from collections.abc import Callable
from typing import Any, Final

from tickertape.relay.transport.message_rate import LARGE, IncompleteMessages, MessageRate
from tickertape.relay.transport.websocket.protocol import WebSocket, is_large_fragment
from websockets.frames import Frame

PARSE_CHUNK: Final = 512
"""Bytes to parse between two checks of the message rate: one read may contain forty thousand pings."""


class FrameReader:
    """Reader of one client's frames.

    Args:
        conn: protocol that parses them.

    Attributes:
        held: frames, and replies of the protocol, that are parsed but not handled yet.
    """

    __slots__ = ("_conn", "_incomplete", "_input", "_rate", "held")

    def __init__(self, conn: WebSocket) -> None:
        self.held: list[Any] = []
        self._conn = conn
        self._input: memoryview | bytes = b""  # received, but not parsed yet
        self._incomplete = 0  # bytes of an incomplete message that are recorded
        self._rate = MessageRate()

    @property
    def has_input(self) -> bool:
        """Whether bytes wait to be parsed."""
        return bool(self._input)

    @property
    def frames_this_second(self) -> int:
        """Number of frames that the client has sent in this second."""
        return self._rate.frames

    def receive(self, data: bytes) -> None:
        """Add bytes of the client."""
        # Bytes that wait already are few: reading is paused.
        self._input = bytes(self._input) + data if self._input else data

    def parse(self, now: float) -> tuple[list[Any], list[bytes]]:
        """Parse the next chunk, and count its frames.

        Args:
            now: seconds.

        Returns:
            The frames and replies in order, and the reply to a frame that violates the protocol, to be sent
            after all others.
        """
        data = memoryview(self._input)
        self._input = data[PARSE_CHUNK:]
        chunk = bytes(data[:PARSE_CHUNK])
        self._conn.receive_data(chunk)
        events: list[Any] = self._conn.events_received()
        counted = payload_bytes = 0
        for event in events:
            if isinstance(event, Frame):
                payload_bytes += len(event.data)
                counted += not is_large_fragment(event)
        self._rate.record_read(now, len(chunk), counted, payload_bytes)
        return events, self._conn.data_to_send()

    def hold(self, events: list[Any]) -> None:
        """Keep frames and replies that have to wait for the client to read, ahead of those kept before."""
        self.held = [*events, *self.held]

    def take_held(self) -> list[Any]:
        """Return the frames and replies that waited."""
        held, self.held = self.held, []
        return held

    def record_incomplete(
        self, messages: IncompleteMessages, end: Callable[[], None], *, closing: bool
    ) -> None:
        """Record the bytes of an incomplete message; small ones do not count.

        Args:
            messages: incomplete messages of all clients.
            end: closes the connection of the client, and identifies it.
            closing: whether the connection is closing, and nothing more is parsed.
        """
        size = self._conn.incomplete
        if closing or size < LARGE:
            size = 0
        if size != self._incomplete:
            self._incomplete = size
            messages.record(end, size)

    def discard_incomplete(self) -> None:
        """Discard an incomplete message; nothing may be parsed after that."""
        self._incomplete = 0
        self._conn.discard_incomplete()
