"""Supervisor: reserves the port, starts the workers, merges their metrics, and handles signals.

Invariants:

1. The socket that reserves the main port never listens: the kernel would queue connections on it that no
   process accepts.
2. No worker outlives the supervisor: the supervisor waits for its workers, and an orphaned worker exits.
3. When a worker dies, its own clients have to reconnect; the clients of other workers do not notice.
4. Signals are handled from the beginning: one that arrives during startup stops the supervisor gracefully.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final

from pydantic import SecretStr
from tickertape.relay.drain import END_GRACE
from tickertape.relay.endpoints.liveness import Liveness
from tickertape.relay.endpoints.middleware import HostCheck
from tickertape.relay.settings import ServeSettings
from tickertape.relay.transport.http.server import listen, ops_server, same_port_error
from tickertape.relay.transport.listener import Listener
from tickertape.relay.workers.aggregate import Aggregate
from tickertape.relay.workers.shared_counters import SharedCounters
from tickertape.relay.workers.worker_slot import WorkerSlot

from tickertape.errors import OperatorError
from tickertape.nats import connection
from tickertape.nats.embedded_server import EmbeddedNats
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import ListenError
from tickertape.process import console, shutdown
from tickertape.process.signals import add_signal_handlers, add_stop_handlers
from tickertape.process.tasks import cancel_and_wait, race, run_until_stopped
from tickertape.text import count
from tickertape.urls import redact_url

log = logging.getLogger("tickertape.workers")

STOP_GRACE: Final = 5.0
"""Seconds that workers have to exit, in addition to ``--drain-delay`` and ``--drain``, before they are
killed."""

COLLECT_EVERY: Final = 5.0
"""Seconds between two collections of the workers' metrics. A worker that is killed loses what it has counted
since the last collection."""


async def supervise(settings: ServeSettings, announce: Callable[[str], None] = console.print_line) -> int:
    """Run several relays on one port until a signal stops them.

    Args:
        settings: settings of the relays.
        announce: prints a line for the operator.

    Returns:
        The exit code: 0 after a signal, 1 if the relays cannot run or had to be killed.
    """
    # Workers that do not exit in time are killed after ``STOP_GRACE``, and reaped within another.
    signals = SupervisorSignals(settings.drain_delay + settings.drain + 2 * STOP_GRACE)
    liveness = Liveness()
    nats: EmbeddedNats | None = None
    try:
        # The main port comes last: while no socket listens on a reserved port, the system could also assign
        # it to the ops port.
        ops_socket = listen(settings.ops_host, settings.ops_port, "--ops-port")
        reserved = reserve_port(settings.host, settings.port, ops_socket.port)
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await _start(nats, signals)
            settings = settings.model_copy(update={"nats_monitoring_url": nats.monitoring_url})
            if not signals.stop_signals:
                _check_free(settings.host, reserved.port)  # the embedded NATS server may use the same port
    except OperatorError as error:
        console.print_notice("serve", str(error))
        if nats is not None:
            await nats.stop()
        return 1
    # A signal arrived during startup: no worker has been started.
    if signals.stop_signals:
        reserved.close()
        ops_socket.close()
        if nats is not None:
            await nats.stop()
        return 0
    url = settings.nats_url or (nats.url if nats else connection.DEFAULT_URL)
    counters = SharedCounters.create(settings.workers)
    supervisor = Supervisor(settings, counters, url, reserved.port, signals, announce)
    ops_asgi = HostCheck(supervisor.aggregate.ops_app(liveness.check), HostNames(settings.ops_allowed_hosts))
    ops = ops_server(ops_asgi, ops_socket)
    serving = asyncio.create_task(ops.run_until_stopped(), name="server")
    required_tasks = [
        serving,
        *([nats.supervisor_task] if nats is not None and nats.supervisor_task is not None else []),
    ]
    try:
        scheme = "https" if settings.tls_cert else "http"
        announce(
            f"relay: {scheme}://{reserved.address}  metrics: http://{ops.address}/metrics  "
            f"NATS: {redact_url(url)}"
        )
        return await supervisor.run(required_tasks)
    finally:
        liveness.ended = True
        shutdown.exit_within(END_GRACE)
        ops.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        reserved.close()
        if nats is not None:
            await nats.stop()


def reserve_port(host: str, port: int, ops_port: int) -> Listener:
    """Reserve a port for the workers without listening on it.

    Args:
        host: name or address.
        port: 0 selects a free port.
        ops_port: ops port, which is in use already.

    Raises:
        ListenError: another program listens on the port.
    """
    if port:
        try:
            _check_free(host, port)
        except ListenError as error:
            raise same_port_error(error, port, ops_port) from None
    return listen(host, port, "--port", shared=True)


def _check_free(host: str, port: int) -> None:
    """Check that a port is free by listening on it exclusively for a moment.

    A reserved port allows sharing: without this check, two supervisors could split the clients of one port.

    Raises:
        ListenError: another program listens on the port.
    """
    listen(host, port, "--port").close()


async def _start(nats: EmbeddedNats, signals: "SupervisorSignals") -> None:
    """Start NATS, unless a signal arrives first; the caller stops what was started by then."""
    await run_until_stopped(signals.changed.wait(), nats.start())


class SupervisorSignals:
    """Signal handlers of the supervisor, and the signals received since it was created.

    Args:
        stop_seconds: maximum duration of the end of the workers; ``END_GRACE`` seconds later the process
            exits in any case.

    Attributes:
        stop_signals: received signals that stop the supervisor, in the order of arrival.
        changed: set when a stop signal arrives; the slots set it as well.
        forward: called with SIGHUP; does nothing until there are workers.
    """

    def __init__(self, stop_seconds: float = 0.0) -> None:
        self.stop_signals: list[signal.Signals] = []
        self.changed = asyncio.Event()
        self.forward: Callable[[signal.Signals], None] = lambda _: None
        add_stop_handlers(self._stop, stop_seconds + END_GRACE)
        add_signal_handlers(lambda number: self.forward(number), signal.SIGHUP)

    def __repr__(self) -> str:
        return f"SupervisorSignals({self.stop_signals})"

    def _stop(self, number: signal.Signals) -> None:
        self.stop_signals.append(number)
        self.changed.set()


class Supervisor:
    """Supervisor of the worker slots.

    Args:
        settings: settings of the relays.
        counters: limit counters that the workers share.
        url: URL of NATS.
        port: port that the workers share.
        signals: signals, including those received during startup.
        announce: prints a line for the operator.
    """

    def __init__(
        self,
        settings: ServeSettings,
        counters: SharedCounters,
        url: str,
        port: int,
        signals: SupervisorSignals,
        announce: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._changed = signals.changed
        self._stop_signals = signals.stop_signals
        host = socket.gethostname()
        # The URL keeps a worker from starting a NATS server, and the port is the reserved one, also for
        # ``--port 0``.
        worker_settings = plain_settings(settings) | {"nats_url": url, "port": port, "workers": 1}
        self._slots = [
            WorkerSlot(
                number,
                {
                    "slot": number,
                    "workers": settings.workers,
                    "relay": f"{host}/{number}",
                    "settings": worker_settings,
                },
                counters,
                self._changed.set,
            )
            for number in range(settings.workers)
        ]
        self.aggregate = Aggregate(host, self._slots)
        signals.forward = self._forward

    def __repr__(self) -> str:
        return f"Supervisor({self._slots})"

    async def run(self, required_tasks: Sequence[asyncio.Task[None]]) -> int:
        """Run the workers until a signal arrives or no relay can run.

        Args:
            required_tasks: tasks that the workers depend on; each ends only with an error.

        Returns:
            The exit code.
        """
        running = [asyncio.create_task(slot.run(), name=f"worker {slot.number}") for slot in self._slots]
        collecting = asyncio.create_task(self._collect_metrics(), name="metrics")
        for task in required_tasks:
            task.add_done_callback(lambda _: self._changed.set())
        try:
            code = await self._wait_for_end(required_tasks)
            return max(code, await self._stop_workers(running))
        finally:
            for slot in self._slots:
                slot.stop(signal.SIGTERM)  # after an error here; otherwise all workers have exited
            await cancel_and_wait(collecting)

    async def _wait_for_end(self, required_tasks: Sequence[asyncio.Task[None]]) -> int:
        """Wait for a signal, or until no relay can run; return the exit code."""
        while not self._stop_signals:
            await self._changed.wait()
            self._changed.clear()
            for task in required_tasks:
                if task.done():
                    console.print_notice("serve", str(task.exception()))
                    return 1
            if not self.aggregate.started and all(slot.has_been_ready for slot in self._slots):
                self.aggregate.started = True
                self._announce("ready")
            failed = [slot for slot in self._slots if slot.startup_error and slot.pid is None]
            # While other workers serve clients, a worker that cannot start is no reason to stop them.
            if failed and not any(slot.ready for slot in self._slots):
                console.print_notice("serve", failed[0].startup_error)
                return failed[0].startup_code
        return 0

    async def _stop_workers(self, running: list[asyncio.Task[None]]) -> int:
        """Stop all workers, kill those that do not exit in time, and return the exit code."""
        self.aggregate.stopping = True
        loop = asyncio.get_running_loop()
        number = self._stop_signals[0] if self._stop_signals else signal.SIGTERM
        # The same signal as the supervisor received: after a Ctrl-C, workers skip the drain delay.
        for slot in self._slots:
            slot.stop(number)
        deadline = loop.time() + self._settings.drain_delay + self._settings.drain + STOP_GRACE
        code, second_signal_sent = 0, False
        remaining: set[asyncio.Task[None]] = set(running)
        while remaining:
            if len(self._stop_signals) > 1 and not second_signal_sent:
                second_signal_sent = True
                deadline = min(deadline, loop.time() + STOP_GRACE)
                # The other signal: of two equal ones, a worker that has not run meanwhile gets one.
                self._forward(signal.SIGINT if number is signal.SIGTERM else signal.SIGTERM)
            self._changed.clear()
            await race(self._changed.wait(), *remaining, seconds=max(0.0, deadline - loop.time()))
            remaining = {task for task in remaining if not task.done()}
            if remaining and loop.time() >= deadline:
                # Killed processes still have to be waited for; with the old deadline, this loop would spin.
                code, deadline = 1, loop.time() + STOP_GRACE
                log.error("killing %s that did not exit in time", count(len(remaining), "worker"))
                self._forward(signal.SIGKILL)
        await asyncio.gather(*running)
        return code

    async def _collect_metrics(self) -> None:
        while True:
            await asyncio.sleep(COLLECT_EVERY)
            try:
                await self.aggregate.collect()
            except Exception:
                log.exception("cannot collect the metrics of the workers, retrying in %g s", COLLECT_EVERY)

    def _forward(self, number: signal.Signals) -> None:
        for slot in self._slots:
            slot.signal(number)


def plain_settings(settings: ServeSettings) -> dict[str, Any]:
    """Return all settings as JSON values, with secrets in plain text: for the worker configuration only."""
    dumped = settings.model_dump(mode="json")
    for name in dumped:
        value = getattr(settings, name)
        # The dump contains asterisks in place of a secret.
        if isinstance(value, SecretStr):
            dumped[name] = value.get_secret_value()
    return dumped
