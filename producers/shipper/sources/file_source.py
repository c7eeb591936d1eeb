"""Source of event streams: the files of a user, the segments of standard input, or a journal."""

from collections.abc import Mapping
from typing import Protocol

from tickertape.producers.shipper.sources.event_stream import EventStream


class FileSource(Protocol):
    """Source of event streams: ``FileDiscovery``, ``Spool`` or ``JournalSource``."""

    @property
    def streams(self) -> Mapping[str, EventStream]:
        """All streams by path."""

    @property
    def read_error(self) -> tuple[str, OSError] | None:
        """File that the last scan could not find or read; None if there is none."""

    @property
    def lost_files(self) -> int:
        """Number of files with lines that are lost."""

    @property
    def lost_bytes(self) -> int:
        """Number of bytes that are known to be lost."""

    @property
    def forbidden(self) -> int:
        """Number of files that were found and must not be read."""

    @property
    def unreadable(self) -> bool:
        """Whether the last scan found files that cannot be opened until something is done about it."""

    def scan(self, now: float) -> None:
        """Find new files, and set ``read_error`` if some may not have been found.

        Raises:
            OSError: files cannot be found at the moment.
        """

    def shift_clock(self, step: float) -> None:
        """Shift the times of all streams because the system clock was set by ``step`` seconds."""

    def close(self) -> None:
        """Close all files."""
