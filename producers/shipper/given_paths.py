"""Checks of the paths that a user has given without wildcards: only those of files can be tailed."""

import glob
import os
import shlex
import stat
from collections.abc import Iterable

from tickertape.errors import OperatorError
from tickertape.text import printable


class GivenPathError(OperatorError):
    """Path that a user has given and that is not the path of a file."""


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


def check_given_paths(patterns: Iterable[str]) -> None:
    """Check that paths without wildcards do not lead to anything other than files.

    Args:
        patterns: absolute paths and globs.

    Raises:
        GivenPathError: one of them leads to a folder, device, pipe or socket.
    """
    for path in patterns:
        if glob.has_magic(path):
            continue
        try:
            mode = os.stat(path).st_mode
        except OSError:
            continue  # it may appear later, and tailing it reports errors
        if stat.S_ISDIR(mode):
            raise FolderGiven(path)
        if not stat.S_ISREG(mode):
            raise SpecialFileGiven(path)
