"""Shipper: finds files, ships what is new in each, and yields to a process that has shipped more.

Invariants:

1. Only one task at a time ships a file stream, with at most two batches in memory. ``Schedule`` bounds how
   many work simultaneously.
2. While NATS is unreachable nothing more is read, but files are still found and kept open, however often they
   rotate.
3. A batch that waits for its acknowledgement blocks no other file stream.
4. After a batch that could not be committed, no later one of its file stream is.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from tickertape.producers.shipper.files.batch import Batch
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.schedule import Schedule, hasty_pause
from tickertape.producers.shipper.sinks.conflicts import ConflictLimit
from tickertape.producers.shipper.sinks.sink import CommitRejected, Conflict, Sink
from tickertape.producers.shipper.sources.event_stream import EventStream
from tickertape.producers.shipper.sources.file_source import FileSource

from tickertape.clock import SteppedClock
from tickertape.errors import OperatorError
from tickertape.process.tasks import Tasks

POLL_INTERVAL: Final = 0.2
"""Seconds between two polls of files while the operating system does not report changes."""

SLOW_POLL_INTERVAL: Final = 1.0
"""Seconds between two polls of files while it does."""

POLL_BACKOFF: Final = 100
"""Minimum ratio of the pause between two polls of all files to the duration of a poll."""

DRAIN_POLL_INTERVAL: Final = 0.02
"""Seconds between two polls after the end of the input, and the minimum of any pause."""

SCAN_INTERVAL: Final = 1.0
"""Seconds between two expansions of the globs; tailed files lose nothing in between."""

SCAN_BACKOFF: Final = 100
"""Minimum ratio of the pause between two expansions to their duration: large trees must not cost much CPU."""

MAX_TURN_BATCHES: Final = 8
"""Batches of a file stream after which others have their turn."""

SMALL_BATCH_EVENTS: Final = 300
"""Events of a batch up to which the next one is not read while it is in flight, as there is hardly any."""

STOP_GRACE: Final = 3.0
"""Seconds for batches in flight at shutdown; the next start finds out whether later ones were committed."""

MAX_READ_FAILURES: Final = 3
"""Consecutive failures to read a file after the end of the input that end the shipper."""


class ShipError(OperatorError):
    """Failure that ends shipping."""


class Shipper:
    """Loop that reads batches from file streams and commits them to a sink.

    Args:
        files: source of file streams.
        sink: destination of batches.
        watcher: wakes the loop early when a file changes.
        limit: maximum size of an event in bytes that the server accepts.
        report: called with each line for the operator.

    Attributes:
        shipped: acknowledged events by level.
        bytes: bytes of acknowledged events.
        batches: acknowledged batches.
        rejected: events that the server does not accept.
        conflicts: batches that another process committed first.
    """

    def __init__(
        self, files: FileSource, sink: Sink, watcher: FileWatcher, limit: int, report: Callable[[str], None]
    ) -> None:
        self.shipped: Counter[str] = Counter()
        self.bytes = 0
        self.batches = self.rejected = self.conflicts = 0
        self._files = files
        self._clock = SteppedClock(files.shift_clock)
        self._sink = sink
        self._watcher = watcher
        self._limit = limit
        self._report = report
        self._schedule = Schedule(watcher.wake)
        self._conflict_limit = ConflictLimit()
        self._reported_paths: set[str] = set()
        # Scans in succession that have not found everything.
        self._scan_failures = 0
        # Monotonic seconds of the next scans, without and with the sign of a new file, and of the next poll.
        self._scan_at = self._hasty_scan_at = self._poll_at = 0.0
        self._by_path: dict[str, EventStream] = {}
        self._draining = False
        self._stopping = False

    @property
    def streams(self) -> list[EventStream]:
        """All file streams."""
        return list(self._files.streams.values())

    @property
    def forbidden(self) -> int:
        """Number of files that were found and must not be read."""
        return self._files.forbidden

    @property
    def losses(self) -> tuple[int, int]:
        """Number of files with lines that are lost, and of bytes that are known to be lost."""
        return self._files.lost_files, self._files.lost_bytes

    async def run(self, input_ended: Callable[[], bool], *, once: bool = False) -> None:
        """Ship until the input has ended and everything is shipped.

        Args:
            input_ended: returns whether no more input will come.
            once: flush incomplete lines and events at the end of the input.

        Raises:
            ShipError: another process ships the same files, or the sink cannot continue.
        """
        async with Tasks() as tasks:
            try:
                while True:
                    # File times are compared with the system clock, which can be set.
                    now = self._clock.now()
                    changed = self._take_changed()
                    if time.monotonic() >= self._scan_at:
                        self._scan(now)
                    ended = input_ended()
                    self._draining = once and ended
                    if ended or time.monotonic() >= self._poll_at:
                        idle = self._poll(tasks, now) and not self._scan_failures
                        # Files may have appeared after the last scan.
                        if idle and ended and self._scan(now) and self._poll(tasks, self._clock.now()):
                            return
                    else:
                        self._start_ready(tasks, now, self._schedule.select(changed))
                    pause = DRAIN_POLL_INTERVAL if ended else self._poll_delay()
                    await tasks.until(self._watcher.wait(pause))
            finally:
                # Tasks build no further batches, but wait for those in flight: without their
                # acknowledgements, the next start reads checkpoints that may still change.
                self._stopping = True
                await tasks.join(STOP_GRACE)

    def _scan(self, now: float) -> bool:
        """Find new files; return whether all files are known.

        Raises:
            ShipError: files still cannot be found several scans after the end of the input.
        """
        started, before = time.monotonic(), len(self._files.streams)
        try:
            self._files.scan(now)
            path, error = self._files.read_error or ("", None)
        except OSError as failed_scan:
            path, error = "files", failed_scan
            self._report_once(path, f"files cannot be found: {failed_scan.strerror}; retrying")
        self._by_path = {path: stream for stream in self._files.streams.values() for path in stream.paths}
        duration = (ended := time.monotonic()) - started
        self._scan_at = ended + max(SCAN_INTERVAL, duration * SCAN_BACKOFF)
        known = before / max(before, len(self._files.streams), 1)
        self._hasty_scan_at = ended + hasty_pause(duration, SCAN_INTERVAL, known)
        self._poll_at = 0.0  # what is new is read now
        self._scan_failures = self._scan_failures + 1 if error is not None else 0
        if error is not None:
            self._give_up_after(self._scan_failures, path, error)
        return error is None

    def _give_up_after(self, failures: int, path: str, error: OSError) -> None:
        """End the shipper if nothing but what cannot be read keeps it from its end.

        Raises:
            ShipError: the input has ended, and reading has failed several times in succession.
        """
        if self._draining and failures >= MAX_READ_FAILURES:
            raise ShipError(
                f"{path} cannot be read: {error.strerror}",
                "once it can be read, run the same command again: it continues where this one stopped",
            )

    def _poll_delay(self) -> float:
        """Return the seconds until something is due if no change is reported."""
        now = time.monotonic()
        due_at = min(self._scan_at, self._poll_at, self._schedule.next_due)
        due_at = self._schedule.wake_at = max(now + DRAIN_POLL_INTERVAL, due_at)
        return due_at - now

    def _take_changed(self) -> set[EventStream]:
        """Return the streams of the files that have changed since the last call; scan early if one is new."""
        paths, self._watcher.changed_paths = self._watcher.changed_paths, set()
        changed = {self._by_path.get(path) for path in paths}
        if None in changed:
            self._scan_at = min(self._scan_at, self._hasty_scan_at)
        return {stream for stream in changed if stream is not None}

    def _poll(self, tasks: Tasks, now: float) -> bool:
        """Start a task for every file stream that has work; return whether nothing is left to ship."""
        started, idle = time.monotonic(), not tasks
        idle = self._start_ready(tasks, now, list(self._files.streams.values())) and idle
        ended = time.monotonic()
        self._poll_at = ended + max(self._interval, (ended - started) * POLL_BACKOFF)
        return idle

    @property
    def _interval(self) -> float:
        return SLOW_POLL_INTERVAL if self._watcher.active else POLL_INTERVAL

    def _start_ready(self, tasks: Tasks, now: float, streams: Iterable[EventStream]) -> bool:
        """Queue those of the file streams that have work; return whether none has."""
        idle = True
        for stream in streams:
            if stream in self._schedule.busy:
                continue
            if stream.deferred or stream.is_backing_off:
                idle = False  # there may be more, which cannot be read or found at the moment
            if self._has_work(stream, now):
                idle = False
                self._schedule.add(stream)
            else:
                self._schedule.attend(stream, self._interval)
        self._start_queued(tasks)
        return idle

    def _has_work(self, stream: EventStream, now: float) -> bool:
        return stream.has_work(now) or (self._draining and stream.has_partial)

    def _start_queued(self, tasks: Tasks) -> None:
        while (stream := self._schedule.take()) is not None:
            tasks.start(self._ship(tasks, stream), name=f"ship {stream.path}")

    async def _ship(self, tasks: Tasks, stream: EventStream) -> None:
        # After a failure the stream stays busy: the next batch would skip the one that was not committed, and
        # the main loop learns of the failure only after it may have polled again.
        has_more = await self._ship_turn(stream)
        self._schedule.release(stream)
        if has_more:
            self._schedule.add(stream)
        else:
            self._schedule.attend(stream, self._interval)
        if not self._stopping:
            self._start_queued(tasks)

    async def _ship_turn(self, stream: EventStream) -> bool:
        """Ship what can be read, building each batch while the previous one is in flight.

        Returns:
            Whether there may be more, as the turn is over before the end of what can be read.
        """
        in_flight: tuple[Batch, asyncio.Task[int]] | None = None
        batches: list[Batch] = []
        stream.set_settled(settled=self._schedule.take_settled(stream))
        try:
            for number in itertools.count():
                batch = error = None
                is_over = number == MAX_TURN_BATCHES
                if not (self._stopping or is_over):
                    try:
                        batch = stream.next_batch(self._clock.now(), finish=self._draining)
                    except OSError as failed_read:
                        error = failed_read
                # Both are withdrawn, oldest first, if another process has committed before the first of them.
                batches = [unshipped for unshipped in (in_flight and in_flight[0], batch) if unshipped]
                if in_flight is not None:
                    # A batch is committed only after its predecessor, whose sequence is the condition of its
                    # commit.
                    self._record_shipped(stream, in_flight[0], await in_flight[1])
                    in_flight = None
                if error is not None:
                    # Only after the batch in flight is acknowledged: reading continues after its events.
                    self._back_off(stream, error)
                stream.set_settled(settled=False)
                if batch is None:
                    return is_over
                if len(batch.events) <= SMALL_BATCH_EVENTS:
                    self._record_shipped(stream, batch, await self._commit(stream, batch))
                    if not self._has_work(stream, self._clock.now()):
                        return False
                    continue
                in_flight = (batch, asyncio.create_task(self._commit(stream, batch)))
                await asyncio.sleep(0)  # to start the commit, as reading the next batch blocks the event loop
        except Conflict as conflict:
            self._record_conflict(stream, conflict)
            for path in stream.rewind(batches, conflict.stored):
                self._report(
                    f"{path}: truncated during a conflict; lines that the other shipper missed are lost"
                )
        finally:
            if in_flight is not None:
                in_flight[1].cancel()
        return True  # what the other process has not shipped

    def _back_off(self, stream: EventStream, error: OSError) -> None:
        """Retry a file stream that cannot be read after a while, and report that once."""
        stream.back_off()
        self._report_once(stream.path, f"{stream.path}: cannot be read: {error.strerror}; retrying")
        self._give_up_after(stream.failures, stream.path, error)

    def _report_once(self, path: str, text: str) -> None:
        if path not in self._reported_paths:
            self._reported_paths.add(path)
            self._report(text)

    async def _commit(self, stream: EventStream, batch: Batch) -> int:
        self._record_rejected(
            batch.drop_oversized(self._limit), f"larger than the {self._limit} bytes that NATS accepts"
        )
        while True:
            try:
                return await self._sink.commit(batch.events, batch.checkpoint, stream.sequence)
            except CommitRejected as rejected:
                # The server does not say which event is too large; the others must not wait for it.
                batch.drop_largest()
                self._record_rejected(1, rejected.message)

    def _record_rejected(self, count: int, reason: str) -> None:
        if count and not self.rejected:
            self._report(f"event dropped: {reason} (further dropped events are only counted)")
        self.rejected += count

    def _record_shipped(self, stream: EventStream, batch: Batch, sequence: int) -> None:
        stream.mark_shipped(batch, sequence)
        self.batches += 1
        for event in batch.events:
            self.shipped[event.subject.split(".", 2)[1]] += 1
            self.bytes += len(event.payload)

    def _record_conflict(self, stream: EventStream, conflict: Conflict) -> None:
        self.conflicts += 1
        self._report(f"{stream.path}: another shipper has committed first; continuing from its checkpoint")
        if self._conflict_limit.is_reached(time.monotonic()):
            raise ShipError(
                f"{stream.path}: another shipper (run {conflict.stored.checkpoint.run}) ships this file under"
                " the same host name",
                "stop one of them, or give it another --host",
            )
