"""What rotation makes of a file: names that it may be given, and copies of it."""

import contextlib
import os
import re
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from tickertape.contracts.subjects import SubjectError, escape
from tickertape.producers.shipper.position import Key

from tickertape.errors import TickertapeError

COMPRESSED: Final = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")
"""Endings of what a rotation has compressed: it was shipped before, or cannot be read."""

_MAX_SCANS: Final = 8
"""Times that a folder is read while its files are being renamed."""

_MARK: Final = r"[.-]\d[\d._T:-]*"
_MARKED: Final = re.compile(rf"(?P<name>.+?){_MARK}|(?P<stem>.+?){_MARK}(?P<ending>\.[A-Za-z]+)")


def base_of(path: str) -> str | None:
    """Path of the file that was rotated to this one: app.log for app.log.1 and app-2026-01-01.log.

    None for a name that no rotation gives.
    """
    folder, name = os.path.split(path)
    found = _MARKED.fullmatch(name)
    if found is None:
        return None
    return os.path.join(folder, found["name"] or found["stem"] + found["ending"])


def source_of(path: str) -> str:
    """Name of a file without its ending, and without what a rotation added."""
    name = Path(base_of(path) or path).stem
    try:
        escape(name)
    except SubjectError:
        return "file"
    return name


def siblings(path: str) -> list[tuple[str, os.stat_result]]:
    """Regular, uncompressed files beside one, oldest change first."""
    found: list[tuple[str, os.stat_result]] = []
    names: set[tuple[str, Key]] = set()
    for _ in range(_MAX_SCANS):
        # What is renamed while a folder is read can be missing: it is read until it stands still.
        before, found = names, _scan(path)
        names = {(name, key_of(status)) for name, status in found}
        if names == before:
            break
    return sorted(found, key=lambda item: (item[1].st_mtime_ns, item[0]))


def _scan(path: str) -> list[tuple[str, os.stat_result]]:
    found = []
    with contextlib.suppress(OSError), os.scandir(os.path.dirname(path) or ".") as entries:
        for entry in entries:
            if entry.name.endswith(COMPRESSED):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    found.append((entry.path, status))
    return found


class PathChanged(TickertapeError):
    """A path leads to another file than a moment ago."""


def open_file(path: str) -> int:
    """Open a file for reading, never waiting for it, as for a pipe.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def key_of(status: os.stat_result) -> Key:
    """Device and inode of a file."""
    return (status.st_dev, status.st_ino)


def open_same(path: str, key: Key) -> int:
    """Open a file that was looked at.

    Raises:
        Renamed: the path leads to another one by now.
        OSError: it cannot be read.
    """
    try:
        handle = open_file(path)
    except FileNotFoundError:
        raise PathChanged(path) from None
    if key_of(os.fstat(handle)) != key:
        os.close(handle)
        raise PathChanged(path)
    return handle


def open_copy(path: str, matches: Callable[[int], bool], exclude: Collection[Key]) -> tuple[str, int] | None:
    """Find and open what a rotation by copying made of a file.

    Args:
        path: the file that was copied and then truncated.
        fits: tells of an open file whether it holds all that was read of the one.
        besides: files that it cannot be.
    """
    for _ in range(_MAX_SCANS):
        try:
            return _open_copy(path, matches, exclude)
        except PathChanged:
            continue
    return None


def _open_copy(path: str, matches: Callable[[int], bool], exclude: Collection[Key]) -> tuple[str, int] | None:
    for other, status in siblings(path):
        key = key_of(status)
        if key in exclude or base_of(other) != path:
            continue
        try:
            handle = open_same(other, key)
        except OSError:
            continue
        if matches(handle):
            return other, handle
        os.close(handle)
    return None
