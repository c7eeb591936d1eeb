"""Lock files: one process at a time may use a directory."""

import errno
import fcntl
import os
from pathlib import Path
from typing import IO

from tickertape.process.files import FULL_DISK


def acquire_lock(path: Path) -> IO[str]:
    """Lock a file until it is closed, and write the PID of this process into it.

    Args:
        path: the lock file; the file and its directory are created if missing and are not removed.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the file cannot be created or locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not ``open(path, "w")``, which would truncate the file of the current holder. The file is never removed:
    # a process that opened it just before would lock a file that later processes do not see.
    # Without following a link, which another user of the directory may have planted.
    file = os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "w", encoding="utf-8"
    )
    try:
        if os.fstat(file.fileno()).st_nlink > 1:
            raise OSError(errno.EMLINK, "is the name of another file as well", str(path))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate()  # only while holding the lock: the file may contain the PID of its previous holder
        _write_pid(file.fileno())
    except OSError:
        file.close()
        raise
    return file


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock; a file that is missing or unreadable is taken for unlocked."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            # Shared, and released immediately: other checks do not disturb each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _write_pid(descriptor: int) -> None:
    try:
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except OSError as error:
        # The lock holds without the PID, and a program that only reads, or frees the disk, must start.
        if error.errno not in FULL_DISK:
            raise
