"""Events in flight: sends them over a connection, receives their acknowledgements, resends, and gives up.

Invariants:

1. A future is resolved exactly once, with an ``Ack`` or a ``PublishError``, no later than its deadline.
2. A resend carries the ``Nats-Msg-Id`` of the first send: within the stream's duplicate window it is not
   stored twice.
3. At most ``max_pending`` events and ``max_pending_bytes`` are in flight; beyond that, ``when_full``
   applies.
4. Events are sent, and after a reconnect resent, in the order of the calls; an event that NATS rejects
   temporarily is resent alone, and may be stored after later ones.
5. There is no task per event: replies arrive in one inbox, and one sweep resends and expires events.
6. 'Too many requests' slows down first sends and resends alike.

``publish_async`` of nats-py is not used: in 2.16 it hangs when a server is killed, and leaks semaphores.
"""

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.ack_window import AckWindow, InFlightEvent, SendPacer
from tickertape.producers.sdk.capacity import Capacity, WhenFull
from tickertape.producers.sdk.connection import Connection
from tickertape.producers.sdk.drop_report import DropReport
from tickertape.producers.sdk.errors import PublishDenied, PublishDropped, PublishError, PublishRejected
from tickertape.producers.sdk.publish_ack import Ack, PermanentFailure, TransientFailure, parse_reply
from tickertape.producers.sdk.stall_report import StallReport

from tickertape.names import Names
from tickertape.nats.errors import PermissionDenied
from tickertape.process.tasks import cancel_and_wait

CANCEL_INTERVAL: Final = 0.5
"""Seconds after which a background task is cancelled again: nats-py can swallow a cancellation."""

SWEEP_INTERVAL: Final = 0.05
"""Seconds between two sweeps, which resend and expire events and detect a reconnect."""

REPORT_TIMEOUT: Final = 2.0
"""Maximum seconds that closing waits for the acknowledgement of the drop report."""

_RESEND_BATCH: Final = 256
"""Resends after which the sweep yields, so that replies are processed in between."""

AckFuture = asyncio.Future[Ack]


class InFlight:
    """Events in flight on a connection.

    Args:
        connection: connection, which ``start`` opens.
        names: names of the deployment's subjects.
        capacity: limits of what may be in flight.
        when_full: as for ``Publisher``.
        ack_timeout: as for ``Publisher``.
        deadline, on_stall: as for ``Publisher``.
    """

    def __init__(
        self,
        connection: Connection,
        names: Names,
        capacity: Capacity,
        *,
        when_full: WhenFull,
        ack_timeout: float,
        deadline: float,
        on_stall: Callable[[str], None] | None = None,
    ) -> None:
        self.name = connection.name
        self.deadline = deadline
        self.closed = False
        self.drops = DropReport(self.name)
        self.stalls = StallReport(self.name, on_stall)
        self._connection = connection
        self._names = names
        self._capacity = capacity
        self._when_full = when_full
        self._window: AckWindow[AckFuture] = AckWindow(ack_timeout)
        self._pacer = SendPacer()
        self._id_prefix = secrets.token_hex(8)  # makes message ids unique among publishers
        self._count = 0
        self._wake = asyncio.Event()  # set when an event enters the window
        self._task: asyncio.Task[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        # True while the sweep has first sends to do; later events queue behind them to keep the order.
        self._backlog = False
        self._stopping = False
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "connected" if self.online else "waiting for NATS"
        return f"{self.name} {state}, {len(self._window)} in flight"

    def __len__(self) -> int:
        return len(self._window)

    def start(self) -> None:
        """Start to connect, in the background."""
        if self._task is not None or self.closed:
            raise RuntimeError("a Publisher can be entered only once; create another one")
        self._task = asyncio.create_task(self._run(), name=f"{self.name}: acknowledgements")

    @property
    def online(self) -> bool:
        """Whether NATS is connected."""
        return self._connection.online

    async def connected(self) -> Client:
        """Wait, for as long as it takes, for the first connection; return its client."""
        return await self._connection.ready()

    async def send(
        self, subject: str, payload: bytes, *, msg_id: str | None, headers: dict[str, str] | None
    ) -> AckFuture:
        """Add an event to the window, and send it if the connection can take it now.

        Args:
            subject: subject in NATS, with the deployment's prefix.
            payload: JSON of the event.
            msg_id: ``Nats-Msg-Id``; None generates one.
            headers: additional headers.
        """
        if self._task is None:
            raise RuntimeError("use 'async with Publisher(...) as publisher:'")
        if self.closed or self._connection.fatal is not None:
            raise self._connection.unavailable_error(subject)
        full = not self._capacity.fits(size := len(payload))
        if not full:
            self._capacity.reserve(size)
        elif self._when_full == "block":
            await self._capacity.acquire(size)
            if self.closed or self._connection.fatal is not None:
                self._capacity.release(size)
                raise self._connection.unavailable_error(subject)
        elif self._when_full == "raise":
            raise self._capacity.full_error(subject)
        else:
            self._drop_oldest(size)
            self._capacity.reserve(size)
        event = self._add(subject, payload, msg_id, headers)
        if self._backlog or self._pacer.burst is not None or not self._connection.can_send_now(size):
            self._backlog = True
        else:
            await self._transmit(event)
        if full:
            # A caller that publishes in a loop must let acknowledgements be processed.
            await asyncio.sleep(0)
        return event.future

    def _add(
        self, subject: str, payload: bytes, msg_id: str | None, headers: dict[str, str] | None
    ) -> InFlightEvent[AckFuture]:
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._count += 1
        token = str(self._count)
        future: AckFuture = loop.create_future()
        event = InFlightEvent(
            token=token,
            subject=subject,
            payload=payload,
            headers={**(headers or {}), "Nats-Msg-Id": msg_id or f"{self._id_prefix}-{token}"},
            future=future,
            deadline=now + self.deadline,
            send_at=now,
        )
        # Needed only when a caller cancels the future; every other outcome has removed the event already.
        future.add_done_callback(lambda _: self._remove(event))
        self._window.add(event)
        self._wake.set()
        return event

    def futures(self) -> list[AckFuture]:
        """Return the futures of the callers' events in flight, oldest first."""
        return [event.future for event in self._window.events() if event.future is not self.drops.report]

    async def close(self, timeout: float | None) -> None:  # noqa: ASYNC109
        """Reject new events, wait for those in flight, fail the remaining ones, and close the connection."""
        if self.closed:
            await self._ended.wait()
            return
        self.closed = True
        self._connection.mute()
        self._capacity.close()
        try:
            if timeout != 0:
                await self._settle(timeout)
        finally:
            self._fail_all()
            self._stopping = True
            try:
                for task in filter(None, (self._task, self._connecting)):
                    await cancel_and_wait(task, interval=CANCEL_INTERVAL)
                    if not task.cancelled():
                        task.result()
                await self._connection.close()
            finally:
                self._ended.set()

    async def _settle(self, timeout: float | None) -> None:  # noqa: ASYNC109
        if futures := self.futures():
            await asyncio.wait(futures, timeout=timeout)
        if self.online:
            self.drops.publish(self._add_report)
            if self.drops.report is not None:
                report_timeout = REPORT_TIMEOUT if timeout is None else min(timeout, REPORT_TIMEOUT)
                await asyncio.wait({self.drops.report}, timeout=report_timeout)

    async def _run(self) -> None:
        """Connect, and sweep while the window holds events; runs until the publisher closes."""
        self._connecting = asyncio.create_task(self._open(), name=f"{self.name}: connecting")
        # Deadlines apply before the first connection, too.
        while not self._stopping:
            await self._sweep()
            if len(self._window) or self.drops.unreported:
                await asyncio.sleep(SWEEP_INTERVAL)
            else:
                self._wake.clear()
                self.stalls.restart()
                await self._wake.wait()

    async def _open(self) -> None:
        await self._connection.open(self._handle_reply, self._handle_denial)
        if self._connection.fatal is not None:
            self._fail_all()

    async def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for event in self._window.expire(now):
            self._capacity.release(len(event.payload))
            self._fail(event, self._connection.deadline_error(event, self.deadline))
        self.drops.log_if_due(now)
        self._connection.poll_denials()
        if not self.online:
            self.stalls.restart()
            return
        if self._connection.take_reconnect():
            self._window.resend_all(now)
        self.stalls.check(now, next(iter(self._window.events()), None), self._connection.last_failure)
        if self.drops.is_due(now):
            self.drops.publish(self._add_report)
        loop = asyncio.get_running_loop()
        allowed = self._pacer.allowance(now)
        # The current time on each pass: events added while this loop yielded must precede later ones.
        while due := self._window.due(loop.time()):
            for number, event in enumerate(due, 1):
                if allowed is not None:
                    if allowed <= 0:
                        return
                    allowed -= 1
                if number % _RESEND_BATCH == 0:
                    await asyncio.sleep(0)
                if not self.online or self._stopping or self._pacer.paused_until > loop.time():
                    return
                if not event.future.done():
                    await self._transmit(event)
        # While bursts are limited, new events must wait for a sweep, so that they count against the limit.
        self._backlog = self._pacer.burst is not None

    async def _transmit(self, event: InFlightEvent[AckFuture]) -> None:
        """Pass an event to the client; if the client cannot take it, the sweep retries."""
        client = self._connection.client
        assert client is not None
        now = asyncio.get_running_loop().time
        # Marked before publish(), which can wait for the socket: the sweep must not send it meanwhile.
        self._window.mark_sent(event, now())
        try:
            await client.publish(
                event.subject,
                event.payload,
                reply=f"{self._connection.inbox}.{event.token}",
                headers=event.headers,
            )
        except NatsError as error:
            failure = self._connection.publish_failure(event, error)
            if isinstance(failure, TransientFailure):
                self._window.retry_later(event, failure, now())
            else:
                self._fail(event, failure)

    async def _handle_reply(self, message: Msg) -> None:
        event = self._window.get(message.subject.rpartition(".")[2])
        if event is None or event.future.done():
            return
        reply = parse_reply(message)
        if type(reply) is Ack:
            self.stalls.record_ack(asyncio.get_running_loop().time())
            self._remove(event)
            event.future.set_result(reply)
        elif isinstance(reply, TransientFailure):
            self._window.retry_later(event, reply, now := asyncio.get_running_loop().time())
            if reply.slow_down:
                self._pacer.slow_down(now)
                self._window.postpone(event, self._pacer.paused_until)
        elif isinstance(reply, PermanentFailure):
            self._fail(event, PublishRejected(event.subject, reply.code, reply.description))

    def _handle_denial(self, denied: PermissionDenied) -> bool:
        """Fail the events that a denied permission concerns; return whether there were any."""
        failed = [event for event in self._window.events() if self._connection.concerns(denied, event)]
        for event in failed:
            self._fail(event, PublishDenied(event.subject, denied))
        return bool(failed)

    def _remove(self, event: InFlightEvent[AckFuture]) -> None:
        if self._window.remove(event.token) is not None:
            self._capacity.release(len(event.payload))

    def _fail(self, event: InFlightEvent[AckFuture], error: PublishError) -> None:
        self._remove(event)
        if not event.future.done():
            event.future.set_exception(error)

    def _drop_oldest(self, size: int) -> None:
        """Drop the oldest events until an event of this size fits."""
        now = asyncio.get_running_loop().time()
        while not self._capacity.fits(size):
            callers = (event for event in self._window.events() if event.future is not self.drops.report)
            if (oldest := next(callers, None)) is None:
                return
            message = "dropped as the oldest event to admit a newer one"
            self._fail(oldest, PublishDropped(oldest.subject, message, "raise max_pending, or publish less"))
            # Reported by the drop report; retrieving the exception keeps asyncio from logging each one.
            if not oldest.future.cancelled():
                oldest.future.exception()
                self.drops.add(1, now, offline=not self.online)

    def count_dropped(self, number: int) -> None:
        """Count events that were dropped before they were submitted here."""
        self.drops.add(number, asyncio.get_running_loop().time(), offline=not self.online)
        self._wake.set()

    def _add_report(self, report: SystemLog) -> AckFuture:
        """Add the report of dropped events, regardless of the capacity."""
        payload = report.encode()
        self._capacity.reserve(len(payload))
        self._backlog = True  # the sweep sends it
        return self._add(self._names.subject(report.subject), payload, None, None).future

    def _fail_all(self) -> None:
        for event in list(self._window.events()):
            self._fail(event, self._connection.unavailable_error(event.subject))
