"""Sink for servers without atomic batches: message ids for deduplication, and checkpoints on the local disk.

Invariants:

1. A checkpoint is on disk before the next batch of its file stream is sent, and covers only acknowledged
   events.
2. Events that are sent again after a crash have the same message ids, so the stream discards them within its
   duplicate window. Outside it, a crash repeats at most one batch of each file stream.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from tickertape.producers.sdk.errors import InvalidEvent, PublishDenied, PublishRejected
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper.sinks.local_state import CheckpointError, LocalState
from tickertape.producers.shipper.sinks.sink import (
    DENIED_DELAY,
    BlockedReport,
    Checkpoint,
    CommitRejected,
    OutgoingEvent,
    StoredCheckpoint,
)

STATE_DELAY: Final = 0.5
"""Seconds before checkpoints are saved again that the disk does not take."""

_TOO_LARGE: Final = 10054
"""JetStream error code for a message that exceeds the maximum size."""


class DedupeSink:
    """Sink for a server without atomic batches.

    Args:
        publisher: entered, without a deadline; the caller closes it.
        state: stores the checkpoints.
        host: name of this host in the checkpoints.
        warn: called with a line when shipping is blocked although NATS is connected.
    """

    def __init__(
        self, publisher: Publisher, state: LocalState, host: str, warn: Callable[[str], None]
    ) -> None:
        self._publisher = publisher
        self._state = state
        self._host = host
        self._blocked = BlockedReport(warn)
        self._bodies: dict[str, bytes] = {}

    async def load(self) -> dict[str, StoredCheckpoint]:
        """Load the checkpoints of the local state, by path."""
        checkpoints = self._state.load()
        self._bodies = {path: checkpoint.encode(self._host) for path, checkpoint in checkpoints.items()}
        return {
            path: StoredCheckpoint(checkpoint, checkpoint.count) for path, checkpoint in checkpoints.items()
        }

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Publish a batch, then save its checkpoint; see ``Sink.commit``."""
        # Only those that NATS denied are sent again: the others are acknowledged, and could be repeated after
        # the duplicate window.
        while denied := await self._publish(events):
            events = [event for event, _ in denied]
            self._blocked.report(str(denied[0][1]))
            await asyncio.sleep(DENIED_DELAY)
        # Saved only now: a checkpoint on disk covers nothing that is not acknowledged.
        self._bodies[checkpoint.path] = checkpoint.encode(self._host)
        while True:
            try:
                self._state.record(self._bodies, checkpoint.path)
                self._blocked.clear()
                return checkpoint.count
            # A full disk, most likely: nothing further is sent until it has space.
            except CheckpointError as error:
                self._blocked.report(str(error))
                await asyncio.sleep(STATE_DELAY)

    async def _publish(self, events: Sequence[OutgoingEvent]) -> list[tuple[OutgoingEvent, PublishDenied]]:
        """Publish events; return those that NATS denied."""
        # Not ``publish``, which waits for each acknowledgement: the publisher's window bounds what is in
        # flight.
        tickets = [
            await self._publisher.submit(event.subject, event.payload, msg_id=event.id) for event in events
        ]
        denied = []
        # Exceptions are collected, so that a batch that is sent again never overlaps with its first attempt.
        outcomes = await asyncio.gather(*tickets, return_exceptions=True)
        for event, outcome in zip(events, outcomes, strict=True):
            if isinstance(outcome, PublishDenied):
                denied.append((event, outcome))
            elif isinstance(outcome, InvalidEvent) or (
                isinstance(outcome, PublishRejected) and outcome.code == _TOO_LARGE
            ):
                raise CommitRejected(str(outcome))
            elif isinstance(outcome, BaseException):
                raise outcome
        return denied
