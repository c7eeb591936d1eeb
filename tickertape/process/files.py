"""Files that other programs replace while this one runs, and files that this one replaces."""

import errno
import os
import stat
from pathlib import Path

Stamp = tuple[int, int, int]
"""Modification time in nanoseconds, size and inode of a file, of which one differs after each change."""


def read_stamp(path: Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        OSError: the file is missing or cannot be reached.
    """
    return _stamp(path.stat())


def read_regular_file(path: Path, max_bytes: int) -> tuple[bytes, Stamp]:
    """Read a file without waiting, and return its content and its stamp.

    Args:
        path: path of the file.
        max_bytes: maximum size; of a larger file, one byte more than that is returned.

    Raises:
        OSError: the file is missing or cannot be read, or it is a pipe or a device, which could block the
            thread, or never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        # The stamp is from before the read, so that the next check notices a change during the read.
        return file.read(max_bytes + 1), _stamp(status)


def replace_text(path: Path, text: str) -> None:
    """Write a file so that readers see either the old content or the new.

    Raises:
        OSError: the file cannot be written.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
