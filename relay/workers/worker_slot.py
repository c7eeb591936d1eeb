"""A slot: one worker after the other, started, asked, watched, and started again when it dies.

Invariants:

1. A slot has one process at most, and its number, and so its relay's name, stays the same.
2. After ``stop`` no process is started any more.
3. What a worker that died had counted is kept in ``totals``, and no longer counts for limits.
4. Whatever goes wrong with one worker is that worker's death, and the next one is started.
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
from tickertape.relay.workers.ipc import EXIT_CONFIG, MAX_LINE, packed
from tickertape.relay.workers.metrics_merge import SlotMetrics
from tickertape.relay.workers.shared_counters import SharedCounters

from tickertape.process.child import wait_or_kill
from tickertape.process.stream_writer import write

Answer = asyncio.Future[tuple[int, Any] | None]

log = logging.getLogger("tickertape.workers")

FIRST_PAUSE: Final = 0.1
"""Seconds before a worker that died is started again; twice as long each time it dies."""

LONGEST_PAUSE: Final = 10.0
STEADY: Final = 30.0
"""Seconds that a worker has to run to count as well again."""

ANSWER_TIMEOUT: Final = 1.0
"""Seconds that a worker has to answer for its page of the ops port."""

MAX_PENDING_REQUESTS: Final = 8
"""Questions that may be without an answer, however late; a worker that hangs is asked no more."""

END_TIMEOUT: Final = 10.0
"""Seconds that a worker has to end once it has said its last word."""


class WorkerSlot:
    """One worker's place.

    Args:
        number: from 0 on.
        brief: what each worker of this slot is told.
        table: for limits, shared by all.
        changed: called when a worker got ready, was refused, or ended.

    Attributes:
        totals: the numbers of all workers that this slot had.
        ready: whether the worker has said that it serves.
        was_ready: whether any of this slot's ever did.
        refusal: why the last one could not run at all, in its words.
        starts: how many were started.
    """

    def __init__(
        self, number: int, brief: dict[str, Any], table: SharedCounters, changed: Callable[[], None]
    ) -> None:
        self.number = number
        self.totals = SlotMetrics()
        self.ready = False
        self.was_ready = False
        self.refusal = ""
        self.starts = 0
        self.since = 0.0
        self._brief = packed(brief)
        self._table = table
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._asked: dict[int, Answer] = {}
        self._unanswered = 0
        self._ids = itertools.count(1)
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        return f"WorkerSlot({self.number}, pid {self.pid}, ready={self.ready}, {self.starts} starts)"

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def run(self) -> None:
        """Keep a worker running until ``stop``; its end is waited for."""
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            self.since = loop.time()
            try:
                how = await self._one()
            except Exception as error:
                how = f"could not be run ({error!r})"
            self.ready = False
            self._table.empty(self.number)
            self.totals.bury()
            self._changed()
            if self._stopping.is_set():
                return
            if loop.time() - self.since >= STEADY:
                pause = FIRST_PAUSE
            log.error("worker %d %s and is started again in %g s", self.number, how, pause)
            self.since = loop.time()
            try:
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
            except TimeoutError:
                pause = min(2 * pause, LONGEST_PAUSE)

    def stop(self, number: signal.Signals) -> None:
        """Let the worker end by a signal, and start none any more."""
        self._stopping.set()
        self.signal(number)

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on."""
        if self.pid is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                self._process.send_signal(number)

    async def ask(self, path: str) -> tuple[int, Any] | None:
        """Ask the worker for a page of its ops port, or for ``SNAPSHOT_PATH``.

        Returns:
            status and body; None when there is no worker, or it does not answer in time.
        """
        writer = self._writer
        if writer is None or self._unanswered >= MAX_PENDING_REQUESTS:
            return None
        self._unanswered += 1
        number = next(self._ids)
        answer: Answer = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            write(writer, orjson.dumps({"id": number, "path": path}) + b"\n")
            async with asyncio.timeout(ANSWER_TIMEOUT):
                return await answer
        except (TimeoutError, ConnectionResetError):
            return None
        finally:
            del self._asked[number]

    async def _one(self) -> str:
        """Run one worker to its end, and say how that was."""
        self.refusal = ""
        self.starts += 1
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = process = await asyncio.create_subprocess_exec(
                    sys.executable, "-P", "-m", "tickertape.cli.worker",
                    str(theirs.fileno()), str(self._table.descriptor),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), self._table.descriptor),
                    # The same modules as ours, and none from the folder that we happen to be in.
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                    # A session of its own: Ctrl-C is for the supervisor, which passes it on once.
                    start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            return f"could not be started ({error.strerror or error})"
        if self._stopping.is_set():
            self.signal(signal.SIGTERM)
        fault: Exception | None = None
        try:
            reader, self._writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE)
            self._unanswered = 0
            self._writer.write(self._brief)
            await self._listen(reader)
        except Exception as error:
            fault = error  # its process has still to be ended, and waited for
        finally:
            if self._writer is None:
                ours.close()
            else:
                self._writer.close()
                self._writer = None
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_result(None)
            if process.returncode is None and not self._stopping.is_set():
                # It has closed its end: it is ending, or as good as dead.
                await wait_or_kill(process, END_TIMEOUT)
        code = await process.wait()
        if fault is not None:
            return f"could not be listened to ({fault!r})"
        if code == EXIT_CONFIG:
            return f"cannot run ({self.refusal})"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                if not line.endswith(b"\n"):
                    break  # it died in the middle of it
                message = orjson.loads(line)
                if "id" in message:
                    self._unanswered -= 1
                    answer = self._asked.get(message["id"])
                    if answer is not None and not answer.done():
                        answer.set_result((message["status"], message["body"]))
                elif "refused" in message:
                    self.refusal = message["refused"]
                elif message.get("said") == "ready":
                    self.ready = self.was_ready = True
                    self._changed()
        except OSError:
            pass  # as good as the end
