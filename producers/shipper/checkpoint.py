"""What the shipper remembers: how far each file is acknowledged without a hole, on disk before it counts.

Invariants:

1. A position covers only what is acknowledged and contiguous: no event before it can be missing.
2. A file is named by device, inode and a generation drawn when it was first met, so that a reused inode or a
   truncated file never makes an old position, or an old message id, count for new lines.
3. The file on disk is always whole: written aside, synced, renamed, and the folder synced.
"""

import fcntl
import hashlib
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

VERSION: Final = 1
HEAD_BYTES: Final = 256
"""Bytes at a file's beginning that tell it from another on the same inode."""

MAX_FILES: Final = 4096
"""Files that are remembered; the longest unseen are forgotten first."""


class CheckpointError(Exception):
    """The state on disk cannot be used.

    Args:
        path: file or folder.
        what: what happened.
        remedy: what to do about it.
    """

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(path, what, remedy)
        self.path = path
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a file is shipped.

    Attributes:
        generation: random, drawn when the file was first met; a part of the message ids of its lines.
        offset: bytes from the beginning up to which everything is acknowledged.
        head: hash of the first ``head_bytes`` bytes, as far as there were any.
        path: where it was last seen.
    """

    device: int
    inode: int
    generation: str
    offset: int
    head: str
    head_bytes: int
    path: str


def head_hash(data: bytes) -> str:
    """Hash of a file's first bytes."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class Progress:
    """Lines of one file that are under way, in order; ``offset`` moves only without a hole.

    Args:
        offset: where reading began.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self._ends: deque[int] = deque()
        self._done: set[int] = set()

    def __repr__(self) -> str:
        return f"<Progress {self.offset}, {len(self._ends)} under way>"

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, end: int) -> None:
        """Note a line that was read; ``end`` is the offset after it."""
        self._ends.append(end)

    def done(self, end: int) -> None:
        """Note that a line is acknowledged, or needs no acknowledgement."""
        self._done.add(end)
        while self._ends and self._ends[0] in self._done:
            self.offset = self._ends.popleft()
            self._done.remove(self.offset)


class Checkpoint:
    """The file of positions, held by one process at a time.

    Args:
        state_dir: folder; made when absent.
        key: names what is shipped, so that several shippers can share a folder.

    Raises:
        CheckpointError: the folder cannot be written, another process holds the file, or it is damaged.
    """

    def __init__(self, state_dir: Path, key: str) -> None:
        name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        self.path = state_dir / f"ship-{name}.json"
        self._saved: bytes | None = None
        try:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            what = "another shipper ships the same files with this state"
            raise CheckpointError(self.path, what, "stop it, or give this one another --state-dir") from None

    def close(self) -> None:
        """Let another process have the file."""
        os.close(self._lock)

    def load(self) -> list[Position]:
        """Read the positions; none when there is no file yet.

        Raises:
            CheckpointError: the file is damaged.
        """
        try:
            body = orjson.loads(self.path.read_bytes())
            if body["version"] != VERSION:
                raise ValueError(f"version {body['version']!r}")
            return [_position(item) for item in body["files"]]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(self.path, f"cannot be read: {error.strerror}", "mend it") from None
        except (ValueError, KeyError, TypeError) as error:
            what = f"is no checkpoint of this version ({error})"
            raise CheckpointError(
                self.path, what, "move it away to ship the files from their start"
            ) from None

    def save(self, positions: Iterable[Position]) -> bool:
        """Make the positions last; False when the same are there already.

        Raises:
            CheckpointError: the disk is full or the folder cannot be written.
        """
        files = [asdict(position) for position in positions][-MAX_FILES:]
        data = orjson.dumps({"version": VERSION, "files": files})
        if data == self._saved:
            return False
        aside = self.path.with_suffix(".tmp")
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path)
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise self._unwritable(error) from None
        self._saved = data
        return True

    def _unwritable(self, error: OSError) -> CheckpointError:
        what = f"cannot be written: {error.strerror}"
        return CheckpointError(self.path, what, "give a folder that can be written with --state-dir")


def _position(item: dict[str, Any]) -> Position:
    position = Position(**item)
    numbers = (position.device, position.inode, position.offset, position.head_bytes)
    texts = (position.generation, position.head, position.path)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a number is none")
    if not all(type(text) is str for text in texts):
        raise ValueError("a text is none")
    return position
