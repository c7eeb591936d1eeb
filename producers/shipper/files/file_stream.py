"""File stream: the files of one name, read in order and turned into batches with checkpoints.

Invariants:

1. A file is read to its end before the next one is, whatever it is renamed to and however long that takes.
2. A batch holds a contiguous range of the events of each file; its checkpoint records where the range ends.
3. If a batch is not shipped, no later batch is: reading resumes at the last shipped position.
4. Where message ids contain the generation of a file, it is in a checkpoint before its first event is sent.
"""

import os
from collections import Counter, deque
from collections.abc import Callable
from typing import Final

from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.files.batch import Batch
from tickertape.producers.shipper.files.completed_files import MAX_COMPLETED
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.files.rotation import open_copy
from tickertape.producers.shipper.files.rotation_chain import TICK, RotationChain
from tickertape.producers.shipper.files.tailed_file import ROTATION_GRACE, TailedFile
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.throttle import Throttle

MAX_BATCH_EVENTS: Final = 999
"""Events in a batch: JetStream accepts 1 000 messages, and the checkpoint is one of them."""

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Bytes of events after which a batch is closed."""

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
        grace: seconds; see ``TailedFile``.

    Attributes:
        sequence: sequence of the last checkpoint in EVENTS.
        caught_up_at: UNIX seconds at which the stream last had nothing left to ship.
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
        grace: float = ROTATION_GRACE,
    ) -> None:
        super().__init__(path, stored.checkpoint if stored is not None else None, parser, roots, grace)
        self.caught_up_at = 0.0
        self.failures = 0
        self.finished_paths: deque[str] = deque(maxlen=MAX_COMPLETED)
        self._announce_generations = announce_generations
        self._announced: set[str] = set()
        self.sequence = stored.sequence if stored is not None else 0
        self.throttle = throttle
        self._count = 0
        self._run_id = run_id
        self._ready: deque[tuple[TailedFile, ParsedEvent]] = deque()
        # Parts of the next batch. They outlive a read error: the events were taken from the parser, and would
        # not be read again.
        self._collected: list[OutgoingEvent] = []
        self._collected_completed: list[TailedFile] = []
        self._saved_at = 0.0
        self._retry_at = 0.0
        if stored is not None:
            self._count = stored.checkpoint.count
            self._announced = {position.generation for position in stored.checkpoint.positions}
            throttle.restore_unreported(stored.checkpoint.suppressed)

    def __repr__(self) -> str:
        return f"<FileStream {self.path} {list(self.chain)}>"

    def has_work(self, now: float) -> bool:
        """Return whether there may be something to ship."""
        if self.is_backing_off(now):
            return False
        has_work = (
            bool(self._ready or self._unsaved)
            or self.throttle.report_due(now)
            or any(self._has_data(file, now) for file in self.chain)
        )
        if not has_work:
            self.caught_up_at = now
        return has_work

    @staticmethod
    def _has_data(file: TailedFile, now: float) -> bool:
        try:
            return file.may_have_data(now) or file.is_complete(now)
        except OSError:
            return True  # reading the file reports the error

    def is_backing_off(self, now: float) -> bool:
        """Return whether reading is paused after an error, so that there may be more to ship."""
        return now < self._retry_at

    @property
    def flush_at(self) -> float:
        """UNIX seconds at which the first buffered line is flushed; infinity if there is none."""
        return min((file.flush_at for file in self.chain), default=float("inf"))

    def back_off(self, now: float) -> None:
        """Pause reading for a while, because one of the files cannot be read."""
        self._retry_at = now + READ_RETRY_WAIT

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
            # This batch has no events: message ids contain the generation, so it must be stored before the
            # first of them is sent, or a restart would choose another one.
            return self._batch([], [], now)
        size = sum(len(event.payload) for event in events)
        while len(events) < MAX_BATCH_EVENTS and size < MAX_BATCH_BYTES and self._fill(now, finish=finish):
            file, parsed = self._ready[0]
            if announce and file.generation not in self._announced:
                break
            self._ready.popleft()
            # Events that are not admitted count as batched as well, or they would hold back the checkpoint.
            # Events of a file are contiguous, so the end of the previous event identifies this one.
            start = file.mark_batched(parsed.end)
            self._unsaved = True
            if not self.throttle.admit(parsed, now):
                continue
            payload = parsed.encode()
            events.append(OutgoingEvent(parsed.subject, payload, f"{file.generation}-{start}"))
            size += len(payload)
        # JetStream rejects a batch with too many messages, so a full one leaves the reports to the next.
        if not self._ready and len(events) <= MAX_BATCH_EVENTS - len(LEVELS):
            events += self.throttle.report_suppressed(now, finish=finish)
        self._take_completed(now)
        if not (events or completed or self._unsaved):
            return None
        if not events and not completed and not finish and now - self._saved_at < 1.0:
            return None  # a checkpoint without events is committed at most once per second
        batch = self._batch(events, completed, now)
        self._collected, self._collected_completed = [], []
        return batch

    def _batch(self, events: list[OutgoingEvent], completed: list[TailedFile], now: float) -> Batch:
        # Pending files come after the open files that were rotated, and before the live file.
        rotated = [file.position() for file in self.chain if file.is_rotated]
        live = [file.position() for file in self.chain if not file.is_rotated]
        positions = [*self.completed.values(), *rotated, *self.pending.values(), *live]
        # Files that appeared after this time may be unknown, however late the batch is committed.
        verified = (file.verified_at for file in self.chain if not file.is_rotated)
        known_until = min(verified, default=self.scanned_at or now)
        checkpoint = Checkpoint(
            self.path,
            # Bounds the message; the oldest completed files, which come first, are forgotten first.
            tuple(positions[-MAX_COMPLETED:]),
            Counter(self.throttle.unreported),
            known_until,
            self._count + 1,
            self._run_id,
        )
        # Only now: reading the positions may fail, and is then repeated.
        self._unsaved = False
        self._announced = {file.generation for file in self.chain}
        self._saved_at = now
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
                    self._continue_truncated(file, now)
                    break
                # Only at the end of the file, where an incomplete line or event is certain to be the last
                # one.
                if finish and file.at_eof and not events:
                    events = file.finish(now)
                self._ready.extend((file, parsed) for parsed in events)
                if events or not file.at_eof:
                    break
                if file.has_partial:
                    return False  # the next file must wait as well
            else:
                return False
        return bool(self._ready)

    def _continue_truncated(self, file: TailedFile, now: float) -> None:
        """Continue in the copy of a truncated file, if there is one, and then in the file from its start."""
        # What can fail comes first: until the successor is in the chain, the next read repeats all of this.
        successor = file.next_generation(self._parser(), now)
        copy = None
        try:
            copy = open_copy(self._roots, self.path, file.matches_copy, {other.key for other in self.chain})
            if copy is not None:
                path, fd = copy
                file.switch_to_copy(fd, path)
        except OSError:
            successor.close()
            if copy is not None:
                os.close(copy[1])
            raise
        self.chain.insert(self.chain.index(file) + 1, successor)
        if copy is None:
            file.end()
            # An incomplete line continues in the copy; without a copy its rest is lost with the file.
            self._ready.extend((file, parsed) for parsed in file.finish(now))
        else:
            file.mark_rotated(now)
            self.completed.pop(file.key, None)
        # The file may have been truncated more than once.
        self.open_missed(file.verified_at - TICK, now, before=successor)
        if self.deferred:  # the search is repeated before the successor is read
            successor.mark_verified(file.verified_at)

    def _take_completed(self, now: float) -> None:
        """Collect files that are completely batched and no longer written to."""
        # While events wait for a batch, the position of their file must not cover them.
        while self.chain and not self._ready:
            file = self.chain[0]
            if not (file.ended or file.is_complete(now)):
                break
            if file.has_partial:
                self._ready.extend((file, parsed) for parsed in file.finish(now))
                break
            # A truncated generation has no position any more, because its file belongs to the next one.
            # Otherwise blank lines at the end, which are in no event, are covered here: a completed file is
            # one whose position equals its size.
            if not file.ended:
                file.mark_batched(file.read_offset)
                self.completed[file.key] = file.position(done=True)
            self._collected_completed.append(self.chain.popleft())

    def mark_shipped(self, batch: Batch, sequence: int) -> None:
        """Record that a batch is acknowledged."""
        self.sequence = sequence
        for file, offset in batch.offsets:
            file.mark_shipped(offset)
        # Completed files stay open until their last lines are acknowledged, so that a conflict can rewind
        # them.
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
                self.completed.pop(file.key, None)
                self.chain.appendleft(file)
        self._collected, self._collected_completed = [], []
        self._ready.clear()
        self.sequence = stored.sequence
        self._announced = {position.generation for position in stored.checkpoint.positions}
        self._count = stored.checkpoint.count
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

    @property
    def has_partial(self) -> bool:
        """Whether an incomplete line or event is buffered."""
        return any(file.has_partial for file in self.chain)

    @property
    def lag(self) -> int:
        """Number of bytes that are not shipped yet."""
        return sum(file.lag for file in list(self.chain))  # a copy, since metrics are read in another thread

    def close(self) -> None:
        """Close all files."""
        for file in (*self._collected_completed, *self.chain):
            file.close()
