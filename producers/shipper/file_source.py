"""Source of file streams: the files of a user, or the segments of standard input."""

from typing import Protocol

from tickertape.producers.shipper.files.file_stream import FileStream


class FileSource(Protocol):
    """Source of file streams: ``FileDiscovery`` or ``StdinSpool``."""

    streams: dict[str, FileStream]
    read_error: tuple[str, OSError] | None

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
