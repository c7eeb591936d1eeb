"""Search for files that were moved to another folder, and for the copies of truncated files.

Invariants:

1. A file counts as found only if it contains what was shipped; its name and inode alone prove nothing.
2. Only folders whose files may be read are searched.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Final

from tickertape.producers.shipper.files.completed_files import has_position
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.rotation import MAX_SCANS, base_of, names_of
from tickertape.producers.shipper.position import FilePosition, Key, key_of

MAX_ENTRIES: Final = 20_000
"""Entries of folders that are examined in a search, which blocks everything else."""


def find_moved(roots: Roots, path: str, position: FilePosition) -> tuple[str, int] | None:
    """Find a file that was moved to another folder; return its path and descriptor.

    Args:
        roots: folders whose files may be read.
        path: the path that it was written under.
        position: how far it is shipped.
    """
    for candidate in _entries(roots.folders_of(path)):
        try:
            if os.lstat(candidate).st_ino != position.inode:
                continue
            fd = roots.open(candidate)
            if has_position(fd, position):
                return candidate, fd
        except PathChanged:
            continue
        except OSError as error:
            if may_pass(error):
                raise  # the file must not be missed
    return None


def _entries(folders: Collection[str]) -> Iterator[str]:
    left, seen, examined = deque(folders), set[str](), 0
    while left:
        folder = left.popleft()
        if folder in seen:
            continue
        seen.add(folder)
        try:
            with os.scandir(folder) as entries:
                found = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            if may_pass(error):
                raise
            continue
        for path, is_folder in found:
            examined += 1
            if examined > MAX_ENTRIES:
                return
            if is_folder:
                left.append(path)
            else:
                yield path


def open_copy(
    roots: Roots, path: str, matches: Callable[[int], bool], exclude: Collection[Key]
) -> tuple[str, int] | None:
    """Find and open the copy that copytruncate made of a file; return its path and descriptor.

    Args:
        roots: folders whose files may be read.
        path: the file that was copied and then truncated.
        matches: returns whether an open file contains everything that was read of the original.
        exclude: files that are not considered.

    Raises:
        OSError: a candidate cannot be read.
    """
    for _ in range(MAX_SCANS):
        try:
            return _open_copy(roots, path, matches, exclude)
        except PathChanged:
            continue
    return None


def _open_copy(
    roots: Roots, path: str, matches: Callable[[int], bool], exclude: Collection[Key]
) -> tuple[str, int] | None:
    names = names_of(path)
    for candidate, status in roots.listings.siblings(path, fresh=True):
        key = key_of(status)
        if key in exclude or base_of(candidate) not in names:
            continue
        try:
            fd = roots.open_same(candidate, key)
        except OSError as error:
            if may_pass(error):
                raise  # the copy must not be missed
            continue
        try:
            if matches(fd):
                return candidate, fd
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
    return None
