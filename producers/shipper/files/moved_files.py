"""Search for files that were moved to another folder, or compressed, while the shipper was not running.

Invariants:

1. A file counts as found only if it contains what was shipped; its name and inode alone prove nothing.
2. Only folders whose files may be read are searched.
"""

import bz2
import gzip
import io
import lzma
import os
import stat
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import IO, Final

from tickertape.producers.shipper.files.completed_files import has_position
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.position import FilePosition

MAX_ENTRIES: Final = 20_000
"""Entries of folders that are examined in a search, which blocks everything else."""

MAX_UNCOMPRESSED: Final = 1 << 30
"""Bytes of a compressed file that are uncompressed; more could fill the disk of temporary files."""

_BLOCK: Final = 1 << 20

_OPENERS: Final[dict[str, Callable[[IO[bytes]], io.BufferedIOBase]]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


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
        except (OSError, PathChanged):
            continue
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
        except OSError:
            continue
        for path, is_folder in found:
            examined += 1
            if examined > MAX_ENTRIES:
                return
            if is_folder:
                left.append(path)
            else:
                yield path


def open_compressed(
    roots: Roots, names: Collection[str], since: float, accepts: Callable[[int], bool]
) -> Iterator[tuple[str, int]]:
    """Yield the paths and descriptors of the rotated files that are accepted after uncompressing them.

    Args:
        roots: folders whose files may be read.
        names: paths that the files had before they were rotated.
        since: UNIX seconds; files that were not modified after this time are not considered.
        accepts: returns whether an uncompressed file is wanted.
    """
    found = []
    for path in roots.listings.compressed(names):
        if os.path.splitext(path)[1] not in _OPENERS:
            continue
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_mtime > since:
            found.append((status.st_mtime_ns, path))
    for modified_ns, path in sorted(found):
        fd = _uncompress(roots, path, modified_ns)
        if fd is None:
            continue
        if accepts(fd):
            yield path, fd
        else:
            os.close(fd)


def _uncompress(roots: Roots, path: str, modified_ns: int) -> int | None:
    """Return the descriptor of a temporary file without a name; None if the file cannot be uncompressed."""
    try:
        with (
            open(roots.open(path), "rb") as raw,
            _OPENERS[os.path.splitext(path)[1]](raw) as source,
            tempfile.TemporaryFile(buffering=0) as target,
        ):
            size = 0
            while block := source.read(_BLOCK):
                size += len(block)
                if size > MAX_UNCOMPRESSED:
                    return None
                target.write(block)
            os.utime(target.fileno(), ns=(modified_ns, modified_ns))
            return os.dup(target.fileno())
    except (OSError, EOFError, zlib.error, lzma.LZMAError, PathChanged):
        return None
