"""Event stream: what the shipper needs of a source, whether it is the files of one name or a journal."""

from collections.abc import Iterable
from typing import Protocol

from tickertape.producers.shipper.files.batch import Batch
from tickertape.producers.shipper.sinks.sink import StoredCheckpoint
from tickertape.producers.shipper.throttle import Throttle


class EventStream(Protocol):
    """Events that are shipped in order, with a checkpoint of their own: ``FileStream`` or ``JournalStream``.

    Attributes:
        path: name of the stream in checkpoints and reports.
        sequence: sequence of the last checkpoint in EVENTS.
        caught_up_at: monotonic seconds at which the stream last had nothing left to ship; 0 before that.
        failures: consecutive batches that could not be read.
        deferred: more may be found by a later scan.
        throttle: decides which events are shipped.
    """

    path: str
    sequence: int
    caught_up_at: float
    failures: int
    deferred: bool
    throttle: Throttle

    @property
    def paths(self) -> Iterable[str]:
        """Paths whose changes announce new events."""

    @property
    def flush_at(self) -> float:
        """Monotonic seconds at which an incomplete event is shipped as it is; infinity if there is none."""

    @property
    def has_partial(self) -> bool:
        """Whether an incomplete line or event waits for its continuation."""

    @property
    def needs_attention(self) -> bool:
        """Whether there may be work that no change of a file announces."""

    @property
    def is_backing_off(self) -> bool:
        """Whether reading is paused after an error, so that there may be more to ship."""

    @property
    def encoding(self) -> str:
        """Name of the encoding; empty if it is not known."""

    @property
    def lag(self) -> int:
        """Number of bytes that are known and not shipped yet."""

    def has_work(self, now: float) -> bool:
        """Return whether there may be something to ship; ``now`` is in UNIX seconds."""

    def next_batch(self, now: float, *, finish: bool = False) -> Batch | None:
        """Read the next batch; return None if there is nothing to ship now.

        Args:
            now: UNIX seconds.
            finish: flush incomplete lines and events.

        Raises:
            OSError: it cannot be read. What was read before the error is in the next batch.
        """

    def set_settled(self, *, settled: bool) -> None:
        """Record whether the system has reported no change while an event waits for a line."""

    def mark_shipped(self, batch: Batch, sequence: int) -> None:
        """Record that a batch is acknowledged."""

    def rewind(self, batches: list[Batch], stored: StoredCheckpoint) -> list[str]:
        """Withdraw batches, oldest first, and resume at the position that another process has shipped.

        Returns:
            Paths of files that cannot be read again.
        """

    def back_off(self) -> None:
        """Pause reading for a while, because of a read error."""
