"""Checks of the paths that a user has given without wildcards: only those of files can be tailed."""

import errno
import glob
import os
import shlex
import stat
from collections.abc import Container, Iterable
from typing import Final

from tickertape.producers.shipper.content.compression import COMPRESSED

from tickertape.errors import OperatorError
from tickertape.text import printable

EXIT_BAD_PATH: Final = 2
"""Exit code for a path that cannot be shipped, as for every other invalid setting."""


class GivenPathError(OperatorError):
    """Path that a user has given and that is not the path of a file."""

    exit_code = EXIT_BAD_PATH


class FolderGiven(GivenPathError):
    """Folder that was given as a path."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{printable(path)}: is a folder", "pass a glob of its files, such as '*.log' in that folder"
        )


class SpecialFileGiven(GivenPathError):
    """Device, pipe or socket that was given as a path."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{printable(path)}: is a device, pipe or socket, and only regular files are tailed",
            f"read it as standard input: ship - < {printable(shlex.quote(path))}",
        )


class CompressedFileGiven(GivenPathError):
    """Compressed file that was given as a path."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{printable(path)}: is compressed, and compressed files are read only as parts of their log",
            "pass the path of the log, or uncompress the file into standard input of ship -",
        )


class UnreadableFileGiven(GivenPathError):
    """File that was given as a path, and is missing or cannot be read."""

    def __init__(self, path: str, error: OSError) -> None:
        reason, hint = f"cannot be read: {error.strerror}", "check its permissions"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            reason, hint = "does not exist", "check the path; without --once, the shipper waits for it"
            if os.path.islink(path):
                reason = f"leads to {printable(os.path.realpath(path))}, which does not exist"
        super().__init__(f"{printable(path)}: {reason}", hint)


def check_given_paths(patterns: Iterable[str], *, once: bool = False, known: Container[str] = ()) -> None:
    """Check that paths without wildcards do not lead to anything other than files.

    Args:
        patterns: absolute paths and globs.
        once: what cannot be read now is not shipped later either.
        known: paths that were shipped before, whose files may have been rotated.

    Raises:
        GivenPathError: one of them leads to a folder, device, pipe, socket or compressed file, or with
            ``once`` to no file that can be read.
    """
    for path in patterns:
        if glob.has_magic(path):
            continue
        if path.endswith(COMPRESSED):
            raise CompressedFileGiven(path)
        try:
            mode = os.stat(path).st_mode
            if stat.S_ISREG(mode) and once:
                os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if once and path not in known:
                raise UnreadableFileGiven(path, error) from None
            continue  # it may appear later, and tailing it reports errors
        if stat.S_ISDIR(mode):
            raise FolderGiven(path)
        if not stat.S_ISREG(mode):
            raise SpecialFileGiven(path)
