"""The publisher, the way for a program of ours or of others to get events into the stream.

Invariants:

1. ``publish`` returns only after JetStream said that the event is in the stream; else it raises.
2. What the relay would reject is refused here, before it is sent.
3. Memory is bounded: what waits for NATS has its limits, and one of three things comes of more.
4. What was dropped is counted, and told.

How events travel, are sent again and given up: ``tickertape.producers.sdk.in_flight``.
"""

import asyncio
import math
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from nats.aio.client import Client
from tickertape.contracts.decode import decode
from tickertape.contracts.events import STREAM_SUBJECTS, EventModel, Rejection, RejectionReason
from tickertape.producers.sdk import trace_context as trace
from tickertape.producers.sdk.capacity import MAX_PENDING, MAX_PENDING_BYTES, Capacity, WhenFull, check_limits
from tickertape.producers.sdk.connection import Connection
from tickertape.producers.sdk.errors import (
    InvalidEvent,
    PublishDropped,
    PublisherFull,
    PublishError,
    PublishRejected,
)
from tickertape.producers.sdk.in_flight import AckFuture, InFlight
from tickertape.producers.sdk.publish_ack import Ack

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.connect_errors import ConnectFailure
from tickertape.nats.credentials import Access

ACK_TIMEOUT: Final = 2.0
"""Seconds without an acknowledgement before an event is sent again."""

DEADLINE: Final = 30.0
"""Seconds before an event is given up; within the duplicate window of 2 minutes, so that resends are safe."""

FOREVER: Final = math.inf
"""A deadline for programs that would rather wait than lose an event."""

_CARRIED: Final = tuple(pattern.removesuffix(">") for pattern in STREAM_SUBJECTS)


class Publisher:
    """Publishes events to JetStream and waits for their acknowledgement.

    Entering starts to connect and returns at once; while NATS is away, events wait in the window until
    their deadline::

        async with Publisher("nats://127.0.0.1:4222", name="my_service") as publisher:
            await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

    Args:
        url: address of NATS; several with commas.
        access: credentials and certificates, as ``Access(user="x", password_file="/run/secrets/nats")``.
        prefix: the deployment's subject prefix.
        name: what NATS' monitoring shows, and the source of reports about drops.
        ack_timeout: seconds without an acknowledgement before an event is sent again.
        deadline: seconds before an event is given up; ``math.inf`` for never. Beyond the stream's duplicate
            window (2 minutes) a resend can make a second event.
        max_pending: events in flight, or waiting for NATS.
        max_pending_bytes: bytes of their payloads.
        when_full: what comes of one more: ``block`` lets its caller wait, ``drop_oldest`` gives up the oldest
            event in flight with ``PublishDropped``, ``raise`` refuses the new one with ``PublisherFull``.
        traceparent: asked at each event for the W3C trace context of now; by default OpenTelemetry's current
            span, if that is installed. A ``traceparent`` among an event's own headers goes first.
        client: a connection to use in place of an own one; the caller closes it.
        on_down: called with the failure when NATS is not reached, once per outage, and once more when its
            kind becomes one that waiting does not help.
        on_up: called at each connection.
    """

    def __init__(
        self,
        url: str = connection.DEFAULT_URL,
        *,
        access: Access | None = None,
        prefix: str = "",
        name: str = "tickertape-publisher",
        ack_timeout: float = ACK_TIMEOUT,
        deadline: float = DEADLINE,
        max_pending: int = MAX_PENDING,
        max_pending_bytes: int = MAX_PENDING_BYTES,
        when_full: WhenFull = "block",
        traceparent: trace.Provider | None = None,
        client: Client | None = None,
        on_down: Callable[[ConnectFailure], None] | None = None,
        on_up: Callable[[], None] | None = None,
    ) -> None:
        self._names = Names(prefix)
        check_limits(max_pending, max_pending_bytes, when_full)
        self._trace = traceparent or trace.current_span()
        self._in_flight = InFlight(
            Connection(url, access=access, name=name, client=client, on_down=on_down, on_up=on_up),
            self._names,
            Capacity(max_pending, max_pending_bytes),
            when_full=when_full,
            ack_timeout=ack_timeout,
            deadline=deadline,
        )

    def __repr__(self) -> str:
        return f"<Publisher {self._in_flight!r}>"

    async def __aenter__(self) -> Self:
        self._in_flight.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(None if kind is None else 0.0)

    @property
    def pending(self) -> int:
        """Events in flight, or waiting for NATS."""
        return len(self._in_flight)

    @property
    def dropped(self) -> int:
        """Events given up for newer ones since the publisher was made."""
        return self._in_flight.drops.count

    @property
    def online(self) -> bool:
        """True while NATS is reached."""
        return self._in_flight.online

    @property
    def closed(self) -> bool:
        """True when no more events are taken."""
        return self._in_flight.closed

    async def connected(self) -> Client:
        """Wait, for as long as it takes, until NATS was reached; return the connection.

        Raises:
            AccessError: a file with credentials or certificates cannot be used.
        """
        return await self._in_flight.connected()

    async def publish(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Ack:
        """Publish an event on the subject that its fields name; return when the stream has it.

        Args:
            event: one of ``tickertape.contracts.events``.
            msg_id: ``Nats-Msg-Id``; events of one id within 2 minutes are one event. Fresh by default.
            headers: more headers, such as ``Nats-Expected-Last-Subject-Sequence``.

        Raises:
            InvalidEvent: it breaks the contract; nothing was sent.
            PublishRejected: JetStream refused it.
            PublisherFull: there is no room, and the policy is ``raise``; nothing was sent.
            PublishDropped: it was given up for a newer one; the policy is ``drop_oldest``.
            PublishError: it was not acknowledged in time.
        """
        return await self.publish_raw(event.subject, event.encode(), msg_id=msg_id, headers=headers)

    async def publish_raw(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Ack:
        """Publish JSON text, such as an event of an own type; otherwise like ``publish``.

        Args:
            subject: without the deployment's prefix.
            payload: one UTF-8 JSON object.
        """
        return await (await self.submit(subject, payload, msg_id=msg_id, headers=headers))

    async def submit(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> AckFuture:
        """Like ``publish_raw``, but return as soon as the event is in the window.

        The caller awaits the future for the acknowledgement, or adds a callback; it fails with what
        ``publish`` raises. This is the way to publish many events in order at full speed.
        """
        return await self.send(subject, checked(subject, payload), msg_id=msg_id, headers=headers)

    async def send(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> AckFuture:
        """Like ``submit``, without validation: for what is no event, such as a checkpoint."""
        if headers is not None or self._trace is not None:
            headers = trace.carried(headers, self._trace)
        return await self._in_flight.send(
            self._names.subject(subject), payload, msg_id=msg_id, headers=headers
        )

    def count_dropped(self, number: int) -> None:
        """Count events that were dropped on their way to this publisher, to be told with its own."""
        self._in_flight.count_dropped(number)

    async def flush(self) -> None:
        """Wait until everything in flight is acknowledged or given up.

        Raises:
            PublishError: some of it failed; how much, and the first reason. Each publish raises its own, too.
        """
        tickets = self._in_flight.tickets()
        if not tickets:
            return
        await asyncio.wait(tickets)
        failures = [error for ticket in tickets if (error := _failure(ticket)) is not None]
        if failures:
            what = f"{len(failures)} of {len(tickets)} events failed, the first: {failures[0]}"
            raise PublishError("several subjects", what, "publish these again under the same msg_id")

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Take no more events, wait for those in flight, and close the connection.

        Args:
            timeout: seconds to wait for acknowledgements; None waits until each event's deadline. What is
                still in flight then fails with ``PublishError``.
        """
        await self._in_flight.close(timeout)


def checked(subject: str, payload: bytes) -> bytes:
    """Return the payload as it is to travel: a level's spelling is rewritten, else nothing.

    Raises:
        InvalidEvent: it breaks the contract, or no stream of events carries the subject.
    """
    event = decode(subject, payload)
    if isinstance(event, Rejection):
        raise InvalidEvent(subject, event)
    tokens = subject.split(".")
    if not all(tokens) or any(mark in subject for mark in "*> \t\r\n"):
        raise InvalidEvent(subject, Rejection(RejectionReason.BAD_SUBJECT, "it is no plain subject"))
    if not subject.startswith(_CARRIED):
        carried = ", ".join(STREAM_SUBJECTS)
        raise InvalidEvent(
            subject, Rejection(RejectionReason.BAD_SUBJECT, f"the stream carries {carried} only")
        )
    return event.payload


def _failure(ticket: AckFuture) -> BaseException | None:
    return None if ticket.cancelled() else ticket.exception()


__all__ = [
    "FOREVER",
    "Ack",
    "AckFuture",
    "InvalidEvent",
    "PublishDropped",
    "PublishError",
    "PublishRejected",
    "Publisher",
    "PublisherFull",
    "checked",
]
