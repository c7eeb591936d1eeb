"""For servers without atomic batches: ids by which the stream knows a repeated line, and a local checkpoint.

Invariants:

1. A checkpoint is on disk before the next batch of its file goes out, and covers only what is acknowledged.
2. What is sent again after a crash carries the ids of the first time: within the stream's duplicate window
   nothing is there twice. Beyond it a crash repeats at most one batch of each file.
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
    """Batches for a server without atomic batches.

    Args:
        publisher: entered, without a deadline; the caller closes it.
        state: where the checkpoints are.
        host: name of this host in the checkpoints.
    """

    def __init__(self, publisher: Publisher, state: LocalState, host: str) -> None:
        self._publisher = publisher
        self._state = state
        self._host = host
        self._bodies: dict[str, bytes] = {}

    async def load(self) -> dict[str, StoredCheckpoint]:
        """The checkpoints of this state, by path."""
        found = self._state.load()
        self._bodies = {path: checkpoint.encode(self._host) for path, checkpoint in found.items()}
        return {path: StoredCheckpoint(checkpoint, checkpoint.count) for path, checkpoint in found.items()}

    async def commit(self, items: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Ship a batch; see ``Sink.commit``."""
        tickets = [await self._publisher.submit(item.subject, item.payload, msg_id=item.id) for item in items]
        for outcome in await asyncio.gather(*tickets, return_exceptions=True):
            if isinstance(outcome, InvalidEvent) or (
                isinstance(outcome, PublishRejected) and outcome.code == _TOO_LARGE
            ):
                raise CommitRejected(str(outcome))
            if isinstance(outcome, BaseException):
                raise outcome
        self._bodies[checkpoint.path] = checkpoint.encode(self._host)
        self._state.save(self._bodies)
        return checkpoint.count
