"""File names that log rotation produces, and the copies that copytruncate leaves."""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from tickertape.contracts.subjects import SubjectError, escape
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.position import Key, key_of

COMPRESSED: Final = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
"""Extensions of files that rotation compressed: they were shipped before, or cannot be read as text."""

MAX_SCANS: Final = 8
"""Attempts to find files while a rotation renames them."""

# Numbers and dates, as logrotate and the handlers of Python append them or put them before the extension.
_MARK: Final = r"[.-]\d[\d._T:-]*"
_MARKED: Final = re.compile(rf"(?P<name>.+?){_MARK}|(?P<stem>.+?){_MARK}(?P<extension>\.[A-Za-z]+)")


def base_of(path: str) -> str | None:
    """Return the path that a rotated file had before: app.log for app.log.1 and app-2026-01-01.log.

    None for a name that no rotation produces.
    """
    folder, name = os.path.split(path)
    match = _MARKED.fullmatch(name)
    if match is None:
        return None
    return os.path.join(folder, match["name"] or match["stem"] + match["extension"])


def source_of(path: str) -> str:
    """Return the name of a file without its extension and without rotation suffixes."""
    name = Path(base_of(path) or path).stem
    try:
        escape(name)
    except SubjectError:
        return "file"
    return name


def names_of(path: str) -> tuple[str, ...]:
    """Return the path of a log, and where it leads if it is a symbolic link: rotation renames the target.

    Raises:
        OSError: the path cannot be read at the moment.
    """
    with _ignore_lasting():
        if stat.S_ISLNK(os.lstat(path).st_mode):
            return path, os.path.realpath(path)
    return (path,)


def siblings(path: str) -> list[tuple[str, os.stat_result]]:
    """List the regular, uncompressed files beside a path and its target, least recently modified first.

    Raises:
        OSError: the folder cannot be read at the moment, which must not look like the removal of its files.
    """
    files: list[tuple[str, os.stat_result]] = []
    names: set[tuple[str, Key]] = set()
    for _ in range(MAX_SCANS):
        # A file that is renamed while its folder is read can be missing: read until two scans agree.
        previous, files = names, _scan(path)
        names = {(name, key_of(status)) for name, status in files}
        if names == previous:
            break
    return sorted(files, key=lambda item: (item[1].st_mtime_ns, item[0]))


def _scan(path: str) -> list[tuple[str, os.stat_result]]:
    folders = dict.fromkeys(os.path.dirname(name) or "." for name in names_of(path))
    return [file for folder in folders for file in _list(folder)]


def _list(folder: str) -> list[tuple[str, os.stat_result]]:
    files = []
    with _ignore_lasting(), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(COMPRESSED):
                continue
            with _ignore_lasting():
                # No rotation makes links, so a link with such a name may have been planted.
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    files.append((entry.path, status))
    return files


@contextlib.contextmanager
def _ignore_lasting() -> Iterator[None]:
    """Ignore errors that will not pass, such as a missing folder."""
    try:
        yield
    except OSError as error:
        if may_pass(error):
            raise


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
    for candidate, status in siblings(path):
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
