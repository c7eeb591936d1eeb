"""Files that other programs replace while this one runs, and files that this one replaces."""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import Final

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of a disk, quota or file that cannot take more bytes."""

Stamp = tuple[int, int, int]
"""Modification time in nanoseconds, size and inode of a file, of which one differs after each change."""


NO_HOME: Final = Path("/var/lib/tickertape")
"""Folder of a user without a home directory, as in most containers: without ``HOME`` and a passwd entry."""


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
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # a full disk leaves a part of the text
        raise


def write_hint(error: OSError, otherwise: str) -> str:
    """Return what to do about a file that cannot be written.

    Args:
        error: error of the operating system.
        otherwise: hint that names the setting or the place, for errors that are not about space.
    """
    if error.errno in FULL_DISK:
        return "free space or inodes on its disk"
    # A root that is read-only on purpose stays so; the setting names the folder that need not be.
    return f"{otherwise}, or make its disk writable" if error.errno == errno.EROFS else otherwise


def create_file(path: Path, data: bytes) -> None:
    """Write a new file, which either exists completely or not at all, whenever the process ends.

    Raises:
        FileExistsError: the file exists.
        OSError: it cannot be written.
    """
    # Not by ``tempfile``, whose files are private: the new file has the permissions of the umask.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with temporary.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            # Not a rename, which would replace an existing file.
            os.link(temporary, path)
        finally:
            temporary.unlink()


def user_folder(variable: str, *default: str) -> Path:
    """Return the folder ``tickertape`` of the user, which may not exist yet.

    Args:
        variable: variable of the XDG base directory specification, such as ``XDG_STATE_HOME``.
        default: path of that directory in the home directory, if the variable is not set.
    """
    if base := os.environ.get(variable):
        return Path(base, "tickertape")
    try:
        return Path.home().joinpath(*default, "tickertape")
    except RuntimeError:
        return NO_HOME


def state_folder() -> Path:
    """Return the folder of the user for state that programs keep between runs."""
    return user_folder("XDG_STATE_HOME", ".local", "state")


def _stamp(status: os.stat_result) -> Stamp:
    return status.st_mtime_ns, status.st_size, status.st_ino
