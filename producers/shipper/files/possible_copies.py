"""Possible copies: files that look like the copy that copytruncate makes of a tailed file."""

import os
from collections.abc import Container
from typing import Final

from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.globs import may_pass
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.rotation import base_of
from tickertape.producers.shipper.position import HEAD_BYTES, Key, key_of

COPY_WAIT: Final = 5.0
"""Seconds without growth after which a file with the same head as a tailed one is compared with it."""


class PossibleCopies:
    """Files that look like copies of tailed files, until it is clear what they are.

    Args:
        roots: folders whose files may be read.
    """

    def __init__(self, roots: Roots) -> None:
        self._roots = roots
        # Their size and modification time, when they were first found, and the verdict.
        self._copies: dict[Key, tuple[tuple[int, int], float, bool]] = {}

    def prune(self, visible: Container[Key]) -> None:
        """Forget files that are no longer visible."""
        self._copies = {key: value for key, value in self._copies.items() if key in visible}

    def shift_clock(self, step: float) -> None:
        """Shift the times of all files because the system clock was set by ``step`` seconds."""
        self._copies = {key: (one, since + step, copy) for key, (one, since, copy) in self._copies.items()}

    def may_be_copy(
        self, path: str, status: os.stat_result, stream: FileStream, now: float, *, first: bool
    ) -> bool:
        """Return whether a file is, or may become, a copy of a tailed file, which adds no lines.

        Args:
            path: path of the file.
            status: its status when it was found.
            stream: the stream to which it belongs by its name; deferred if the file cannot be read.
            now: UNIX seconds.
            first: no scan has preceded, so that no tailed file can have been truncated since.
        """
        key = key_of(status)
        # Copies have the names of rotated files, and what has a position is known.
        if base_of(path) != stream.path or key in stream.completed or key in stream.pending:
            return False
        fingerprint = (status.st_size, status.st_mtime_ns)
        previous, since, is_copy = self._copies.get(key, (None, now, False))
        if not first and stream.unverified_since(since):
            # The live file may have been truncated in the meantime: reading it shows what this file is.
            self._copies.setdefault(key, ((-1, -1), now, False))
            return True
        if previous == fingerprint and (is_copy or now - since < COPY_WAIT):
            return True
        try:
            fd = self._roots.open(path)
        except PathChanged:
            stream.defer()
            return True
        except OSError as error:
            if may_pass(error):
                stream.defer(error)
            return may_pass(error)
        try:
            head = os.pread(fd, HEAD_BYTES, 0)
            originals = [file for file in stream.chain if file.has_same_head(head)]
            if not originals:
                return False
            # It is new or has changed, so it may be a copy in the making, which is incomplete until it is
            # stable.
            if previous != fingerprint:
                self._copies[key] = (fingerprint, now, False)
                return True
            # Equal heads prove nothing, as logs may begin with the same banner; the end of a copy is at the
            # same place of the original.
            is_copy = any(file.has_content_of(fd, status.st_size) for file in originals)
            self._copies[key] = (fingerprint, since, is_copy)
            return is_copy
        except OSError as error:
            stream.defer(error)
            return True
        finally:
            os.close(fd)
