"""Listings of folders, kept while the folders do not change: many files of one folder are looked for in one.

Invariants:

1. A listing is used again only if the folder's change time shows that no name was added, removed or renamed
   since, and only for a short time, as some network file systems update that time late.
2. During a scan of a folder that keeps changing, two listings are used for a name if they agree on its files
   and each of these still has its path: every rotation of the name moves one of them. A listing for each name
   would take quadratic time.
3. Sizes and times of files are never kept.
"""

import contextlib
import os
import stat
import time
from collections.abc import Callable, Collection, Container, Iterator
from dataclasses import dataclass, field
from typing import Final

from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.files.rotation import (
    MAX_SCANS,
    base_of,
    ignore_lasting,
    names_of,
)
from tickertape.producers.shipper.position import Key, key_of

MAX_AGE: Final = 1.0
"""Seconds for which a listing is used again."""

_RACY: Final = 0.05
"""Seconds within which two changes of a folder can have the same change time."""


@dataclass(slots=True)
class _Listing:
    """Names of files in a folder.

    Attributes:
        changed_ns: change time of the folder.
        stable: the folder has not changed while it was listed.
        listed_at: monotonic seconds.
        inodes: inodes by path.
        by_base: paths of uncompressed files by the path that they had before a rotation.
        by_inode: paths of uncompressed files by inode.
        compressed: paths of compressed files by the path that they had before a rotation.
    """

    changed_ns: int
    stable: bool
    listed_at: float
    inodes: dict[str, int] = field(default_factory=dict)
    by_base: dict[str, list[str]] = field(default_factory=dict)
    by_inode: dict[int, list[str]] = field(default_factory=dict)
    compressed: dict[str, list[str]] = field(default_factory=dict)

    def siblings(self, names: Collection[str], keys: Collection[Key] = ()) -> dict[str, int]:
        """Return the inodes of the uncompressed files that have or had one of the names, or have a key."""
        paths = [name for name in names if name in self.inodes]
        paths += [path for name in names for path in self.by_base.get(name, ())]
        paths += [path for _, inode in keys for path in self.by_inode.get(inode, ())]
        return {path: self.inodes[path] for path in paths}

    def compressed_of(self, names: Collection[str]) -> dict[str, int]:
        """Return the inodes of the compressed files that had one of the names."""
        return {path: self.inodes[path] for name in names for path in self.compressed.get(name, ())}


class FolderListings:
    """Listings of folders by path."""

    def __init__(self) -> None:
        self._listings: dict[str, _Listing] = {}
        # During a scan, the last two listings of each folder, or the same one twice if it was stable.
        self._pairs: dict[str, tuple[_Listing, _Listing]] = {}
        self._scanning = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Keep the listings of a folder for all names that are looked for meanwhile, where that is safe.

        The paths that match the globs must have been found before.
        """
        self._pairs.clear()
        self._scanning = True
        try:
            yield
        finally:
            self._scanning = False

    def siblings(
        self, path: str, keys: Collection[Key] = (), *, fresh: bool = False
    ) -> list[tuple[str, os.stat_result]]:
        """List the files beside a path and its target that have had its name, least recently modified first.

        These are the uncompressed regular files with names that a rotation gives, and those with given keys.

        Args:
            path: the path.
            keys: files to list whatever their names are.
            fresh: a file may have appeared since the scan began, such as the copy of a truncated file.

        Raises:
            OSError: the folder cannot be read at the moment, which must not look like the removal of its
                files.
        """
        files: list[tuple[str, os.stat_result]] | None
        if fresh or not self._scanning or (files := self._shared_siblings(path, keys)) is None:
            files = self._scan_repeatedly(path, keys)
        return sorted(files, key=lambda item: (item[1].st_mtime_ns, item[0]))

    def compressed(self, names: Collection[str]) -> list[str]:
        """Return the paths of compressed files that have had one of the given names before a rotation."""

        def select(listing: _Listing) -> dict[str, int]:
            return listing.compressed_of(names)

        found: list[str] = []
        for folder in dict.fromkeys(os.path.dirname(name) for name in names):
            with ignore_lasting():
                shared = self._unchanged(folder, select) if self._scanning else None
                found += select(self._list(folder)) if shared is None else shared
        return list(dict.fromkeys(found))

    def inodes(self, folder: str) -> Container[int]:
        """Return the inodes of a folder's uncompressed files.

        Raises:
            OSError: the folder cannot be read at the moment.
        """
        with ignore_lasting():
            return (self._pair(folder)[1] if self._scanning else self._list(folder)).by_inode
        return ()

    def _scan_repeatedly(self, path: str, keys: Collection[Key]) -> list[tuple[str, os.stat_result]]:
        files: list[tuple[str, os.stat_result]] = []
        found: set[tuple[str, Key]] = set()
        for _ in range(MAX_SCANS):
            # A file that is renamed while its folder is read can be missing: read until two scans agree, or
            # until the folder has not changed meanwhile.
            previous = found
            files, stable = self._scan(path, keys)
            found = {(name, key_of(status)) for name, status in files}
            if stable or found == previous:
                break
        return files

    def _scan(self, path: str, keys: Collection[Key]) -> tuple[list[tuple[str, os.stat_result]], bool]:
        names = names_of(path)
        files, stable = [], True
        for folder in dict.fromkeys(os.path.dirname(name) or "." for name in names):
            with ignore_lasting():
                listing = self._list(folder)
                stable = stable and listing.stable
                for candidate in listing.siblings(names, keys):
                    try:
                        # No rotation makes links, so a link with such a name may have been planted.
                        status = os.lstat(candidate)
                    except FileNotFoundError:
                        stable = False
                        continue
                    if stat.S_ISREG(status.st_mode):
                        files.append((candidate, status))
        return files, stable

    def _shared_siblings(self, path: str, keys: Collection[Key]) -> list[tuple[str, os.stat_result]] | None:
        """Return what the listings of this scan show; None if the folder has to be listed again."""
        names = names_of(path)
        found: dict[str, os.stat_result] = {}
        for folder in dict.fromkeys(os.path.dirname(name) or "." for name in names):
            with ignore_lasting():
                unchanged = self._unchanged(folder, lambda listing: listing.siblings(names, keys))
                if unchanged is None:
                    return None
                found |= unchanged
        inodes = {status.st_ino for status in found.values()}
        appeared = any(name not in found and os.path.lexists(name) for name in names)
        if appeared or any(device and inode not in inodes for device, inode in keys):
            return None
        return [(path, status) for path, status in found.items() if stat.S_ISREG(status.st_mode)]

    def _unchanged(
        self, folder: str, select: Callable[[_Listing], dict[str, int]]
    ) -> dict[str, os.stat_result] | None:
        """Return the files that a selection from both listings shows; None if one of them has moved since."""
        older, newer = self._pair(folder)
        selected = select(newer)
        if older is not newer and select(older) != selected:
            return None
        found = {}
        for path, inode in selected.items():
            try:
                status = found[path] = os.lstat(path)
            except FileNotFoundError:
                return None
            if status.st_ino != inode:
                return None
        return found

    def _pair(self, folder: str) -> tuple[_Listing, _Listing]:
        pair = self._pairs.get(folder)
        if pair is None or time.monotonic() - pair[1].listed_at >= MAX_AGE:
            first = self._list(folder)
            second = first if first.stable else self._list(folder)
            pair = self._pairs[folder] = (first, second)
        return pair

    def _list(self, folder: str) -> _Listing:
        before = os.stat(folder).st_ctime_ns
        known = self._listings.get(folder)
        if known is not None and known.stable and known.changed_ns == before:
            age = time.monotonic() - known.listed_at
            if age < MAX_AGE:
                return known
        listing = _Listing(before, stable=False, listed_at=time.monotonic())
        prefix = folder.rstrip("/") + "/"
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name
                path = prefix + name
                inode = listing.inodes[path] = entry.inode()
                if name.endswith(COMPRESSED):
                    base = base_of(os.path.splitext(path)[0])
                    if base is not None:
                        listing.compressed.setdefault(base, []).append(path)
                    continue
                listing.by_inode.setdefault(inode, []).append(path)
                base = base_of(path)
                if base is not None:
                    listing.by_base.setdefault(base, []).append(path)
        listing.stable = time.time() - before / 1e9 > _RACY and os.stat(folder).st_ctime_ns == before
        self._listings[folder] = listing
        if folder in self._pairs:  # for the other names that have changed since
            self._pairs[folder] = (listing if listing.stable else self._pairs[folder][1], listing)
        return listing
