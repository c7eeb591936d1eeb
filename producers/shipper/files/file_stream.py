"""The batches that are made of the files of one name.

Invariants:

1. A file is read to its end before its successor is, whatever its name becomes and however long that takes.
2. A batch is a stretch of the events of each file, without a hole; its checkpoint says where it ends.
3. When a batch is not shipped, nothing after it is: reading goes back to what is shipped.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tickertape.producers.shipper.files.rotation import open_copy
from tickertape.producers.shipper.files.rotation_chain import MAX_COMPLETED, TICK, RotationChain
from tickertape.producers.shipper.files.tailed_file import ROTATION_GRACE, TailedFile
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.throttle import Throttle

MAX_BATCH_EVENTS: Final = 999
"""Events of a batch: JetStream takes 1 000 messages, and the checkpoint is one."""

MAX_BATCH_BYTES: Final = 1024 * 1024
MAX_CHUNKS: Final = 256
"""Pieces that are read for one event: an endless line must not hold up other files."""

READ_RETRY_WAIT: Final = 5.0
"""Seconds until a file that cannot be read is tried again."""


@dataclass(slots=True)
class Batch:
    """What is shipped together.

    Attributes:
        items: the events.
        checkpoint: with all of this.
        marks: how far each file is shipped then.
        done: files that are shipped to their end then.
    """

    items: list[OutgoingEvent]
    checkpoint: Checkpoint
    offsets: list[tuple[TailedFile, int]]
    done: list[TailedFile]

    def drop_oversized(self, limit: int) -> int:
        """Leave the events out that have more bytes than the server takes; return their number."""
        matches_copy = [item for item in self.items if len(item.payload) <= limit]
        left_out = len(self.items) - len(matches_copy)
        self.items = matches_copy
        return left_out

    def drop_largest(self) -> None:
        """Leave the largest event out."""
        self.items.remove(max(self.items, key=lambda item: len(item.payload)))


class FileStream(RotationChain):
    """The files of one name, and what is shipped of them.

    Args:
        path: the name, absolute.
        known: what is shipped of it.
        parser: makes a parser for a file.
        shaper: decides which events go out.
        run: name of this process, for checkpoints.
        announces: a file's generation is to be in a checkpoint before its first line is in a batch.
        grace: seconds, as of ``TailedFile``.

    Attributes:
        sequence: of its last checkpoint in EVENTS.
        level_at: when it was last known to have nothing left to ship.
        finished: paths of files that were shipped to their end, for who wants to delete them.
    """

    def __init__(
        self,
        path: str,
        known: StoredCheckpoint | None,
        parser: Callable[[], Parser],
        throttle: Throttle,
        run_id: str,
        *,
        announce_generations: bool = False,
        grace: float = ROTATION_GRACE,
    ) -> None:
        super().__init__(path, known.checkpoint if known is not None else None, parser, grace)
        self.caught_up_at = 0.0
        self.finished_paths: deque[str] = deque(maxlen=MAX_COMPLETED)
        self._announce_generations = announce_generations
        self._announced: set[str] = set()
        self.sequence = known.sequence if known is not None else 0
        self.throttle = throttle
        self._count = 0
        self._run_id = run_id
        self._ready: deque[tuple[TailedFile, ParsedEvent]] = deque()
        self._saved_at = 0.0
        self._retry_at = 0.0
        if known is not None:
            self._count = known.checkpoint.count
            self._announced = {position.generation for position in known.checkpoint.positions}
            throttle.restore_unreported(known.checkpoint.suppressed)

    def __repr__(self) -> str:
        return f"<FileStream {self.path} {list(self.chain)}>"

    def has_work(self, now: float) -> bool:
        """Tell whether there may be something to ship."""
        has_work = now >= self._retry_at and (
            bool(self._ready or self._unsaved)
            or self.throttle.is_due(now)
            or any(file.may_have_data(now) or file.is_complete(now) for file in self.chain)
        )
        if not has_work:
            self.caught_up_at = now
        return has_work

    @property
    def flush_at(self) -> float:
        """UNIX seconds at which something is to be shipped though no file changes; infinity for never."""
        return min((file.flush_at for file in self.chain), default=float("inf"))

    def back_off(self, now: float) -> None:
        """Leave the files alone for a while: one of them cannot be read."""
        self._retry_at = now + READ_RETRY_WAIT

    def next_batch(self, now: float, *, finish: bool = False) -> Batch | None:
        """Read on; None when there is nothing to ship now.

        Args:
            now: UNIX seconds.
            finish: what waits for its rest goes out as it is.
        """
        items: list[OutgoingEvent] = []
        if self._announce_generations and (new := {file.generation for file in self.chain} - self._announced):
            self._announced |= new
            return self._batch(items, [], now)
        size = 0
        advanced: dict[TailedFile, None] = {}
        while len(items) < MAX_BATCH_EVENTS and size < MAX_BATCH_BYTES and self._fill(now, finish=finish):
            file, parsed = self._ready.popleft()
            begin = file.mark_batched(parsed.end)
            advanced[file] = None
            if not self.throttle.admit(parsed, now):
                continue
            payload = parsed.encode()
            items.append(OutgoingEvent(parsed.subject, payload, f"{file.generation}-{begin}"))
            size += len(payload)
        if not self._ready:
            items += self.throttle.report_suppressed(now, finish=finish)
        done = self._take_completed(now)
        if not (items or advanced or done or self._unsaved):
            return None
        if not items and not done and not finish and now - self._saved_at < 1.0:
            self._unsaved = self._unsaved or bool(advanced)
            return None  # a place alone is worth a message at most each second
        return self._batch(items, done, now)

    def _batch(self, items: list[OutgoingEvent], done: list[TailedFile], now: float) -> Batch:
        self._unsaved = False
        self._saved_at = now
        self._count += 1
        # What is wanted comes after what is open and was rotated, and before the live file.
        mark_rotated = [file.position() for file in self.chain if file.is_rotated]
        live = [file.position() for file in self.chain if not file.is_rotated]
        positions = [*self.completed.values(), *mark_rotated, *self.pending.values(), *live]
        # What came since then may be unknown, however late this is shipped.
        live_at = (file.verified_at for file in self.chain if not file.is_rotated)
        seen = min(live_at, default=self.scanned_at or now)
        checkpoint = Checkpoint(
            self.path,
            tuple(positions[-MAX_COMPLETED:]),
            Counter(self.throttle.unreported),
            seen,
            self._count,
            self._run_id,
        )
        return Batch(items, checkpoint, [(file, file.batched_offset) for file in self.chain], done)

    def _fill(self, now: float, *, finish: bool) -> bool:
        """Have an event ready, if there is one."""
        if self.pending:
            return bool(self._ready)  # the next look opens it; what is read now could be its successor
        for _ in range(MAX_CHUNKS):
            if self._ready:
                break
            for file in list(self.chain):
                if not file.is_rotated and file.changed_before_first_read():
                    if self.open_missed(file.verified_at - TICK, now, before=file):
                        break
                    if self.deferred:
                        file.rearm_first_read_check()
                        return bool(self._ready)
                events = [] if file.ended else file.read(now)
                if file.truncated:
                    self._ready.extend((file, parsed) for parsed in self._truncated(file, now))
                    break
                if finish and file.at_eof and not events:
                    events = file.finish(now)
                self._ready.extend((file, parsed) for parsed in events)
                if events or not file.at_eof:
                    break
                if file.has_partial:
                    return False  # a successor waits, too
            else:
                return False
        return bool(self._ready)

    def _truncated(self, file: TailedFile, now: float) -> list[ParsedEvent]:
        """Go on in the copy of a truncated file, if there is one, and then in the file from its start."""
        copy = open_copy(self.path, file.matches_copy, {other.key for other in self.chain})
        events = [] if copy is not None else file.finish(now)
        successor = file.next_generation(self._parser(), now)
        self.chain.insert(self.chain.index(file) + 1, successor)
        if copy is not None:
            path, handle = copy
            file.switch_to_copy(handle, path)
            file.mark_rotated(now)
            self.completed.pop(file.key, None)
        # It may have been truncated more than once.
        self.open_missed(file.verified_at - TICK, now, before=successor)
        return events

    def _take_completed(self, now: float) -> list[TailedFile]:
        """Files whose every byte is in a batch and whose writer is gone; they are past from now on."""
        done: list[TailedFile] = []
        while self.chain and not self._ready:
            file = self.chain[0]
            if not (file.ended or file.is_complete(now)):
                break
            if file.has_partial:
                self._ready.extend((file, parsed) for parsed in file.finish(now))
                break
            if not file.ended:
                file.mark_batched(file.read_offset)
                self.completed[file.key] = file.position(done=True)
            done.append(self.chain.popleft())
        return done

    def shipped(self, batch: Batch, sequence: int) -> None:
        """Note that a batch is acknowledged."""
        self.sequence = sequence
        for file, offset in batch.offsets:
            file.mark_shipped(offset)
        for file in batch.done:
            file.close()
            self.finished_paths.append(file.path)

    def rewind(self, batches: list[Batch], known: StoredCheckpoint) -> list[str]:
        """Take batches back, the oldest first, and go on from what another has shipped.

        Returns:
            files that were truncated since, so that nothing of them can be read again.
        """
        for batch in reversed(batches):
            for file in reversed(batch.done):
                self.completed.pop(file.key, None)
                self.chain.appendleft(file)
        self._ready.clear()
        self.sequence = known.sequence
        self._count = known.checkpoint.count
        self.throttle.restore_unreported(known.checkpoint.suppressed)
        positions = {position.key: position for position in known.checkpoint.positions}
        gone = []
        for file in list(self.chain):
            if file.ended:  # what it held is nowhere any more, but maybe with who was faster
                self.chain.remove(file)
                gone.append(file.path)
                file.close()
            else:
                position = positions.pop(file.key, None)
                file.rewind(position if position is not None and file.still_matches(position) else None)
        self.restore(positions.values())
        return gone

    # How it stands.

    @property
    def has_partial(self) -> bool:
        """True while something waits for its rest."""
        return any(file.has_partial for file in self.chain)

    @property
    def lag(self) -> int:
        """Bytes that are not shipped yet."""
        return sum(file.lag for file in self.chain)

    def close(self) -> None:
        """Let go of all files."""
        for file in self.chain:
            file.close()
