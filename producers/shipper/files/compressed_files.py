"""Compressed files of a chain: which of them have lines that were not read from the original.

Invariants:

1. A compressed file is recognized by its content, not by its name or times.
2. A file beside which its original still exists is left alone: the original is read.
3. What may have lines that are not shipped, and cannot be read, is reported with its name.
"""

import functools
import os
import stat
from dataclasses import replace
from typing import Final, NamedTuple

from tickertape.producers.shipper.content.comparison import Evidence
from tickertape.producers.shipper.content.compression import UnreadableContent, is_readable
from tickertape.producers.shipper.content.uncompressor import Identity, Uncompressing, identity_of
from tickertape.producers.shipper.files.file_chain import FileChain
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.position import FilePosition, key_of
from tickertape.producers.shipper.timing import CLOCK_MARGIN

SETTLED_AFTER: Final = 5.0
"""Seconds after its last change after which an incomplete compressed file is no longer being written."""

MAX_VERDICTS: Final = 512
"""Compressed files that are remembered with what they were found to be."""

_MISSED: Final = "missed"


class _Candidate(NamedTuple):
    """Compressed file whose content may be wanted."""

    path: str
    identity: Identity


class _Wanted(NamedTuple):
    """Content that is to be read, with the position of what is shipped; None if nothing is."""

    fd: int
    position: FilePosition | None


def _may_be_incomplete(candidate: _Candidate, now: float) -> bool:
    """Return whether a file that cannot be read may still be written."""
    return is_readable(candidate.path) and now - candidate.identity.modified_ns / 1e9 < SETTLED_AFTER


def evidence_of(position: FilePosition) -> Evidence:
    """Return the evidence for the content of which a position is."""
    return Evidence(position.head, position.head_bytes, position.before, position.offset)


class CompressedChain(FileChain):
    """Search for compressed files of one name."""

    def open_compressed(self, position: FilePosition, now: float) -> bool:
        """Open the compressed file that contains what was shipped at a position; return whether it was found.

        Raises:
            Uncompressing: it is not known yet.
            OSError: a file cannot be read at the moment.
        """
        # The file was in use recently, so it is among the newest.
        for candidate in reversed(self._compressed(0.0)):
            fd = self._open_matching(candidate, evidence_of(position), position.generation, now)
            if fd is not None:
                self._add(candidate.path, fd, now, position, is_uncompressed=True)
                self._decide(candidate, _MISSED, True)
                return True
        return False

    def open_missed_compressed(self, since: float, now: float, before: TailedFile | None = None) -> None:
        """Open files that were rotated and compressed before they were found.

        Args:
            since: UNIX seconds; files that were not modified after this time are known already.
            now: UNIX seconds.
            before: insert missed files before this one; None inserts them at the end.

        Raises:
            Uncompressing: it is not known yet which of them were missed.
            OSError: a file cannot be read at the moment.
        """
        for candidate in self._compressed(since):
            if self._verdicts.get((candidate.identity, _MISSED)):
                continue
            try:
                wanted = self._find_wanted(candidate)
            except UnreadableContent as error:
                if _may_be_incomplete(candidate, now):
                    self.defer()
                    continue
                self._decide(candidate, _MISSED, True)
                self._report_unreadable(candidate, error)
                continue
            except FileNotFoundError:
                raise PathChanged(candidate.path) from None
            if wanted is not None:
                fd, position = wanted
                if position is not None:
                    self.completed.pop(position.key, None)
                else:  # it is probably one of those that were found, and not read, before a restart
                    unread = next((one for one in self.lost if not one.offset), None)
                    self.lost = [one for one in self.lost if one is not unread]
                self._add(candidate.path, fd, now, position, before, is_uncompressed=True)
            self._decide(candidate, _MISSED, True)

    def open_compressed_copy(self, file: TailedFile, now: float) -> bool:
        """Continue a truncated file in the compressed copy that was made before; return whether there is one.

        Raises:
            Uncompressing: it is not known yet.
            OSError: a file cannot be read at the moment.
        """
        if not file.read_offset:
            return False
        purpose = f"copy of {file.generation}"
        for candidate in reversed(self._compressed(file.verified_at - CLOCK_MARGIN)):
            fd = self._open_matching(candidate, file.evidence(), purpose, now)
            if fd is not None:
                file.switch_to_copy(fd, candidate.path)
                self._decide(candidate, _MISSED, True)
                return True
        return False

    def _open_matching(
        self, candidate: _Candidate, evidence: Evidence, purpose: str, now: float
    ) -> int | None:
        """Return the content of a file if it matches the evidence."""
        verdict = self._verdicts.get((candidate.identity, purpose))
        if verdict is False:
            return None
        try:
            if verdict is None:
                comparison = self._roots.uncompressor.compare(
                    *candidate, self._opener(candidate), [evidence], purpose
                )
                verdict = comparison.matched is not None
                self._decide(candidate, purpose, verdict)
            return self._uncompress(candidate, purpose) if verdict else None
        except UnreadableContent:
            if _may_be_incomplete(candidate, now):
                raise Uncompressing(f"{candidate.path} is incomplete") from None
        except (FileNotFoundError, PathChanged):
            pass
        self._decide(candidate, purpose, False)
        return None

    def _compressed(self, since: float) -> list[_Candidate]:
        """Return the compressed files that were modified after a time, the oldest first.

        Those whose originals still exist are left out: the original is read.
        """
        found = []
        for path in self._roots.listings.compressed(self._all_names()):
            try:
                status = os.lstat(path)
            except OSError as error:
                if may_pass(error):
                    raise
                continue
            is_new = stat.S_ISREG(status.st_mode) and status.st_mtime > since
            if is_new and not os.path.exists(os.path.splitext(path)[0]):
                found.append(_Candidate(path, identity_of(status)))
        return sorted(found, key=lambda item: (item.identity.modified_ns, item.path))

    def _find_wanted(self, candidate: _Candidate) -> _Wanted | None:
        """Return the content of a file if it has lines that are not read elsewhere."""
        positions = {
            evidence_of(position): position
            for position in (*self.completed.values(), *self.pending.values())
            if position.offset
        }
        read = [file.evidence() for file in self.chain if not file.ended]
        read = [one for one in read if one.offset]  # an empty file would match any
        comparison = self._roots.uncompressor.compare(
            *candidate, self._opener(candidate), [*read, *positions], _MISSED
        )
        if comparison.matched is not None:
            position = positions.get(comparison.matched)
            if position is None or position.key not in self.completed:
                return None
            if comparison.size > position.offset:  # it has grown since it was read
                return _Wanted(self._uncompress(candidate, _MISSED), position)
            self.completed[position.key] = replace(position, done=True)
            return None
        fd = self._uncompress(candidate, _MISSED)
        try:
            # The original may have been opened since the comparison began, or be copied just now.
            if not any(file.is_copied_in(fd) for file in self.chain if not file.ended):
                return _Wanted(fd, None)
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _opener(self, candidate: _Candidate) -> "functools.partial[int]":
        return functools.partial(self._open_unchanged, candidate)

    def _open_unchanged(self, candidate: _Candidate) -> int:
        """Open a compressed file, unless it has changed.

        Raises:
            PathChanged: the path leads to another file, or to other content.
        """
        fd = self._roots.open_same(candidate.path, candidate.identity[:2])
        if identity_of(os.fstat(fd)) != candidate.identity:
            os.close(fd)
            raise PathChanged(candidate.path)
        return fd

    def _uncompress(self, candidate: _Candidate, purpose: str) -> int:
        return self._roots.uncompressor.content(*candidate, self._opener(candidate), purpose)

    def _decide(self, candidate: _Candidate, purpose: str, verdict: bool) -> None:
        self._verdicts[candidate.identity, purpose] = verdict
        for key in list(self._verdicts)[:-MAX_VERDICTS]:
            del self._verdicts[key]

    def _report_unreadable(self, candidate: _Candidate, error: UnreadableContent) -> None:
        """Report a file that cannot be read, unless its original was."""
        gone = [file.generation for file in self.chain if not file.ended and not file.exists]
        existing = {key_of(status) for _, status in self._siblings(self.completed)}
        gone += [one.generation for key, one in self.completed.items() if key not in existing]
        for generation in gone:
            if generation not in self._compressed_generations:
                self._compressed_generations.add(generation)
                return
        self._compressed_generations &= set(gone)
        lost = f"its lines are lost, {candidate.identity.size} bytes compressed"
        if self.lost:  # this is probably the file that was looked for
            lost = f"its lines after {self.lost.pop(0).offset} bytes are lost"
        self.losses.report(f"{candidate.path}: not read: {error}; {lost}")
