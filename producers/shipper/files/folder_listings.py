"""Listings of folders, kept while the folders do not change: many files of one folder are looked for in one.

Invariants:

1. A listing is used again only if the folder's change time shows that no name was added, removed or renamed
   since, and only for a short time, as some network file systems update that time late.
2. Sizes and times of files are never kept.
"""

import os
import stat
import time
from collections.abc import Collection, Container
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
    """Names of regular files in a folder."""

    changed_ns: int
    stable: bool
    listed_at: float
    by_base: dict[str, list[str]] = field(default_factory=dict)
    by_inode: dict[int, list[str]] = field(default_factory=dict)
    compressed: dict[str, list[str]] = field(default_factory=dict)


class FolderListings:
    """Listings of folders by path."""

    def __init__(self) -> None:
        self._listings: dict[str, _Listing] = {}

    def siblings(self, path: str, keys: Collection[Key] = ()) -> list[tuple[str, os.stat_result]]:
        """List the files beside a path and its target that have had its name, least recently modified first.

        These are the uncompressed regular files with names that a rotation gives, and those with given keys.

        Raises:
            OSError: the folder cannot be read at the moment, which must not look like the removal of its
                files.
        """
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
        return sorted(files, key=lambda item: (item[1].st_mtime_ns, item[0]))

    def compressed(self, names: Collection[str]) -> list[str]:
        """Return the paths of compressed files that have had one of the given names before a rotation."""
        found: list[str] = []
        for folder in dict.fromkeys(os.path.dirname(name) for name in names):
            with ignore_lasting():
                listing = self._list(folder)
                found += [path for name in names for path in listing.compressed.get(name, ())]
        return list(dict.fromkeys(found))

    def inodes(self, folder: str) -> Container[int]:
        """Return the inodes of a folder's uncompressed files.

        Raises:
            OSError: the folder cannot be read at the moment.
        """
        with ignore_lasting():
            return self._list(folder).by_inode
        return ()

    def _scan(self, path: str, keys: Collection[Key]) -> tuple[list[tuple[str, os.stat_result]], bool]:
        names = names_of(path)
        files, stable = [], True
        for folder in dict.fromkeys(os.path.dirname(name) or "." for name in names):
            with ignore_lasting():
                listing = self._list(folder)
                candidates = dict.fromkeys(
                    (
                        *(name for base in names for name in listing.by_base.get(base, ())),
                        *(name for key in keys for name in listing.by_inode.get(key[1], ())),
                    )
                )
                stable = stable and listing.stable
                for candidate in candidates:
                    try:
                        # No rotation makes links, so a link with such a name may have been planted.
                        status = os.lstat(candidate)
                    except FileNotFoundError:
                        stable = False
                        continue
                    if stat.S_ISREG(status.st_mode):
                        files.append((candidate, status))
        return files, stable

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
                if name.endswith(COMPRESSED):
                    base = base_of(os.path.splitext(path)[0])
                    if base is not None:
                        listing.compressed.setdefault(base, []).append(path)
                    continue
                listing.by_inode.setdefault(entry.inode(), []).append(path)
                listing.by_base.setdefault(path, []).append(path)
                base = base_of(path)
                if base is not None:
                    listing.by_base.setdefault(base, []).append(path)
        listing.stable = time.time() - before / 1e9 > _RACY and os.stat(folder).st_ctime_ns == before
        self._listings[folder] = listing
        return listing
