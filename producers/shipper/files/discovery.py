"""Finds the files of some paths and globs, and whose successor each is.

Invariants:

1. Files are known by what they are, not by their names: a rename makes nothing new.
2. Polling decides: nothing is assumed of the order in which a writer renames, copies, creates and truncates.
3. What looks like a copy that a rotation makes of a followed file waits until it is clear what it is.
"""

import contextlib
import glob
import os
import re
import stat
from collections.abc import Callable, Iterable
from typing import Final

from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.rotation import COMPRESSED, Renamed, base_of, key_of, open_file
from tickertape.producers.shipper.files.rotation_chain import CLOCK_MARGIN
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.position import HEAD_BYTES, Key
from tickertape.producers.shipper.sinks.sink import Known

COPY_WAIT: Final = 5.0
"""Seconds without growth after which a file that begins like a followed one is looked at as a whole."""

_COMPARED_BYTES: Final = 64 * 1024
_MAX_COMPLAINTS: Final = 1_000


class Tail:
    """All files of some paths and globs.

    Args:
        patterns: absolute paths and globs; ``**`` leads into folders.
        known: what is shipped, by path.
        make: makes a lineage.
        from_end: at the very first run, skip what the files hold already.
        max_open: files that are followed at a time.
        complain: called with one line about a file that cannot be followed; once per file and reason.

    Attributes:
        lineages: by path.
    """

    def __init__(
        self,
        patterns: list[str],
        known: dict[str, Known],
        make: Callable[[str, Known | None], FileStream],
        *,
        from_end: bool = False,
        max_open: int = 512,
        complain: Callable[[str], None],
    ) -> None:
        self.lineages: dict[str, FileStream] = {}
        self._patterns = patterns
        self._known = known
        self._make = make
        self._max_open = max_open
        self._complain = complain
        self._complaints: set[str] = set()
        self._copies: dict[Key, tuple[tuple[int, int], float, bool]] = {}
        self._first = True
        self._owners: dict[Key, FileStream] = {}
        matches = pattern_of(patterns)
        for path in known:
            if matches.fullmatch(path):
                self._lineage(path, 0.0)
        self._from_end = from_end and not self.lineages

    def __repr__(self) -> str:
        return f"<Tail of {len(self.lineages)} names>"

    def look(self, now: float) -> None:
        """Look for files that came, went, or were renamed.

        Args:
            now: UNIX seconds.
        """
        found = self._found()
        in_sight = {key: path for key, (path, _) in found.items()}
        paths = set(in_sight.values())
        for lineage in self.lineages.values():
            lineage.begin_look()
            if self._first:
                lineage.find_past(in_sight, now)
            else:
                lineage.find_wanted(in_sight, now)
                if self._may_have_missed(lineage, found, paths):
                    lineage.find_unseen(lineage.looked_at - CLOCK_MARGIN, now, in_sight)
        for _, path, key, status in self._new(found, now):
            lineage = self._owner(key, path) or self._lineage(self._name(path, paths), now)
            if not self._may_be_a_copy(path, key, status, lineage, now):
                self._open(lineage, path, status, in_sight, now)
        for lineage in self.lineages.values():
            lineage.forget(in_sight)
            lineage.end_look(now)
            while lineage.lost:
                place = lineage.lost.pop()
                self._complain_once(
                    f"{place.path}: went away while nobody looked, with {place.offset} bytes shipped;"
                    " what followed in it cannot be found"
                )
        self._copies = {key: value for key, value in self._copies.items() if key in found}
        self._first = self._from_end = False

    def _open(
        self, lineage: FileStream, path: str, status: os.stat_result, in_sight: dict[Key, str], now: float
    ) -> None:
        if not self._first:  # its name may have been another's since the last look
            lineage.find_unseen(lineage.looked_at - CLOCK_MARGIN, now, in_sight)
        try:
            if not lineage.held:
                lineage.open(path, status, now, from_end=self._from_end)
                return
        except Renamed:
            lineage.hold()
        except OSError as error:
            self._complain_once(f"{path}: cannot be opened: {error.strerror}; check its permissions")
            return
        if not self._from_end:
            lineage.want(status, path)

    def _new(
        self, found: dict[Key, tuple[str, os.stat_result]], now: float
    ) -> list[tuple[int, str, Key, os.stat_result]]:
        """Note which files have lost their names; return those that are to be opened, oldest change first."""
        followed = {file.key: file for lineage in self.lineages.values() for file in lineage.chain}
        self._owners = {
            key: lineage for lineage in self.lineages.values() for key in (*lineage.past, *lineage.wanted)
        }
        new = []
        for key, (path, status) in found.items():
            if key not in followed and not self._is_done(key, path, status):
                new.append((status.st_mtime_ns, path, key, status))
        for key, file in followed.items():
            file.look(found[key][0] if key in found else None, now)
        new.sort(key=lambda item: item[:2])
        if len(followed) + len(new) > self._max_open:
            self._complain_once(f"more than {self._max_open} files at once; raise the limit of open files")
            del new[max(0, self._max_open - len(followed)) :]
        return new

    def _is_done(self, key: Key, path: str, status: os.stat_result) -> bool:
        owner = self._owners.get(key)
        try:
            return owner is not None and owner.has_done(key, path, status)
        except Renamed:
            if owner is not None:
                owner.hold()
            return True  # as far as is known; the next look asks again

    def _owner(self, key: Key, path: str) -> FileStream | None:
        """Find the lineage that a file belongs to by what is known of it, whatever its name."""
        owner = self._owners.get(key)
        if owner is None or key in owner.wanted:
            return owner
        try:
            return owner if key in owner.past and owner.knows(key, path) else None
        except Renamed:
            owner.hold()
            return owner

    def close(self) -> None:
        """Let go of all files."""
        for lineage in self.lineages.values():
            lineage.close()

    def _lineage(self, path: str, now: float) -> FileStream:
        lineage = self.lineages.get(path)
        if lineage is None:
            lineage = self.lineages[path] = self._make(path, self._known.get(path))
            if not lineage.looked_at:
                lineage.end_look(now)
        return lineage

    def _name(self, path: str, paths: set[str]) -> str:
        """Name that a file had when it was written, as far as that can be told."""
        base = base_of(path)
        return base if base is not None and (base in self.lineages or base in paths) else path

    def _may_have_missed(
        self, lineage: FileStream, found: dict[Key, tuple[str, os.stat_result]], paths: set[str]
    ) -> bool:
        """Tell whether a file may have taken the name of a lineage's last one, and lost it again since."""
        if lineage.chain and not self._lost_its_name(lineage.chain[-1], found):
            return False  # what becomes of the live file is seen when it is read
        if any(not file.gone and self._lost_its_name(file, found) for file in lineage.chain):
            return True
        if lineage.path in paths:
            return False
        with contextlib.suppress(OSError):
            return os.stat(os.path.dirname(lineage.path)).st_mtime > lineage.looked_at - CLOCK_MARGIN
        return False

    @staticmethod
    def _lost_its_name(file: TailedFile, found: dict[Key, tuple[str, os.stat_result]]) -> bool:
        return file.key not in found or found[file.key][0] != file.path

    def _may_be_a_copy(
        self, path: str, key: Key, status: os.stat_result, lineage: FileStream, now: float
    ) -> bool:
        """Tell whether a file is, or may become, a copy of one that is followed: it adds nothing then."""
        if base_of(path) != lineage.path or key in lineage.past or key in lineage.wanted:
            return False
        stamp = (status.st_size, status.st_mtime_ns)
        seen, since, is_copy = self._copies.get(key, (None, now, False))
        if not self._first and lineage.changed_since(since):
            # The live file may have been truncated meanwhile: reading it tells whose successor this is.
            self._copies.setdefault(key, ((-1, -1), now, False))
            return True
        if seen == stamp and (is_copy or now - since < COPY_WAIT):
            return True
        try:
            handle = open_file(path)
        except OSError:
            return False
        try:
            head = os.pread(handle, HEAD_BYTES, 0)
            like = [file for file in lineage.chain if file.begins_with(head)]
            if not like:
                return False
            if seen != stamp:
                self._copies[key] = (stamp, now, False)
                return True
            begin = max(0, status.st_size - _COMPARED_BYTES)
            end = os.pread(handle, _COMPARED_BYTES, begin)
            is_copy = any(file.holds(end, begin) for file in like)
            self._copies[key] = (stamp, since, is_copy)
            return is_copy
        finally:
            os.close(handle)

    def _found(self) -> dict[Key, tuple[str, os.stat_result]]:
        """Regular files by what they are; a file of several names has the first."""
        found: dict[Key, tuple[str, os.stat_result]] = {}
        for path in self._paths():
            if path.endswith(COMPRESSED):
                continue
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._complain_once(f"{path}: cannot be looked at: {error.strerror}")
                continue
            if stat.S_ISREG(status.st_mode):
                found.setdefault(key_of(status), (path, status))
        return found

    def _paths(self) -> Iterable[str]:
        for pattern in self._patterns:
            if glob.has_magic(pattern):
                yield from sorted(glob.iglob(pattern, recursive=True))
            else:
                yield pattern

    def _complain_once(self, text: str) -> None:
        if text not in self._complaints and len(self._complaints) < _MAX_COMPLAINTS:
            self._complaints.add(text)
            self._complain(text)


def pattern_of(patterns: list[str]) -> re.Pattern[str]:
    """One expression for all paths that globs can lead to."""
    return re.compile("|".join(_expression(pattern) for pattern in patterns))


def _expression(pattern: str) -> str:
    if not glob.has_magic(pattern):
        return re.escape(pattern)
    parts = []
    for part in re.split(r"(\*\*/|\*|\?|\[[^/]+?\])", pattern):
        match part:
            case "**/":
                parts.append("(?:[^/]+/)*")
            case "*":
                parts.append("[^/]*")
            case "?":
                parts.append("[^/]")
            case _ if part.startswith("[") and part.endswith("]"):
                parts.append(f"[^{part[2:]}" if part.startswith("[!") else part)
            case _:
                parts.append(re.escape(part))
    return "".join(parts)
