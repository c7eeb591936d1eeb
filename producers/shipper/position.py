"""How far a file is shipped, and by what it is known again: its inode, its beginning, and what comes before.

Invariants:

1. A place covers only bytes that are shipped, and its hashes cover only such bytes: a file that grows stays
   the same file, however small it is.
2. A reused inode, a truncated file, and a file of the same first kilobyte are all told apart by the bytes
   just before the offset.
"""

import hashlib
import os
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Final

HEAD_BYTES: Final = 1024
"""Bytes at a file's beginning that tell it from another."""

BEFORE_BYTES: Final = 256
"""Bytes just before the offset that must still be there."""

Key = tuple[int, int]
"""Device and inode."""


@dataclass(frozen=True, slots=True)
class FilePosition:
    """How far a file is shipped.

    Attributes:
        generation: random, drawn when the file was first met.
        offset: bytes from the beginning up to which everything is shipped.
        head: hash of the first ``head_bytes`` bytes.
        before: hash of the up to ``BEFORE_BYTES`` bytes before ``offset``.
        path: where it was last seen.
        done: its writer has left it, and it is shipped to its end.
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

    @property
    def key(self) -> Key:
        """Device and inode."""
        return (self.device, self.inode)

    def matches(self, handle: int) -> bool:
        """Tell whether an open file is this one, whatever its inode: all that was shipped is still there."""
        if os.fstat(handle).st_size < self.offset:
            return False
        return hash_at(handle, 0, self.head_bytes) == self.head and self.before == before(handle, self.offset)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint."""
        return asdict(self)


def digest(data: bytes) -> str:
    """Hash by which bytes are known again."""
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def unread_position(key: Key, path: str) -> FilePosition:
    """Place of a file of which nothing was read yet."""
    return FilePosition(*key, secrets.token_hex(8), 0, digest(b""), 0, digest(b""), path)


def hash_at(handle: int, offset: int, count: int) -> str:
    """Hash of some bytes of an open file."""
    return digest(os.pread(handle, count, offset))


def before(handle: int, offset: int) -> str:
    """Hash of what comes just before an offset."""
    begin = max(0, offset - BEFORE_BYTES)
    return hash_at(handle, begin, offset - begin)


def position_from_json(item: Any) -> FilePosition:
    """Read a place of a checkpoint.

    Raises:
        ValueError: it is none.
    """
    try:
        position = FilePosition(**item)
    except TypeError as error:
        raise ValueError(f"no place of a file: {error}") from None
    numbers = (position.device, position.inode, position.offset, position.head_bytes)
    texts = (position.generation, position.head, position.before, position.path)
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("a number of a file's place is none")
    if type(position.done) is not bool or not all(type(text) is str for text in texts):
        raise ValueError("a text of a file's place is none")
    return position
