"""What shipping ends in: batches of events with the checkpoint of the file that they came from.

Two of them: ``atomic`` (exactly once) and ``dedupe`` (for servers without atomic batches).
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from tickertape.producers.shipper.position import FilePosition, position_from_json

from tickertape.errors import TickertapeError

VERSION: Final = 2


class OutgoingEvent(NamedTuple):
    """An event of a batch.

    Attributes:
        subject: without the deployment's prefix.
        id: the same at every reading of the line, and of no other.
    """

    subject: str
    payload: bytes
    id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far the files of one name are shipped.

    Attributes:
        path: the name, absolute; rotated files belong to the name that they had when they were written.
        places: of the files, oldest first.
        suppressed: events of each level that a storm has cost, not told yet.
        time: UNIX seconds up to which every file of this name is known.
        count: one more with every checkpoint of this path.
        run: the shipper's process that wrote it.
        batch: the batch that it ended.
    """

    path: str
    positions: tuple[FilePosition, ...] = ()
    suppressed: Counter[str] = field(default_factory=Counter)
    time: float = 0.0
    count: int = 0
    run: str = ""
    batch: str = ""

    def encode(self, host: str) -> bytes:
        """Write it as the body of a message."""
        body = {
            "version": VERSION,
            "host": host,
            "path": self.path,
            "run": self.run,
            "batch": self.batch,
            "time": self.time,
            "count": self.count,
            "files": [position.to_json() for position in self.positions],
            "suppressed": dict(self.suppressed),
        }
        # A file's path may be any bytes; the standard library writes those that are no text as escapes.
        return json.dumps(body, separators=(",", ":")).encode()


def decode(data: bytes) -> Checkpoint:
    """Read what ``Checkpoint.encode`` wrote.

    Raises:
        ValueError: it is no checkpoint of this version.
    """
    try:
        body = json.loads(data)
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']!r}")
        suppressed = {str(level): int(number) for level, number in body["suppressed"].items()}
        positions = tuple(position_from_json(item) for item in body["files"])
        return Checkpoint(
            _path(body["path"]), positions, Counter(suppressed), float(body["time"]), int(body["count"]),
            str(body["run"]), str(body["batch"]),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, UnicodeError) as error:
        raise ValueError(f"no checkpoint of this version: {error!r}") from None


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a path is no text")
    return value


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint that was found.

    Attributes:
        sequence: of the last checkpoint of this path in EVENTS; 0 when EVENTS has none.
    """

    checkpoint: Checkpoint
    sequence: int


class Conflict(TickertapeError):
    """Another process has moved on with this path; nothing of the batch was shipped.

    Args:
        known: what it said.
    """

    def __init__(self, stored: StoredCheckpoint) -> None:
        super().__init__(stored)
        self.stored = stored

    def __str__(self) -> str:
        checkpoint = self.stored.checkpoint
        return f"{checkpoint.path}: another shipper (run {checkpoint.run}) has moved on"


class CommitRejected(TickertapeError):
    """The server takes no such event, now or later; nothing of the batch was shipped.

    Args:
        message: its words.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Sink(Protocol):
    """Where batches go."""

    async def load(self) -> dict[str, StoredCheckpoint]:
        """The checkpoints of this host, by path."""

    async def commit(self, items: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Ship a batch, and wait for as long as that takes.

        Args:
            items: may be none, for a checkpoint alone.
            checkpoint: of the file, with this batch.
            expected: sequence of the checkpoint before.

        Returns:
            the sequence of this checkpoint.

        Raises:
            Conflict: another process was faster.
            Refused: an event cannot be taken.
        """
