"""Copies that a rotation makes of a file that it then truncates."""

import os
from collections.abc import Callable, Collection

from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.rotation import MAX_SCANS, base_of, names_of
from tickertape.producers.shipper.position import Key, key_of


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
    for candidate, status in roots.listings.siblings(path):
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
