"""The link to JetStream: hands events to a connection, hears of their acknowledgement, sends again, gives up.

Invariants:

1. A ticket is settled exactly once, with an ``Ack`` or with a ``PublishError``, by its deadline.
2. A resend carries the first ``Nats-Msg-Id``: within the stream's duplicate window it makes no second event.
3. At most ``max_pending`` events and bytes are in flight; ``when_full`` says what comes of more.
4. Events are handed over in the order in which they came, and after a lost connection again in that order.
5. No task per event: replies come to one inbox, and one sweep resends and gives up.
6. 'Too many requests' slows the whole link, first sends and resends alike.

nats-py's own ``publish_async`` is not used: in 2.16 it hangs after a server's kill and leaks its permits.
"""

import asyncio
import secrets
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, OutboundBufferLimitError
from tickertape.producers.sdk import publish_ack as answers
from tickertape.producers.sdk.ack_window import AckWindow, InFlightEvent, SendPacer
from tickertape.producers.sdk.capacity import Capacity, WhenFull
from tickertape.producers.sdk.connection import Connection
from tickertape.producers.sdk.drop_report import DropReport
from tickertape.producers.sdk.errors import PublishDropped, PublisherFull, PublishError, PublishRejected
from tickertape.producers.sdk.publish_ack import Ack

from tickertape.names import Names
from tickertape.process.tasks import cancel_and_wait

CANCEL_AGAIN: Final = 0.5
"""Seconds after which a task of ours, which has nothing to do at its end, is cancelled once more."""

SWEEP_INTERVAL: Final = 0.05
"""Seconds between two looks for resends and deadlines, and for a new connection."""

REPORT_PATIENCE: Final = 2.0
"""Seconds that closing waits for the report of what was dropped."""

_BREATH: Final = 256
"""Resends between two looks at what the server says."""

AckFuture = asyncio.Future[Ack]


class InFlight:
    """The events in flight on a connection.

    Args:
        connection: to be opened by the link.
        names: of the deployment.
        room: what may be in flight.
        others: as of ``Publisher``.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        room: Capacity,
        *,
        when_full: WhenFull,
        ack_timeout: float,
        deadline: float,
    ) -> None:
        self.name = connection.name
        self.deadline = deadline
        self.closed = False
        self.drops = DropReport(self.name)
        self._connection = connection
        self._names = names
        self._room = room
        self._when_full = when_full
        self._window: AckWindow[AckFuture] = AckWindow(ack_timeout)
        self._pace = SendPacer()
        self._run = secrets.token_hex(8)  # makes message ids unique among links
        self._count = 0
        self._report: InFlightEvent[AckFuture] | None = None  # the report of drops that is in flight
        self._wake = asyncio.Event()  # set when there is something in the window
        self._task: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        # True while the sweep has first sends to do; later ones queue behind it, to keep the order.
        self._backlog = False
        self._stopping = False
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.online else "waiting for NATS"
        return f"{self.name} {state}, {len(self._window)} in flight"

    def __len__(self) -> int:
        return len(self._window)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        if self._task is not None or self.closed:
            raise RuntimeError("a Publisher is entered once; make another one")
        self._task = asyncio.create_task(self._work(), name=f"{self.name}: acknowledgements")

    @property
    def online(self) -> bool:
        """True while NATS is reached."""
        return self._connection.online

    async def connected(self) -> Client:
        """Wait, for as long as it takes, until NATS was reached; return the connection."""
        return await self._connection.ready()

    async def send(
        self, subject: str, payload: bytes, *, msg_id: str | None, headers: dict[str, str] | None
    ) -> AckFuture:
        """Put an event into the window, and hand it over if the connection can take it.

        Args:
            subject: as it stands in NATS.
        """
        if self._task is None:
            raise RuntimeError("use 'async with Publisher(...) as publisher:'")
        if self.closed or self._connection.fatal is not None:
            raise self._connection.no_link(subject)
        size = len(payload)
        full = not self._room.fits(size)
        if not full:
            self._room.take(size)
        elif self._when_full == "block":
            await self._room.enter(size)
            if self.closed or self._connection.fatal is not None:
                self._room.leave(size)
                raise self._connection.no_link(subject)
        elif self._when_full == "raise":
            what = f"{self._room.events} events of {self._room.size} bytes wait for acknowledgement already"
            raise PublisherFull(subject, what, "it was not sent; publish it later, or raise max_pending")
        else:
            self._drop_for(size)
            self._room.take(size)
        entry = self._enter(subject, payload, msg_id, headers)
        if self._backlog or not self._may_go(size):
            self._backlog = True
        else:
            await self._transmit(entry)
        if full:
            # A caller that never waits must still let the acknowledgements in.
            await asyncio.sleep(0)
        return entry.ticket

    def _enter(
        self, subject: str, payload: bytes, msg_id: str | None, headers: dict[str, str] | None
    ) -> InFlightEvent[AckFuture]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._count += 1
        token = str(self._count)
        ticket: AckFuture = loop.create_future()
        entry = InFlightEvent(
            token=token,
            subject=subject,
            payload=payload,
            headers={**(headers or {}), "Nats-Msg-Id": msg_id or f"{self._run}-{token}"},
            ticket=ticket,
            deadline=now + self.deadline,
            send_at=now,
        )
        # For the caller who is cancelled; everything else takes it out by itself.
        ticket.add_done_callback(lambda _: self._take_out(entry))
        self._window.add(entry)
        self._wake.set()
        return entry

    def tickets(self) -> list[AckFuture]:
        """What callers have in flight, oldest first."""
        return [entry.ticket for entry in self._window.entries() if entry is not self._report]

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Take no more events, wait for those in flight, fail what is left, and close the connection."""
        if self.closed:
            await self._ended.wait()
            return
        self.closed = True
        self._connection.no_news()
        self._room.close()
        try:
            if timeout != 0:
                await self._settle(timeout)
        finally:
            self._fail_all()
            self._stopping = True
            try:
                for task in filter(None, (self._task, self._connecting)):
                    await cancel_and_wait(task, interval=CANCEL_AGAIN)
                    if not task.cancelled():
                        task.result()
                await self._connection.close()
            finally:
                self._ended.set()

    async def _settle(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if tickets := self.tickets():
            await asyncio.wait(tickets, timeout=timeout)
        if self.online:
            self._tell_drops()
            if self._report is not None:
                patience = REPORT_PATIENCE if timeout is None else min(timeout, REPORT_PATIENCE)
                await asyncio.wait({self._report.ticket}, timeout=patience)

    async def _work(self) -> None:
        """Connect, and sweep while there is something in the window; one task for the link's life."""
        self._connecting = asyncio.create_task(self._open(), name=f"{self.name}: connecting")
        # Deadlines count while NATS has not been reached, too.
        while not self._stopping:
            await self._sweep()
            if len(self._window) or self.drops.untold:
                await asyncio.sleep(SWEEP_INTERVAL)
            else:
                self._wake.clear()
                await self._wake.wait()

    async def _open(self) -> None:
        await self._connection.open(self._answered)
        if self._connection.fatal is not None:
            self._fail_all()

    # --- events on their way

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for entry in self._window.expire(now):
            self._room.leave(len(entry.payload))
            self._fail(entry, self._connection.gave_up(entry, self.deadline))
        self.drops.say(now)
        if not self.online:
            return
        if self._connection.renewed():
            self._window.resend_all(now)
        if self.drops.due(now):
            self._tell_drops()
        loop = asyncio.get_running_loop()
        allowed = self._pace.allowance(now)
        # The time of now, each time: what came while this loop rested is to go before what comes after it.
        while due := self._window.due(loop.time()):
            for number, entry in enumerate(due, 1):
                if allowed is not None:
                    if allowed <= 0:
                        return
                    allowed -= 1
                if number % _BREATH == 0:
                    await asyncio.sleep(0)
                if not self.online or self._stopping or self._pace.until > loop.time():
                    return
                if not entry.ticket.done():
                    await self._transmit(entry)
        self._backlog = self._pace.burst is not None

    def _may_go(self, size: int) -> bool:
        return self._pace.burst is None and self._connection.can_take(size)

    async def _transmit(self, entry: InFlightEvent[AckFuture]) -> None:
        """Hand an entry to the connection; when it cannot take it, the sweep tries again."""
        client = self._connection.client
        assert client is not None
        now = asyncio.get_running_loop().time
        # Noted first: handing over can wait for the socket, and the sweep must not send it meanwhile.
        self._window.sent(entry, now())
        try:
            await client.publish(
                entry.subject,
                entry.payload,
                reply=f"{self._connection.inbox}.{entry.token}",
                headers=entry.headers,
            )
        except OutboundBufferLimitError:
            self._window.refused(entry, answers.TransientFailure("NATS is unreachable"), now())
        except MaxPayloadError:
            what = f"{len(entry.payload)} bytes are more than this NATS server takes"
            self._fail(entry, PublishError(entry.subject, what, "raise max_payload in the server"))
        except NatsError as error:
            if client.is_closed or not client.is_connected:
                self._window.refused(entry, answers.TransientFailure(str(error)), now())
            else:
                what = f"the client refused it: {error}"
                self._fail(entry, PublishError(entry.subject, what, "check its subject and headers"))

    async def _answered(self, message: Msg) -> None:
        entry = self._window.get(message.subject.rpartition(".")[2])
        if entry is None or entry.ticket.done():
            return
        answer = answers.read(message)
        if type(answer) is Ack:
            self._take_out(entry)
            entry.ticket.set_result(answer)
        elif isinstance(answer, answers.TransientFailure):
            self._window.refused(entry, answer, now := asyncio.get_running_loop().time())
            if answer.slower:
                self._pace.busy(now)
                self._window.postpone(entry, self._pace.until)
        elif isinstance(answer, answers.PermanentFailure):
            self._fail(entry, PublishRejected(entry.subject, answer.code, answer.description))

    # --- how an entry leaves

    def _take_out(self, entry: InFlightEvent[AckFuture]) -> None:
        if self._window.remove(entry.token) is not None:
            self._room.leave(len(entry.payload))

    def _fail(self, entry: InFlightEvent[AckFuture], error: PublishError) -> None:
        self._take_out(entry)
        if not entry.ticket.done():
            entry.ticket.set_exception(error)

    def _drop_for(self, size: int) -> None:
        """Give up the oldest events until there is room."""
        now = asyncio.get_running_loop().time()
        while not self._room.fits(size):
            oldest = next((entry for entry in self._window.entries() if entry is not self._report), None)
            if oldest is None:
                return
            what = "it was the oldest of a full window, and made room for a newer one"
            self._fail(oldest, PublishDropped(oldest.subject, what, "raise max_pending, or publish less"))
            # Told by the drops; asyncio is not to complain for each that nobody asked for.
            if not oldest.ticket.cancelled():
                oldest.ticket.exception()
                self.drops.add(1, now, away=not self.online)

    def count_dropped(self, number: int) -> None:
        """Count events dropped before they came here."""
        self.drops.add(number, asyncio.get_running_loop().time(), away=not self.online)
        self._wake.set()

    def _tell_drops(self) -> None:
        """Send the report of what was dropped; one at a time, beyond the limits of the window."""
        if self._report is not None or not self.drops.untold:
            return
        event, number = self.drops.report()
        payload = event.encode()
        self._room.take(len(payload))
        self._report = self._enter(self._names.subject(event.subject), payload, None, None)
        self._backlog = True  # the sweep sends it

        def arrived(ticket: AckFuture) -> None:
            self._report = None
            if ticket.cancelled() or ticket.exception() is not None:
                self.drops.again(number)

        self._report.ticket.add_done_callback(arrived)

    def _fail_all(self) -> None:
        for entry in list(self._window.entries()):
            self._fail(entry, self._connection.no_link(entry.subject))
