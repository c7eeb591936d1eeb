"""File stream: the files of one name, read in order and turned into batches with checkpoints.

Invariants:

1. A file is read to its end before the next one is, whatever it is renamed to and however long that takes.
2. A batch holds a contiguous range of the events of each file; its checkpoint records where the range ends.
3. If a batch is not shipped, no later batch is: reading resumes at the last shipped position.
4. Where message ids contain the generation of a file, it is in a checkpoint before its first event is sent.
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.files.batch import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Batch, exceeds_batch
from tickertape.producers.shipper.files.completed_files import MAX_COMPLETED
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.files.rotation_chain import RotationChain, may_have_work
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.throttle import Throttle
from tickertape.producers.shipper.timing import TICK, Timing

MAX_CHUNKS: Final = 256
"""Chunks that are read for one event: an endless line must not block other files."""

READ_RETRY_WAIT: Final = 5.0
"""Seconds until files are read again after a read error."""


class FileStream(RotationChain):
    """Files of one name as a stream of events.

    Args:
        path: the absolute path that the files were written under.
        stored: last checkpoint of this path.
        parser: factory of the parser for a file.
        throttle: decides which events are shipped.
        roots: folders whose files may be read.
        run_id: identifier of this process in checkpoints.
        announce_generations: commit the generation of a file in a checkpoint before its first batch.
        timing: timeouts of its files.

    Attributes:
        sequence: sequence of the last checkpoint in EVENTS.
        caught_up_at: monotonic seconds at which the stream last had nothing left to ship; 0 before that.
        failures: consecutive batches that could not be read.
        finished_paths: paths of files that are shipped to their end, which the owner may delete.
    """

    def __init__(
        self,
        path: str,
        stored: StoredCheckpoint | None,
        parser: Callable[[], Parser],
        throttle: Throttle,
        run_id: str,
        *,
        roots: Roots,
        announce_generations: bool = False,
        timing: Timing = Timing(),  # noqa: B008 - immutable
    ) -> None:
        super().__init__(path, stored.checkpoint if stored is not None else None, parser, roots, timing)
        self.caught_up_at = 0.0
        self.failures = 0
        self.finished_paths: deque[str] = deque(maxlen=MAX_COMPLETED)
        self._announce_generations = announce_generations
        self._announced: set[str] = set()
        self.sequence = stored.sequence if stored is not None else 0
        self.throttle = throttle
        self._count = self._shipped_count = 0
        self._run_id = run_id
        self._ready: deque[tuple[TailedFile, ParsedEvent]] = deque()
        # Parts of the next batch. They outlive a read error: the events were taken from the parser, and would
        # not be read again.
        self._collected: list[OutgoingEvent] = []
        self._collected_completed: list[TailedFile] = []
        self._saved_at = float("-inf")
        self._retry_at = float("-inf")
        if stored is not None:
            self._count = self._shipped_count = stored.checkpoint.count
            self._announced = {position.generation for position in stored.checkpoint.positions}
            throttle.restore_unreported(stored.checkpoint.suppressed)

    def __repr__(self) -> str:
        return f"<FileStream {self.path} {list(self.chain)}>"

    def has_work(self, now: float) -> bool:
        """Return whether there may be something to ship."""
        if self.is_backing_off:
            return False
        has_work = (
            bool(self._ready or self._unsaved)
            or self.throttle.report_due(now)
            or any(may_have_work(file, now) for file in self.chain)
        )
        if not has_work:
            self.caught_up_at = time.monotonic()
        return has_work

    @property
    def needs_attention(self) -> bool:
        """Whether there may be work that no change of a file announces."""
        chain = self.chain
        is_rotating = len(chain) > 1 or any(file.is_rotated or file.ended for file in chain)
        waits = self.deferred or self._unsaved or self.throttle.unreported or self.has_partial
        return bool(is_rotating or waits or self._ready or self.is_backing_off)

    @property
    def is_backing_off(self) -> bool:
        """Whether reading is paused after an error, so that there may be more to ship."""
        return self._timing.clock() < self._retry_at

    def back_off(self) -> None:
        """Pause reading for a while, because one of the files cannot be read."""
        self._retry_at = self._timing.clock() + READ_RETRY_WAIT

    def shift_clock(self, step: float) -> None:
        """Shift what is compared with times of files, as the system clock was set by ``step`` seconds."""
        for file in self.chain:
            file.shift_clock(step)
        self.scanned_at += min(step, 0.0)  # as with ``verified_at``
        self.absence.shift_clock(step)
        self.gone_at = {key: at + step for key, at in self.gone_at.items()}
        self.throttle.shift_clock(step)

    def next_batch(self, now: float, *, finish: bool = False) -> Batch | None:
        """Read the next batch; return None if there is nothing to ship now.

        Args:
            now: UNIX seconds.
            finish: flush incomplete lines and events.

        Raises:
            OSError: a file cannot be read. What was read before the error is in the next batch.
        """
        try:
            batch = self._next_batch(now, finish=finish)
        except OSError:
            self.failures += 1
            raise
        self.failures = 0
        return batch

    def _next_batch(self, now: float, *, finish: bool) -> Batch | None:
        events, completed = self._collected, self._collected_completed
        announce = self._announce_generations
        new = announce and any(file.generation not in self._announced for file in self.chain)
        if new and not events and not completed:
            # A batch without events stores the generation before the first message id contains it.
            return self._batch([], [], now)
        size = sum(len(event.payload) for event in events)
        is_full = is_within = False
        while not is_full and (self._ready or self._fill(now, finish=finish)):
            file, parsed = self._ready[0]
            waits = announce and file.generation not in self._announced
            if waits or (not (is_within or parsed.may_end_batch) and exceeds_batch(len(events), self._ready)):
                break
            is_within = not parsed.may_end_batch
            self._ready.popleft()
            # Events that are not admitted count as batched too, or they would hold back the checkpoint.
            start = file.mark_batched(parsed.end)
            self._unsaved = True
            if not self.throttle.admit(parsed, now):
                continue
            events.append(OutgoingEvent(parsed.subject, parsed.encode(), f"{file.generation}-{start}"))
            size += len(events[-1].payload)
            is_full = (len(events) >= MAX_BATCH_EVENTS or size >= MAX_BATCH_BYTES) and parsed.may_end_batch
        # JetStream rejects a batch with too many messages, so a full one leaves the reports to the next.
        if not self._ready and len(events) <= MAX_BATCH_EVENTS - len(LEVELS):
            events += self.throttle.report_suppressed(now, finish=finish)
        self._take_completed(now)
        if not (events or completed or self._unsaved):
            return None
        if not events and not completed and not finish and self._timing.clock() < self._saved_at + 1.0:
            return None  # a checkpoint without events is committed at most once per second
        batch = self._batch(events, completed, now)
        self._collected, self._collected_completed = [], []
        return batch

    def _batch(self, events: list[OutgoingEvent], completed: list[TailedFile], now: float) -> Batch:
        # Pending files come after the open files that were rotated, and before the live file.
        # Without a file, an unread position says nothing; ``known_until`` has the file found again.
        rotated = [file.position() for file in self.chain if file.is_rotated and not file.is_found_again]
        live = [file.position() for file in self.chain if not file.is_rotated]
        positions = [*self.completed.values(), *rotated, *self.pending.values(), *live]
        checkpoint = Checkpoint(
            self.path,
            # Bounds the message; the oldest completed files, which come first, are forgotten first.
            tuple(positions[-MAX_COMPLETED:]),
            Counter(self.throttle.unreported),
            self.known_until(now),  # however late the batch is committed
            self._count + 1,
            self._run_id,
            absent_since=self.absence.since,
        )
        # Only now: reading the positions may fail, and is then repeated.
        self._unsaved = False
        self._announced = {file.generation for file in self.chain}
        self._saved_at = self._timing.clock()
        self._count += 1
        return Batch(events, checkpoint, [(file, file.batched_offset) for file in self.chain], completed)

    def _fill(self, now: float, *, finish: bool) -> bool:
        """Read until an event is ready; return whether there is one."""
        if self.pending:
            # The next scan opens the pending file; what could be read now may follow it.
            return bool(self._ready)
        for _ in range(MAX_CHUNKS):
            if self._ready:
                break
            # Oldest first: a file is read only while all files before it are at their end without an
            # incomplete line. The chain is copied, because opening a missed file or a copy changes it.
            for file in list(self.chain):
                # Before the first byte of a live file: files between its predecessor and this one may have
                # been written and rotated since the last scan, and their lines come first.
                if not file.is_rotated and file.changed_before_first_read():
                    if self.open_missed(file.verified_at - TICK, now, before=file):
                        break
                    # A rotation is under way, so an older file may still be missing.
                    if self.deferred:
                        file.rearm_first_read_check()
                        return bool(self._ready)
                events = [] if file.ended else file.read(now)
                if file.truncated:
                    flushed = self.continue_truncated(file, now)
                    if flushed is None:
                        return False
                    self._ready.extend((file, parsed) for parsed in flushed)
                    break
                # Only at the end of the file, where an incomplete line or event is certain to be the last.
                if finish and file.at_eof and not events:
                    events = file.finish(now)
                self._ready.extend([(file, parsed) for parsed in events])
                if events or not file.at_eof:
                    break
                if file.has_partial:
                    return False  # the next file must wait as well
            else:
                return False
        return bool(self._ready)

    def _take_completed(self, now: float) -> None:
        """Collect files that are completely batched and no longer written to."""
        # While events wait for a batch, the position of their file must not cover them.
        while self.chain and not self._ready:
            file = self.chain[0]
            if not (file.ended or file.is_complete()):
                break
            if file.has_partial:
                self._ready.extend((file, parsed) for parsed in file.finish(now))
                break
            # A truncated generation has no position any more, because its file belongs to the next one.
            # Otherwise blank lines at the end, which are in no event, are covered here, up to its size.
            if not file.ended:
                file.mark_batched(file.read_offset)
                self.completed[file.key] = file.position(done=True)
                if not file.exists:
                    self.completed.mark_gone(file.key)
            self._collected_completed.append(self.chain.popleft())

    def mark_shipped(self, batch: Batch, sequence: int) -> None:
        """Record that a batch is acknowledged."""
        self.sequence, self._shipped_count = sequence, batch.checkpoint.count
        for file, offset in batch.offsets:
            file.mark_shipped(offset)
        # Completed files stay open until their last lines are acknowledged, for a conflict to rewind them.
        for file in batch.completed:
            file.close()
            self.finished_paths.append(file.path)

    def rewind(self, batches: list[Batch], stored: StoredCheckpoint) -> list[str]:
        """Withdraw batches, and resume at the positions that another process has shipped.

        Args:
            batches: batches that were not committed, oldest first.
            stored: checkpoint of the other process.

        Returns:
            Paths of files that were truncated in the meantime, so that they cannot be read again.
        """
        # Newest first, so that completed files return to the front of the chain in their order.
        for completed in (self._collected_completed, *(batch.completed for batch in reversed(batches))):
            for file in reversed(completed):
                for done in [one for one in self.completed.values() if one.generation == file.generation]:
                    del self.completed[done.key]
                self.chain.appendleft(file)
        self._collected, self._collected_completed = [], []
        self._ready.clear()
        self.sequence = stored.sequence
        self._announced = {position.generation for position in stored.checkpoint.positions}
        self._count = self._shipped_count = stored.checkpoint.count
        self.throttle.restore_unreported(stored.checkpoint.suppressed)
        positions = {position.key: position for position in stored.checkpoint.positions}
        lost_paths = []
        for file in list(self.chain):
            if file.ended:  # its content is lost unless the other process has shipped it
                self.chain.remove(file)
                lost_paths.append(file.path)
                file.close()
            else:
                position = positions.pop(file.key, None)
                file.rewind(position if position is not None and file.still_matches(position) else None)
        # The rest are not open here; the next scan opens those that are not complete.
        self.restore(positions.values())
        return lost_paths

    def retire(self) -> StoredCheckpoint | None:
        """Return the last checkpoint of a stream that has no file to remember; None if it is still in use."""
        remembers = self.chain or self.pending or self.completed or self.throttle.unreported or self._ready
        if remembers or self._unsaved or self._collected_completed or self._count != self._shipped_count:
            return None
        absent_since = self.absence.since
        checkpoint = Checkpoint(self.path, time=self.scanned_at, count=self._count, absent_since=absent_since)
        return StoredCheckpoint(checkpoint, self.sequence)

    def close(self) -> None:
        """Close all files."""
        for file in (*self._collected_completed, *self.chain):
            file.close()
