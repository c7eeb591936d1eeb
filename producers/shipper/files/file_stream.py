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
from tickertape.producers.shipper.files.rotation_chain import MAX_PAST, TICK, RotationChain
from tickertape.producers.shipper.files.tailed_file import ROTATION_GRACE, TailedFile
from tickertape.producers.shipper.parsing.parser import Parsed, Parser
from tickertape.producers.shipper.sinks.sink import Checkpoint, Item, Known
from tickertape.producers.shipper.throttle import Throttle

MAX_ITEMS: Final = 999
"""Events of a batch: JetStream takes 1 000 messages, and the checkpoint is one."""

MAX_BATCH_BYTES: Final = 1024 * 1024
MAX_PIECES: Final = 256
"""Pieces that are read for one event: an endless line must not hold up other files."""

REST: Final = 5.0
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

    items: list[Item]
    checkpoint: Checkpoint
    marks: list[tuple[TailedFile, int]]
    done: list[TailedFile]

    def leave_out(self, limit: int) -> int:
        """Leave the events out that have more bytes than the server takes; return their number."""
        fits = [item for item in self.items if len(item.payload) <= limit]
        left_out = len(self.items) - len(fits)
        self.items = fits
        return left_out

    def leave_largest_out(self) -> None:
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
        known: Known | None,
        parser: Callable[[], Parser],
        shaper: Throttle,
        run: str,
        *,
        announces: bool = False,
        grace: float = ROTATION_GRACE,
    ) -> None:
        super().__init__(path, known.checkpoint if known is not None else None, parser, grace)
        self.level_at = 0.0
        self.finished: deque[str] = deque(maxlen=MAX_PAST)
        self._announces = announces
        self._announced: set[str] = set()
        self.sequence = known.sequence if known is not None else 0
        self.shaper = shaper
        self._count = 0
        self._run = run
        self._ready: deque[tuple[TailedFile, Parsed]] = deque()
        self._saved_at = 0.0
        self._rests_until = 0.0
        if known is not None:
            self._count = known.checkpoint.count
            self._announced = {place.generation for place in known.checkpoint.places}
            shaper.owes(known.checkpoint.suppressed)

    def __repr__(self) -> str:
        return f"<Lineage {self.path} {list(self.chain)}>"

    def stirs(self, now: float) -> bool:
        """Tell whether there may be something to ship."""
        stirs = now >= self._rests_until and (
            bool(self._ready or self._unsaved)
            or self.shaper.due(now)
            or any(file.stirs(now) or file.at_end(now) for file in self.chain)
        )
        if not stirs:
            self.level_at = now
        return stirs

    @property
    def due(self) -> float:
        """UNIX seconds at which something is to be shipped though no file changes; infinity for never."""
        return min((file.due for file in self.chain), default=float("inf"))

    def rest(self, now: float) -> None:
        """Leave the files alone for a while: one of them cannot be read."""
        self._rests_until = now + REST

    def next_batch(self, now: float, *, finish: bool = False) -> Batch | None:
        """Read on; None when there is nothing to ship now.

        Args:
            now: UNIX seconds.
            finish: what waits for its rest goes out as it is.
        """
        items: list[Item] = []
        if self._announces and (new := {file.generation for file in self.chain} - self._announced):
            self._announced |= new
            return self._batch(items, [], now)
        size = 0
        moved: dict[TailedFile, None] = {}
        while len(items) < MAX_ITEMS and size < MAX_BATCH_BYTES and self._fill(now, finish=finish):
            file, parsed = self._ready.popleft()
            begin = file.plan(parsed.end)
            moved[file] = None
            if not self.shaper.admits(parsed, now):
                continue
            payload = parsed.encode()
            items.append(Item(parsed.subject, payload, f"{file.generation}-{begin}"))
            size += len(payload)
        if not self._ready:
            items += self.shaper.settle(now, finish=finish)
        done = self._ended(now)
        if not (items or moved or done or self._unsaved):
            return None
        if not items and not done and not finish and now - self._saved_at < 1.0:
            self._unsaved = self._unsaved or bool(moved)
            return None  # a place alone is worth a message at most each second
        return self._batch(items, done, now)

    def _batch(self, items: list[Item], done: list[TailedFile], now: float) -> Batch:
        self._unsaved = False
        self._saved_at = now
        self._count += 1
        # What is wanted comes after what is open and was rotated, and before the live file.
        rotated = [file.place() for file in self.chain if file.has_lost_its_name]
        live = [file.place() for file in self.chain if not file.has_lost_its_name]
        places = [*self.past.values(), *rotated, *self.wanted.values(), *live]
        # What came since then may be unknown, however late this is shipped.
        live_at = (file.looked_at for file in self.chain if not file.has_lost_its_name)
        seen = min(live_at, default=self.looked_at or now)
        checkpoint = Checkpoint(
            self.path, tuple(places[-MAX_PAST:]), Counter(self.shaper.owed), seen, self._count, self._run
        )
        return Batch(items, checkpoint, [(file, file.planned) for file in self.chain], done)

    def _fill(self, now: float, *, finish: bool) -> bool:
        """Have an event ready, if there is one."""
        if self.wanted:
            return bool(self._ready)  # the next look opens it; what is read now could be its successor
        for _ in range(MAX_PIECES):
            if self._ready:
                break
            for file in list(self.chain):
                if not file.has_lost_its_name and file.begins():
                    if self.find_unseen(file.looked_at - TICK, now, before=file):
                        break
                    if self.held:
                        file.begins_again()
                        return bool(self._ready)
                events = [] if file.over else file.read(now)
                if file.truncated:
                    self._ready.extend((file, parsed) for parsed in self._truncated(file, now))
                    break
                if finish and file.drained and not events:
                    events = file.finish(now)
                self._ready.extend((file, parsed) for parsed in events)
                if events or not file.drained:
                    break
                if file.waits:
                    return False  # a successor waits, too
            else:
                return False
        return bool(self._ready)

    def _truncated(self, file: TailedFile, now: float) -> list[Parsed]:
        """Go on in the copy of a truncated file, if there is one, and then in the file from its start."""
        copy = open_copy(self.path, file.fits, {other.key for other in self.chain})
        events = [] if copy is not None else file.finish(now)
        successor = file.again(self._parser(), now)
        self.chain.insert(self.chain.index(file) + 1, successor)
        if copy is not None:
            path, handle = copy
            file.moved(handle, path)
            file.rotated(now)
            self.past.pop(file.key, None)
        # It may have been truncated more than once.
        self.find_unseen(file.looked_at - TICK, now, before=successor)
        return events

    def _ended(self, now: float) -> list[TailedFile]:
        """Files whose every byte is in a batch and whose writer is gone; they are past from now on."""
        done: list[TailedFile] = []
        while self.chain and not self._ready:
            file = self.chain[0]
            if not (file.over or file.at_end(now)):
                break
            if file.waits:
                self._ready.extend((file, parsed) for parsed in file.finish(now))
                break
            if not file.over:
                file.plan(file.at)
                self.past[file.key] = file.place(done=True)
            done.append(self.chain.popleft())
        return done

    def shipped(self, batch: Batch, sequence: int) -> None:
        """Note that a batch is acknowledged."""
        self.sequence = sequence
        for file, mark in batch.marks:
            file.confirm(mark)
        for file in batch.done:
            file.close()
            self.finished.append(file.path)

    def rewind(self, batches: list[Batch], known: Known) -> list[str]:
        """Take batches back, the oldest first, and go on from what another has shipped.

        Returns:
            files that were truncated since, so that nothing of them can be read again.
        """
        for batch in reversed(batches):
            for file in reversed(batch.done):
                self.past.pop(file.key, None)
                self.chain.appendleft(file)
        self._ready.clear()
        self.sequence = known.sequence
        self._count = known.checkpoint.count
        self.shaper.owes(known.checkpoint.suppressed)
        places = {place.key: place for place in known.checkpoint.places}
        gone = []
        for file in list(self.chain):
            if file.over:  # what it held is nowhere any more, but maybe with who was faster
                self.chain.remove(file)
                gone.append(file.path)
                file.close()
            else:
                place = places.pop(file.key, None)
                file.rewind(place if place is not None and file.is_at(place) else None)
        self.remember(places.values())
        return gone

    # How it stands.

    @property
    def waits(self) -> bool:
        """True while something waits for its rest."""
        return any(file.waits for file in self.chain)

    @property
    def lag(self) -> int:
        """Bytes that are not shipped yet."""
        return sum(file.lag for file in self.chain)

    def close(self) -> None:
        """Let go of all files."""
        for file in self.chain:
            file.close()
