"""A client of the hub without a socket: it records what it is sent, and parses it as a browser would.

Invariants:

1. Frames are parsed by websockets' client parser, and messages by the contract's models: both reject what a
   real client would reject.
2. A frame after ``close`` fails the test immediately.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import orjson
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Event
from tickertape.contracts.messages import (
    MAX_MESSAGE_BYTES,
    Bye,
    Error,
    Events,
    Gap,
    ProtocolError,
    RelayMessage,
    Snapshot,
    relay_message,
)
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.ingest.deleted_sequences import Range
from tickertape.relay.ingest.warmup import Tail
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN, Frames
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

M = TypeVar("M")
NOW = 1_750_000_000.0

_TIMED = re.compile(rb'("[0-9a-z]{1,16}-[0-9]+)-[0-9]+(?=")')


def texts(data: Any, encoding: Frames = PLAIN) -> list[bytes]:
    """Return the text messages in bytes from a server; compressed ones are decoded without context.

    Raises:
        websockets.exceptions.ProtocolError: the bytes are not complete, unmasked, unfragmented text frames.
    """
    client = Protocol(Side.CLIENT, state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
    if encoding is DEFLATED:
        client.extensions = [PerMessageDeflate(True, True, 15, 15)]
    client.receive_data(data)
    if client.parser_exc is not None:
        raise client.parser_exc
    found = []
    for frame in client.events_received():
        assert isinstance(frame, Frame)
        assert frame.opcode is Opcode.TEXT
        assert frame.fin
        found.append(bytes(frame.data))
    return found


def untimed(text: bytes) -> bytes:
    """Return a message without the times in its cursors, which ``test_cursor_times.py`` covers."""
    return _TIMED.sub(rb"\1", text)


class FakeLink:
    """Link that records what a session writes.

    Args:
        encoding: encoding of its messages.

    Attributes:
        sent: the object of every write.
        closed: code and reason once the relay has closed it.
        aborted: whether it was aborted.
        grants: grants with which it was admitted.
        capacity: whether its subject may have one more connection.
        on_send: called after each write; tests use it to fill a socket.
    """

    def __init__(self, encoding: Frames = PLAIN) -> None:
        self.encoding = encoding
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.aborted = False
        self.grants: list[Grant] = []
        self.capacity = True
        self.on_send: Callable[[], None] | None = None
        self._read = 0

    def send(self, data: bytes) -> None:
        """Accept complete frames."""
        assert self.closed is None, "a write after the close"
        self.sent.append(data)
        if self.on_send is not None:
            self.on_send()

    def admit(self, grant: Grant) -> bool:
        """Admit the connection for its subject."""
        self.grants.append(grant)
        return self.capacity

    def close(self, code: int, reason: str) -> None:
        """Record the close."""
        assert self.closed is None, "closed twice"
        self.closed = (code, reason)

    def abort(self) -> None:
        """Record the abort."""
        self.aborted = True

    def read(self) -> list[RelayMessage]:
        """Return the messages since the last call."""
        fresh, self._read = self.sent[self._read :], len(self.sent)
        found = [text for data in fresh for text in texts(data, self.encoding)]
        return [relay_message.validate_json(untimed(text)) for text in found]

    def kinds(self) -> list[str]:
        """Return the types of the messages since the last call."""
        return [message.type for message in self.read()]


def only(messages: list[RelayMessage], kind: type[M]) -> list[M]:
    """Return the messages of one type."""
    return [message for message in messages if isinstance(message, kind)]


def seqs(messages: list[RelayMessage]) -> list[int]:
    """Return the sequences of all delivered events in order of arrival, without snapshots."""
    return [item.seq for message in only(messages, Events) for item in message.events]


def shown(messages: list[RelayMessage]) -> list[int]:
    """Return the sequences of all events in snapshots."""
    return [item.seq for message in only(messages, Snapshot) for item in message.events]


def gaps(messages: list[RelayMessage]) -> list[tuple[str, str, int | None, str]]:
    """Return the gaps as (from, to, dropped, reason)."""
    return [(gap.from_, gap.to, gap.dropped, gap.reason) for gap in only(messages, Gap)]


def ended(link: FakeLink, code: CloseCode, error: ErrorCode, ref: str | None = None) -> bool:
    """Return whether a client was disconnected with this code: ``error`` and ``bye`` are its last
    messages.
    """
    *_, last, bye = link.read()
    assert isinstance(last, Error)
    assert isinstance(bye, Bye)
    assert bye.reason == last.message
    assert link.closed == (code, bye.reason)
    return (bye.code, last.code, last.ref) == (code, error, ref)


class Stage:
    """A hub with virtual time, a stream that is published by hand, and clients.

    Args:
        head: initial head of the stream.
        stream: whether the stream supports replay and position lookups; ``read`` and ``asked`` serve them.
        tokens: the grant of each token, or the reason for its rejection; None if tokens are not required.
        report: receives internal errors; without it they fail the test.
        settings: fields of ``HubSettings``; the rate is unlimited by default.
    """

    def __init__(
        self,
        head: int = 0,
        *,
        stream: bool = False,
        tokens: Mapping[str, Grant | ProtocolError] | None = None,
        report: Callable[[str, Exception], None] | None = None,
        **settings: Any,
    ) -> None:
        self.now = NOW
        self.skew = 0.0
        self.woken = 0
        self.fetched = 0
        self.requested: list[Session] = []
        self.first = 0  # the stream has deleted everything up to this sequence
        self.stored: list[tuple[int, str, Event, int]] = []
        self.hub = Hub(
            HubSettings(**{"rate": 0.0, **settings}),
            self._wake,
            self._fetch if stream else None,
            self.requested.append if stream else None,
            None if tokens is None else self._verify,
            **({} if report is None else {"report": report}),
        )
        self._tokens = tokens or {}
        self.hub.begin("e", head)
        self.hub.sessions.set_upstream(True, self.now)

    def warm(
        self, events: Iterable[tuple[int, str, Event, int]], floor: int, missing: Iterable[Range] = ()
    ) -> int:
        """Fill the log backwards, as a relay does after its start."""
        tail = Tail(self.hub)
        for event in events:
            tail.add(*event)
        return tail.finish(floor, missing)

    def _wake(self) -> None:
        self.woken += 1

    def _fetch(self) -> None:
        self.fetched += 1

    def _verify(self, token: str) -> Grant:
        found = self._tokens[token]
        if isinstance(found, ProtocolError):
            raise found
        return found

    def read(self, times: int = 1) -> list[int]:
        """Read the requested chunks from the stream; return their numbers."""
        found: list[int] = []
        while len(found) < times and (expected := self.hub.fanout.replay_cache.next_request()) is not None:
            chunk = EventLog(CHUNK_SEQUENCES, 1 << 40)
            chunk.reset(max(expected.first - 1, self.first))
            for seq, subject, event, stored_ns in self.stored:
                if chunk.floor < seq <= expected.last:
                    chunk.append(self.hub.make_record(seq, subject, event, stored_ns))
            chunk.advance(min(expected.last, self.hub.log.head))
            self.hub.fanout.add_chunk(expected, chunk)
            found.append(expected.number)
        return found

    def log(self, seq: int, level: str = "info", source: str = "x", size: int = 0) -> None:
        """Publish a log line."""
        subject = f"log.{level}.{source}"
        self.publish(seq, subject, log_event(level, source, f"line {seq} " + "x" * size))

    def status(self, seq: int, gateway: str = "a", status: str = "HEALTHY") -> None:
        """Publish a gateway's status."""
        self.publish(seq, f"gateway.status.ctp.{gateway}", status_event(gateway, status))

    def publish(self, seq: int, subject: str, event: Event) -> None:
        """Publish an event that is stored and received now."""
        stored_ns = nanoseconds(self.now)
        self.stored.append((seq, subject, event, stored_ns))
        self.hub.publish(seq, subject, event, stored_ns, self.now)

    def open(
        self,
        request: Request | None = None,
        encoding: Frames = PLAIN,
        grant: Grant | None = EVERYTHING,
    ) -> tuple[FakeLink, Session]:
        """Connect a client."""
        link = FakeLink(encoding)
        session = self.hub.sessions.open(link, request or Request(), self.now, grant)
        return link, session

    def follow(
        self,
        request: Request | None = None,
        encoding: Frames = PLAIN,
        grant: Grant | None = EVERYTHING,
    ) -> tuple[FakeLink, Session]:
        """Connect a client, and read its first messages."""
        link, session = self.open(request, encoding, grant)
        link.read()
        return link, session

    def send_message(self, session: Session, **message: Any) -> None:
        """Send a message from a client."""
        self.hub.sessions.receive(session, orjson.dumps(message), self.now)

    def tick(self, after: float = 0.0) -> None:
        """Advance the clock, and do what is due."""
        self.now += after
        self.hub.tick(self.now, self.skew)

    def flush(self, after: float = 0.0) -> None:
        """Advance the clock, and flush."""
        self.now += after
        self.hub.fanout.flush(self.now)

    def settle(self) -> None:
        """Flush until no further flush is requested."""
        for _ in range(10_000):
            woken = self.woken
            self.flush()
            if self.woken == woken:
                return
        raise AssertionError("the hub keeps requesting flushes")


def nanoseconds(moment: float) -> int:
    """Convert UNIX seconds to nanoseconds."""
    return round(moment * 1e9)


def log_event(level: str = "info", source: str = "x", message: str = "hello") -> Event:
    """Return a valid log line."""
    return _decoded(
        f"log.{level}.{source}",
        event_type="system_log",
        level=level.upper(),
        message=message,
        source=source,
        metadata={},
    )


def status_event(gateway: str = "a", status: str = "HEALTHY") -> Event:
    """Return a valid status of a gateway."""
    return _decoded(
        f"gateway.status.ctp.{gateway}",
        event_type="gateway_status_change",
        gateway_id=gateway,
        gateway_type="ctp",
        previous_status="UNKNOWN",
        current_status=status,
        metadata={},
    )


def _decoded(subject: str, **fields: Any) -> Event:
    event = decode(subject, orjson.dumps({"timestamp": "2025-06-24T10:30:45.123Z", **fields}))
    assert isinstance(event, Event), event
    return event
