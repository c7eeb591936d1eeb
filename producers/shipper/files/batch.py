"""Batch: events of a file stream, with the checkpoint after them and what to record once they are shipped."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parsed_event import ParsedEvent
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent

MAX_BATCH_EVENTS: Final = 900
"""Events after which a batch is closed; JetStream accepts 1 000. A group of container lines is not split."""

MAX_BATCH_BYTES: Final = 1024 * 1024
"""Bytes of events after which a batch is closed."""


def exceeds_batch(count: int, ready: Iterable[tuple[TailedFile, ParsedEvent]]) -> bool:
    """Return whether the next events, which no position separates, exceed a batch that has ``count``."""
    following = takewhile(lambda item: not item[1].may_end_batch, ready)
    return count > 0 and count + sum(1 for _ in following) + 1 > MAX_BATCH_EVENTS


@dataclass(slots=True)
class Batch:
    """Events that are committed together with a checkpoint.

    Attributes:
        events: the events.
        checkpoint: positions of the files after this batch.
        offsets: offset up to which each file is shipped after this batch.
        completed: files that are shipped to their end after this batch.
    """

    events: list[OutgoingEvent]
    checkpoint: Checkpoint
    offsets: list[tuple[TailedFile, int]]
    completed: list[TailedFile]

    def drop_oversized(self, limit: int) -> int:
        """Drop the events that are larger than ``limit`` bytes; return their number."""
        accepted = [event for event in self.events if len(event.payload) <= limit]
        dropped = len(self.events) - len(accepted)
        self.events = accepted
        return dropped

    def drop_largest(self) -> None:
        """Drop the largest event."""
        self.events.remove(max(self.events, key=lambda event: len(event.payload)))
