"""Publisher of events to the stream, for programs with asyncio.

Invariants:

1. ``publish`` returns only after JetStream acknowledged the event; otherwise it raises.
2. An event that the relay would reject raises ``InvalidEvent`` and is not sent.
3. Memory is bounded: ``max_pending`` and ``max_pending_bytes`` limit what is in flight; beyond that,
   ``when_full`` applies.
4. Dropped events are counted and reported.

Sending, resending and giving up are in ``tickertape.producers.sdk.in_flight``.
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
    PublishDenied,
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
"""Seconds without an acknowledgement before an event is resent."""

DEADLINE: Final = 30.0
"""Seconds before an event is given up; below the duplicate window of 2 minutes, so that resends are safe."""

FOREVER: Final = math.inf
"""Deadline for programs that would rather wait than lose an event."""

_STREAM_PREFIXES: Final = tuple(pattern.removesuffix(">") for pattern in STREAM_SUBJECTS)


class Publisher:
    """Publisher of events to JetStream that waits for their acknowledgement.

    Entering the context starts to connect in the background. While NATS is unreachable, events wait until
    their deadline::

        async with Publisher("nats://127.0.0.1:4222", name="my_service") as publisher:
            await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

    Args:
        url: address of NATS; several are separated by commas.
        access: credentials and certificates, as in ``Access(user="x", password_file="/run/secrets/nats")``.
        prefix: the deployment's subject prefix.
        name: connection name in NATS' monitoring, and the source of reports about dropped events.
        ack_timeout: seconds without an acknowledgement before an event is resent.
        deadline: seconds before an event is given up; ``math.inf`` for never. A deadline beyond the stream's
            duplicate window (2 minutes) allows a resend to store a second event.
        max_pending: maximum number of events in flight, including those that wait for NATS.
        max_pending_bytes: maximum total size of their payloads in bytes.
        when_full: what happens to an event beyond these limits: ``block`` makes its caller wait,
            ``drop_oldest`` fails the oldest event in flight with ``PublishDropped``, ``raise`` rejects the
            new one with ``PublisherFull``.
        traceparent: called for each event, returns its W3C trace context; by default OpenTelemetry's current
            span, if OpenTelemetry is installed. A ``traceparent`` in an event's own headers takes precedence.
        client: existing connection to use; the caller closes it.
        on_down: called with the failure when NATS becomes unreachable: once per outage, and once more if the
            failure turns into one that a retry cannot fix.
        on_up: called on each connect and reconnect.
        on_stall: called with a line when NATS is connected but has stored nothing for several seconds, which
            names the cause, and with another line when it stores events again; None logs them.
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
        on_stall: Callable[[str], None] | None = None,
    ) -> None:
        self._names = Names(prefix)
        check_limits(max_pending, max_pending_bytes, when_full)
        self._trace = traceparent or trace.opentelemetry_provider()
        self._in_flight = InFlight(
            Connection(url, access=access, name=name, client=client, on_down=on_down, on_up=on_up),
            self._names,
            Capacity(max_pending, max_pending_bytes),
            when_full=when_full,
            ack_timeout=ack_timeout,
            deadline=deadline,
            on_stall=on_stall,
        )

    def __repr__(self) -> str:
        return f"<Publisher {self._in_flight!r}>"

    async def __aenter__(self) -> Self:
        self._in_flight.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # After an exception, waiting for acknowledgements would only delay it.
        await self.close(None if kind is None else 0.0)

    @property
    def pending(self) -> int:
        """Number of events in flight, including those that wait for NATS."""
        return len(self._in_flight)

    @property
    def dropped(self) -> int:
        """Number of events dropped to admit newer ones since the publisher was created."""
        return self._in_flight.drops.count

    @property
    def online(self) -> bool:
        """Whether NATS is connected."""
        return self._in_flight.online

    @property
    def stalled(self) -> bool:
        """Whether NATS is connected but stores no events, as when its disk is full."""
        return self._in_flight.stalls.stalled

    @property
    def closed(self) -> bool:
        """Whether the publisher is closed and rejects new events."""
        return self._in_flight.closed

    async def connected(self) -> Client:
        """Wait, for as long as it takes, for the first connection; return its client.

        Raises:
            AccessError: a file with credentials or certificates cannot be used.
        """
        return await self._in_flight.connected()

    async def publish(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Ack:
        """Publish an event on the subject derived from its fields; return when it is stored in the stream.

        Args:
            event: an event of ``tickertape.contracts.events``, or of a custom model.
            msg_id: ``Nats-Msg-Id``; the stream stores one event per id within 2 minutes. Unique by default.
            headers: additional headers, such as ``Nats-Expected-Last-Subject-Sequence``.

        Raises:
            InvalidEvent: it violates the contract; it was not sent.
            PublishRejected: JetStream rejected it.
            PublishDenied: this NATS user may not publish it, or may not receive its acknowledgement.
            PublisherFull: the publisher is at capacity, and the policy is ``raise``; it was not sent.
            PublishDropped: it was dropped to admit a newer one; the policy is ``drop_oldest``.
            PublishError: it was not acknowledged in time, or the publisher is closed.
        """
        return await self.publish_raw(event.subject, encoded(event), msg_id=msg_id, headers=headers)

    async def publish_raw(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Ack:
        """Publish JSON text, such as an event without a model; otherwise like ``publish``.

        Args:
            subject: subject, without the deployment's prefix.
            payload: a JSON object in UTF-8.
            msg_id: as for ``publish``.
            headers: as for ``publish``.
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
        """Send an event like ``publish_raw``, but return a future without waiting for the acknowledgement.

        Await the future, or add a callback to it; it fails with the errors that ``publish`` raises. Use this
        to publish many events at full speed, in the order of the calls. An event that has to be sent again
        may be stored after later ones; await each acknowledgement if the order must not change even then.
        """
        return await self.send(subject, validated(subject, payload), msg_id=msg_id, headers=headers)

    async def send(
        self,
        subject: str,
        payload: bytes,
        *,
        msg_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> AckFuture:
        """Send a message like ``submit``, without validation: for messages that are not events."""
        if headers is not None or self._trace is not None:
            headers = trace.with_traceparent(headers, self._trace)
        return await self._in_flight.send(
            self._names.subject(subject), payload, msg_id=msg_id, headers=headers
        )

    def count_dropped(self, number: int) -> None:
        """Count events that the caller dropped itself, to include them in the report of dropped events."""
        self._in_flight.count_dropped(number)

    async def flush(self) -> None:
        """Wait until every event in flight is acknowledged or has failed.

        Raises:
            PublishError: events failed; the message has their number and the first error. The call that
                published an event raises its error as well.
        """
        # Events that are submitted while it waits are not included, or a steady flow would never let it
        # return.
        futures = self._in_flight.futures()
        if not futures:
            return
        await asyncio.wait(futures)
        failures = [error for future in futures if (error := _failure(future)) is not None]
        if failures:
            message = f"{len(failures)} of {len(futures)} events failed, the first: {failures[0]}"
            raise PublishError("several subjects", message, "publish them again with the same msg_id")

    async def close(self, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Reject new events, wait for those in flight, and close the connection.

        Args:
            timeout: seconds to wait for acknowledgements; None waits until each event's deadline. Events that
                are still in flight then fail with ``PublishError``.
        """
        await self._in_flight.close(timeout)


def encoded(event: EventModel) -> bytes:
    """Return the payload of an event.

    Raises:
        InvalidEvent: it contains a value that JSON does not have, such as an undecodable file name.
    """
    try:
        return event.encode()
    except (TypeError, ValueError) as error:
        reason = f"the event has a value that JSON does not have: {error}"
        raise InvalidEvent(event.subject, Rejection(RejectionReason.BAD_JSON, reason)) from None


def validated(subject: str, payload: bytes) -> bytes:
    """Return the payload as it is sent: unchanged, except for a level that is spelled differently.

    Raises:
        InvalidEvent: it violates the contract, or the stream does not store its subject.
    """
    event = decode(subject, payload)
    if isinstance(event, Rejection):
        raise InvalidEvent(subject, event)
    tokens = subject.split(".")
    if not all(tokens) or any(character in subject for character in "*> \t\r\n"):
        raise InvalidEvent(
            subject, Rejection(RejectionReason.BAD_SUBJECT, "the subject is not a literal NATS subject")
        )
    if not subject.startswith(_STREAM_PREFIXES):
        patterns = ", ".join(STREAM_SUBJECTS)
        raise InvalidEvent(
            subject, Rejection(RejectionReason.BAD_SUBJECT, f"the stream stores only {patterns}")
        )
    return event.payload


def _failure(future: AckFuture) -> BaseException | None:
    return None if future.cancelled() else future.exception()


__all__ = [
    "FOREVER",
    "Ack",
    "AckFuture",
    "InvalidEvent",
    "PublishDenied",
    "PublishDropped",
    "PublishError",
    "PublishRejected",
    "Publisher",
    "PublisherFull",
    "validated",
]
