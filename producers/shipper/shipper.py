"""The shipper at work: it looks for files, ships what is new in each, and yields to who has shipped more.

Invariants:

1. One task at a time ships a name's files; ``AT_ONCE`` of them work, with at most two batches in memory each.
2. With NATS away nothing more is read, but files are still found and kept open, however often they rotate.
3. What waits for one file's batch holds up no other file.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol

from tickertape.producers.shipper.files.file_stream import Batch, FileStream
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.sinks.sink import CommitRejected, Conflict, Sink

from tickertape.errors import OperatorError
from tickertape.process.tasks import Tasks

POLL_INTERVAL: Final = 0.2
"""Seconds between two looks at files while the system does not tell of changes."""

SLOW_POLL_INTERVAL: Final = 1.0
"""The same while it does."""

DRAIN_POLL_INTERVAL: Final = 0.02
"""The same while all that is left is to be shipped, and the shortest sleep at all."""

SCAN_INTERVAL: Final = 1.0
"""Seconds between two expansions of the globs; a file that is followed loses nothing meanwhile."""

SCAN_BACKOFF: Final = 50
"""An expansion that takes long is followed by a rest of so many times that."""

MAX_CONCURRENT_FILES: Final = 8
STOP_GRACE: Final = 3.0
"""Seconds at the end for batches that are under way; the next start finds out what became of others."""

MAX_CONFLICTS: Final = 3
"""Times within ``RIVALRY`` seconds that another process may have been faster: a successor, and no rival."""

CONFLICT_WINDOW: Final = 60.0


class FileSource(Protocol):
    """Where lineages come from: a ``Tail``, or a ``Spool``."""

    streams: dict[str, FileStream]

    def scan(self, now: float) -> None:
        """Find new files."""

    def close(self) -> None:
        """Let go of all files."""


class ShipError(OperatorError):
    """Shipping cannot go on."""


class Shipper:
    """Lines in, batches out.

    Args:
        files: where they come from.
        sink: where they go.
        wake: tells when something changes.
        limit: bytes of an event that the server takes.
        say: gets lines for the operator.

    Attributes:
        shipped: events that are acknowledged, by level.
        bytes: of acknowledged events.
        batches: that were acknowledged.
        refused: events that the server does not take.
        conflicts: batches that another process made superfluous.
        waiting: for NATS, since this moment; None while it answers.
    """

    def __init__(
        self, files: FileSource, sink: Sink, watcher: FileWatcher, limit: int, report: Callable[[str], None]
    ) -> None:
        self.shipped: Counter[str] = Counter()
        self.bytes = 0
        self.batches = 0
        self.rejected = 0
        self.conflicts = 0
        self._files = files
        self._sink = sink
        self._watcher = watcher
        self._limit = limit
        self._report = report
        self._slots = asyncio.Semaphore(MAX_CONCURRENT_FILES)
        self._busy: set[FileStream] = set()
        self._conflict_times: deque[float] = deque(maxlen=MAX_CONFLICTS)
        self._reported_paths: set[str] = set()
        self._draining = False
        self._stopping = False

    @property
    def streams(self) -> list[FileStream]:
        """The files by name."""
        return list(self._files.streams.values())

    async def run(self, ended: Callable[[], bool], *, once: bool = False) -> None:
        """Ship until there is nothing left and ``ended`` says that nothing more comes.

        Args:
            ended: asked when everything is shipped.
            once: what waits for its rest goes out as it is at the end.

        Raises:
            ShipError: another process ships the same, or the sink cannot go on.
        """
        scan_at = 0.0
        clock = asyncio.get_running_loop().time
        async with Tasks() as tasks:
            try:
                while True:
                    began = clock()
                    now = time.time()
                    if began >= scan_at:
                        self._files.scan(now)
                        took = clock() - began
                        scan_at = clock() + max(SCAN_INTERVAL, took * SCAN_BACKOFF)
                    input_done = ended()
                    self._draining = once and input_done
                    quiet = self._start_ready(tasks, now)
                    if quiet and input_done:
                        self._files.scan(now)
                        if self._start_ready(tasks, time.time()):
                            return
                    pause = DRAIN_POLL_INTERVAL if input_done else self._poll_delay()
                    await tasks.until(self._watcher.wait(pause))
            finally:
                self._stopping = True
                await tasks.join(STOP_GRACE)

    def _poll_delay(self) -> float:
        """Seconds to sleep, unless something changes."""
        poll = SLOW_POLL_INTERVAL if self._watcher.active else POLL_INTERVAL
        flush_at = min(
            (stream.flush_at for stream in self._files.streams.values() if stream not in self._busy),
            default=float("inf"),
        )
        return min(poll, max(DRAIN_POLL_INTERVAL, flush_at - time.time()))

    def _start_ready(self, tasks: Tasks, now: float) -> bool:
        """Ship whatever stirs; True when nothing does."""
        quiet = not tasks
        for stream in self._files.streams.values():
            if stream in self._busy:
                continue
            if stream.has_work(now) or (self._draining and stream.has_partial):
                quiet = False
                self._busy.add(stream)
                tasks.start(self._ship(stream), name=f"ship {stream.path}")
        return quiet

    async def _ship(self, stream: FileStream) -> None:
        try:
            async with self._slots:
                await self._ship_all(stream)
        finally:
            self._busy.discard(stream)

    async def _ship_all(self, stream: FileStream) -> None:
        """Ship what there is, each batch being made while the one before is under way."""
        under_way: tuple[Batch, asyncio.Task[int]] | None = None
        batches: list[Batch] = []
        try:
            while True:
                batch = None
                if not self._stopping:
                    batch = stream.next_batch(time.time(), finish=self._draining)
                batches = [stream for stream in (under_way and under_way[0], batch) if stream]
                if under_way is not None:
                    stream.mark_shipped(under_way[0], await under_way[1])
                    self._count(under_way[0])
                    under_way = None
                if batch is None:
                    return
                under_way = (batch, asyncio.create_task(self._commit(stream, batch)))
                await asyncio.sleep(0)
        except Conflict as conflict:
            self._record_conflict(stream, conflict)
            for path in stream.rewind(batches, conflict.stored):
                self._report(f"{path}: was truncated meanwhile; what the other shipper did not take is lost")
        except OSError as error:
            stream.back_off(time.time())
            if stream.path not in self._reported_paths:
                self._reported_paths.add(stream.path)
                self._report(f"{stream.path}: cannot be read: {error.strerror}; trying on")
        finally:
            if under_way is not None:
                under_way[1].cancel()

    async def _commit(self, stream: FileStream, batch: Batch) -> int:
        self._record_rejected(
            batch.drop_oversized(self._limit), f"more than the {self._limit} bytes that NATS takes"
        )
        while True:
            try:
                return await self._sink.commit(batch.events, batch.checkpoint, stream.sequence)
            except CommitRejected as rejected:
                # One event too many bytes long; the others are not to wait for it.
                batch.drop_largest()
                self._record_rejected(1, rejected.message)

    def _record_rejected(self, number: int, why: str) -> None:
        if number and not self.rejected:
            self._report(f"an event is left out: {why} (further ones are counted only)")
        self.rejected += number

    def _count(self, batch: Batch) -> None:
        self.batches += 1
        for item in batch.events:
            self.shipped[item.subject.split(".", 2)[1]] += 1
            self.bytes += len(item.payload)

    def _record_conflict(self, stream: FileStream, conflict: Conflict) -> None:
        now = time.monotonic()
        self.conflicts += 1
        self._conflict_times.append(now)
        self._report(f"{stream.path}: another shipper has gone on; taking over where it is")
        if len(self._conflict_times) == MAX_CONFLICTS and now - self._conflict_times[0] < CONFLICT_WINDOW:
            raise ShipError(
                f"{stream.path}: another shipper (run {conflict.stored.checkpoint.run}) ships this file under"
                " the same host name",
                "stop one of them, or give it another --host",
            )
