"""The link to JetStream: hands events to a connection, hears of their acknowledgement, sends again, gives up.

Invariants:

1. A ticket is settled exactly once, with an ``Ack`` or with a ``PublishError``, by its deadline.
2. A resend carries the first ``Nats-Msg-Id``: within the stream's duplicate window it makes no second event.
3. At most ``max_pending`` events are in flight; the next caller waits.
4. Events are handed over in the order in which they came, and after a lost connection again in that order.
5. No task per event: replies come to one inbox, and one sweep resends and gives up.

nats-py's own ``publish_async`` is not used: in 2.16 it hangs after a server's kill and leaks its permits.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, OutboundBufferLimitError

from contracts import connect
from producers.errors import PublishError, PublishRejected
from producers.window import Entry, Window

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


class Link:
    """A connection with the events in flight on it; arguments as of ``Publisher``."""

    def __init__(
        self,
        url: str,
        *,
        creds: Path | None,
        name: str,
        ack_timeout: float,
        deadline: float,
        max_pending: int,
        client: Client | None,
        on_down: Callable[[str], None] | None,
        on_up: Callable[[], None] | None,
    ) -> None:
        self.url = url
        self.name = name
        self.deadline = deadline
        self.closed = False
        self._creds = creds
        self._on_down = on_down
        self._on_up = on_up
        self._client = client
        self._owns_client = client is None
        self._window: Window[Ticket] = Window(ack_timeout)
        self._room = asyncio.Semaphore(max_pending)
        self._run = secrets.token_hex(8)  # makes message ids unique among links
        self._count = 0
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._reconnects = 0
        self._trouble = ""
        self._fatal: Exception | None = None  # set when there will never be a connection
        self._wake = asyncio.Event()  # set when there is something in the window
        self._ready = asyncio.Event()  # set at the first connection, and when there will be none
        self._task: asyncio.Task[None] | None = None
        # True while the sweep has first sends to do; later ones queue behind it, to keep the order.
        self._backlog = False
        self._stopping = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self._connected else "waiting for NATS"
        return f"{self.name} {state}, {len(self._window)} in flight"

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._task is not None or self.closed:
            raise RuntimeError("a Publisher is entered once; make another one")
        self._task = asyncio.create_task(self._work(), name=f"{self.name}: acknowledgements")

    async def connected(self) -> Client:
        """Wait, for as long as it takes, until NATS was reached; return the connection."""
        await self._ready.wait()
        if self._fatal is not None:
            raise self._fatal
        assert self._client is not None
        return self._client

    async def send(
        self, subject: str, payload: bytes, *, msg_id: str | None, headers: dict[str, str] | None
    ) -> Ticket:
        """Put an event into the window, and hand it over if the connection can take it.

        Args:
            subject: as it stands in NATS.
        """
        if self._task is None:
            raise RuntimeError("use 'async with Publisher(...) as publisher:'")
        await self._room.acquire()
        if self.closed or self._fatal is not None:
            self._room.release()
            raise self._no_link(subject)
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._count += 1
        token = str(self._count)
        ticket: Ticket = loop.create_future()
        ticket.add_done_callback(lambda _: self._left(token))
        entry = Entry(
            token=token,
            subject=subject,
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

    def tickets(self) -> list[Ticket]:
        """What is in flight, oldest first."""
        return [entry.ticket for entry in self._window.entries()]

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Take no more events, wait for those in flight, fail what is left, and close the connection."""
        if self.closed:
            return
        self.closed = True
        tickets = self.tickets()
        try:
            if tickets and timeout != 0:
                await asyncio.wait(tickets, timeout=timeout)
        finally:
            self._fail_all()
            self._stopping = True  # since nats-py can swallow the cancellation
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task
            if self._subscription is not None and self._client is not None and self._client.is_connected:
                with contextlib.suppress(NatsError):
                    await self._subscription.unsubscribe()
            if self._owns_client and self._client is not None:
                await connect.close(self._client)

    # --- the connection

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
        """Connect, and sweep while there is something in the window; one task for the link's life."""
        connecting = asyncio.create_task(self._connect(), name=f"{self.name}: connecting")
        try:
            # Deadlines count while NATS has not been reached, too.
            while not self._stopping:
                await self._sweep()
                if len(self._window):
                    await asyncio.sleep(SWEEP_INTERVAL)
                else:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            connecting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await connecting

    async def _connect(self) -> None:
        try:
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
            self._subscription = await client.subscribe(f"{self._inbox}.*", cb=self._answered)
        except (OSError, ValueError, NatsError) as error:
            # Waiting for NATS is the connection's own business; what ends here is no matter of waiting.
            self._fatal = error
            self._fail_all()
        self._ready.set()

    async def _is_up(self) -> None:
        self._trouble = ""
        if self._on_up:
            self._on_up()

    async def _is_down(self, reason: str) -> None:
        self._trouble = reason
        if self._on_down and not self.closed:
            self._on_down(reason)

    async def _has_trouble(self, error: Exception) -> None:
        self._trouble = str(error) or type(error).__name__

    # --- events on their way

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
            code, description = error.get("err_code", 0), error.get("description", "")
            self._fail(entry, PublishRejected(entry.subject, code, description))

    # --- how an entry leaves

    def _left(self, token: str) -> None:
        # Runs once per ticket, also when its caller was cancelled.
        self._window.remove(token)
        self._room.release()

    def _fail(self, entry: Entry[Ticket], error: PublishError) -> None:
        if not entry.ticket.done():
            entry.ticket.set_exception(error)

    def _fail_all(self) -> None:
        for entry in list(self._window.entries()):
            self._fail(entry, self._no_link(entry.subject))

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

    def _no_link(self, subject: str) -> PublishError:
        if self._fatal is not None:
            return PublishError(subject, str(self._fatal), "check the address and the credentials file")
        return PublishError(subject, "the publisher is closed", "keep it open until everything is published")
