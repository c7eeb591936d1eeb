"""Locks on folders: one process at a time works with what is in one."""

import fcntl
import os
from pathlib import Path
from typing import IO


def acquire_lock(path: Path) -> IO[str]:
    """Lock a file until it is closed, and write the number of this process into it.

    Args:
        path: of the lock; it and its folder are made where they are absent, and stay there.

    Raises:
        BlockingIOError: another process has the lock.
        OSError: the file cannot be made or locked.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate()  # only now: what is in it may be another's number
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError:
        file.close()
        raise
    return file
