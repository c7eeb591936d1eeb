"""The supervisor: holds the port, starts the workers, adds up what they tell, and takes the signals.

Invariants:

1. The socket that holds the main port never listens: the system would give it clients whom nobody accepts.
2. No worker outlives the supervisor: it waits for them, and without it they end by themselves.
3. A worker that dies costs its own clients a reconnection, and nobody else anything.
4. Signals are heard from the first moment on: one that comes during the start ends it in good order.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import SecretStr
from tickertape.relay.settings import ServeSettings
from tickertape.relay.transport.http_server import HttpServer, listen, same_port_error
from tickertape.relay.transport.listener import Listener
from tickertape.relay.workers.aggregate import Aggregate
from tickertape.relay.workers.shared_counters import SharedCounters
from tickertape.relay.workers.worker_slot import WorkerSlot

from tickertape.errors import OperatorError
from tickertape.nats import connection
from tickertape.nats.embedded_server import EmbeddedNats
from tickertape.process import console
from tickertape.process.listeners import ListenError
from tickertape.process.signals import STOP_SIGNALS, add_signal_handlers
from tickertape.process.tasks import cancel_and_wait, race, run_until_stopped
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.workers")

STOP_GRACE: Final = 5.0
"""Seconds that workers have beyond ``--drain-delay`` and ``--drain`` before they are killed."""

LOOK_EVERY: Final = 5.0
"""Seconds between two looks at the workers' numbers: what one counted in that time is lost with a kill -9."""


async def supervise(settings: ServeSettings, announce: Callable[[str], None] = console.print_line) -> int:
    """Run several relays on one port until a signal ends them.

    Args:
        settings: what the operator set.
        announce: gets the lines for the operator.

    Returns:
        the exit code: 0 after a signal, 1 when they cannot run, or had to be killed.
    """
    heard = SupervisorSignals()
    nats: EmbeddedNats | None = None
    try:
        # The main port last, and alone first: what is only held would be given to the ops port as well.
        ops_socket = listen(settings.ops_host, settings.ops_port, "--ops-port")
        held = hold(settings.host, settings.port, ops_socket.port)
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await _start(nats, heard)
            if not heard.stops:
                _probe(settings.host, held.port)  # its NATS may have been given the same port
    except OperatorError as error:
        console.print_notice("serve", str(error))
        if nats is not None:
            await nats.stop()
        return 1
    if heard.stops:
        held.close()
        ops_socket.close()
        if nats is not None:
            await nats.stop()
        return 0
    url = settings.nats_url or (nats.url if nats else connection.DEFAULT_URL)
    table = SharedCounters.create(settings.workers)
    supervisor = Supervisor(settings, table, url, held.port, heard, announce)
    ops = HttpServer(supervisor.whole.pages(), ops_socket)
    serving = asyncio.create_task(ops.run_until_stopped(), name="server")
    watched = [
        serving,
        *([nats.supervisor_task] if nats is not None and nats.supervisor_task is not None else []),
    ]
    try:
        scheme = "https" if settings.tls_cert else "http"
        announce(
            f"relay: {scheme}://{held.address}  metrics: http://{ops.address}/metrics  "
            f"NATS: {redact_url(url)}"
        )
        return await supervisor.run(watched)
    finally:
        ops.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        held.close()
        if nats is not None:
            await nats.stop()


def hold(host: str, port: int, ops_port: int) -> Listener:
    """Keep a port for the workers, without listening on it.

    Args:
        host: name or address.
        port: 0 takes a free one.
        ops_port: that is taken already.

    Raises:
        ListenError: another program listens there.
    """
    if port:
        try:
            _probe(host, port)
        except ListenError as error:
            raise same_port_error(error, port, ops_port) from None
    return listen(host, port, "--port", shared=True)


def _probe(host: str, port: int) -> None:
    """Listen alone for a moment: another relay of ours would share the port, and its clients.

    Raises:
        ListenError: another program listens there.
    """
    listen(host, port, "--port").close()


async def _start(nats: EmbeddedNats, heard: "SupervisorSignals") -> None:
    """Start NATS, unless a signal comes first; what there is of it then is for ``stop``."""
    await run_until_stopped(heard.changed.wait(), nats.start())


class SupervisorSignals:
    """The signals that came, from its making on.

    Attributes:
        stops: those that end the supervisor, in their order.
        changed: set when one came; others may set it too.
        pass_on: gets SIGHUP; nobody does while there is no worker.
    """

    def __init__(self) -> None:
        self.stops: list[signal.Signals] = []
        self.changed = asyncio.Event()
        self.pass_on: Callable[[signal.Signals], None] = lambda _: None
        add_signal_handlers(self._stop, *STOP_SIGNALS)
        add_signal_handlers(lambda number: self.pass_on(number), signal.SIGHUP)

    def __repr__(self) -> str:
        return f"SupervisorSignals({self.stops})"

    def _stop(self, number: signal.Signals) -> None:
        self.stops.append(number)
        self.changed.set()


class Supervisor:
    """The slots, and what happens to them.

    Args:
        settings: what the operator set.
        table: for limits.
        url: of NATS.
        port: that the workers share.
        heard: signals, those too that came before.
        announce: gets the lines for the operator.
    """

    def __init__(
        self,
        settings: ServeSettings,
        table: SharedCounters,
        url: str,
        port: int,
        heard: SupervisorSignals,
        announce: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._changed = heard.changed
        self._signals = heard.stops
        host = socket.gethostname()
        given = plain(settings) | {"nats_url": url, "port": port, "workers": 1}
        self._slots = [
            WorkerSlot(
                number,
                {
                    "slot": number,
                    "workers": settings.workers,
                    "relay": f"{host}/{number}",
                    "settings": given,
                },
                table,
                self._changed.set,
            )
            for number in range(settings.workers)
        ]
        self.whole = Aggregate(host, self._slots)
        heard.pass_on = self._pass_on

    def __repr__(self) -> str:
        return f"Supervisor({self._slots})"

    async def run(self, watched: Sequence[asyncio.Task[None]]) -> int:
        """Run until a signal, or until no relay can run.

        Args:
            watched: what the workers cannot do without; ends by itself only with an error.

        Returns:
            the exit code.
        """
        running = [asyncio.create_task(slot.run(), name=f"worker {slot.number}") for slot in self._slots]
        looking = asyncio.create_task(self._look(), name="numbers")
        for task in watched:
            task.add_done_callback(lambda _: self._changed.set())
        try:
            code = await self._watch(watched)
            return max(code, await self._end(running))
        finally:
            await cancel_and_wait(looking)

    async def _watch(self, watched: Sequence[asyncio.Task[None]]) -> int:
        """Wait for a signal, or for the word that no relay can run."""
        while not self._signals:
            await self._changed.wait()
            self._changed.clear()
            for task in watched:
                if task.done():
                    console.print_notice("serve", str(task.exception()))
                    return 1
            if not self.whole.started and all(slot.was_ready for slot in self._slots):
                self.whole.started = True
                self._announce("ready")
            refusals = [slot.refusal for slot in self._slots if slot.refusal and slot.pid is None]
            # One that cannot come back is no reason to end those that serve.
            if refusals and not any(slot.ready for slot in self._slots):
                console.print_notice("serve", refusals[0])
                return 1
        return 0

    async def _end(self, running: list[asyncio.Task[None]]) -> int:
        """Let all workers end; kill those that do not."""
        self.whole.stopping = True
        loop = asyncio.get_running_loop()
        number = self._signals[0] if self._signals else signal.SIGTERM
        for slot in self._slots:
            slot.stop(number)
        deadline = loop.time() + self._settings.drain_delay + self._settings.drain + STOP_GRACE
        code, hurried = 0, False
        rest: set[asyncio.Task[None]] = set(running)
        while rest:
            if len(self._signals) > 1 and not hurried:
                hurried = True
                deadline = min(deadline, loop.time() + STOP_GRACE)
                self._pass_on(self._signals[1])
            self._changed.clear()
            await race(self._changed.wait(), *rest, seconds=max(0.0, deadline - loop.time()))
            rest = {task for task in rest if not task.done()}
            if rest and loop.time() >= deadline:
                code, deadline = 1, loop.time() + STOP_GRACE
                log.error("%d workers did not end in time and are killed", len(rest))
                self._pass_on(signal.SIGKILL)
        await asyncio.gather(*running)
        return code

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.whole.collect()
            except Exception:
                log.exception("the workers' numbers could not be read; the next look is in %g s", LOOK_EVERY)

    def _pass_on(self, number: signal.Signals) -> None:
        for slot in self._slots:
            slot.signal(number)


def plain(settings: ServeSettings) -> dict[str, Any]:
    """All settings as JSON has them, secrets in clear: for a worker's brief, and for nothing else."""
    dumped = settings.model_dump(mode="json")
    for name in dumped:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            dumped[name] = value.get_secret_value()
    return dumped
