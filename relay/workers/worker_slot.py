"""Slot of a worker: starts the worker process, sends it requests, and restarts it when it exits.

Invariants:

1. A slot has at most one process. Its number, and therefore the name of its relay, never changes.
2. After ``stop`` no process is started.
3. The counters of a worker that exited are kept in ``metrics`` and no longer count towards limits.
4. Any error in handling a worker ends that worker, and a new worker is started.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

import orjson
from tickertape.relay.workers.ipc import EXIT_CONFIG, MAX_LINE, encode_worker_config
from tickertape.relay.workers.metrics_merge import SlotMetrics
from tickertape.relay.workers.shared_counters import SharedCounters

from tickertape.errors import EXIT_DENIED, EXIT_FAILURE
from tickertape.net.outgoing import write
from tickertape.process import shutdown
from tickertape.process.child import wait_or_kill

PendingResponse = asyncio.Future[tuple[int, Any] | None]

log = logging.getLogger("tickertape.workers")

MIN_RESTART_DELAY: Final = 0.1
"""Seconds before the first restart of a worker; doubled after each further exit."""

MAX_RESTART_DELAY: Final = 10.0
"""Maximum seconds before a restart."""

STABLE_AFTER: Final = 30.0
"""Seconds of running after which the restart delay is reset."""

RESPONSE_TIMEOUT: Final = 1.0
"""Seconds to wait for the response to a request."""

MAX_PENDING_REQUESTS: Final = 8
"""Maximum number of requests without a response, including those that timed out: a worker that hangs receives
no further requests."""

EXIT_TIMEOUT: Final = 10.0
"""Seconds that a worker has to exit after it has closed its connection."""


class WorkerSlot:
    """Slot that keeps one worker running.

    Args:
        number: index of the slot, from 0.
        config: configuration of each worker of this slot.
        counters: limit counters that all workers share.
        changed: called when a worker has become ready, could not start, or has exited.

    Attributes:
        metrics: metrics of all workers that this slot has had.
        ready: whether the current worker serves clients.
        has_been_ready: whether any worker of this slot has served clients.
        startup_error: error message of the last worker, if it could not run.
        start_count: number of workers started.
        changed_at: loop time at which the current worker was started, or the last worker exited.
    """

    def __init__(
        self, number: int, config: dict[str, Any], counters: SharedCounters, changed: Callable[[], None]
    ) -> None:
        self.number = number
        self.metrics = SlotMetrics()
        self.ready = False
        self.has_been_ready = False
        self.startup_error = ""
        self.start_count = 0
        self.changed_at = 0.0
        self._config = encode_worker_config(config)
        self._counters = counters
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._pending: dict[int, PendingResponse] = {}
        self._unanswered = 0
        self._ids = itertools.count(1)
        self._stopping = asyncio.Event()
        self._handles_signals = self._hangup_waits = False

    def __repr__(self) -> str:
        return f"WorkerSlot({self.number}, pid {self.pid}, ready={self.ready}, {self.start_count} starts)"

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while no worker runs."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def startup_code(self) -> int:
        """Exit code of the program if the last worker could not run."""
        denied = self._process is not None and self._process.returncode == EXIT_DENIED
        return EXIT_DENIED if denied else EXIT_FAILURE

    async def run(self) -> None:
        """Keep a worker running until ``stop`` was called and the last worker has exited."""
        loop = asyncio.get_running_loop()
        delay = MIN_RESTART_DELAY
        while not self._stopping.is_set():
            self.changed_at = loop.time()
            try:
                outcome = await self._run_worker()
            except Exception as error:
                outcome = f"could not be run ({error!r})"
            self.ready = False
            # Before the next worker starts, which writes the same column.
            self._counters.clear_slot(self.number)
            self.metrics.retire_worker()
            self._changed()
            if self._stopping.is_set():
                return
            if loop.time() - self.changed_at >= STABLE_AFTER:
                delay = MIN_RESTART_DELAY
            log.error("worker %d %s, restarting in %g s", self.number, outcome, delay)
            self.changed_at = loop.time()
            try:
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
            except TimeoutError:
                delay = min(2 * delay, MAX_RESTART_DELAY)

    def stop(self, number: signal.Signals) -> None:
        """Send a signal to the worker, and start no further worker."""
        self._stopping.set()
        self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker, if it runs; SIGHUP once it handles signals."""
        if self.pid is not None and self._process is not None:
            if not self._handles_signals:
                # SIGHUP would end the interpreter that starts, and SIGINT would print its traceback.
                self._hangup_waits |= number is signal.SIGHUP
                number = signal.SIGTERM if number is signal.SIGINT else number
                if number is signal.SIGHUP:
                    return
            with contextlib.suppress(ProcessLookupError):  # it has just exited
                self._process.send_signal(number)

    async def request(self, path: str) -> tuple[int, Any] | None:
        """Request a path of the worker's ops routes, or ``SNAPSHOT_PATH``.

        Returns:
            The status and the body; None if no worker runs or it does not respond in time.
        """
        writer = self._writer
        if writer is None or self._unanswered >= MAX_PENDING_REQUESTS:
            return None
        self._unanswered += 1
        request_id = next(self._ids)
        response: PendingResponse = asyncio.get_running_loop().create_future()
        self._pending[request_id] = response
        try:
            write(writer, orjson.dumps({"id": request_id, "path": path}) + b"\n")
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                return await response
        except (TimeoutError, ConnectionResetError):
            return None
        finally:
            del self._pending[request_id]

    async def _run_worker(self) -> str:
        """Run a worker until it exits, and return a description of how it ended."""
        self.startup_error = ""
        self.start_count += 1
        self._handles_signals = self._hangup_waits = False
        ours, theirs = socket.socketpair()
        try:
            # Closed here once the worker has its own copy: otherwise the worker's exit would not be end of
            # file.
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "tickertape.cli.worker",
                    str(theirs.fileno()), str(self._counters.descriptor),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._counters.descriptor),
                    # The worker imports the same modules, and nothing from the current directory (``-P``).
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    # A separate session shields it from Ctrl-C; the supervisor forwards the signal once.
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            return f"could not be started ({error.strerror or error})"
        shutdown.track(process)
        if self._stopping.is_set():
            # ``stop`` was called while the process was being started, when there was none to signal.
            self.signal(signal.SIGTERM)
        connection_error: Exception | None = None
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE)
            self._unanswered = 0
            self._writer.write(self._config)
            await self._read_messages(reader)
        except Exception as error:
            connection_error = error  # reported below, after the process has been stopped
        finally:
            if self._writer is None:
                ours.close()
            else:
                self._writer.close()
                self._writer = None
            # Requests to this worker end now instead of after their timeout.
            for response in self._pending.values():
                if not response.done():
                    response.set_result(None)
            if process.returncode is None and not self._stopping.is_set():
                # The worker has closed its connection: it is about to exit, or unusable.
                # During a stop, the supervisor decides when to kill it.
                await wait_or_kill(process, EXIT_TIMEOUT)
        code = await process.wait()
        if connection_error is not None:
            return f"lost its connection to the supervisor ({connection_error!r})"
        if code in (EXIT_CONFIG, EXIT_DENIED):
            return f"cannot run ({self.startup_error})"
        return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"

    def _record_announcement(self, line: str) -> None:
        if not self._handles_signals:
            self._handles_signals = True  # since before it has read its files and announced its address
            if self._hangup_waits:
                self.signal(signal.SIGHUP)
        if line == "ready":
            self.ready = self.has_been_ready = True
            self._changed()

    async def _read_messages(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break  # the worker died while writing the line
                message = orjson.loads(line)
                if "id" in message:
                    self._unanswered -= 1
                    response = self._pending.get(message["id"])
                    if response is not None and not response.done():
                        response.set_result((message["status"], message["body"]))
                elif "startup_error" in message:
                    self.startup_error = message["startup_error"]
                elif "announced" in message:
                    self._record_announcement(message["announced"])
        except OSError:
            pass  # same as end of file: the worker is stopped and restarted
