"""The publisher: events go out validated, come back acknowledged, and are in the stream once.

Invariants:

1. ``publish`` returns only after JetStream said that the event is in the stream; else it raises.
2. A resend carries the first ``Nats-Msg-Id``: within the stream's duplicate window it makes no second event.
3. At most ``max_pending`` events are in flight; the next caller waits.
4. No task per event: replies come to one inbox, and one sweep resends and gives up.

nats-py's own ``publish_async`` is not used: in 2.16 it hangs after a server's kill and leaks its permits.
"""

import asyncio
import contextlib
import math
import secrets
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, OutboundBufferLimitError

from contracts import connect, subjects
from contracts.events import EventModel, Reason, Rejected, decode
from contracts.streams import Names
from producers.errors import InvalidEvent, ProducerError, PublishError, PublishRejected
from producers.window import Entry, Window

ACK_TIMEOUT: Final = 2.0
"""Seconds without an acknowledgement before an event is sent again."""

DEADLINE: Final = 30.0
"""Seconds before an event is given up; within the duplicate window of 2 minutes, so that resends are safe."""

MAX_PENDING: Final = 1024
"""Events in flight. At 256 KiB each this bounds memory; at 1 ms round trip it allows a million a second."""

SWEEP_INTERVAL: Final = 0.05
"""Seconds between two looks for resends and deadlines, and for a new connection."""

SOCKET_BACKLOG: Final = 1024 * 1024
"""Bytes that may wait for the socket before the sweep takes over sending. nats-py waits for the socket beyond
2 MiB, and swallows a cancellation while it does: a caller must never wait there."""

_BUSY_CODES: Final = frozenset({429, 503})
"""JetStream's HTTP-like codes that pass by themselves: too many requests, no leader."""

_DUPLICATE_IN_PROCESS: Final = 10158
"""A resend met its first copy on its way through the cluster; the next try hears the outcome."""


class Ack(NamedTuple):
    """JetStream's word that an event is in the stream.

    Attributes:
        stream: name in NATS.
        seq: sequence in the stream.
        duplicate: True when the stream had an event of this ``msg_id`` already.
    """

    stream: str
    seq: int
    duplicate: bool


Ticket = asyncio.Future[Ack]


class Publisher:
    """Publishes events to JetStream and waits for their acknowledgement.

    Entering starts to connect and returns at once; while NATS is away, events wait in the window until
    their deadline::

        async with Publisher("nats://127.0.0.1:4222", name="my_service") as publisher:
            await publisher.publish(SystemLog(level="INFO", message="up", source="my_service"))

    Args:
        url: address of NATS; several with commas.
        creds: a .creds file.
        prefix: the deployment's subject prefix.
        name: what NATS' monitoring shows.
        ack_timeout: seconds without an acknowledgement before an event is sent again.
        deadline: seconds before an event is given up; ``math.inf`` for never. Beyond the stream's duplicate
            window (2 minutes) a resend can make a second event.
        max_pending: events in flight.
        client: a connection to use in place of an own one; the caller closes it.
        on_down: called with the reason when NATS goes away, once per outage.
        on_up: called at each connection.
    """

    def __init__(
        self,
        url: str = connect.DEFAULT_URL,
        *,
        creds: Path | None = None,
        prefix: str = "",
        name: str = "tickertape-publisher",
        ack_timeout: float = ACK_TIMEOUT,
        deadline: float = DEADLINE,
        max_pending: int = MAX_PENDING,
        client: Client | None = None,
        on_down: Callable[[str], None] | None = None,
        on_up: Callable[[], None] | None = None,
    ) -> None:
        self.url = url
        self.name = name
        self.deadline = deadline
        self._creds = creds
        self._names = Names(prefix)
        self._on_down = on_down
        self._on_up = on_up
        self._client = client
        self._owns_client = client is None
        self._window: Window[Ticket] = Window(ack_timeout)
        self._room = asyncio.Semaphore(max_pending)
        self._run = secrets.token_hex(8)  # makes message ids unique among publishers
        self._count = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._reconnects = 0
        self._trouble = ""
        self._wake = asyncio.Event()  # set when there is something in the window
        self._ready = asyncio.Event()  # set at the first connection
        self._task: asyncio.Task[None] | None = None
        self._backlog = (
            False  # True while the sweep has first sends to do; others queue behind, to keep order
        )
        self._closed = False
        self._stopping = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._connected else "waiting for NATS"
        return f"<Publisher {self.name} {state}, {len(self._window)} in flight>"

    async def __aenter__(self) -> Self:
        if self._task is not None or self._closed:
            raise RuntimeError("a Publisher is entered once; make another one")
        self._task = asyncio.create_task(self._work(), name=f"{self.name}: acknowledgements")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close(None if kind is None else 0.0)

    @property
    def pending(self) -> int:
        """Events in flight."""
        return len(self._window)

    async def connected(self) -> Client:
        """Wait, for as long as it takes, until NATS was reached; return the connection.

        Raises:
            OSError: the credentials file cannot be read.
        """
        waiter = asyncio.ensure_future(self._ready.wait())
        try:
            if self._task is not None:
                await asyncio.wait({waiter, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if self._task.done() and not self._task.cancelled() and (error := self._task.exception()):
                    raise error
        finally:
            waiter.cancel()
        if self._client is None:
            raise self._is_closed("any subject")
        return self._client

    async def publish(
        self, event: EventModel, *, msg_id: str | None = None, headers: dict[str, str] | None = None
    ) -> Ack:
        """Publish an event on the subject that its fields name; return when the stream has it.

        Args:
            event: one of ``contracts.events``.
            msg_id: ``Nats-Msg-Id``; events of one id within 2 minutes are one event. Fresh by default.
            headers: more headers, such as ``Nats-Expected-Last-Subject-Sequence``.

        Raises:
            InvalidEvent: it breaks the contract; nothing was sent.
            PublishRejected: JetStream refused it.
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
    ) -> Ticket:
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
    ) -> Ticket:
        """Like ``submit``, without validation: for what is no event, such as a checkpoint."""
        if self._task is None:
            raise RuntimeError("use 'async with Publisher(...) as publisher:'")
        await self._room.acquire()
        if self._closed:
            self._room.release()
            raise self._is_closed(subject)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._count += 1
        token = str(self._count)
        ticket: Ticket = loop.create_future()
        ticket.add_done_callback(lambda _: self._left(token))
        entry = Entry(
            token=token,
            subject=self._names.subject(subject),
            payload=payload,
            headers={**(headers or {}), "Nats-Msg-Id": msg_id or f"{self._run}-{token}"},
            ticket=ticket,
            deadline=now + self.deadline,
            send_at=now,
        )
        self._window.add(entry)
        self._wake.set()
        if self._backlog or not self._can_take(len(payload)):
            self._backlog = True
        else:
            await self._transmit(entry)
        return ticket

    async def flush(self) -> None:
        """Wait until everything in flight is acknowledged or given up.

        Raises:
            PublishError: some of it failed; how much, and the first reason. Each publish raises its own, too.
        """
        tickets = [entry.ticket for entry in self._window.entries()]
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
        if self._closed:
            return
        self._closed = True
        tickets = [entry.ticket for entry in self._window.entries()]
        try:
            if tickets and timeout != 0:
                await asyncio.wait(tickets, timeout=timeout)
        finally:
            for entry in list(self._window.entries()):
                self._fail(entry, self._is_closed(entry.subject))
            self._stopping = True  # since nats-py can swallow the cancellation
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await self._task
            if self._subscription is not None and self._client is not None and self._client.is_connected:
                with contextlib.suppress(NatsError):
                    await self._subscription.unsubscribe()
            if self._owns_client and self._client is not None:
                await connect.close(self._client)

    # --- the connection and the sweep

    @property
    def _connected(self) -> bool:
        return self._subscription is not None and self._client is not None and self._client.is_connected

    def _can_take(self, size: int) -> bool:
        if not self._connected or self._client is None:
            return False
        # A new connection first gets what the old one may have lost.
        return (
            self._client.stats["reconnects"] == self._reconnects
            and self._client.pending_data_size + size < SOCKET_BACKLOG
        )

    async def _work(self) -> None:
        """Connect, listen for acknowledgements, and sweep; one task for the publisher's life."""
        connecting = asyncio.create_task(self._connect(), name=f"{self.name}: connecting")
        try:
            while not self._stopping:
                # Deadlines count while NATS has never been reached, too.
                if connecting.done():
                    connecting.result()
                await self._sweep()
                if len(self._window):
                    await asyncio.sleep(SWEEP_INTERVAL)
                else:
                    self._wake.clear()
                    waiter = asyncio.ensure_future(self._wake.wait())
                    waits: set[asyncio.Future[object]] = {waiter}  # type: ignore[arg-type]
                    if not connecting.done():
                        waits.add(connecting)  # type: ignore[arg-type]
                    try:
                        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        waiter.cancel()
        except OSError as error:
            self._closed = True
            for entry in list(self._window.entries()):
                self._fail(entry, PublishError(entry.subject, str(error), "check the credentials file"))
            raise
        finally:
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await connecting

    async def _connect(self) -> None:
        if self._client is None:
            self._client = await connect.connect(
                self.url,
                name=self.name,
                creds=self._creds,
                on_up=self._is_up,
                on_down=self._is_down,
                on_error=self._has_trouble,
            )
        client = self._client
        self._inbox = client.new_inbox()
        self._reconnects = client.stats["reconnects"]
        while self._subscription is None:
            try:
                self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._answered)
            except NatsError as error:
                self._trouble = str(error)
                await asyncio.sleep(SWEEP_INTERVAL)
        self._ready.set()

    async def _is_up(self) -> None:
        self._trouble = ""
        if self._on_up:
            self._on_up()

    async def _is_down(self, reason: str) -> None:
        self._trouble = reason
        if self._on_down:
            self._on_down(reason)

    async def _has_trouble(self, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for entry in self._window.expire(now):
            if not entry.ticket.done():
                entry.ticket.set_exception(self._gave_up(entry))
        if not self._connected or self._client is None:
            return
        if self._client.stats["reconnects"] != self._reconnects:
            self._reconnects = self._client.stats["reconnects"]
            self._window.resend_all(now)
        while due := self._window.due(now):
            for entry in due:
                if not self._connected or self._stopping:
                    return
                if entry.ticket.done():
                    self._window.remove(entry.token)
                else:
                    await self._transmit(entry)
        self._backlog = False

    async def _transmit(self, entry: Entry[Ticket]) -> None:
        """Hand an entry to the connection; when it cannot take it, the sweep tries again."""
        assert self._client is not None
        # Noted first: handing over can wait for the socket, and the sweep must not send it meanwhile.
        self._window.sent(entry, asyncio.get_running_loop().time())
        try:
            await self._client.publish(
                entry.subject, entry.payload, reply=f"{self._inbox}.{entry.token}", headers=entry.headers
            )
        except OutboundBufferLimitError:
            self._window.refused(entry, "NATS is away", asyncio.get_running_loop().time())
        except MaxPayloadError:
            what = f"{len(entry.payload)} bytes are more than this NATS server takes"
            self._fail(entry, PublishError(entry.subject, what, "raise max_payload in the server"))
        except NatsError as error:
            if self._client.is_closed or not self._client.is_connected:
                self._window.refused(entry, str(error), asyncio.get_running_loop().time())
            else:
                what = f"the client refused it: {error}"
                self._fail(entry, PublishError(entry.subject, what, "check its subject and headers"))

    async def _answered(self, message: Msg) -> None:
        entry = self._window.get(message.subject.rpartition(".")[2])
        if entry is None or entry.ticket.done():
            return
        now = asyncio.get_running_loop().time()
        if message.headers and message.headers.get("Status"):
            status = message.headers["Status"]
            trouble = "no stream takes this subject" if status == "503" else f"NATS answered {status}"
            self._window.refused(entry, trouble, now)
            return
        try:
            answer = orjson.loads(message.data)
            error = answer.get("error")
            ack = Ack(answer["stream"], answer["seq"], answer.get("duplicate", False)) if not error else None
        except (orjson.JSONDecodeError, KeyError, AttributeError):
            self._window.refused(entry, f"no JetStream acknowledgement: {message.data[:60]!r}", now)
            return
        if ack is not None:
            entry.ticket.set_result(ack)
        elif error.get("code") in _BUSY_CODES or error.get("err_code") == _DUPLICATE_IN_PROCESS:
            self._window.refused(entry, f"JetStream is busy: {error.get('description')}", now)
        else:
            rejected = PublishRejected(entry.subject, error.get("err_code", 0), error.get("description", ""))
            self._fail(entry, rejected)

    # --- how an entry leaves

    def _left(self, token: str) -> None:
        # Runs once per ticket, also when its caller was cancelled.
        self._window.remove(token)
        self._room.release()

    def _fail(self, entry: Entry[Ticket], error: ProducerError) -> None:
        if not entry.ticket.done():
            entry.ticket.set_exception(error)

    def _gave_up(self, entry: Entry[Ticket]) -> PublishError:
        seconds = f"{self.deadline:g} s"
        if not self._connected:
            reason = f" ({self._trouble})" if self._trouble else ""
            what = f"NATS at {connect.shown(self.url)} was away{reason} for {seconds}"
            return PublishError(entry.subject, what, "start it, or check the address and the credentials")
        if entry.trouble:
            what = f"{entry.trouble}, for {seconds} and {entry.tries} tries"
            return PublishError(entry.subject, what, "create the streams with 'tickertape streams apply'")
        what = f"no answer from JetStream for {seconds} and {entry.tries} tries"
        remedy = self._trouble or "look at the server's log, and at the permissions of this user"
        return PublishError(entry.subject, what, remedy)

    def _is_closed(self, subject: str) -> PublishError:
        return PublishError(subject, "the publisher is closed", "keep it open until everything is published")


def checked(subject: str, payload: bytes) -> bytes:
    """Return the payload as it is to travel: a level's spelling is rewritten, else nothing.

    Raises:
        InvalidEvent: it breaks the contract, or no stream of events carries the subject.
    """
    event = decode(subject, payload)
    if isinstance(event, Rejected):
        raise InvalidEvent(subject, event)
    tokens = subject.split(".")
    if not all(tokens) or any(mark in subject for mark in "*> \t\r\n"):
        raise InvalidEvent(subject, Rejected(Reason.BAD_SUBJECT, "it is no plain subject"))
    if not any(subjects.matches(pattern, subject) for pattern in subjects.STREAM_SUBJECTS):
        carried = ", ".join(subjects.STREAM_SUBJECTS)
        raise InvalidEvent(subject, Rejected(Reason.BAD_SUBJECT, f"the stream carries {carried} only"))
    return event.payload


def _failure(ticket: Ticket) -> BaseException | None:
    return None if ticket.cancelled() else ticket.exception()


FOREVER: Final = math.inf
"""A deadline for programs that would rather wait than lose an event."""

__all__ = [
    "FOREVER",
    "Ack",
    "InvalidEvent",
    "ProducerError",
    "PublishError",
    "PublishRejected",
    "Publisher",
    "Ticket",
    "checked",
]
