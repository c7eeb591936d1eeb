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
from tickertape.producers.shipper.files.watch import Wake
from tickertape.producers.shipper.sinks.sink import Conflict, Refused, Sink

from tickertape.errors import OperatorError
from tickertape.process.tasks import Tasks

POLL_INTERVAL: Final = 0.2
"""Seconds between two looks at files while the system does not tell of changes."""

SLOW_POLL_INTERVAL: Final = 1.0
"""The same while it does."""

ENDING_POLL_INTERVAL: Final = 0.02
"""The same while all that is left is to be shipped, and the shortest sleep at all."""

LOOK_INTERVAL: Final = 1.0
"""Seconds between two expansions of the globs; a file that is followed loses nothing meanwhile."""

LOOK_SHARE: Final = 50
"""An expansion that takes long is followed by a rest of so many times that."""

AT_ONCE: Final = 8
STOP_GRACE: Final = 3.0
"""Seconds at the end for batches that are under way; the next start finds out what became of others."""

RIVALS: Final = 3
"""Times within ``RIVALRY`` seconds that another process may have been faster: a successor, and no rival."""

RIVALRY: Final = 60.0


class Files(Protocol):
    """Where lineages come from: a ``Tail``, or a ``Spool``."""

    lineages: dict[str, FileStream]

    def look(self, now: float) -> None:
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

    def __init__(self, files: Files, sink: Sink, wake: Wake, limit: int, say: Callable[[str], None]) -> None:
        self.shipped: Counter[str] = Counter()
        self.bytes = 0
        self.batches = 0
        self.refused = 0
        self.conflicts = 0
        self._files = files
        self._sink = sink
        self._wake = wake
        self._limit = limit
        self._say = say
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._busy: set[FileStream] = set()
        self._rivals: deque[float] = deque(maxlen=RIVALS)
        self._complained: set[str] = set()
        self._ending = False
        self._stopping = False

    @property
    def lineages(self) -> list[FileStream]:
        """The files by name."""
        return list(self._files.lineages.values())

    async def run(self, ended: Callable[[], bool], *, once: bool = False) -> None:
        """Ship until there is nothing left and ``ended`` says that nothing more comes.

        Args:
            ended: asked when everything is shipped.
            once: what waits for its rest goes out as it is at the end.

        Raises:
            ShipError: another process ships the same, or the sink cannot go on.
        """
        look_at = 0.0
        clock = asyncio.get_running_loop().time
        async with Tasks() as tasks:
            try:
                while True:
                    began = clock()
                    now = time.time()
                    if began >= look_at:
                        self._files.look(now)
                        took = clock() - began
                        look_at = clock() + max(LOOK_INTERVAL, took * LOOK_SHARE)
                    over = ended()
                    self._ending = once and over
                    quiet = self._begin(tasks, now)
                    if quiet and over:
                        self._files.look(now)
                        if self._begin(tasks, time.time()):
                            return
                    pause = ENDING_POLL_INTERVAL if over else self._patience()
                    await tasks.until(self._wake.sleep(pause))
            finally:
                self._stopping = True
                await tasks.settle(STOP_GRACE)

    def _patience(self) -> float:
        """Seconds to sleep, unless something changes."""
        poll = SLOW_POLL_INTERVAL if self._wake.works else POLL_INTERVAL
        due = min(
            (one.due for one in self._files.lineages.values() if one not in self._busy), default=float("inf")
        )
        return min(poll, max(ENDING_POLL_INTERVAL, due - time.time()))

    def _begin(self, tasks: Tasks, now: float) -> bool:
        """Ship whatever stirs; True when nothing does."""
        quiet = not tasks
        for lineage in self._files.lineages.values():
            if lineage in self._busy:
                continue
            if lineage.stirs(now) or (self._ending and lineage.waits):
                quiet = False
                self._busy.add(lineage)
                tasks.start(self._ship(lineage), name=f"ship {lineage.path}")
        return quiet

    async def _ship(self, lineage: FileStream) -> None:
        try:
            async with self._slots:
                await self._ship_all(lineage)
        finally:
            self._busy.discard(lineage)

    async def _ship_all(self, lineage: FileStream) -> None:
        """Ship what there is, each batch being made while the one before is under way."""
        under_way: tuple[Batch, asyncio.Task[int]] | None = None
        batches: list[Batch] = []
        try:
            while True:
                batch = None
                if not self._stopping:
                    batch = lineage.next_batch(time.time(), finish=self._ending)
                batches = [one for one in (under_way and under_way[0], batch) if one]
                if under_way is not None:
                    lineage.shipped(under_way[0], await under_way[1])
                    self._count(under_way[0])
                    under_way = None
                if batch is None:
                    return
                under_way = (batch, asyncio.create_task(self._commit(lineage, batch)))
                await asyncio.sleep(0)
        except Conflict as conflict:
            self._rival(lineage, conflict)
            for path in lineage.rewind(batches, conflict.known):
                self._say(f"{path}: was truncated meanwhile; what the other shipper did not take is lost")
        except OSError as error:
            lineage.rest(time.time())
            if lineage.path not in self._complained:
                self._complained.add(lineage.path)
                self._say(f"{lineage.path}: cannot be read: {error.strerror}; trying on")
        finally:
            if under_way is not None:
                under_way[1].cancel()

    async def _commit(self, lineage: FileStream, batch: Batch) -> int:
        self._refuse(batch.leave_out(self._limit), f"more than the {self._limit} bytes that NATS takes")
        while True:
            try:
                return await self._sink.commit(batch.items, batch.checkpoint, lineage.sequence)
            except Refused as refused:
                # One event too many bytes long; the others are not to wait for it.
                batch.leave_largest_out()
                self._refuse(1, refused.message)

    def _refuse(self, number: int, why: str) -> None:
        if number and not self.refused:
            self._say(f"an event is left out: {why} (further ones are counted only)")
        self.refused += number

    def _count(self, batch: Batch) -> None:
        self.batches += 1
        for item in batch.items:
            self.shipped[item.subject.split(".", 2)[1]] += 1
            self.bytes += len(item.payload)

    def _rival(self, lineage: FileStream, conflict: Conflict) -> None:
        now = time.monotonic()
        self.conflicts += 1
        self._rivals.append(now)
        self._say(f"{lineage.path}: another shipper has gone on; taking over where it is")
        if len(self._rivals) == RIVALS and now - self._rivals[0] < RIVALRY:
            raise ShipError(
                f"{lineage.path}: another shipper (run {conflict.known.checkpoint.run}) ships this file under"
                " the same host name",
                "stop one of them, or give it another --host",
            )
