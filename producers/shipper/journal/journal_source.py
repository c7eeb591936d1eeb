"""Source of a journal stream, beside the file streams of another source."""

from collections.abc import Mapping

from tickertape.producers.shipper.event_stream import EventStream
from tickertape.producers.shipper.file_source import FileSource
from tickertape.producers.shipper.journal.journal_stream import JournalStream


class JournalSource:
    """A journal and the files of another source; see ``FileSource``.

    Args:
        files: source of the files.
        journal: stream of the journal.
    """

    def __init__(self, files: FileSource, journal: JournalStream) -> None:
        self._files = files
        self._journal = journal

    @property
    def streams(self) -> Mapping[str, EventStream]:
        """All streams by path."""
        return {**self._files.streams, self._journal.path: self._journal}

    @property
    def read_error(self) -> tuple[str, OSError] | None:
        """File that the last scan could not find or read."""
        return self._files.read_error

    @property
    def forbidden(self) -> int:
        """Number of files that were found and must not be read."""
        return self._files.forbidden

    @property
    def unreadable(self) -> bool:
        """Whether the last scan found files that cannot be opened until something is done about it."""
        return self._files.unreadable

    @property
    def lost_files(self) -> int:
        """Number of files with lines that are lost."""
        return self._files.lost_files

    @property
    def lost_bytes(self) -> int:
        """Number of bytes that are known to be lost."""
        return self._files.lost_bytes

    def scan(self, now: float) -> None:
        """Find new files."""
        self._files.scan(now)

    def shift_clock(self, step: float) -> None:
        """Shift the times of all streams because the system clock was set by ``step`` seconds."""
        self._files.shift_clock(step)
        self._journal.shift_clock(step)

    def close(self) -> None:
        """Close all files."""
        self._files.close()
