"""Sink interface: batches of events are committed together with the checkpoint of their file stream.

Implementations: ``atomic`` (exactly once) and ``dedupe`` (for servers without atomic batches).
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

import orjson
from tickertape.producers.shipper.absence import LONG_AGO
from tickertape.producers.shipper.position import FilePosition, position_from_json

from tickertape.errors import TickertapeError

VERSION: Final = 2
"""Version of the checkpoint format; a checkpoint of another version is not read."""

DENIED_DELAY: Final = 2.0
"""Seconds before events are sent again that NATS denies; NATS logs each denied message."""


class OutgoingEvent(NamedTuple):
    """Event of a batch.

    Attributes:
        subject: subject without the deployment's prefix.
        payload: encoded event.
        id: message id; the same whenever the line is read, and unique to it.
    """

    subject: str
    payload: bytes
    id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Progress of a file stream.

    Attributes:
        path: absolute path; rotated files belong to the path that they were written under.
        positions: positions of the files, oldest first.
        suppressed: suppressed events by level that are not reported yet.
        time: UNIX seconds up to which all files of this stream are known.
        count: number of this checkpoint, which increases by one with each.
        run: identifier of the shipper process that wrote it.
        batch: identifier of the batch that it completed.
        absent_since: UNIX seconds since which no file has this path; 0 if there is one.
        cursor: last entry of a journal that is shipped; empty for files.
    """

    path: str
    positions: tuple[FilePosition, ...] = ()
    suppressed: Counter[str] = field(default_factory=Counter)
    time: float = 0.0
    count: int = 0
    run: str = ""
    batch: str = ""
    absent_since: float = 0.0
    cursor: str = ""

    def encode(self, host: str, batch: str = "") -> bytes:
        """Encode the checkpoint as the body of a message, with the identifier of its batch if given."""
        body = {
            "version": VERSION,
            "host": host,
            "path": self.path,
            "run": self.run,
            "batch": batch or self.batch,
            "time": self.time,
            "count": self.count,
            "files": [position.to_json() for position in self.positions],
            "suppressed": dict(self.suppressed),
        }
        if self.absent_since:
            body["absent_since"] = self.absent_since
        if self.cursor:
            body["cursor"] = self.cursor
        try:
            return orjson.dumps(body)
        except orjson.JSONEncodeError:
            # A path may contain bytes that are not UTF-8; unlike orjson, the standard library escapes them.
            return json.dumps(body, separators=(",", ":")).encode()


def is_retired(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint is that of an absent path whose files are forgotten."""
    return checkpoint.absent_since == LONG_AGO and not checkpoint.positions and not checkpoint.suppressed


def decode(data: bytes) -> Checkpoint:
    """Decode the output of ``Checkpoint.encode``.

    Raises:
        ValueError: the data is not a checkpoint of this version.
    """
    try:
        try:
            body = orjson.loads(data)
        except orjson.JSONDecodeError:
            # orjson rejects the lone surrogates that stand for bytes of a path that are not UTF-8.
            body = json.loads(data)
        if body["version"] != VERSION:
            raise ValueError(f"version {body['version']!r}")
        suppressed = {str(level): int(count) for level, count in body["suppressed"].items()}
        positions = tuple(position_from_json(item) for item in body["files"])
        return Checkpoint(
            _path(body["path"]), positions, Counter(suppressed), float(body["time"]), int(body["count"]),
            str(body["run"]), str(body["batch"]), float(body.get("absent_since", 0.0)),
            str(body.get("cursor", "")),
        )  # fmt: skip
    # Any client with the permission may write to the subject: deep nesting, infinite numbers.
    except (KeyError, TypeError, AttributeError, UnicodeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a checkpoint of this version: {error!r}") from None


def _path(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("path is not a string")
    return value


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """Checkpoint that was loaded from a sink.

    Attributes:
        checkpoint: newest checkpoint of its path.
        sequence: sequence of the last checkpoint of this path in EVENTS; 0 if EVENTS has none.
    """

    checkpoint: Checkpoint
    sequence: int


class Conflict(TickertapeError):
    """Batch that was not committed because another process committed a newer checkpoint of the path.

    Args:
        stored: checkpoint of the other process.
    """

    def __init__(self, stored: StoredCheckpoint) -> None:
        super().__init__(stored)
        self.stored = stored

    def __str__(self) -> str:
        checkpoint = self.stored.checkpoint
        return f"{checkpoint.path}: another shipper (run {checkpoint.run}) has committed first"


class CommitRejected(TickertapeError):
    """Batch that was not committed because the server permanently rejects one of its events.

    Args:
        message: error message of the server.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BlockedReport:
    """Report of what blocks shipping although NATS is connected, once for each problem.

    Args:
        warn: receives a line.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._last = ""

    def report(self, problem: str) -> None:
        """Report a problem, unless it is the one that was reported last."""
        if problem != self._last:
            self._last = problem
            self._warn(f"shipping is blocked: {problem}; retrying, no lines are lost")

    def clear(self) -> None:
        """Report the next problem in any case: shipping works again."""
        self._last = ""


class Sink(Protocol):
    """Destination of batches."""

    async def load(self) -> dict[str, StoredCheckpoint]:
        """Load the checkpoints of this host, by path."""

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Commit a batch; retry for as long as it takes.

        Args:
            events: may be empty, to commit the checkpoint alone.
            checkpoint: positions after this batch.
            expected: sequence of the previous checkpoint.

        Returns:
            The sequence of this checkpoint.

        Raises:
            Conflict: another process has committed first.
            CommitRejected: the server does not accept an event.
        """
