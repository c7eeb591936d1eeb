"""Positions in files: how far a file is shipped, and the hashes by which it is recognized after a restart.

Invariants:

1. A position and its hashes cover only bytes that are shipped: a file that grows stays the same file,
   however small it is.
2. A reused inode, a truncated file and another file with the same first kilobyte are all detected by the
   bytes just before the offset.
"""

import hashlib
import os
import secrets
from dataclasses import dataclass, fields
from typing import Any, Final

from tickertape.producers.shipper.encodings.text_decoder import check_state
from tickertape.producers.shipper.parsing.moments import check_context

HEAD_BYTES: Final = 1024
"""Bytes at the beginning of a file that are hashed to distinguish it from others."""

MAX_OFFSET: Final = (1 << 63) - 1
"""Maximum offset in a file."""

PRECEDING_BYTES: Final = 256
"""Bytes just before the offset that are hashed to detect that a file was truncated or replaced."""

Key = tuple[int, int]
"""Device and inode."""


def key_of(status: os.stat_result) -> Key:
    """Return the device and inode of a file."""
    return (status.st_dev, status.st_ino)


@dataclass(frozen=True, slots=True)
class FilePosition:
    """Position up to which a file is shipped.

    Attributes:
        generation: random identifier, created when the file was first opened.
        offset: bytes from the beginning up to which everything is shipped.
        head: hash of the first ``head_bytes`` bytes.
        before: hash of the up to ``PRECEDING_BYTES`` bytes before ``offset``.
        path: path at which the file was last found.
        done: the file is shipped to its end, and its writer has moved on to another one.
        encoding: state of the decoder after the offset.
        dates: what the lines up to the offset say about the dates of later ones.
    """

    device: int
    inode: int
    generation: str
    offset: int
    head: str
    head_bytes: int
    before: str
    path: str
    done: bool = False
    encoding: str = ""
    dates: str = ""

    @property
    def key(self) -> Key:
        """Device and inode."""
        return (self.device, self.inode)

    def matches(self, fd: int) -> bool:
        """Return whether an open file still contains everything that was shipped, whatever its inode."""
        if os.fstat(fd).st_size < self.offset:
            return False
        return hash_at(fd, 0, self.head_bytes) == self.head and self.before == hash_before(fd, self.offset)

    def to_json(self) -> dict[str, Any]:
        """Return the position as a JSON object for a checkpoint."""
        # ``dataclasses.asdict`` takes twenty times as long, for each batch.
        body = {name: getattr(self, name) for name in _FIELDS}
        for name in ("encoding", "dates"):  # earlier versions do not know them
            if not body[name]:
                del body[name]
        return body


_FIELDS: Final = tuple(field.name for field in fields(FilePosition))


def digest(data: bytes) -> str:
    """Return a short hash of bytes."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def unread_position(key: Key, path: str) -> FilePosition:
    """Return the position of a file of which nothing has been read."""
    return FilePosition(*key, secrets.token_hex(8), 0, digest(b""), 0, digest(b""), path)


def skipped_position(fd: int, path: str) -> FilePosition:
    """Return the position at the end of an open file, of which nothing is to be shipped."""
    status = os.fstat(fd)
    size, count = status.st_size, min(HEAD_BYTES, status.st_size)
    head, before = hash_at(fd, 0, count), hash_before(fd, size)
    return FilePosition(*key_of(status), secrets.token_hex(8), size, head, count, before, path, done=True)


def hash_at(fd: int, offset: int, count: int) -> str:
    """Return the hash of ``count`` bytes of an open file."""
    return digest(os.pread(fd, count, offset))


def hash_before(fd: int, offset: int) -> str:
    """Return the hash of the bytes just before an offset."""
    start = max(0, offset - PRECEDING_BYTES)
    return hash_at(fd, start, offset - start)


def position_from_json(item: Any) -> FilePosition:
    """Read a position from the JSON object in a checkpoint.

    Raises:
        ValueError: the object is not a position.
    """
    try:
        position = FilePosition(**item)
    except TypeError as error:
        raise ValueError(f"not a file position: {error}") from None
    numbers = (position.device, position.inode, position.offset, position.head_bytes)
    texts = (
        position.generation, position.head, position.before, position.path, position.encoding, position.dates
    )  # fmt: skip
    # ``isinstance`` would accept booleans, which are integers in Python.
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a number in a file position is not a non-negative integer")
    # Offsets beyond those of the system, and a read of any size, would be errors later.
    if position.head_bytes > HEAD_BYTES or position.offset > MAX_OFFSET:
        raise ValueError("a number in a file position is too large")
    if type(position.done) is not bool or not all(type(text) is str for text in texts):
        raise ValueError("a field of a file position has the wrong type")
    check_state(position.encoding)
    check_context(position.dates)
    return position
