"""Sink for servers without atomic batches: message ids for deduplication, and checkpoints on the local disk.

Invariants:

1. A checkpoint is on disk before the next batch of its file stream is sent, and covers only acknowledged
   events.
2. Events that are sent again after a crash have the same message ids, so the stream discards them within its
   duplicate window. Outside it, a crash repeats at most one batch of each file stream.
"""

import asyncio
from collections.abc import Sequence

from tickertape.producers.sdk.errors import InvalidEvent, PublishRejected
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import (
    Checkpoint,
    CommitRejected,
    OutgoingEvent,
    StoredCheckpoint,
)

_TOO_LARGE = 10054


class DedupeSink:
    """Sink for a server without atomic batches.

    Args:
        publisher: entered, without a deadline; the caller closes it.
        state: stores the checkpoints.
        host: name of this host in the checkpoints.
    """

    def __init__(self, publisher: Publisher, state: LocalState, host: str) -> None:
        self._publisher = publisher
        self._state = state
        self._host = host
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
        # Not ``publish``, which waits for each acknowledgement: the publisher's window bounds what is in
        # flight.
        tickets = [
            await self._publisher.submit(event.subject, event.payload, msg_id=event.id) for event in events
        ]
        # Exceptions are collected, so that a batch that is sent again never overlaps with its first attempt.
        for outcome in await asyncio.gather(*tickets, return_exceptions=True):
            if isinstance(outcome, InvalidEvent) or (
                isinstance(outcome, PublishRejected) and outcome.code == _TOO_LARGE
            ):
                raise CommitRejected(str(outcome))
            if isinstance(outcome, BaseException):
                raise outcome
        # Saved only now: a checkpoint on disk covers nothing that is not acknowledged.
        self._bodies[checkpoint.path] = checkpoint.encode(self._host)
        self._state.save(self._bodies)
        return checkpoint.count
