"""Follows files by what they are (device and inode), not by their names, through rotation and truncation.

Invariants:

1. A file that was opened is read to its end, whatever its name becomes; its successor waits for that.
2. Every byte comes once per generation of a file; a truncated file begins a new generation.
3. Polling decides: nothing is assumed of the order in which a writer renames, creates and truncates.
4. Between two lines at most one piece of one file, and a half line of each, is held in memory.

Calls block on local files only, for one small piece at a time.
"""

import glob
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from producers.shipper.checkpoint import Position, head_hash
from producers.shipper.followed import Followed, Key, Line

MAX_OPEN: Final = 512
"""Files followed at a time; below the usual limit of 1 024 open files per process."""

_COMPRESSED: Final = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip")


class Tail:
    """All files of some paths and globs.

    Args:
        patterns: paths and globs; ``**`` leads into folders.
        known: positions from the run before.
        from_end: at the very first run, skip what the files hold already.
        complain: called with one line about a file that cannot be followed; once per file and reason.
    """

    def __init__(
        self,
        patterns: list[str],
        *,
        known: Iterable[Position] = (),
        from_end: bool = False,
        complain: Callable[[str], None],
    ) -> None:
        self._patterns = patterns
        self._known = {(position.device, position.inode): position for position in known}
        self._from_end = from_end and not self._known
        self._complain = complain
        self._complaints: set[str] = set()
        self._files: dict[Key, Followed] = {}
        self._closing: list[Followed] = []  # read to the end, not yet acknowledged to the end
        self._looked = False

    def __repr__(self) -> str:
        return f"<Tail {len(self._files)} files>"

    def look(self, now: float) -> bool:
        """Look for files that came, went, or were renamed; True when there are new ones.

        The caller makes ``positions`` last before it ships a line of a new file, so that a restart knows it.

        Args:
            now: seconds of any monotonic clock.
        """
        found = self._found()
        named = {file.path: file for file in self._files.values()}
        new = False
        if not self._looked:
            new = self._reopen_rotated(found, named, now)
        for key, path in found.items():
            file = self._files.get(key)
            if file is None:
                opened = self._open(path)
                if opened is not None:
                    new = True
                    opened.before = named.get(path)
            elif file.path != path:
                file.path = path
                file.rotated(now)
        for key, file in self._files.items():
            file.gone = key not in found
            if file.gone:
                file.rotated(now)
        self._looked = True
        self._from_end = False
        return new

    def read(self, now: float) -> Iterator[Line]:
        """Yield the lines that are new; one piece of each file, so that none waits for another's flood."""
        for key, file in list(self._files.items()):
            if file.before is not None and not (file.before.drained or file.before.closed):
                continue
            file.before = None
            try:
                yield from file.read(now)
                if not file.at_end(now):
                    continue
                yield from file.finish()
            except OSError as error:
                self._complain_once(f"{file.path}: cannot be read: {error.strerror}; it is left alone")
            else:
                if not file.gone:
                    continue
            file.close()
            del self._files[key]
            self._closing.append(file)

    def finish(self) -> Iterator[Line]:
        """Yield the half lines at the ends of all files, for a run that does not wait for their rest."""
        for file in self._files.values():
            yield from file.finish()

    @property
    def seen(self) -> bool:
        """True when there is a file to follow."""
        return bool(self._files)

    @property
    def drained(self) -> bool:
        """True when the last read met the end of every file."""
        return all(file.drained for file in self._files.values())

    def positions(self) -> list[Position]:
        """How far each file is acknowledged; a file that is done with is forgotten."""
        self._closing = [file for file in self._closing if len(file.progress)]
        kept = [file.position() for file in (*self._closing, *self._files.values())]
        # What is known and not open, as before the first look, must not be forgotten either.
        return [*kept, *self._known.values()]

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files.values():
            file.close()

    def _found(self) -> dict[Key, str]:
        """Regular files by identity; a file of several names has the first."""
        found: dict[Key, str] = {}
        for pattern in self._patterns:
            paths = sorted(glob.iglob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
            for path in paths:
                if path.endswith(_COMPRESSED):
                    continue
                try:
                    status = os.stat(path)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._complain_once(f"{path}: cannot be looked at: {error.strerror}")
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.setdefault((status.st_dev, status.st_ino), path)
        return found

    def _open(self, path: str) -> Followed | None:
        if len(self._files) >= MAX_OPEN:
            self._complain_once(
                f"more than {MAX_OPEN} files at once; give narrower paths, or several shippers"
            )
            return None
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._complain_once(f"{path}: cannot be opened: {error.strerror}; check its permissions")
            return None
        status = os.fstat(handle)
        key = (status.st_dev, status.st_ino)
        if key in self._files or not stat.S_ISREG(status.st_mode):
            os.close(handle)
            return None
        position = self._known.pop(key, None)
        if position is not None and not _is_same(handle, status.st_size, position):
            position = None  # the inode was used again, or the file was truncated
            file = Followed(path, handle, None)
        else:
            file = Followed(path, handle, position, offset=status.st_size if self._from_end else 0)
        self._files[key] = file
        return file

    def _reopen_rotated(self, found: dict[Key, str], named: dict[str, Followed], now: float) -> bool:
        """Find files that were rotated out of sight while the shipper was down, and what came between."""
        new = False
        for key, position in list(self._known.items()):
            if key in found or key in self._files:
                continue  # in sight, or opened as one that came between
            del self._known[key]
            path = Path(position.path)
            name = next((other for other in _folder(path) if _key(other) == key), None)
            if name is None:
                where = (
                    f"{position.path}: rotated away while the shipper was down, with {position.offset} bytes"
                )
                self._complain_once(f"{where} shipped; what followed in it cannot be found")
                continue
            self._known[key] = position
            # Oldest first: the file itself, then those that took its name and lost it again.
            chain = [
                name,
                *(other for other in _rotated_names(path) if other != name and _newer(other, name)),
            ]
            before: Followed | None = None
            for sibling in chain:
                if _key(sibling) in found or (file := self._open(str(sibling))) is None:
                    continue
                file.named_after(position.path)
                file.before, before = before, file
                file.rotated(now)
                new = True
            if before is not None:
                named[position.path] = before
        return new

    def _complain_once(self, text: str) -> None:
        if text not in self._complaints and len(self._complaints) < MAX_OPEN:
            self._complaints.add(text)
            self._complain(text)


def _is_same(handle: int, size: int, position: Position) -> bool:
    if size < position.offset:
        return False
    return head_hash(os.pread(handle, position.head_bytes, 0)) == position.head


def _folder(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:
        return []


def _rotated_names(path: Path) -> list[Path]:
    """Files whose names a rotation could have made of this one, such as app.log.1, oldest change first."""
    mark = r"[.-]\d[\d._T:-]*"
    stem, ending = re.escape(path.stem), re.escape(path.suffix)
    name = re.compile(rf"{stem}{ending}{mark}|{stem}{mark}{ending}")
    found = [(_changed(other), other) for other in _folder(path) if name.fullmatch(other.name)]
    return [other for _, other in sorted(found)]


def _key(path: Path) -> Key | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _newer(path: Path, than: Path) -> bool:
    return _changed(path) > _changed(than)
